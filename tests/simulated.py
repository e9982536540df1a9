"""A device whose truth is known: a clock that calls move, by durations that a test lays down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from vbench.devices.base import Device

SECONDS = 0.02  # of an ordinary call


class Simulated(Device):
    """A device without energy, whose tensors are the CPU's; each call takes the next of `durations`, in seconds.

    Args:
        slow_until: until when, on its clock, the device is throttled: calls take twice as long, and `why_slow` says so.
        returns: the share of a call's time after which it returns to the host.
    """

    def __init__(
        self,
        durations: Iterator[float] | None = None,
        *,
        asynchronous: bool = False,
        slow_until: float = 0.0,
        returns: float = 0.1,
        queued: float = 1.0,
    ) -> None:
        super().__init__("cpu")
        self.time = 0.0
        self.asynchronous = asynchronous
        self.pauses: list[float] = []
        self._durations = durations or repeat(SECONDS)
        self._slow_until, self._returns, self._queued = slow_until, returns, queued
        self._timing = False

    def call(self) -> None:
        seconds = next(self._durations) * (2 if self.time < self._slow_until else 1)
        self.time += seconds if self._timing else seconds * self._queued

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds

    def wait(self) -> None:
        pass

    def samples(self, call: Callable[[], object], count: int) -> list[float]:
        found = []
        self._timing = True
        for _ in range(count):
            begin = self.time
            call()
            found.append((self.time - begin) * 1e3)
        self._timing = False
        return found

    def returns_ms(self, call: Callable[[], object]) -> float:
        return self.samples(call, 1)[0] * self._returns

    def used_bytes(self) -> int:
        return 0

    def reset_peak(self) -> bool:
        return True

    def peak_bytes(self) -> int:
        return 0

    def fits(self, nbytes: int) -> bool:
        return True

    def why_slow(self, begin: float, end: float) -> str | None:
        return "thermal" if begin < self._slow_until else None


def noise(seed: int, spread: float = 0.01, seconds: float = SECONDS) -> Iterator[float]:
    """Durations that scatter by that share."""
    generator = np.random.default_rng(seed)
    while True:
        yield seconds * float(np.exp(generator.normal(0, spread)))
