"""Images a second of calls back to back at a batch, and the search for the batch from which on they gain little.

The search compares a batch with its double, in turns, so that both meet the same minutes of the machine. It goes on, or
ends, when the interval of the gain leaves no doubt. The batch that it settles on is then measured afresh, because the
winner of a search was more often lucky than not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp
from statistics import median
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vbench.devices import is_lost, is_out_of_memory
from vbench.devices.base import IN_FLIGHT, Call, Device
from vbench.errors import CompileError, ShapeError, first_line
from vbench.plan import Batch, Protocol

BLOCK_S = 0.2  # of queued calls between two readings of the clock
FEWEST_BLOCKS = 6  # an interval of 95 % from the order of independent blocks needs as many
TURN_S = 0.02  # of calls at the smaller batch before it is the larger one's turn
TURN_QUEUED_S = 0.05  # the same on a device that is asynchronous, where a wait costs time
FEWEST_PAIRS = 4  # of turns, before they decide
REBUILT_PAIRS = 4  # between two changes of the batch, where only one call fits in memory
CONFIDENCE = 0.95  # of the interval of a gain, by Student's t of the logarithms


def measure(
    caller: Callable[[int], Call],
    device: Device,
    protocol: Protocol,
    batch: Batch,
    *,
    first: tuple[int, Sequence[float]],
    image_bytes: int,
    held_bytes: int = 0,
) -> dict[str, Any]:
    """Images a second of calls back to back at a batch. With "knee", the batch is doubled until that gains little.

    Args:
        caller: makes the call for a batch size. Two such calls exist at a time if both fit in memory, else one.
        batch: a number, or "knee".
        first: a batch and the samples (ms) of single calls at it, from which the time of a larger batch is predicted.
        image_bytes: what one image needs beside the weights; a batch that would not fit is not tried.
        held_bytes: what a call holds whatever its batch, as an optimiser does.

    Returns: `batch`, `images_per_s`, `blocks_ms` (the host's time for each block of `block_calls` calls), `curve` (each
        batch that was tried: `batch`, `images_per_s`, `calls`, and but for the first the `gain` over half the batch, a
        share, with its 95 % interval `gain_lo` and `gain_hi`, None for too few `pairs` of turns), and `stop`, why the
        search ended. The curve is of the search; the other figures are of calls after it.
        If the model fails at a batch that was given, `batch` and the `reason` alone.
    Raises: an out-of-memory error at a batch that was given; in a search, running out of memory ends the search, and so
        does a model that fails at the larger batch. CompileError, as `caller`. Any error at the batch of `first`.
    """
    least, samples_ms = first
    back_to_back = not device.asynchronous  # if a call returns when it is done, single calls are back to back

    def afresh(size: int, *, too_slow: bool = False) -> dict[str, Any]:
        if size == least and (back_to_back or too_slow):
            return _of_blocks(list(samples_ms), 1, least)
        return _queued(caller(size), size, device, protocol)

    if batch != "knee":
        try:
            point = afresh(int(batch))
        except Exception as error:
            if int(batch) == least or not fails_alone(error):
                raise
            return {"batch": int(batch), "reason": f"batch {batch} fails: {first_line(error, named=True)}"}
        served = "; its single calls" if batch == least and back_to_back else ""
        return {**point, "curve": [_point(point)], "stop": f"batch {batch} as given{served}"}
    search = _Search(caller, device, protocol, image_bytes, held_bytes)
    size, stop = search.run(least, median(samples_ms) / 1e3)
    point = afresh(size, too_slow=2 * median(samples_ms) / 1e3 > protocol.throughput_s)
    return {**point, "curve": search.curve or [_point(point)], "stop": stop}


def fails_alone(error: Exception) -> bool:
    """Whether an error at a larger batch is the model's: it may be made for one image. Its other figures stand.

    Running out of memory, a compiler that compiles nothing, and an error that a device keeps concern the whole cell.
    """
    return not (is_lost(error) or is_out_of_memory(error) or isinstance(error, CompileError))


def work(call: Call, device: Device, *, batch: int, block_calls: int) -> Callable[[float], int]:
    """A function that keeps a device busy for at least that many seconds and returns the number of images.

    Args:
        batch: images of a call.
        block_calls: calls after which the host waits.
    """

    def run_for(seconds: float) -> int:
        begin, images = device.now(), 0
        while device.now() - begin < seconds:
            _block_s(call, block_calls, device)
            images += block_calls * batch
        return images

    return run_for


def of_single_calls(latency: dict[str, Any]) -> dict[str, Any]:
    """The throughput that single calls show, where a call returns when it is done; as `measure` returns it."""
    point = _of_blocks(list(latency["samples_ms"]), 1, latency["batch"])
    return {**point, "curve": [_point(point)], "stop": f"batch {latency['batch']}; its single calls"}


def too_slow(call_s: float, protocol: Protocol) -> bool:
    """Whether a search for the knee has no time for the fewest pairs of a call and of one at twice the batch."""
    return FEWEST_PAIRS * 3 * call_s > protocol.throughput_s


@dataclass(frozen=True, slots=True)
class _Gain:
    """By what share the images a second grow if the batch doubles, and its 95 % interval; None for too few pairs."""

    share: float
    low: float | None
    high: float | None

    def is_over(self, share: float) -> bool:
        return self.low is not None and self.low > share

    def is_under(self, share: float) -> bool:
        return self.high is not None and self.high < share

    def __str__(self) -> str:
        return f"{self.share:+.1%}" + ("" if self.low is None else f" ({self.low:+.1%} to {self.high:+.1%})")


def _gain(small_s: Sequence[float], large_s: Sequence[float]) -> _Gain:
    """From pairs of turns with equally many calls, in seconds."""
    gains = np.log(2 * np.asarray(small_s) / np.asarray(large_s))
    middle, count = float(gains.mean()), len(gains)
    if count < FEWEST_PAIRS:
        return _Gain(exp(middle) - 1, None, None)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * gains.std(ddof=1) / count**0.5)
    return _Gain(exp(middle) - 1, exp(middle - half) - 1, exp(middle + half) - 1)


class _Calls:
    """The calls of the batches that are compared. With `both` they live side by side, else one at a time."""

    def __init__(self, caller: Callable[[int], Call], device: Device) -> None:
        self._caller, self._device = caller, device
        self._live: dict[int, Call] = {}
        self.both = True

    def only(self, *sizes: int) -> None:
        """Drop the calls of other batches."""
        self._live = {size: call for size, call in self._live.items() if size in sizes}

    def at(self, size: int) -> Call:
        """The call of a batch, warm."""
        if size not in self._live:
            if not self.both:
                self.only()
            self._live[size] = self._caller(size)
            _first(self._live[size], size, self._device)
        return self._live[size]


@dataclass(slots=True)
class _Search:
    """Doubles the batch as long as that surely gains `protocol.batch_gain`, for about `protocol.throughput_s`."""

    caller: Callable[[int], Call]
    device: Device
    protocol: Protocol
    image_bytes: int
    held_bytes: int
    curve: list[dict[str, Any]] = field(default_factory=list)
    spent_s: float = 0.0  # in turns; compiling and recording have no limit here
    turn_of: int = 0  # the batch of the call that runs, or ran last
    calls: _Calls = field(init=False)

    def __post_init__(self) -> None:
        self.calls = _Calls(self.caller, self.device)

    def run(self, size: int, call_s: float) -> tuple[int, str]:
        """The batch to settle on, from `size` on, whose call takes `call_s` seconds; and why the search ended."""
        stop = None
        while stop is None and 2 * size <= self.protocol.batch_max:
            stop = self._too_long(size, call_s) or self._too_large(size) or self._compare(size, call_s)
            if stop is None:
                size *= 2
                call_s = size / self.curve[-1]["images_per_s"]
        self.calls.only()
        return size, stop or f"largest batch tried, {self.protocol.batch_max}"

    def _too_long(self, size: int, call_s: float) -> str | None:
        """Why there is no time for the fewest pairs; None if there is. A call at twice the batch takes up to twice as
        long."""
        left = self.protocol.throughput_s - self.spent_s
        if FEWEST_PAIRS * 3 * call_s <= left:
            return None
        limit = f"{self.protocol.throughput_s:g} s"
        rest = f"the {left:.1f} s that are left of {limit}" if self.curve else limit
        return f"{FEWEST_PAIRS} pairs of calls at batch {size} and {2 * size} would take longer than {rest}"

    def _too_large(self, size: int) -> str | None:
        """Why twice the batch cannot be tried; None if it can. Decides whether both calls live side by side."""
        self.calls.both = True
        self.calls.only(size)
        try:
            self.calls.at(size)
        except Exception as error:  # without the search there was room for it
            if not is_out_of_memory(error):
                raise
            return f"out of memory at batch {size}"
        needed = self.held_bytes + self.image_bytes * 2 * size
        if self.device.fits(needed):
            return None
        self.calls.both = False
        self.calls.only()
        return None if self.device.fits(needed) else f"batch {2 * size} would not fit in memory"

    def _compare(self, size: int, call_s: float) -> str | None:
        """Why the search ends at `size`; None if twice the batch surely gains. Adds to the curve."""
        for both in (True, False) if self.calls.both else (False,):
            self.calls.both = both
            try:
                return self._in_turns(size, call_s)
            except Exception as error:
                if fails_alone(error) and self.turn_of == 2 * size:
                    return f"batch {2 * size} fails: {first_line(error, named=True)}"
                if not is_out_of_memory(error):
                    raise
            self.calls.only()  # what the error held is free by now
        return f"out of memory at batch {2 * size}"

    def _in_turns(self, size: int, call_s: float) -> str | None:
        """One pair of turns after another, or a few where each change makes a call anew; who begins changes."""
        turn_s = TURN_QUEUED_S if self.device.asynchronous else TURN_S
        count = max(1, min(IN_FLIGHT, round(turn_s / max(call_s, 1e-6))))
        turns = 1 if self.calls.both else REBUILT_PAIRS
        order, wanted, limit_s = (size, 2 * size), self.protocol.batch_gain, self.protocol.throughput_s
        seconds: dict[int, list[float]] = {batch: [] for batch in order}
        while True:
            before = self.spent_s
            for batch in order:
                self.turn_of = batch
                call = self.calls.at(batch)
                for _ in range(turns):
                    seconds[batch].append(_block_s(call, count, self.device))
                    self.spent_s += seconds[batch][-1]
                del call  # before another is made
            order = order[::-1]
            over = self.spent_s + (self.spent_s - before) > limit_s
            gain = _gain(seconds[size], seconds[2 * size])
            if over or gain.is_over(wanted) or gain.is_under(wanted):
                break
        if not self.curve:
            self.curve.append(_searched(size, count, seconds[size]))
        about = {"gain": gain.share, "gain_lo": gain.low, "gain_hi": gain.high, "pairs": len(seconds[size])}
        self.curve.append({**_searched(2 * size, count, seconds[2 * size]), **about})
        if gain.is_over(wanted):
            return None
        if gain.is_under(wanted):
            return f"batch {2 * size} gains {gain}, less than {wanted:.0%}"
        return f"{limit_s:g} s of search are over, and batch {2 * size} gains {gain}: not surely {wanted:.0%}"


def _first(call: Call, batch: int, device: Device) -> None:
    """The first call of a batch. Raises: ShapeError if its output is of fewer images."""
    from vbench.meters.outputs import images_missing

    output = call()
    device.wait()
    if reason := images_missing(output, batch):
        raise ShapeError(reason)


def _block_s(call: Call, count: int, device: Device) -> float:
    """The seconds of that many calls back to back."""
    begin = device.now()
    for _ in range(count):
        call()
    device.wait()
    return device.now() - begin


def _queued(call: Call, batch: int, device: Device, protocol: Protocol) -> dict[str, Any]:
    """Two calls, then calls back to back for `sample_s`, in blocks of about `BLOCK_S`.

    There are `FEWEST_BLOCKS` blocks at least, as long as they begin within `throughput_s`.
    """
    _first(call, batch, device)
    block_s = min(BLOCK_S, protocol.sample_s / FEWEST_BLOCKS)
    calls = max(1, min(IN_FLIGHT, round(block_s / max(_block_s(call, 1, device), 1e-6))))
    blocks: list[float] = []
    begin = device.now()
    while True:
        blocks.append(_block_s(call, calls, device) * 1e3)
        passed = device.now() - begin
        if passed >= (protocol.sample_s if len(blocks) >= FEWEST_BLOCKS else protocol.throughput_s):
            return _of_blocks(blocks, calls, batch)


def _of_blocks(blocks_ms: list[float], calls: int, batch: int) -> dict[str, Any]:
    return {
        "batch": batch,
        "images_per_s": batch * calls * len(blocks_ms) * 1e3 / sum(blocks_ms),
        "block_calls": calls,
        "blocks_ms": blocks_ms,
    }


def _searched(batch: int, calls: int, seconds: list[float]) -> dict[str, Any]:
    """A point of the curve, from turns of so many calls."""
    return _point(_of_blocks([one * 1e3 for one in seconds], calls, batch))


def _point(found: dict[str, Any]) -> dict[str, Any]:
    """A point of the curve, from what `_of_blocks` returns."""
    calls = found["block_calls"] * len(found["blocks_ms"])
    return {"batch": found["batch"], "images_per_s": found["images_per_s"], "calls": calls}
