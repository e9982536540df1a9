"""What can be asked of a device, and the answers of a device of which only the plainest is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic, perf_counter, perf_counter_ns, sleep  # before a model's code can replace them
from typing import Any, Protocol

from vbench.errors import DeviceError, UnsupportedError, UsageError

IN_FLIGHT = 64  # calls that are queued on a device before the host waits
Call = Callable[[], Any]


def make_ready(call: Call) -> None:
    """Do what a call wants done right before it and outside of its time: its method `before`, if it has one."""
    before = getattr(call, "before", None)
    if before is not None:
        before()


class EnergyCounter(Protocol):
    """A count of joules that only grows. `name` says what is counted."""

    name: str

    def read_j(self) -> float:
        """Joules since some moment. Raises: OSError if the counter cannot be read."""
        ...


class Replay(Protocol):
    """The replay of a recorded call."""

    def __call__(self) -> Any:
        """Do again what was recorded."""
        ...

    def pool_bytes(self) -> int:
        """The device memory that the recording holds for itself as long as it lives."""
        ...


class Device:
    """A device that calls run on. Times are in seconds and samples in milliseconds.

    A kind must give `wait` and the memory in use; what it does not give is said to be unknown or refused in words.

    Args:
        name: as torch has it, "cpu" or "cuda:0".
    """

    asynchronous = False  # whether a call may return before it is done
    pooled = False  # whether torch's allocator keeps freed memory of this device, so that first calls take more
    lazy = False  # whether a first call loads or compiles kernels, so that it says nothing of the second
    memory_meter = ""  # what counts the memory, in words

    def __init__(self, name: str) -> None:
        self.name = name

    # Set-up

    def select(self, *, tf32: bool = False) -> None:
        """Make this the current device of this process, where float32 products are rounded to TF32 or not."""

    def tf32(self) -> bool | None:
        """Whether float32 products are rounded to TF32; None if the device has no TF32."""
        return None

    def about(self) -> dict[str, Any] | None:
        """What torch says of the device, with its "name"; None for the CPU, of which a fingerprint tells anyway.

        Raises: DeviceError if torch cannot use it.
        """
        raise NotImplementedError

    def uuid(self) -> str:
        """The name by which the device's driver knows it. Raises: DeviceError if there is none."""
        raise DeviceError(f"{self.name} has no UUID")

    def check_compiler(self) -> None:
        """Raise UnsupportedError if torch.compile lacks what it needs for this device."""

    # Time

    def now(self) -> float:
        """The time by `time.monotonic`, which is the same in other processes."""
        return monotonic()

    def pause(self, seconds: float) -> None:
        """Leave the device alone."""
        sleep(seconds)

    def wait(self) -> None:
        """Wait until the device has nothing left to do."""
        raise NotImplementedError

    def samples(self, call: Call, count: int) -> list[float]:
        """The device's time for each of `count` calls, in order, by the host's clock unless the device has one."""
        found = []
        for _ in range(count):
            make_ready(call)
            begin = perf_counter_ns()
            call()
            self.wait()
            found.append((perf_counter_ns() - begin) / 1e6)
        return found

    def moment(self, used: Any = None) -> Any:
        """A moment between two pieces of work. The device waits for the first one, unless it keeps its own time.

        Args:
            used: an earlier moment that nobody asks for any more.
        """
        self.wait()
        return perf_counter_ns()

    def between_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds of the device from one moment to another; it has reached both."""
        return float(end - begin) / 1e6

    def sample_after(self, earlier: Call, call: Call, host_ms: float = 0.0) -> float:
        """The device's time for one call right after another, which does not count.

        Args:
            host_ms: the host's time to queue `call`, which does not count either where calls are queued.
        """
        earlier()
        self.wait()
        return self.samples(call, 1)[0]

    def returns_ms(self, call: Call) -> float:
        """The host's time until one call returns, on an idle device."""
        make_ready(call)
        self.wait()
        begin = perf_counter()
        call()
        passed = perf_counter() - begin
        self.wait()
        return passed * 1e3

    def worker(self) -> Callable[[int], None]:
        """A function that gives the device work, whose length is proportional to the number that it is given."""
        raise NotImplementedError

    def captured(self, call: Call, begin: Callable[[], object] = lambda: None) -> Replay:
        """The replay of one call that was recorded; its input and output keep their places in memory.

        Args:
            begin: is called after the call is warm, right before it is recorded.
        """
        raise UnsupportedError(f"{self.name} replays no recorded calls (the back end cudagraph)")

    # Memory, in bytes

    def begin_memory(self) -> int | None:
        """Prepare this process for measuring memory. Nothing is timed before `process.keep_freed`.

        Returns: the bytes that libraries have taken for good as workspaces; None if that is not known.
        """
        return None

    def used_bytes(self) -> int:
        """What this process uses of the device's memory now."""
        raise NotImplementedError

    def charged(self) -> Device:
        """This device with all memory that its driver charges to this process as `used_bytes`, not that of torch alone.

        For what libraries other than torch allocate.
        """
        return self

    def reset_peak(self) -> bool:
        """Forget the peak so far, and that of the host; False if the system cannot."""
        raise NotImplementedError

    def peak_bytes(self) -> int:
        """The most of `used_bytes` since `reset_peak`."""
        raise NotImplementedError

    def peak_doubt_bytes(self) -> int:
        """By how much the peak since `reset_peak` may be off, because files were mapped in meanwhile."""
        return 0

    def outside_bytes(self, places: Iterable[tuple[int, int]]) -> int:
        """How much of these places, (address, bytes), `used_bytes` does not count: mapped files and shared memory."""
        return 0

    def reserved_peak_bytes(self) -> int | None:
        """The most that torch's allocator has reserved since `reset_peak`; None if it keeps no such pool."""
        return None

    def process_bytes(self, host_peak: int) -> tuple[int | None, str | None]:
        """What is charged to this process with its libraries, or None and the reason.

        Args:
            host_peak: the process's peak on the host, `process.peak_bytes()`.
        """
        return None, "nothing tells it on this kind of device"

    def free_bytes(self) -> int:
        """What could be allocated now."""
        raise NotImplementedError

    def fits(self, nbytes: int) -> bool:
        """Whether an allocation of that size leaves a tenth of the free memory."""
        return nbytes <= 0.9 * self.free_bytes()

    def limit_memory(self, budget_bytes: int) -> None:
        """From here on this process gets `budget_bytes` more, and then an out-of-memory error.

        Raises: UsageError if the system cannot limit memory, or the device does not have as much.
        """
        raise UsageError(f"--memory: the memory of {self.name} cannot be limited")

    # Energy

    def energy_counter(self) -> EnergyCounter:
        """The counter of the device's energy. Raises: OSError if there is none."""
        raise OSError("no energy counter is known for this kind of device")
