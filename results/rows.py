"""The columns of a frame, from what is kept of the launches of many cells (`launches.Cell`).

What a row says of a cell is the median, the first or the greatest of what its launches say (`launched.Launched`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vbench.devices import on_host
from vbench.results.faults import LaunchFaults, judged, of_cells
from vbench.results.launched import Flags, Floats, Launched, column, turned
from vbench.results.launches import ABOUT, MEMORY, PARTS, Doubts
from vbench.results.moderation import Prior
from vbench.results.published import accuracies
from vbench.results.series import Rows, Samples, by_length, each, means
from vbench.results.statistics import CONFIDENCE, Interval, intervals, least_samples

HOST_BOUND = 0.95  # if a call returns after this share of the device's time, the device waits for the host
QUEUED = 1.05  # the device also waits if calls back to back take this many times the device's time
SHARES = {f"latency_ms_p{round(100 * share)}": share for share in (0.1, 0.9, 0.99)}  # percentiles that are told
SIZES = tuple(f"{key}_bytes" for key in MEMORY)
POLICIES = ("knee", "max")  # by which a batch is chosen

Columns = dict[str, Any]  # name -> (cells,) a list or an array; None, NA and NaN are missing


def columns(cells: Launched, priors: Sequence[Prior | None]) -> Columns:
    """The columns of a frame of these cells, each cell with what is known of the scatter of its run."""
    found: Columns = dict(zip(ABOUT, zip(*(first.columns for first in cells.firsts), strict=True), strict=True))
    samples = cells.by_cell(cells.calls["samples"], cells.cell_of)
    latencies = _intervals(samples, [None] * len(cells), priors)
    faults = judged(cells.calls["samples"])
    found |= _latency(cells, latencies, faults)
    found |= _throughput(cells, latencies, priors)
    found |= _memory(cells) | _energy(cells) | _floor(cells) | _published(found)
    return found | _ended(cells) | _flags(cells, found, faults)


def _intervals(
    launches: Sequence[Sequence[Sequence[float] | Samples]],
    middles: Sequence[float | None],
    priors: Sequence[Prior | None],
) -> list[Interval | None]:
    """The interval of each cell; None for one without samples."""
    there = [place for place, own in enumerate(launches) if own]
    found: list[Interval | None] = [None] * len(launches)
    own = intervals([launches[at] for at in there], [priors[at] for at in there], [middles[at] for at in there])
    for place, one in zip(there, own, strict=True):
        found[place] = one
    return found


def _each(values: Iterable[Any], name: str) -> list[Any]:
    """An attribute of each value; None for None."""
    get = attrgetter(name)
    return [None if value is None else get(value) for value in values]


def _latency(cells: Launched, latencies: Sequence[Interval | None], faults: Sequence[LaunchFaults | None]) -> Columns:
    """The columns on single calls. Percentiles are of the samples of all launches of a cell."""
    of, calls = cells.cell_of, cells.calls
    count = cells.count(of, np.array([len(samples) for samples in cells.calls["samples"]]))
    there, several = count > 0, np.flatnonzero(count)
    quantiles = {name: np.full(len(cells), np.nan) for name in ("latency_ms_min", *SHARES)}
    cuts = np.cumsum(count[there])[:-1]
    everything = np.split(np.concatenate(cells.calls["samples"]), cuts) if cells.calls["samples"] else []
    for places, rows in by_length(everything):
        ordered, own = np.sort(rows, axis=1), several[places]
        quantiles["latency_ms_min"][own] = ordered[:, 0]
        for name, share in SHARES.items():
            if rows.shape[1] >= least_samples(share):
                quantiles[name][own] = _quantile(ordered, share)
    parts = turned(PARTS, (own or (None,) * len(PARTS) for own in calls["parts"]))
    return {
        **{f"latency_{name}": _each(latencies, name) for name in ("level", "basis", "freedom")},
        **{f"latency_ms{end}": _each(latencies, name) for end, name in (("", "median"), ("_lo", "lo"), ("_hi", "hi"))},
        "latency_launches": column(cells.count(of), "Int64", there),
        "latency_samples": column(count, "Int64", there),
        "latency_outliers": column(
            cells.count(of, np.array([one.outliers if one else 0 for one in faults])), "Int64", there
        ),
        **quantiles,
        "latency_batch": cells.first(of, column(calls["batch"], "Int64")),
        **{f"{part}_ms": cells.median(of, values) for part, values in parts.items()},
    }


def _quantile(ordered: Rows, share: float) -> Floats:
    """(cells,) a quantile of sorted samples, a row each; linear between them, with numpy's roundings."""
    last = ordered.shape[1] - 1
    at = int(share * last)
    rest, low = share * last - at, ordered[:, at]
    rise = ordered[:, min(at + 1, last)] - low
    found: Floats = low + rise * rest if rest < 0.5 else low + rise - rise * (1 - rest)
    return found


def _throughput(cells: Launched, latencies: Sequence[Interval | None], priors: Sequence[Prior | None]) -> Columns:
    """The columns on calls back to back.

    On a host single calls at the same batch serve: the interval is then that of latency, the other way round.
    """
    of, launches = cells.parts("throughput")
    asked = [first.batch for first in cells.firsts]
    named = np.array([batch in POLICIES for batch in asked])
    alone = np.array([0 if batch in POLICIES else batch for batch in asked], np.int64)
    reasons = cells.first(of, column([one.reason or None for one in launches], "string"))
    measured = [one for one in launches if one.images_per_s is not None]
    of = of[[one.images_per_s is not None for one in launches]]
    batches = np.array([one.batch or 0 for one in measured], np.int64)
    first = np.zeros(len(cells), np.int64)  # the batch of the first launch that was measured; 0 if none was
    first[of[::-1]] = batches[::-1]
    serves = (_alone(cells) == first) & (first > 0)
    at = (batches == first[of]) & ~serves[of]
    of, whole = of[at], [one for one, there in zip(measured, at.tolist(), strict=True) if there]
    middle = np.where(serves, _rates(cells, serves), cells.median(of, _each(whole, "images_per_s")))
    blocks = [[one.block_calls * (one.batch or 0) * 1e3 / ms for ms in one.blocks_ms] for one in whole]
    own = _intervals(cells.by_cell(blocks, of), middle.tolist(), priors)
    both = [one if alone else other for one, other, alone in zip(latencies, own, serves.tolist(), strict=True)]
    usual, lo, hi = (np.array(_each(both, end), np.float64) for end in ("median", "lo", "hi"))
    lo, hi = np.where(serves, middle * usual / hi, lo), np.where(serves, middle * usual / lo, hi)
    there, apart = first > 0, lo < hi
    samples = cells.count(cells.cell_of, np.array(list(map(len, cells.calls["samples"]))))
    count = np.where(serves, samples, cells.count(of, np.array(list(map(len, blocks)))))
    return {
        "batch_policy": [batch if batch in POLICIES else "fixed" for batch in asked],
        "batch": column(np.where(there, first, alone), "Int64", there | ~named),
        "throughput_reason": reasons,
        "throughput_img_s": middle,
        "throughput_samples": column(count, "Int64", there),
        "throughput_img_s_lo": np.where(apart, lo, np.nan),
        "throughput_img_s_hi": np.where(apart, hi, np.nan),
        **{f"throughput_{name}": _where(apart, _each(both, name)) for name in ("level", "basis", "freedom")},
    }


def _where(there: Flags, values: Iterable[Any]) -> list[Any]:
    """The values that are there, and None for the others."""
    return [value if known else None for value, known in zip(values, there.tolist(), strict=True)]


def _alone(cells: Launched) -> NDArray[np.int64]:
    """(cells,) the batch of the single calls of a cell on a host; 0 if there are none, or on another device."""
    found = np.zeros(len(cells), np.int64)
    found[cells.cell_of[::-1]] = cells.calls["batch"][::-1]
    return np.where([on_host(first.device) for first in cells.firsts], found, 0)


def _rates(cells: Launched, serves: Flags) -> Floats:
    """(cells,) images a second of the single calls, where they serve: the median of launches; NaN elsewhere.

    That of a launch is what its throughput says, if it was measured at that batch.
    """
    own = serves[cells.cell_of]
    batches, samples = (list(compress(cells.calls[name], own)) for name in ("batch", "samples"))
    both = zip(compress(cells.beside("throughput"), own), batches, strict=True)
    same = [one.images_per_s if one and one.batch == batch else None for one, batch in both]
    computed = np.array(batches, np.int64) * 1e3 / each(samples, means)
    rates = [rate or other for rate, other in zip(same, computed.tolist(), strict=True)]
    return cells.median(cells.cell_of[own], rates)


def _memory(cells: Launched) -> Columns:
    """The columns on memory. Sizes come from the launch with the median peak, so they are whole bytes."""
    of, found = cells.parts("memory")
    order = np.lexsort(([one.peak_bytes for one in found], of)).tolist()
    found, counts = [found[place] for place in order], cells.count(of)
    middle = (np.cumsum(counts) - counts + (counts - 1) // 2)[counts > 0].tolist()
    typical, alone = [found[place] for place in middle], (counts == 1)[of]
    sizes = {"memory_batch": "batch", "peak_memory_bytes": "peak_bytes"} | {name: name for name in SIZES}
    reasons = _where(alone, _each(found, "growth_reason"))
    own = np.flatnonzero(counts)
    return {
        **{name: cells.first(own, column(_each(typical, key), "Int64")) for name, key in sizes.items()},
        "growth_bytes": cells.first(of, column(_each(found, "growth_bytes"), "Int64")),
        "growth_reason": cells.first(of, column(reasons, "string")),
        **{name: cells.median(of, _each(found, name)) for name in ("first_call_s", "compile_s")},
    }


def _energy(cells: Launched) -> Columns:
    of, found = cells.parts("energy")
    net, gross = (cells.median(of, _each(found, name)) for name in ("net_j_per_image", "gross_j_per_image"))
    with np.errstate(divide="ignore"):
        images = np.where(net > 0, 1 / net, np.nan)
    reasons = cells.first(of, column([one.reason or None for one in found], "string"))
    joules = {"energy_j_per_image": net, "energy_gross_j_per_image": gross, "images_per_joule": images}
    return {**joules, "energy_reason": reasons}


def _floor(cells: Launched) -> Columns:
    of, found = cells.parts("floor")
    least, flops, copied = turned(("least", "flops", "copied"), found).values()
    roofs = {"peak_flops_per_s": cells.greatest(of, flops), "peak_bytes_per_s": cells.greatest(of, copied)}
    return {"floor_ms": cells.median(of, least), **roofs}


def _published(found: Columns) -> Columns:
    """The accuracy that others published of the model at this size."""
    published = accuracies()
    sizes = zip(found["model"], found["height"], found["width"], strict=True)
    known = [published.get((model, height)) if height == width else None for model, height, width in sizes]
    sources = [one and f"{one.source}; {one.locator}" for one in known]
    return {"top1_published": _each(known, "top1"), "top1_source": sources}


def _ended(cells: Launched) -> Columns:
    """Why the first launch ended that did not end well; else what the first one says."""
    failed = np.array([status != "ok" for status in cells.said["status"]])
    first = np.flatnonzero(np.diff(cells.of, prepend=-1))
    first[cells.of[failed][::-1]] = np.flatnonzero(failed)[::-1]
    return {"reason": [cells.said["reason"][place] for place in first.tolist()]}


DOUBTS = (  # in the order in which flags are told
    *("modes_differ", "nonfinite", "output_differs", "impossible", "caveat", "few_samples", "unconverged", "throttled"),
    *("contended", "side_by_side", "host_bound", "more_threads", "background_threads", "settings_changed"),
    *("drift", "bimodal", "outliers", "counters_disagree", "uncounted", "deployable", "cropped", "padded"),
)


def _flags(cells: Launched, found: Columns, faults: Sequence[LaunchFaults | None]) -> Columns:
    """The flags of each cell: reasons for doubt. A timing flag is raised if most launches raise it."""
    firsts = cells.firsts
    padding = [words or "" for words in found["padding"]]
    raised = {
        "modes_differ": [verified is False for verified in found["verified"]],
        "impossible": _impossible(cells),
        "caveat": [first.caveat for first in firsts],
        "few_samples": _too_few(cells, found),
        "host_bound": _host_bound(cells),
        **of_cells(faults, cells.cell_of, len(cells)),
        "counters_disagree": [first.counters_disagree for first in firsts],
        "uncounted": list(map(bool, found["uncounted_reason"])),
        "deployable": [first.deployable for first in firsts],
        "cropped": [words.startswith("cuts off") for words in padding],
        "padded": [bool(words) and not words.startswith("cuts off") for words in padding],
    } | _doubted(cells)
    bits = sum(np.asarray(raised[name], np.int64) << place for place, name in enumerate(DOUBTS))
    alike, of = np.unique(bits, return_inverse=True)
    texts = [" ".join(name for place, name in enumerate(DOUBTS) if one >> place & 1) for one in alike.tolist()]
    return {"flags": column(texts, "string").take(of), "process_note": _process_notes(cells)}


def _doubted(cells: Launched) -> dict[str, Flags]:
    """(cells,) the flags that launches raise by themselves."""
    numbers = list(map(id, cells.said["doubts"]))  # equal ones are kept once
    doubts = dict(zip(numbers, cells.said["doubts"], strict=True))
    places = {number: place for place, number in enumerate(doubts)}
    codes = np.array([places[number] for number in numbers], np.intp)

    def votes(name: str) -> Flags:
        found: Flags = np.array([bool(getattr(doubt, name)) for doubt in doubts.values()], bool)[codes]
        return found

    warmed = np.array([doubt.unconverged is not None for doubt in doubts.values()], bool)[codes]
    every, some = cells.count(cells.of), {name: cells.count(cells.of, votes(name)) for name in Doubts._fields}
    return {
        "nonfinite": some["nonfinite"] > 0,
        "output_differs": some["differs"] > 0,
        "unconverged": 2 * some["unconverged"] > cells.count(cells.of[warmed]),
        "throttled": 2 * some["held_back"] > every,
        "contended": 2 * some["contended"] > every,
        "side_by_side": some["side_by_side"] > 0,
        "more_threads": 2 * some["more_threads"] > every,
        "background_threads": some["background_threads"] > 0,
        "settings_changed": some["changed"] > 0,
    }


def _too_few(cells: Launched, found: Columns) -> Flags:
    """(cells,) whether single calls have no 95 % interval, or one launch where the protocol wants several.

    A slow cell gets as many launches as fit into its time. From two on its interval says how few they are.
    """
    of, _ = cells.parts("latency")
    alone = cells.count(cells.cell_of) == 1
    several = np.array([first.launches > 1 for first in cells.firsts])
    short = np.array([(level or 0.0) < CONFIDENCE for level in found["latency_level"]])
    judged: Flags = (cells.count(of) > 0) & (alone & several | short)
    return judged


def _impossible(cells: Launched) -> Flags:
    """(cells,) whether in most launches most calls took less time than the device needs for their work."""
    least = np.array([floor[0] or 0.0 if floor else 0.0 for floor in cells.beside("floor")])
    of, _ = cells.parts("latency")
    most: Flags = 2 * cells.count(cells.cell_of, cells.medians < least) > cells.count(of)
    return most


def _host_bound(cells: Launched) -> Flags:
    """(cells,) whether in most launches the device waited for the host.

    It waited if a call returned only when it was done, or if queued calls took longer.
    """
    host_ms = np.array(cells.calls["host_ms"], np.float64)
    both = zip(cells.beside("throughput"), cells.calls["batch"], strict=True)
    rates = [one.queued if one and batch == 1 else None for one, batch in both]
    queued = np.array([1e3 / rate if rate else 0.0 for rate in rates])
    waited = (host_ms > HOST_BOUND * cells.medians) | ~np.isnan(host_ms) & (queued > QUEUED * cells.medians)
    most: Flags = 2 * cells.count(cells.cell_of, waited) > cells.count(cells.of)
    return most


def _process_notes(cells: Launched) -> list[str | None]:
    """What each model's code has made of the processes that measured it, in words; None if nothing is known of it."""
    notes: list[str | None] = [None] * len(cells)
    told: dict[int, list[Doubts]] = {}
    for place, one in zip(cells.of.tolist(), cells.said["doubts"], strict=True):
        if one.changed or one.background_threads:
            told.setdefault(place, []).append(one)
    for place, doubts in told.items():
        changed = dict.fromkeys(words for one in doubts for words in one.changed)
        left = dict.fromkeys(name for one in doubts for name in one.background_threads)
        threads = f"threads left running: {', '.join(left)}" if left else None
        notes[place] = "; ".join(filter(None, [*changed, threads])) or None
    return notes
