"""Reports on many records: the same figures as one by one, in memory and time that grow with the records."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import faults, latency, make_record

from vbench.plan import Case
from vbench.reports import tables
from vbench.reports.series import MOST_CURVES, few
from vbench.results import launches, moderation, resampling, roots, scaling
from vbench.results.answers import answers
from vbench.results.compare import load
from vbench.results.faults import judged
from vbench.results.frame import frame, of_folders
from vbench.results.moderation import prior_of_variances
from vbench.results.statistics import Interval, interval, intervals, run_prior
from vbench.results.store import Record


def samples(random: np.random.Generator, place: int) -> np.ndarray:
    """A launch of some length, with one of several faults, or none."""
    n = int(random.choice([1, 2, 3, 5, 9, 10, 12, 12, 29, 60, 150]))
    series = random.lognormal(0.0, random.choice([0.001, 0.01, 0.05]), n)
    shapes = (
        np.ones(n),
        np.linspace(1.0, 1.06, n),
        np.where(random.random(n) < 0.4, 1.05, 1.0),
        np.where(np.isin(np.arange(n), (n // 3, n // 2)), 2.0, 1.0),
        np.where(np.arange(n) < n // 2, 1.0, 1.04),
    )
    return np.round(series, 2 if place % 7 == 0 else 9) * shapes[place % 5]


def cells(seed: int, count: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(seed)
    scatter = [random.choice([0.001, 0.01, 0.03]) for _ in range(count)]
    counts = random.choice([1, 2, 3, 5, 8, 8], count)
    return [
        [samples(random, place + launch) * random.lognormal(0.0, scatter[place]) for launch in range(counts[place])]
        for place in range(count)
    ]


def records(count: int, batches: tuple[int, ...] = (1,)) -> Iterator[Record]:
    """Launches of cells that differ in size and batch, eight a cell, in the order of a sweep."""
    random = np.random.default_rng(0)
    sizes = [224 + 16 * number for number in range(-(-count // (16 * len(batches))))]
    made = 0
    for launch in range(8):
        for side in sizes:
            for model in ("vig_t", "deit_t"):
                base = make_record(model, side)
                for batch in batches:
                    case = Case(**{**base.case, "batch": batch})
                    about = {"case_id": case.id, "case": asdict(case), "launch": launch, "order": made}
                    times = random.lognormal(np.log(side / 10), 0.01, 12)
                    yield replace(base, **about, latency=latency(times.round(6).tolist()), throughput=None)
                    made += 1


def write(folder: Path, found: Iterator[Record]) -> Path:
    folder.mkdir()
    with (folder / "records.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(record)) + "\n" for record in found)
    return folder


def test_faults_of_many_launches_are_those_of_each() -> None:
    series = [launch for cell in cells(1, 60) for launch in cell]
    assert judged(series) == [judged([launch])[0] for launch in series]
    shown = {fault for launch in series for fault in faults([launch])}
    assert shown == {"drift", "bimodal", "outliers"}


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_of_many_cells_are_those_of_each(seed: int) -> None:
    run = cells(seed, 40)
    prior = run_prior(run)
    alone = [interval(cell, prior=prior) for cell in run]
    together = intervals(run, [prior] * len(run))
    assert np.allclose(ends(together), ends(alone), rtol=1e-12, atol=0)
    assert [(one.basis, one.level) for one in together] == [(one.basis, one.level) for one in alone]


def test_draws_are_left_out_only_where_they_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    run = [cell for cell in cells(3, 60) if len(cell) > 1]
    prior = run_prior(run)
    drawn: list[int] = []
    whole = resampling._drawn
    monkeypatch.setattr(resampling, "_drawn", lambda *args: drawn.append(1) or whole(*args))
    quick = intervals(run, [prior] * len(run))
    few_draws = len(drawn)
    monkeypatch.setattr(resampling, "_bound", lambda logs, worth: np.full(len(logs), np.inf))
    monkeypatch.setattr(resampling, "_nearly", lambda logs, worth: np.full(len(logs), np.inf))
    assert quick == intervals(run, [prior] * len(run))
    assert few_draws < len(run) / 2 < len(drawn) - few_draws == len(run)


@pytest.mark.parametrize("seed", range(6))
def test_the_prior_is_that_of_leaving_out_each_cell_in_turn(seed: int) -> None:
    """Each cell is put beside the prior of all others; the worst goes, until none is beyond the rest."""
    random = np.random.default_rng(seed)
    freedom = random.choice([1.0, 3.0, 7.0], 40)
    own = random.chisquare(freedom) / freedom * np.exp(random.normal(0, random.choice([0.0, 0.7]), 40))
    own[: seed * 3] *= 500
    kept = np.ones(len(own), bool)
    while kept.sum() > len(own) / 2:
        chances = np.ones(len(own))
        for cell in np.flatnonzero(kept):
            others = kept & (np.arange(len(own)) != cell)
            chances[cell] = moderation._fit(own[others], freedom[others]).chance(own[cell], freedom[cell])
        if chances.min() >= moderation.BEYOND:
            break
        kept[np.argmin(chances)] = False
    assert prior_of_variances(own, freedom) == moderation._fit(own[kept], freedom[kept])


def ends(found: list[Interval]) -> list[tuple[float, float, float]]:
    return [(one.median, one.lo, one.hi) for one in found]


def test_a_run_read_line_by_line_has_the_rows_of_its_records(tmp_path: Path) -> None:
    run = list(records(300))
    again = replace(run[0], latency=latency([5.0] * 12))  # the newest counts
    moved = replace(run[1], conditions="others")  # older launches of this cell count no more
    folder = write(tmp_path / "run", iter([*run, again, moved]))
    table = of_folders([folder])
    pd.testing.assert_frame_equal(table, frame([*run, again, moved]))
    assert table.set_index("case_id").loc[moved.case_id, "latency_launches"] == 1
    assert len(table) == len({record.case_id for record in run})


def test_memory_of_a_run_is_a_small_part_of_that_of_its_records(tmp_path: Path) -> None:
    """What is kept of a launch is 1.5 kB at most; as a record it takes 10 kB or more."""
    folder = write(tmp_path / "run", records(1000))
    count = (folder / "records.jsonl").read_bytes().count(b"\n")
    found = launches.Cells()
    tracemalloc.start()
    launches.read(folder, found)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_500 * count
    assert most < 1_700 * count


def test_a_large_table_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = frame(list(records(160)))
    monkeypatch.setattr(tables, "WRITTEN", 4)
    text = tables.to_markdown(table)
    assert text.count("| vig") + text.count("| deit") == 4
    assert f"the first 4 of {len(table)} rows; summary.csv has them all" in text
    assert len(tables.rows(table)) == len(table)


def test_a_figure_of_many_curves_says_which_are_drawn() -> None:
    batches = tuple(range(1, MOST_CURVES // 2 + 5))
    table = frame([record for record in records(16 * len(batches), batches) if record.launch == 0])
    drawn, said = few(table)
    curves = drawn.groupby(["model", "batch"]).ngroups
    assert curves == MOST_CURVES < 2 * len(batches)
    assert said[0].startswith(f"{MOST_CURVES} of {2 * len(batches)} curves are drawn: those of batch 1 or ")
    assert few(drawn) == (drawn, [])  # all of them can be compared


def test_two_runs_are_compared_without_their_records(tmp_path: Path) -> None:
    run = load(write(tmp_path / "run", records(200)))
    assert len(run.origins) == 1
    assert {type(one) for cell in run.cells.values() for one in cell.launches} == {launches.Launch}


def test_bounds_of_an_exponent_are_those_of_all_pairs_of_sizes() -> None:
    for seed in range(40):
        random = np.random.default_rng(seed)
        tokens = np.sort(random.choice([16, 49, 196, 256, 300, 1024, 2304, 4096], random.integers(2, 30)))
        x = np.log(random.permutation(tokens) if seed % 2 else tokens.astype(float))
        y = random.choice([1.0, 2.0]) * x + random.choice([0.0, 0.1, 1.0]) * random.standard_normal(len(x))
        slopes = [
            (y[j] - y[i]) / (x[j] - x[i])
            for i in range(len(x))
            for j in range(i)
            if abs(x[j] - x[i]) >= np.log(4) - 1e-9
        ]
        nothing = np.zeros(len(x))
        curve = scaling.Curve([], x, x, "tokens", y, nothing, counted=True, cells=[])
        expected = (min(slopes), max(slopes)) if slopes else (np.nan, np.nan)
        assert np.allclose(scaling._range(curve), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_bounds_of_a_hundred_thousand_sizes_take_no_pairs() -> None:
    x = np.linspace(0, 9, 100_000)
    curve = scaling.Curve([], x, x, "tokens", 2 * x + np.sin(7 * x), np.zeros(len(x)), counted=True, cells=[])
    tracemalloc.start()
    low, high = scaling._range(curve)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 * len(x)
    assert -5 < low < 2 < high < 9


def test_roots_of_many_draws_are_those_of_each() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 7, 20):
        side = np.sort(random.random(count))
        drawn = random.choice([-1.0, 1.0, -0.5, 0.0, 2.0], (60, count))
        assert roots._last(side, drawn).tolist() == [last_root(side, row) for row in drawn]
        for row in drawn:
            known = random.random(count) < 0.5
            assert roots._open(row, known).tolist() == [open_place(row, known, place) for place in range(count)]


def last_root(side: np.ndarray, values: np.ndarray) -> float:
    if values[-1] >= 0:
        return np.inf
    for here in range(len(side) - 2, -1, -1):
        if values[here] >= 0:
            share = (side[here + 1] - side[here]) * values[here]
            return float(side[here] + share / (values[here] - values[here + 1]))
    return -np.inf


def open_place(values: np.ndarray, known: np.ndarray, place: int) -> bool:
    if known[place]:
        return False
    first = max((other for other in range(place) if known[other]), default=0)
    last = min((other for other in range(place, len(known)) if known[other]), default=len(known) - 1)
    return len({value < 0 for value in values[first : last + 1]}) == 2


def test_an_interval_is_the_same_when_draws_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    side, error = np.linspace(5, 8, 12), np.full(12, 0.2)
    apart = 6.5 - side + 0.1 * random.standard_normal(12)
    whole = roots.root(side, apart, error)
    monkeypatch.setattr(roots, "BLOCK", 100)
    assert roots.root(side, apart, error) == whole
    assert whole.lo < whole.at < whole.hi


def test_of_several_rows_of_one_size_the_last_is_answered() -> None:
    table = frame(list(records(160)))
    older = table.assign(
        latency_ms=table["latency_ms"] * 3, started_at="2000-01-01T00:00:00+00:00", case_id=table["case_id"] + "-"
    )
    found = [answer.text for answer in answers(table) if answer.kind != "growth"]
    both = pd.concat([older, table, older.assign(status="error")], ignore_index=True)
    assert [answer.text for answer in answers(both) if answer.kind != "growth"] == found
    assert len(found) > 1
