"""Latency of single calls, in milliseconds; every sample is kept. What calls back to back yield is in `throughput`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from vbench.devices.base import Call, Device
from vbench.jobs.turn_socket import TurnSocket
from vbench.plan import Protocol
from vbench.results.statistics import median_interval

PAUSES_S = (2.0, 4.0, 8.0)  # before a throttled window is measured again
SETTLED = 0.05  # an interval that shrinks by less than this share over a third more samples is settled
FEWEST_TURNS, MOST_TURNS = 3, 400  # of each process, if two take turns
SLOW_CALLS = ((1, 5), (2, 3), (4, 2))  # after this many times `sample_max_s`, this many samples are enough


def warm_up(
    call: Call,
    device: Device,
    protocol: Protocol,
    *,
    earlier_s: float = 0.0,
    compilations: Callable[[], int] = lambda: 0,
) -> dict[str, Any]:
    """Repeat a call until nothing is compiled any more and two windows of calls agree.

    Args:
        earlier_s: how long the same call took before, once it was compiled. If that is longer than
            `protocol.warmup_max_s`, that call was the warm-up.
        compilations: says how many compilations there were so far.

    Returns: `calls`; `wall_s`; `converged`, None if the call is too slow for two windows within
        `protocol.warmup_max_s`; `reason`, which condition was not met.
    """
    reason: str | None
    if earlier_s >= protocol.warmup_max_s:
        reason = f"one call takes {earlier_s:.1f} s, longer than a warm-up may; the memory pass was the warm-up"
        return {"calls": 0, "wall_s": 0.0, "converged": None, "reason": reason}
    samples: list[float] = []
    begin = device.now()
    compiled, compiled_at = compilations(), 0  # how often, and after how many calls
    while True:
        samples += device.samples(call, 1)
        if compilations() != compiled:
            compiled, compiled_at = compilations(), len(samples)
            begin += samples[-1] / 1e3  # a call that compiles has a limit of its own
        elif len(samples) == 1 and samples[0] / 1e3 >= protocol.warmup_max_s:
            compiled_at, begin = 1, begin + samples[0] / 1e3  # so has a first one that is slow: the second decides
        passed = device.now() - begin
        recent = samples[compiled_at:]
        window = protocol.window
        enough = len(recent) >= 2 * window
        reason = _disagreement(recent[-2 * window : -window], recent[-window:], protocol.agree) if enough else None
        if enough and reason is None and passed >= protocol.warmup_s:
            converged: bool | None = True
            break
        if passed >= protocol.warmup_max_s:
            converged = False if enough else None
            break
    if converged is None:
        reason = f"{len(samples)} calls in {protocol.warmup_max_s:g} s: too slow for two windows of {protocol.window}"
    return {"calls": len(samples), "wall_s": device.now() - begin, "converged": converged, "reason": reason}


def _disagreement(before: Sequence[float], after: Sequence[float], share: float) -> str | None:
    """How two windows differ; None if their medians agree within `share` or twice the error of their difference.

    The scatter is taken from one call to the next, so that it does not include a trend.
    """
    first, second = median(before), median(after)
    steps = [abs(b - a) for window in (before, after) for a, b in pairwise(window)]
    scatter = 1.4826 * median(steps) / 2**0.5 if steps else 0.0
    error = 1.2533 * scatter * (2 / len(after)) ** 0.5  # of the difference of two medians
    if abs(second - first) <= max(share * first, 2 * error):
        return None
    return f"the last two windows differ by {second / first - 1:+.1%}"


@dataclass(frozen=True, slots=True)
class _Window:
    """Samples taken in one go, and why sampling ended."""

    samples_ms: list[float]
    stop: str
    met: bool  # whether the wanted precision was reached
    begin: float
    end: float


def latency(
    call: Call,
    device: Device,
    protocol: Protocol,
    why_slow: Callable[[float, float], str | None] = lambda begin, end: None,
) -> dict[str, Any]:
    """Time single calls, after a warm-up.

    If the device was throttled during a window, the window is measured again after a pause, three times at most. The
    last one is kept, with the reason.

    Args:
        why_slow: says why the device ran below its clock between two moments of its time, or None.

    Returns: `samples_ms`, one a call, in order; `stop`, why sampling ended; `precision`, the half-width of the
        median's 95 % interval over the median; `precise`, whether it is as small as the protocol asks; `throttled`, why
        the device ran below its clock in these samples, or None; `discarded_ms`, the samples of throttled windows that
        were measured again; `host_ms`, after what time a call returns, if the device is asynchronous; `wall_s`.
    """
    begin = device.now()
    discarded: list[float] = []
    for pause in (*PAUSES_S, None):
        window = _sample(call, device, protocol)
        throttled = why_slow(window.begin, window.end)
        if throttled is None or pause is None:
            break
        discarded += window.samples_ms
        device.pause(pause)
    host = [device.returns_ms(call) for _ in range(protocol.window)] if device.asynchronous else None
    return {
        "samples_ms": window.samples_ms,
        "stop": window.stop,
        "precision": _half_width(window.samples_ms),
        "precise": window.met,
        "throttled": throttled,
        "discarded_ms": discarded,
        "host_ms": median(host) if host else None,
        "wall_s": device.now() - begin,
    }


def latency_in_turns(
    call: Call, device: Device, protocol: Protocol, turn_socket: TurnSocket, *, first: bool
) -> dict[str, Any]:
    """Time single calls, after a warm-up, in turns with another process that does the same.

    The process with `first` has the first turn and makes one call more, so that each call of the other lies between two
    of its own. It decides how many turns there are: `sample_s` of its calls, but at least `samples_min` calls; if calls
    are slow, `sample_max_s` of them.

    Returns: the keys of `latency`. The device is not watched, because throttling slows both processes.
    Raises: RuntimeError if the other process ended.
    """
    begin = device.now()
    samples: list[float] = []
    if first:
        one_s = max(median(device.samples(call, 3)) / 1e3, 1e-6)
        wanted = max(int(protocol.sample_s / one_s), protocol.samples_min)
        count = max(FEWEST_TURNS, min(wanted, MOST_TURNS, int(protocol.sample_max_s / one_s)))
        for _ in range(count):
            samples += device.samples(call, 1)
            turn_socket.give(str(count))
            turn_socket.wait()
        samples += device.samples(call, 1)
    else:
        count = int(turn_socket.wait())
        for number in range(count):
            samples += device.samples(call, 1)
            turn_socket.give()
            if number < count - 1:
                turn_socket.wait()
    half_width = _half_width(samples)
    return {
        "samples_ms": samples,
        "stop": f"{count} turns of each side",
        "precision": half_width,
        "precise": half_width <= protocol.precision,
        "throttled": None,
        "discarded_ms": [],
        "host_ms": None,
        "wall_s": device.now() - begin,
    }


def in_rounds(samples_ms: list[float], batch: int, protocol: Protocol) -> dict[str, Any]:
    """The times of calls that other processes' calls lie between, with the keys of `latency` and the `batch`."""
    half_width = _half_width(samples_ms) if samples_ms else None
    return {
        "batch": batch,
        "samples_ms": samples_ms,
        "stop": f"{len(samples_ms)} turns",
        "precision": half_width,
        "precise": half_width is not None and half_width <= protocol.precision,
        "throttled": None,
        "discarded_ms": [],
        "host_ms": None,
        "wall_s": sum(samples_ms) / 1e3,
    }


def _sample(call: Call, device: Device, protocol: Protocol) -> _Window:
    samples: list[float] = []
    widths: list[tuple[int, float]] = []  # (samples, half-width), each time it was computed
    begin = device.now()
    step = 1
    while True:
        samples += device.samples(call, step)
        passed = device.now() - begin
        step = max(1, min(16, int(100 / max(samples[-1], 1e-3)))) if device.asynchronous else 1
        if len(samples) >= protocol.samples_min and passed >= protocol.sample_s:
            if not widths or len(samples) >= 1.33 * widths[-1][0]:
                widths.append((len(samples), _half_width(samples)))
                width = widths[-1][1]
                if width <= protocol.precision:
                    return _Window(samples, f"interval within ±{protocol.precision:.2%}", True, begin, device.now())
                if len(widths) > 1 and width > (1 - SETTLED) * widths[-2][1]:
                    stop = f"interval settled at ±{width:.2%}, wanted ±{protocol.precision:.2%}"
                    return _Window(samples, stop, False, begin, device.now())
            if passed >= protocol.sample_max_s:
                stop = f"{protocol.sample_max_s:g} s passed; interval ±{_half_width(samples):.2%}, wanted "
                return _Window(samples, f"{stop}±{protocol.precision:.2%}", False, begin, device.now())
        for times, least in SLOW_CALLS:
            if len(samples) >= least and passed >= times * protocol.sample_max_s:
                stop = f"{times * protocol.sample_max_s:g} s passed with {len(samples)} samples, wanted "
                return _Window(samples, f"{stop}{protocol.samples_min}", False, begin, device.now())


def _half_width(samples: Sequence[float]) -> float:
    """Half the 95 % interval of the median over the median."""
    middle, low, high, _ = median_interval(samples)
    return (high - low) / 2 / middle if middle else 0.0


def parts(calls: dict[str, Call], device: Device, protocol: Protocol, whole_ms: float) -> dict[str, Any]:
    """Time the parts of one call, one after the other.

    The host waits after each part, so the parts add up to a little more than the whole call.

    Args:
        calls: the parts by name, in order.
        whole_ms: what one call takes. It is repeated `window` times, or as often as fits in `sample_max_s`.

    Returns: {"parts_ms": {name: samples}}; {} if there are no parts.
    """
    if not calls:
        return {}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(1, min(protocol.window, int(protocol.sample_max_s * 1e3 / whole_ms)))):
        for name, call in calls.items():
            samples[name] += device.samples(call, 1)
    return {"parts_ms": samples}
