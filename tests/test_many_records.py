"""Reports on many records: the same figures as one by one, in memory and time that grow with the records."""

from __future__ import annotations

import importlib.util
import json
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import faults, latency, make_record

from vbench.errors import SchemaError, UsageError
from vbench.plan import Case
from vbench.reports import tables
from vbench.reports import write as writing
from vbench.reports.figures import draw
from vbench.reports.grid import inert
from vbench.reports.series import MOST_CURVES, few
from vbench.reports.write import cleaned, write_all
from vbench.results import launches, moderation, resampling, roots, scaling, shares, workers
from vbench.results.answers import answers
from vbench.results.compare import load
from vbench.results.faults import judged
from vbench.results.frame import frame, of_folders
from vbench.results.lines import DamagedLineWarning
from vbench.results.moderation import prior_of_variances
from vbench.results.statistics import Interval, interval, intervals, run_prior
from vbench.results.store import Record, read


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


def test_the_first_rows_are_those_of_a_whole_sort() -> None:
    table = frame(list(records(400, (1, 2, 4))))
    mixed = table.assign(attention=table["attention"].mask(table["height"] % 32 == 0))
    for rows in (table, mixed, table.sample(frac=1, random_state=0)):
        every = [row["case_id"] for row in tables._cells(rows)]
        assert len(set(every)) == len(table) > 50
        for most in (0, 1, 3, 20, len(every) - 1, len(every), 1000):
            assert [row["case_id"] for row in tables._cells(rows, most)] == every[:most]


def test_a_summary_has_the_bytes_that_pandas_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = frame([*records(64), make_record(status="error", reason='=1+1, "a"\nb')])
    monkeypatch.setattr(writing, "CHUNK", 5)
    writing._to_csv(table, tmp_path / "summary.csv")
    cleaned(table, inert).astype(object).to_csv(tmp_path / "pandas.csv", index=False)
    assert (tmp_path / "summary.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()
    assert table["latency_ms"].notna().any()


def test_equal_parts_of_records_are_kept_once(tmp_path: Path) -> None:
    """So a sweep of very many cells resumes: what is left of a record are its own numbers."""
    made = list(records(64))
    found = read(write(tmp_path / "run", iter(made)))
    assert found == made
    for name in ("host", "protocol", "conditions"):
        assert len({id(getattr(record, name)) for record in found}) == 1
    assert len({id(record.case) for record in found}) == len({record.case_id for record in made}) == 8


def test_a_table_of_an_older_script_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).resolve().parent.parent / ".ci" / "scale.py"
    told = importlib.util.spec_from_file_location("scale", file)
    assert told
    assert told.loader
    scale = importlib.util.module_from_spec(told)
    monkeypatch.setitem(sys.modules, "scale", scale)
    told.loader.exec_module(scale)
    table = tmp_path / "scale.csv"
    table.write_text("records,cells,mib,command,wall_s,cpu_s,peak_mib,ended\n1000,160,3,plan,1,1,9,ok\n")
    for text, why in ((None, "no column cpu, cores, python"), (",".join(scale.HEADS) + "\n", "has no rows")):
        if text:
            table.write_text(text)
        with pytest.raises(SystemExit, match=why):
            scale.read(table)
    with pytest.raises(SystemExit, match="cannot be read: No such file"):
        scale.read(tmp_path / "none.csv")
    row = dict.fromkeys(scale.HEADS, 1) | {"command": "report", "ended": "ok", "wall_s": 2.5, "peak_mib": 2048}
    scale.write(table, [row])
    assert "| `report` | 2.5 s, 2 GiB | – |" in scale.page(scale.read(table))
    scale.write(table, [row, row | {"records": 10, "cells": 10, "wall_s": 5.0}])
    assert "| `report` | 2.5 s, 2 GiB | 5 s, 2 GiB | 0.30 |" in scale.page(scale.read(table))


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
        assert roots._last(side, drawn, 0.0).tolist() == pytest.approx([last_root(side, row) for row in drawn])
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


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Few records are read, and few figures drawn, as very many are. Returns: the tasks of the processes."""
    tasks: list[str] = []
    start = workers.worker
    monkeypatch.setattr(workers, "worker", lambda task: tasks.append(task) or start(task))
    monkeypatch.setattr(workers, "count", lambda: 2)
    monkeypatch.setattr(shares, "LARGE", 0)
    monkeypatch.setattr(draw, "MANY", 0)
    return tasks


def test_a_frame_from_shares_is_that_of_one_process(
    tmp_path: Path, side_by_side: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", records(400, (1, 2)))
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    turned = json.loads(lines[3])
    lines[3] = json.dumps(dict(reversed(turned.items()))).encode() + b"\n"  # its case_id does not come first
    begin = b'{"case_id": "'
    first = lines[5][len(begin) :][:1]
    lines[5] = lines[5].replace(begin + first, begin + f"\\u{ord(first):04x}".encode(), 1)  # nor is it spelled plainly
    lines[7:7] = [b"nothing\n", lines[8][:300] + b"\n", b'{"case_id": 7}\n']
    (run / "records.jsonl").write_bytes(b"".join(lines) + lines[-1][:200])
    with pytest.warns(DamagedLineWarning) as said:
        shared = of_folders([run])
    assert side_by_side == ["vbench.results.shares:read"] * 2
    monkeypatch.setattr(workers, "count", lambda: 1)
    with pytest.warns(DamagedLineWarning) as said_alone:
        alone = of_folders([run])
    pd.testing.assert_frame_equal(shared, alone, check_exact=True)
    assert len(shared) == 52
    assert shared.attrs == alone.attrs
    assert [line.split(" of ")[0] for line in shared.attrs["damaged"]] == [f"damaged: line {n}" for n in (8, 9, 10)]
    assert [str(one.message) for one in said] == [str(one.message) for one in said_alone]


def test_what_a_share_cannot_read_is_an_error_or_read_here(tmp_path: Path, side_by_side: list[str]) -> None:
    bad = write(tmp_path / "bad", iter(()))
    (bad / "records.jsonl").write_text("nothing\n{}\n")
    with pytest.raises(SchemaError, match="no line can be read: line 1 is no JSON"):
        of_folders([bad])
    run = write(tmp_path / "run", records(40))
    with pytest.MonkeyPatch.context() as context:
        context.setattr(sys, "path", ["/nowhere"])  # such a process ends at once
        assert len(of_folders([run])) == 6
    assert len(side_by_side) == 4


def test_figures_of_many_rows_are_drawn_side_by_side(tmp_path: Path, side_by_side: list[str]) -> None:
    table = of_folders([write(tmp_path / "run", records(64))])
    request = draw.Request(("modes", "crossover"), formats=("svg",))
    files, missing = draw.write(request, table, tmp_path / "two")
    assert side_by_side[2:] == ["vbench.reports.figures.draw:draw_share"] * 2
    with pytest.MonkeyPatch.context() as context:
        context.setattr(workers, "count", lambda: 1)
        alone, missing_alone = draw.write(request, table, tmp_path / "one")
    assert [file.name for file in files] == [file.name for file in alone] == ["crossover.svg", "crossover.txt"]
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in alone]
    assert missing == missing_alone
    assert [line.split()[0] for line in missing] == ["modes"]
    with pytest.raises(UsageError, match="modes is not drawn"):
        draw.write(replace(request, names=("modes", "energy"), strict=True), table, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_report_of_many_rows_has_the_files_of_one_of_few(tmp_path: Path, side_by_side: list[str]) -> None:
    table = of_folders([write(tmp_path / "run", records(64))])
    found = []
    for name, count in (("two", 2), ("one", 1)):
        with pytest.MonkeyPatch.context() as context:
            context.setattr(workers, "count", lambda count=count: count)
            found.append(write_all(table, tmp_path / name))
    assert side_by_side[2:] == ["vbench.reports.figures.draw:draw_share"]
    for one, other in zip(*found, strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())
