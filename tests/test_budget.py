"""A sweep that ends in time, a sweep that adds sizes about a crossover, and the rehearsal of both."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fakes import make_record
from test_sweep import FakeLauncher, Silent
from test_turns import Seats

from vbench.errors import UsageError
from vbench.flops.estimate import Estimate
from vbench.jobs.launch import Ending
from vbench.options import seconds
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.results.frame import frame, of_folders
from vbench.results.store import read, read_turns
from vbench.sweeps import loop as sweeping
from vbench.sweeps.agenda import Agenda
from vbench.sweeps.blocks import Turns
from vbench.sweeps.budget import Budget
from vbench.sweeps.companies import companies
from vbench.sweeps.rehearse import rehearse

CASES = plan(Sweep(("vig_t", "deit_t"), ((224, 224), (384, 384), (1024, 1024))))


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400)])
def test_a_time_is_read(text: str, expected: float) -> None:
    assert seconds(text, "--budget") == expected


@pytest.mark.parametrize("text", ["10", "m", "10 m", "0s", "-5m", "5d", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget: '.*' is not a time; write it like 90s, 10m or 1h30m"):
        seconds(text, "--budget")


def guesses(*sides: int) -> dict[Case, Estimate]:
    """Attention takes 40 ms at 224 px and grows with the fourth power of the side, ViG 80 ms and the square."""
    found = {}
    for case in plan(Sweep(("vig_t", "deit_t"), tuple((side, side) for side in sides))):
        if not case.unsupported:
            side = case.height / 224
            call = 0.04 * side**4 if case.model == "deit_t" else 0.08 * side**2
            found[case] = Estimate(call, 2.0 + 8 * call, 1.5 + 5 * call, 10**8)
    return found


def rehearsed(budget_s: float | None, *sides: int) -> Any:
    known = guesses(*sides)
    return rehearse(known, companies(list(known)), Protocol(), budget_s)


def test_a_rehearsal_without_a_budget_does_all_that_the_protocol_says() -> None:
    found = rehearsed(None, 224, 1024)
    cells = {(case.model, case.mode, case.height): count for case, count in found.launches.items()}
    assert cells["deit_t", "parallel", 224] == 8
    assert cells["deit_t", "parallel", 1024] == 1  # its turns are its launches
    assert found.blocks >= 5  # three, and two of slow calls
    assert found.wishes == []


@pytest.mark.parametrize("budget_s", [20.0, 60.0, 300.0])
def test_a_budget_is_kept_and_small_images_come_first(budget_s: float) -> None:
    found = rehearsed(budget_s, 224, 384, 1024, 2048)
    assert found.spent_s <= budget_s
    measured = {case.height for case in found.launches}
    assert all(case.height >= max(measured) for case in found.unmeasured)
    assert any("more" in wish for wish in found.wishes)
    if budget_s == 20.0:
        assert found.unmeasured
        assert f"{len(found.unmeasured)} cells were not measured" in found.wishes[0]


def test_more_time_is_spent_where_an_interval_is_widest() -> None:
    few, many = rehearsed(200.0, 224), rehearsed(2000.0, 224)
    assert few.blocks < many.blocks
    assert many.wishes == []  # all is as well known as was asked for, and the rest of the time is not used
    assert many.spent_s < 2000.0


def test_what_is_known_least_comes_next() -> None:
    """Two cells with launches: one repeats to 1 %, one scatters by 40 %."""
    cases = plan(Sweep(("vig_t", "deit_t"), ((224, 224),), ("parallel",)))
    scatter = {cases[0].id: 0.4, cases[1].id: 0.01}
    chance = random.Random(0)
    held = {
        case.id: {
            launch: make_record(
                case.model,
                launch=launch,
                wall_s=2.0,
                latency={"samples_ms": [100 * math.exp(chance.gauss(0, scatter[case.id]))] * 9, "batch": 1},
            )
            for launch in range(4)
        }
        for case in cases
    }
    agenda = Agenda(list(cases), [], Protocol(), held, {})
    assert Budget(agenda, 100.0, clock=lambda: 0.0).next() == (cases[0], 4)
    assert Budget(agenda, 100.0, clock=lambda: 99.0).next() is None


class Slow(FakeLauncher):
    """A launch takes as long as its image is large, on a clock of its own."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job != "measure":
            return super().run(job, argument, timeout_s)
        needed = 5.0 * (argument["case"]["height"] / 224) ** 2
        self.clock[0] += min(needed, timeout_s)
        return super().run(job, argument, timeout_s) if needed <= timeout_s else Ending("timeout", "took too long")


def test_a_cell_without_time_has_a_row_with_the_reason_and_is_measured_when_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: clock[0])

    def go(deadline: float | None) -> Silent:
        settings = sweeping.Settings(tmp_path, "cpu", memory=tmp_path / "m", pairs="none", deadline=deadline)
        sweeping.run(CASES, settings, Protocol(launches=1), Slow(clock), told := Silent())
        return told

    told = go(50.0)
    assert clock[0] <= 50.0
    table = of_folders([tmp_path]).set_index(["model", "mode", "height"])
    assert table["status"]["vig_t", "parallel", 224] == "ok"
    assert table["status"]["vig_t", "parallel", 1024] == "timeout"
    assert "the time of the sweep was over; it takes about" in table["reason"]["vig_t", "parallel", 1024]
    assert any("cells were not measured" in line for line in told.heard)
    clock[0] = 0.0
    go(None)
    assert (of_folders([tmp_path])["status"] == "timeout").sum() == 0


class Thorough(Slow):
    """To verify a part of a model takes a minute, if there is one."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job != "verify":
            return super().run(job, argument, timeout_s)
        self.clock[0] += min(60.0, timeout_s)
        return super().run(job, argument, timeout_s) if timeout_s >= 60.0 else Ending("timeout", "took too long")


def test_the_budget_ends_what_comes_before_measuring_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: clock[0])
    cases = plan(Sweep(("vig_t", "deit_t"), ((224, 224),)))
    settings = sweeping.Settings(tmp_path, "cpu", memory=tmp_path / "m", pairs="none", deadline=50.0)
    sweeping.run(cases, settings, Protocol(launches=1), launcher := Thorough(clock), Silent())
    assert clock[0] <= 50.0
    assert launcher.counted == 0
    found = of_folders([tmp_path]).set_index(["model", "mode", "height"])
    assert found["status"]["vig_t", "parallel", 224] == "timeout"
    assert found["status"]["deit_t", "recurrent", 224] == "unsupported"
    assert len(found) == len(cases)


class Crossing(Seats):
    """DeiT's time grows with the fourth power of the side, ViG's with the square; they meet at 500 px."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if "case" in argument:
            side = argument["case"]["height"] / 500
            self.ms = {"deit_t parallel": 60 * side**4, "vig_t parallel": 60 * side**2}
        return super().run(job, argument, timeout_s)


def test_sizes_are_added_about_a_crossover_until_it_is_sharp(tmp_path: Path) -> None:
    cases = plan(Sweep(("vig_t", "deit_t"), ((224, 224), (1024, 1024)), ("parallel",)))
    protocol = Protocol(launches=2, turns_s=1.0, rounds=4)

    def go(folder: Path, *, refine: bool) -> list[int]:
        settings = sweeping.Settings(folder, "cpu", memory=folder / "memory", refine=refine)
        sweeping.run(cases, settings, protocol, Crossing({}), Silent())
        table = frame(read(folder), read_turns(folder))
        return sorted(set(table["height"]))

    assert go(tmp_path / "without", refine=False) == [224, 1024]
    sides = go(tmp_path / "with", refine=True)
    assert len(sides) > 2
    inside = sides.index(next(side for side in sides if side >= 500))
    assert sides[inside] / sides[inside - 1] < (1024 / 224) ** 0.5
    assert all(side % 16 == 0 for side in sides)
    before = len(read(tmp_path / "with")), len(read_turns(tmp_path / "with"))
    go(tmp_path / "with", refine=True)
    assert (len(read(tmp_path / "with")), len(read_turns(tmp_path / "with"))) == before


def test_a_slow_cell_that_takes_no_turns_has_as_many_launches_as_fit() -> None:
    protocol = Protocol()
    first = make_record(wall_s=9.0, spent={"memory_s": 1.0, "throughput_s": 2.0})  # 6 s for a later launch
    held = {0: first}
    assert [sweeping_pending(n, held, protocol) for n in range(1, 8)] == [True] * 5 + [False] * 2


def sweeping_pending(launch: int, held: dict[int, Any], protocol: Protocol) -> bool:
    from vbench.sweeps.agenda import pending

    return pending(launch, held, protocol)


def test_turns_rest_until_all_is_known() -> None:
    cases = [replace(case) for case in CASES if case.height == 224 and not case.unsupported]
    together = companies(cases)
    agenda = Agenda(cases, together, Protocol(launches=1), {case.id: {} for case in cases}, {})
    rest = agenda.rest()
    assert sum(isinstance(task, Turns) for task in rest) == 3
    assert sum(not isinstance(task, Turns) for task in rest) == 3


def test_a_budget_through_the_command_line(tmp_path: Path) -> None:
    done = vbench("sweep", "--models", "vig_t", "--res", "64", "--budget", "soon", "-o", str(tmp_path / "run"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--budget: 'soon' is not a time" in done.stderr
    assert not (tmp_path / "run").exists()
    plan_ = vbench("plan", "--models", "vig_t", "--modes", "parallel", "--res", "64", "--budget", "5m")
    assert plan_.returncode == 0, plan_.stderr
    assert "blocks of turns" in plan_.stdout
