"""The rows of a frame, from what is kept of the launches of many cells (`launches.Cell`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from vbench.devices import on_host
from vbench.results.faults import LaunchFaults, judged, of_cell
from vbench.results.launches import ABOUT, MEMORY, PARTS, First, Latency, Launch
from vbench.results.moderation import Prior
from vbench.results.published import accuracies
from vbench.results.series import Samples
from vbench.results.statistics import CONFIDENCE, Interval, intervals, least_samples

HOST_BOUND = 0.95  # if a call returns after this share of the device's time, the device waits for the host
QUEUED = 1.05  # the device also waits if calls back to back take this many times the device's time
SHARES = (0.1, 0.9, 0.99)  # percentiles that are told

Row = dict[str, Any]


class Measured(NamedTuple):
    """A cell, and what is known of the scatter of its run. `medians` are those of its `timed` launches, ms."""

    first: First
    launches: Sequence[Launch]
    medians: Sequence[float]
    prior: Prior | None

    @property
    def timed(self) -> list[Latency]:
        """The launches with samples of single calls."""
        return [one.latency for one in self.launches if one.latency and one.latency.samples is not None]


def rows(cells: Sequence[Measured]) -> list[Row]:
    """The row of each cell. Figures of all of them are computed together."""
    samples = [[latency.samples for latency in cell.timed if latency.samples is not None] for cell in cells]
    latencies = _intervals(samples, [None] * len(cells), cells)
    flat = iter(judged([launch for launches in samples for launch in launches]))
    faults = [[next(flat) for _ in launches] for launches in samples]
    asked = [_blocks(cell) for cell in cells]
    throughputs = _intervals([one.blocks for one in asked], [one.middle for one in asked], cells)
    return [
        _row(cell, *found) for cell, *found in zip(cells, samples, latencies, faults, asked, throughputs, strict=True)
    ]


def _intervals(
    launches: Sequence[Sequence[Sequence[float] | Samples]],
    middles: Sequence[float | None],
    cells: Sequence[Measured],
) -> list[Interval | None]:
    """The interval of each cell; None for one without samples."""
    there = [place for place, own in enumerate(launches) if own]
    priors, about = [cells[place].prior for place in there], [middles[place] for place in there]
    found: list[Interval | None] = [None] * len(launches)
    for place, one in zip(there, intervals([launches[place] for place in there], priors, about), strict=True):
        found[place] = one
    return found


def _row(
    cell: Measured,
    samples: Sequence[Samples],
    latency: Interval | None,
    faults: Sequence[LaunchFaults | None],
    asked: _Blocks,
    throughput: Interval | None,
) -> Row:
    launches, first = cell.launches, cell.first
    row: Row = dict(zip(ABOUT, first.columns, strict=True))
    ended = next((one for one in launches if one.status != "ok"), launches[0])
    row["reason"], row["process_note"] = ended.reason, _process_note(launches)
    if latency is not None:
        row.update(_latency(cell.timed, samples, latency))
        row["latency_outliers"] = sum(one.outliers for one in faults if one)
    row.update(_throughput(cell, asked, throughput, latency))
    row.update(_memory(launches))
    row.update(_energy(launches))
    row.update(_floor(launches))
    if row["height"] == row["width"] and (known := accuracies().get((row["model"], row["height"]))):
        row["top1_published"], row["top1_source"] = known.top1, f"{known.source}; {known.locator}"
    row["flags"] = " ".join(_flags(row, cell, faults))
    return row


def _latency(timed: Sequence[Latency], samples: Sequence[Samples], of: Interval) -> Row:
    everything = np.sort(np.concatenate(samples))
    row: Row = {
        "latency_batch": timed[0].batch,
        "latency_ms": of.median,
        "latency_ms_lo": of.lo,
        "latency_ms_hi": of.hi,
        "latency_level": of.level,
        "latency_basis": of.basis,
        "latency_freedom": of.freedom,
        "latency_launches": len(timed),
        "latency_samples": len(everything),
        "latency_ms_min": float(everything[0]),
    }
    for share in SHARES:
        if len(everything) >= least_samples(share):
            row[f"latency_ms_p{round(100 * share)}"] = _quantile(everything, share)
    parts = [latency.parts for latency in timed if latency.parts]
    for key, values in zip(PARTS, zip(*parts, strict=True), strict=True) if parts else ():
        row[f"{key}_ms"] = _median(values)
    return row


def _quantile(ordered: Samples, share: float) -> float:
    """A quantile of sorted samples, linear between them, with numpy's roundings."""
    place = share * (len(ordered) - 1)
    at = int(place)
    rest, low = place - at, float(ordered[at])
    rise = float(ordered[min(at + 1, len(ordered) - 1)]) - low
    return low + rise * rest if rest < 0.5 else low + rise - rise * (1 - rest)


class _Blocks(NamedTuple):
    """The calls back to back of a cell: the batch, the median of its launches, and the images/s of each block.

    Where single calls serve, there are no blocks.
    """

    batch: int | None
    middle: float | None
    blocks: list[list[float]]
    reason: str | None


def _blocks(cell: Measured) -> _Blocks:
    found = [one.throughput for one in cell.launches if one.throughput]
    if not found:
        return _Blocks(None, None, [], None)
    reason = next((one.reason for one in found if one.reason), None)
    measured = [one for one in found if one.images_per_s is not None]
    if not measured:
        return _Blocks(None, None, [], reason)
    batch = measured[0].batch
    timed = cell.timed
    if timed and on_host(cell.first.device) and batch == timed[0].batch:
        return _Blocks(batch, median(_rates(cell)), [], reason)
    at = [one for one in measured if one.batch == batch]
    blocks = [[one.block_calls * (one.batch or 0) * 1e3 / ms for ms in one.blocks_ms] for one in at]
    return _Blocks(batch, median(one.images_per_s or 0.0 for one in at), blocks, reason)


def _rates(cell: Measured) -> list[float]:
    """Images a second of the single calls of each launch; as its throughput says, if it was measured at that batch."""
    rates = []
    for launch in cell.launches:
        latency, found = launch.latency, launch.throughput
        if latency and latency.samples is not None:
            same = found and found.batch == latency.batch and found.images_per_s
            rates.append(float(same or latency.batch * 1e3 / np.mean(latency.samples)))
    return rates


def _throughput(cell: Measured, asked: _Blocks, of: Interval | None, latency: Interval | None) -> Row:
    """The columns on throughput. Where single calls serve, their interval is that of latency, the other way round."""
    policy, named = cell.first.batch, cell.first.batch in ("knee", "max")
    row: Row = {"batch_policy": policy if named else "fixed", "batch": None if named else policy}
    row["throughput_reason"], middle = asked.reason, asked.middle
    if middle is None:
        return row
    count = sum(map(len, asked.blocks))
    if of is None and latency is not None:
        ends = middle * latency.median / latency.hi, middle * latency.median / latency.lo
        of = Interval(middle, *ends, latency.level, latency.basis, latency.freedom)
        count = sum(len(one.samples) for one in cell.timed if one.samples is not None)
    row.update(batch=asked.batch, throughput_img_s=middle, throughput_samples=count)
    if of is not None and of.lo < of.hi:
        row.update(throughput_img_s_lo=of.lo, throughput_img_s_hi=of.hi, throughput_level=of.level)
        row.update(throughput_basis=of.basis, throughput_freedom=of.freedom)
    return row


def _memory(launches: Sequence[Launch]) -> Row:
    """The columns on memory. Sizes come from the launch with the median peak, so they are whole bytes."""
    measured = sorted((one.memory for one in launches if one.memory), key=lambda memory: memory.peak_bytes)
    if not measured:
        return {}
    middle = measured[(len(measured) - 1) // 2]
    return {
        "memory_batch": middle.batch,
        "peak_memory_bytes": middle.peak_bytes,
        **{f"{key}_bytes": getattr(middle, f"{key}_bytes") for key in MEMORY},
        "growth_bytes": next((one.growth_bytes for one in measured if one.growth_bytes is not None), None),
        "growth_reason": measured[0].growth_reason if len(measured) == 1 else None,
        "first_call_s": _median(one.first_call_s for one in measured),
        "compile_s": _median(one.compile_s for one in measured),
    }


def _energy(launches: Sequence[Launch]) -> Row:
    measured = [one.energy for one in launches if one.energy]
    if not measured:
        return {}
    return {
        "energy_j_per_image": _median(one.net_j_per_image for one in measured),
        "energy_gross_j_per_image": _median(one.gross_j_per_image for one in measured),
        "energy_reason": next((one.reason for one in measured if one.reason), None),
    }


def _floor(launches: Sequence[Launch]) -> Row:
    known = [one.floor for one in launches if one.floor]
    if not known:
        return {}
    least, flops, copied = zip(*known, strict=True)
    return {"floor_ms": _median(least), "peak_flops_per_s": _greatest(flops), "peak_bytes_per_s": _greatest(copied)}


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known; None if all are missing."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _flags(row: Row, cell: Measured, faults: Sequence[LaunchFaults | None]) -> list[str]:
    """The flags of a row: reasons for doubt. A timing flag is raised if most launches raise it."""
    launches, first = cell.launches, cell.first
    doubts = [one.doubts for one in launches]
    slow = _with_medians(cell)
    flags = {
        "modes_differ": row["verified"] is False,
        "nonfinite": any(doubt.nonfinite for doubt in doubts),
        "output_differs": any(doubt.differs for doubt in doubts),
        "impossible": _most([_impossible(one, ms) for one, ms in slow if one.latency]),
        "caveat": first.caveat,
        "few_samples": any(one.latency for one in launches) and _too_few(row, first),
        "unconverged": _most([doubt.unconverged for doubt in doubts if doubt.unconverged is not None]),
        "throttled": _most([doubt.held_back for doubt in doubts]),
        "contended": _most([doubt.contended for doubt in doubts]),
        "side_by_side": any(doubt.side_by_side for doubt in doubts),
        "host_bound": _most([_host_bound(one, ms) for one, ms in slow]),
        "more_threads": _most([doubt.more_threads for doubt in doubts]),
        "background_threads": any(doubt.background_threads for doubt in doubts),
        "settings_changed": any(doubt.changed for doubt in doubts),
    }
    found = [name for name, raised in flags.items() if raised]
    found += of_cell(faults)
    if first.counters_disagree:
        found.append("counters_disagree")
    if row["uncounted_reason"]:
        found.append("uncounted")
    if first.deployable:
        found.append("deployable")
    if row["padding"]:
        found.append("cropped" if row["padding"].startswith("cuts off") else "padded")
    return found


def _with_medians(cell: Measured) -> list[tuple[Launch, float | None]]:
    """Each launch with the median of its samples, ms; None without samples."""
    medians = iter(cell.medians)
    return [(one, next(medians) if one.latency and one.latency.samples is not None else None) for one in cell.launches]


def _too_few(row: Row, first: First) -> bool:
    """Whether the interval is no 95 % interval, or comes from one launch where the protocol wants several.

    A slow cell gets as many launches as fit into its time. From two on its interval says how few they are.
    """
    alone = row.get("latency_launches") == 1 < first.launches
    return alone or (row.get("latency_level") or 0.0) < CONFIDENCE


def _impossible(launch: Launch, middle: float | None) -> bool:
    """Whether most calls of a launch took less time than the device needs for their work."""
    least = launch.floor[0] if launch.floor else None
    return bool(least and middle is not None and middle < least)


def _host_bound(launch: Launch, middle: float | None) -> bool:
    """Whether the device waited for the host: a call returned only when it was done, or queued calls took longer."""
    latency = launch.latency
    if not latency or latency.host_ms is None or middle is None:
        return False
    alone = launch.throughput.queued if launch.throughput and latency.batch == 1 else None
    queued = 1e3 / alone if alone else 0.0
    return bool(latency.host_ms > HOST_BOUND * middle or queued > QUEUED * middle)


def _process_note(launches: Sequence[Launch]) -> str | None:
    """What the model's code has made of the process that measured it, in words; None if nothing is known of it."""
    changed = [words for one in launches for words in one.doubts.changed]
    left = [name for one in launches for name in one.doubts.background_threads]
    if not changed and not left:
        return None
    threads = f"threads left running: {', '.join(dict.fromkeys(left))}" if left else None
    return "; ".join(filter(None, [*dict.fromkeys(changed), threads])) or None


def _most(votes: Sequence[bool | None]) -> bool:
    return 2 * sum(map(bool, votes)) > len(votes)
