"""What comes before the launches ends in time, and what was found out until then is kept; a budget knows what fits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import make_record
from test_sweep import CASES, FakeLauncher, Silent

from vbench import verify
from vbench.errors import OutputError
from vbench.jobs.launch import Ending
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.results.store import Record, read
from vbench.sweeps import loop as sweeping
from vbench.sweeps import prepare
from vbench.sweeps.agenda import Agenda
from vbench.sweeps.budget import Budget
from vbench.verify import Check

SIDES = tuple((side, side) for side in range(32, 352, 32))
MANY = plan(Sweep(("deit_t",), SIDES, ("parallel",)))


class Hanging(FakeLauncher):
    """Counts a cell in a second, but never one of 224 px or more; to verify a subject takes `verify_s`."""

    def __init__(self, clock: list[float], *, verify_s: float = 0.0) -> None:
        super().__init__()
        self.clock, self.verify_s = clock, verify_s
        self.asked: list[tuple[str, int]] = []  # jobs, and how many cells

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        self.asked.append((job, len(argument.get("cases", []))))
        if job not in ("count", "verify"):
            return super().run(job, argument, timeout_s)
        parts: dict[str, Any] = {}
        needed = [self.verify_s]
        if job == "count":
            needed = [1.0 if case["height"] < 224 else 1e9 for case in argument["cases"]]
            parts = super().run(job, argument, timeout_s).parts
        left, done = timeout_s, 0
        for seconds in needed:
            self.clock[0] += min(seconds, left)
            if seconds > left:
                return Ending("timeout", f"took longer than {timeout_s:g} s", dict(list(parts.items())[:done]))
            left, done = left - seconds, done + 1
        return super().run(job, argument, timeout_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(prepare.time, "monotonic", lambda: now[0])
    return now


def go(folder: Path, launcher: FakeLauncher, cases: list[Case], **options: Any) -> list[Record]:
    settings = sweeping.Settings(folder, "cpu", memory=folder / "memory", pairs="none", **options)
    return sweeping.run(cases, settings, Protocol(launches=1), launcher, Silent())


def test_a_count_that_hangs_costs_its_model_one_limit_and_what_was_counted_stays(
    tmp_path: Path, clock: list[float]
) -> None:
    records = go(tmp_path, Hanging(clock), MANY)
    most_s = 2 * prepare.COUNT_LIMIT_S + prepare.COUNT_EACH_S * (len(MANY) - 1)
    assert clock[0] <= most_s < prepare.COUNT_LIMIT_S * len(MANY)
    counted = {record.case["height"]: record.work is not None for record in records}
    assert counted == {side: side < 224 for side, _ in SIDES}
    reasons = {str(record.reason) for record in records if record.work is None}
    assert "MACs not counted: took longer than 165 s" in reasons
    assert "MACs not counted: the time to count 10 cells of deit_t was over" in reasons
    assert all(reason.startswith("MACs not counted: t") for reason in reasons)
    assert {record.status for record in records} == {"ok"}


def test_what_was_counted_before_the_time_was_over_is_remembered(tmp_path: Path, clock: list[float]) -> None:
    memory = tmp_path / "memory"
    for folder, wanted in (("first", [10, 1]), ("second", [4, 1])):
        launcher = Hanging(clock)
        settings = sweeping.Settings(tmp_path / folder, "cpu", memory=memory, pairs="none")
        sweeping.run(MANY, settings, Protocol(launches=1), launcher, Silent())
        assert [cells for job, cells in launcher.asked if job == "count"] == wanted


def test_the_limit_of_a_launch_is_one_of_counting_and_verifying_too(tmp_path: Path, clock: list[float]) -> None:
    cases = plan(Sweep(("vig_t",), SIDES[-2:], ("parallel",)))
    records = go(tmp_path, Hanging(clock, verify_s=50.0), cases, timeout_s=10.0)
    # Ten seconds for the operator, ten for the model, and for two counts that hang ten each and five for a second cell.
    assert clock[0] == 10.0 + 10.0 + 25.0
    assert {record.status for record in records} == {"ok"}
    stamp = records[0].verified
    assert stamp is not None
    assert stamp["failed"] == [f"{of}: not verified, took longer than 10 s" for of in ("gla", "vig_t")]


def test_a_verification_that_is_stopped_keeps_its_checks() -> None:
    check = asdict(Check("gla", "float64", "reference", "a trial", 0.0, 1e-10))

    class Stopped(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            return Ending("timeout", "took longer than 600 s", {"checks": [check] * 3})

    found = verify.verify("gla", Stopped(), gradients=False)
    assert (len(found.checks), found.ok) == (3, False)
    assert found.failed == ["gla: not verified, took longer than 600 s"]


def test_a_verification_tells_its_checks_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TELL_S", -1.0)
    (ask,) = verify.asks("mingru", [replace(verify.BRIEF, forms=("reference",), tokens=4)])
    told = [len(list(value)) for part, value in verify.job(ask[1]) if part == "checks"]
    assert len(told) > 2
    assert told[-1] > 0


def known(budget_s: float, first: Record, *cases: Case) -> Budget:
    agenda = Agenda(list(cases), [], Protocol(launches=1), {case.id: {} for case in cases}, {})
    agenda.keep(first)
    return Budget(agenda, budget_s, clock=lambda: 0.0)


def test_the_wait_for_torch_in_the_first_launch_is_not_expected_of_the_next() -> None:
    """It took 20 s, of which its own passes took 2: a second cell like it fits into 10 s."""
    first = make_record("deit_t", 224, wall_s=20.0)
    small, large = (replace(Case(**first.case), height=side, width=side) for side in (224, 256))
    assert known(10.0, first, small, large).next() == (large, 0)
    assert known(2.0, first, small, large).next() is None


def test_a_cell_is_expected_to_take_as_long_as_the_nearest_size_that_is_known() -> None:
    """After 64 px in 3 s and 2048 px in 200 s, 96 px fits into a minute."""
    cases = {side: Case(**make_record("deit_t", side).case) for side in (64, 96, 2048)}
    agenda = Agenda(list(cases.values()), [], Protocol(launches=1), {case.id: {} for case in cases.values()}, {})
    agenda.keep(make_record("deit_t", 64, wall_s=3.0))
    agenda.keep(make_record("deit_t", 2048, wall_s=200.0))
    assert Budget(agenda, 60.0, clock=lambda: 0.0).next() == (cases[96], 0)


class Deleting(FakeLauncher):
    """Does something to the folder of the sweep at its third launch."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do = do

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "measure" and len(self.measured) == 2:
            self.do()
        return super().run(job, argument, timeout_s)


def test_a_folder_that_is_deleted_in_mid_sweep_ends_it_with_one_line(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    launcher = Deleting(lambda: shutil.rmtree(folder))
    settings = sweeping.Settings(folder, "cpu", memory=tmp_path / "memory", pairs="none")
    with pytest.raises(OutputError) as error:
        sweeping.run(CASES, settings, Protocol(launches=1), launcher, Silent())
    assert len(str(error.value).splitlines()) == 1
    assert f"{folder} is gone" in str(error.value)
    assert len(launcher.measured) <= 3
    assert not folder.exists()


def test_the_first_error_is_shown_even_if_the_summary_cannot_be_written(tmp_path: Path) -> None:
    def spoil() -> None:
        (tmp_path / "run.json").mkdir()
        raise MemoryError("the first error")

    with pytest.raises(MemoryError, match="the first error"):
        go(tmp_path, Deleting(spoil), CASES)
    assert len(read(tmp_path)) >= 2


def calls(count: int, folder: Path) -> int:
    """The calls of Python functions by a sweep of so many cells."""
    cases, made = plan(Sweep(("deit_t",), tuple((32, 32 * n) for n in range(1, count + 1)), ("parallel",))), 0

    def see(frame: Any, event: str, _: Any) -> None:
        nonlocal made
        made += event == "call" and "vbench" in frame.f_globals.get("__name__", "")

    sys.setprofile(see)
    try:
        go(folder, FakeLauncher(), cases)
    finally:
        sys.setprofile(None)
    return made


def test_the_loop_costs_a_cell_no_more_in_a_longer_sweep(tmp_path: Path) -> None:
    few, many = calls(15, tmp_path / "few"), calls(60, tmp_path / "many")
    assert many < 4.4 * few


def test_a_rehearsal_costs_a_cell_no_more_in_a_longer_sweep() -> None:
    from vbench.flops.estimate import Estimate
    from vbench.sweeps.rehearse import rehearse

    counts = []
    for count in (50, 200):
        cases = plan(Sweep(("deit_t",), tuple((32, 32 * n) for n in range(1, count + 1)), ("parallel",)))
        guesses = dict.fromkeys(cases, Estimate(0.01, 2.0, 1.5, 10**8))
        made = 0

        def see(frame: Any, event: str, _: Any) -> None:
            nonlocal made
            made += event == "call" and "vbench" in frame.f_globals.get("__name__", "")

        sys.setprofile(see)
        try:
            rehearse(guesses, [], Protocol(launches=2))
        finally:
            sys.setprofile(None)
        counts.append(made)
    assert counts[1] < 4.4 * counts[0]
