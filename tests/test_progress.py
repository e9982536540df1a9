"""The bar of a sweep: its launches are in sight while models are verified, and its time left includes that."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from time import monotonic

import pytest
from fakes import make_record
from rich.console import Console

from vbench.commands.progress import Progress
from vbench.plan import Case, Protocol
from vbench.sweeps.prepare import Task
from vbench.sweeps.rest import of_launches

PROTOCOL = Protocol(launches=2, warmup_s=1.0, sample_s=3.0, throughput_s=5.0)
RECORD = make_record()
CASE = Case(**RECORD.case)
TASKS = [Task("verifying", "gla", 20.0), Task("verifying", "vig_t", 10.0), Task("counting", "vig_t", 5.0)]


def told(*walls_s: float) -> list[str]:
    """The lines of a sweep of one cell whose launches take so long."""
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        progress.planned(of_launches(CASE, range(PROTOCOL.launches), PROTOCOL), TASKS, PROTOCOL)
        for number in range(len(TASKS)):
            progress.prepares(number)
        for launch, wall_s in enumerate(walls_s):
            progress.doing(str(CASE))
            progress.done(
                replace(RECORD, launch=launch, wall_s=wall_s + 30, spent={"measured_s": wall_s, "warmup_s": 0.0}),
                of_launches(CASE, range(launch + 1, PROTOCOL.launches), PROTOCOL),
            )
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if line]  # older rich ends with one


def test_tasks_are_named_and_numbered_beside_the_launches() -> None:
    lines = told()
    heads = ["verifying gla 1/3", "verifying vig_t 2/3", "counting vig_t 3/3"]
    assert [line.partition("  (")[0] for line in lines] == [f"[0/2] {head}" for head in heads]
    left = [int(line.partition("about ")[2].split()[0]) for line in lines]
    assert (left[0] - left[1], left[1] - left[2]) == (20, 10)
    assert left[2] >= 5 + 10 + 5  # a launch that searches, and one that does not


def test_launches_correct_the_guess() -> None:
    """Without the 30 s in which the first one waits for torch."""
    quick, slow = (told(wall_s)[-1] for wall_s in (1.0, 99.0))
    assert quick.startswith("[1/2]")
    assert "about 1 s left" in quick
    assert "about 50 s left" in slow
    assert told(100.0, 3.0)[-1].endswith("(about 0 s left)")


def shown(width: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the bar on a terminal of this width, when the first task has been running for so long."""
    clock = iter([0.0, 0.0, *[seconds] * 1000])
    monkeypatch.setattr("vbench.commands.progress.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, legacy_windows=False)
    progress = Progress(console)  # not started: nothing draws beside us
    progress.planned(
        of_launches(CASE, range(12), PROTOCOL), [Task("verifying", "a_model_with_a_long_name", 20.0)], PROTOCOL
    )
    progress.prepares(0)
    progress._bar.update(
        progress._task, completed=6, last="vig_t recurrent 2048 px: 3056.9 ms [2891.7, 3230.4], 226 MiB" * 2
    )
    plain = Console(file=io.StringIO(), width=width)
    plain.print(progress._bar.get_renderable())
    assert isinstance(plain.file, io.StringIO)
    return plain.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_bar_count_time_and_name_are_in_sight_whatever_the_last_result_is(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, now, *last = shown(width, 25.0, monkeypatch)
    assert "━" in line
    assert " 6/12 " in line
    assert re.search(r"about \d+ s left", line)
    assert "for 25 s now" in line
    assert now.strip() == "now:  verifying a_model_with_a_long_name 1/1"
    assert last[0].startswith("last: vig_t recurrent 2048 px: 3056.9 ms")
    assert "".join(last).replace(" ", "").endswith("226MiB")  # wrapped, not cut
    assert max(map(len, (line, now, *last))) <= width


def test_no_more_time_is_left_than_until_the_deadline() -> None:
    console = Console(file=io.StringIO(), width=200)
    for seconds, said in ((3.0, r"\(at most [23] s left\)"), (1e6, r"\(about \d+ s left\)")):
        with Progress(console, monotonic() + seconds) as progress:
            progress.planned(of_launches(CASE, range(2), PROTOCOL), [Task("verifying", "gla", 20.0)], PROTOCOL)
            progress.prepares(0)
        assert isinstance(console.file, io.StringIO)
        assert re.search(said, console.file.getvalue().rstrip().splitlines()[-1])


def test_a_cell_that_is_not_supported_is_shown_and_is_no_progress() -> None:
    console = Console(file=io.StringIO(), width=200)
    with Progress(console) as progress:
        progress.planned(of_launches(CASE, range(2), PROTOCOL), [], PROTOCOL)
        progress.done(
            replace(RECORD, status="unsupported", reason="no such size"), of_launches(CASE, range(2), PROTOCOL)
        )
    assert isinstance(console.file, io.StringIO)
    assert "[0/2]" in console.file.getvalue()
    assert "unsupported, no such size" in console.file.getvalue()
    assert len(of_launches(replace(CASE, height=226, width=226, model="swin_t"), range(2), PROTOCOL)) == 0
