"""Runs over time: a step is found at its commit, noise is left alone, and machines are never mixed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import HOST, failed, latency, make_record, of_case
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.reports import history as reporting
from vbench.reports.figures import draw
from vbench.results.changes import changes
from vbench.results.history import Run, Series, history, load, runs_of
from vbench.results.store import Record, Store

SEEDS = 250
SLOWER = (*(1.0,) * 6, *(1.05,) * 6)


def noise(seed: int, count: int = 20) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(log(20), 0.01, count)


def launch(run: int, ms: float | None = 20.0, model: str = "vig_t", **host: Any) -> Record:
    """What one run says of a cell: a launch of many samples, on a commit and a day of its own."""
    where: dict[str, Any] = {
        "host": {**HOST, "commit": f"{run:02d}abcdef01", **host},
        "started_at": f"2026-01-{run + 1:02d}T00:00:00+00:00",
        "conditions": f"c{run}",
    }
    if ms is None:
        return failed("oom", "out of\nmemory", model=model, **where)
    return make_record(model, latency=latency(ms * one for one in (0.999, 1.001) * 5), **where)


def series(levels: Sequence[float | None], **host: Any) -> list[Run]:
    wobble = (1.0, 1.004, 0.997, 1.001, 0.996, 1.003)
    return [
        Run(f"r{n}", (launch(n, None if level is None else 20 * level * wobble[n % 6], **host),))
        for n, level in enumerate(levels)
    ]


def only(found: Sequence[Series]) -> Series:
    (one,) = found
    return one


class TestChanges:
    @pytest.mark.parametrize("count", [7, 20])
    def test_none_is_found_in_noise(self, count: int) -> None:
        found = [changes(list(noise(seed, count))) for seed in range(SEEDS)]
        assert sum(not one.starts for one in found) >= 0.95 * SEEDS
        assert np.median([one.noise for one in found]) == pytest.approx(0.01, rel=0.15)

    @pytest.mark.parametrize(("at", "least"), [(10, 0.9), (5, 0.85)])
    def test_a_step_of_one_twentieth_is_found_where_it_is(self, at: int, least: float) -> None:
        found = [changes([*noise(seed)[:at], *(noise(seed)[at:] + log(1.05))]).starts for seed in range(SEEDS)]
        assert sum(starts == (at,) for starts in found) >= least * SEEDS
        assert sum(any(abs(start - at) <= 1 for start in starts) for starts in found) >= 0.95 * SEEDS

    def test_two_steps_are_found_and_what_stands_alone_is_no_level(self) -> None:
        values = noise(1, 24)
        values[8:16] += 0.1
        values[20] += 0.4
        found = changes(list(values))
        assert (found.starts, found.alone) == ((8, 16), (20,))

    def test_what_does_not_scatter_changes_wherever_it_changes(self) -> None:
        assert changes([5.0] * 3 + [5.0001] * 4).starts == (3,)
        assert changes([5.0] * 7).starts == ()

    def test_too_few_values_tell_nothing(self) -> None:
        assert changes([1.0, 1.0, 1.0, 9.0, 9.0]).noise is None
        assert changes([1.0, 1.0, 1.0, 9.0, 9.0, 9.0]).starts == (3,)


class TestSeries:
    def test_a_step_is_named_by_its_commits_and_what_else_changed(self) -> None:
        runs = series(SLOWER)
        newer = {**HOST["versions"], "torch": "2.12.0"}  # type: ignore[dict-item]
        runs[6:] = [
            replace(run, records=(replace(run.records[0], host={**run.records[0].host, "versions": newer}),))
            for run in runs[6:]
        ]
        one = only(history(list(reversed(runs))))  # the order is time's
        (step,) = one.steps
        assert (step.at, step.before, step.after) == (6, "05abcdef01", "06abcdef01")
        assert step.ratio == pytest.approx(1.05, abs=0.005)
        assert step.beside == ("torch 2.11.0 → 2.12.0",)
        assert [level[:2] for level in one.levels()] == [(0, 5), (6, 11)]
        assert one.last_over_first is not None
        assert one.last_over_first.value == pytest.approx(1.05 * 1.003, rel=1e-3)

    def test_few_runs_have_no_changes_and_say_so(self) -> None:
        one = only(history(series([1.0, 1.0, 1.0, 2.0, 2.0])))
        assert one.steps == ()
        assert one.note == "not looked for: 5 of at least 6 values"

    def test_a_run_without_a_value_leaves_a_gap_with_its_reason(self) -> None:
        one = only(history(series([None, *SLOWER[:3], None, *SLOWER[3:]])))
        assert [n for n, point in enumerate(one.points) if point.value is None] == [0, 4]
        assert one.points[4].why == "oom: out of\nmemory"
        assert [step.at for step in one.steps] == [8]
        assert "no value at 00abcde, 04abcde: oom: out of memory" in " ".join(reporting.remarks([one]))

    @pytest.mark.parametrize(
        ("other", "names"),
        [
            ({"device_name": "another CPU"}, ["a test CPU", "another CPU"]),
            ({"cpu_count": 8}, ["a test CPU (cpu_count None)", "a test CPU (cpu_count 8)"]),
            ({"os": "Linux 7"}, ["a test CPU"]),
        ],
    )
    def test_machines_are_series_of_their_own(self, other: dict[str, Any], names: list[str]) -> None:
        found = history([*series(SLOWER[:6]), *series(SLOWER[6:], **other)])
        assert [one.machine for one in found] == names
        assert sum(len(one.points) for one in found) == 12
        assert sum(len(one.steps) for one in found) == 0

    def test_threads_and_batches_are_series_of_their_own_and_say_so(self) -> None:
        record = launch(0)
        four = replace(record, protocol={**record.protocol, "threads": 4})
        runs = [Run("a", (record, of_case(record, batch=8))), Run("b", (four,))]
        assert [one.cell for one in history(runs)] == [
            "vig_t 224 parallel float32 batch 8 threads 1",
            "vig_t 224 parallel float32 batch knee threads 1",
            "vig_t 224 parallel float32 batch knee threads 4",
        ]

    def test_a_count_is_followed_exactly(self) -> None:
        runs = series([1.0] * 8)
        work = runs[0].records[0].work or {}
        runs[5:] = [
            replace(run, records=(replace(run.records[0], work={**work, "macs": work["macs"] + 1}),))
            for run in runs[5:]
        ]
        assert [step.at for step in only(history(runs, "macs")).steps] == [5]
        with pytest.raises(UsageError, match=r"--what: 'colour' is not one of latency_ms, peak_memory_bytes"):
            history(runs, "colour")


def test_one_folder_may_hold_several_runs() -> None:
    first, later = launch(0), launch(1)
    again = [replace(first, launch=1), later, replace(later, launch=1), replace(later, conditions="c1")]
    runs = runs_of([first, *again], "run")
    assert [len(run.records) for run in runs] == [2, 2, 1]  # another commit; a launch that was measured again
    retried = [replace(failed("oom", "no"), launch=0), make_record()]
    assert len(runs_of(retried, "run")) == 1


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for n, run in enumerate([*series(SLOWER), *series([None] * 2)]):
            with Store(tmp_path / "runs" / ("deep" if n % 2 else ".") / f"r{n}") as store:
                store.append(run.records[0])
                store.append(launch(n % 12, 30.0, "deit_t"))
        return tmp_path / "runs"

    def test_the_command(self, folder: Path, tmp_path: Path) -> None:
        run = CliRunner().invoke
        done = run(app, ["history", str(folder), "-o", str(tmp_path / "out"), "--json"])
        assert done.exit_code == 0
        deit, vig = json.loads(done.stdout)
        assert (len(deit["points"]), len(vig["points"]), deit["changes"]) == (14, 14, [])
        assert vig["changes"][0]["ratio"] == pytest.approx(1.05, abs=0.005)
        first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
        assert set(first) == {"history.md", "history.png", "history.pdf", "history.txt"}
        assert b"+5." in first["history.md"]
        said = run(app, ["history", str(folder), "-o", str(tmp_path / "out")]).stdout
        assert "05abcde → 06abcde: +5." in said
        assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first
        for wrong, why in ((tmp_path / "none", "is not a folder"), (tmp_path / "out", "holds no records")):
            with pytest.raises(UsageError, match=why):
                load(wrong)

    def test_the_chart_marks_the_step_and_names_its_commit(self) -> None:
        found = history(series(SLOWER))
        with draw.looking("paper"):
            drawn = reporting.chart(found, "latency_ms")
            (axis,) = drawn.figure.axes
            drawn.figure.draw_without_rendering()
            assert [text.get_text().strip() for text in axis.texts] == [f"{found[0].steps[0].ratio - 1:+.1%}"]
            assert "06abcde" in [label.get_text() for label in axis.get_xticklabels()]
            assert axis.get_ylabel() == "Latency (ms)"
            many = reporting.chart([replace(found[0], cell=f"cell {n}") for n in range(14)], "latency_ms")
            assert len(many.figure.axes) == reporting.PANELS
            assert any(note.startswith("Not drawn (2 of 14): cell ") for note in many.notes)

    def test_what_comes_from_a_record_is_escaped(self) -> None:
        found = history(series(SLOWER, device_name="<b>|x\n[red]"))
        page = reporting.to_markdown(found, "latency_ms")
        assert "<b>" not in page
        assert len({line.count(" | ") for line in page.splitlines() if line.startswith("|")}) == 1
