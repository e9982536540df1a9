"""The bar of a sweep: its launches are in sight while models are verified, and its time left includes that."""

from __future__ import annotations

import io
from dataclasses import replace

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
