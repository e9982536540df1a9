"""A model that refuses what it is given, in any phase of a sweep, costs its own cells their figures alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from test_sweep import FakeLauncher, Silent
from test_turns import Seats

from vbench import verify
from vbench.errors import ResolutionError, UsageError
from vbench.flops import estimate
from vbench.jobs.launch import Ending
from vbench.plan import Protocol, Sweep, plan
from vbench.results.frame import of_folders
from vbench.results.store import Record, read, read_turns
from vbench.sweeps import loop as sweeping

CASES = plan(Sweep(("vig_t", "deit_t"), ((224, 224), (384, 384)), ("parallel",)))
SAID = "deit_t takes no 384 px; take 224"


class Refusing(FakeLauncher):
    """DeiT raises a usage error at 384 px in certain jobs."""

    def __init__(self, *jobs: str) -> None:
        super().__init__()
        self.jobs = jobs

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        given = [argument["case"]] if "case" in argument else argument.get("cases", [])
        if job in self.jobs and any(case["model"] == "deit_t" and case["height"] == 384 for case in given):
            raise ResolutionError(SAID)
        return super().run(job, argument, timeout_s)


def go(folder: Path, launcher: FakeLauncher, cases: Any = CASES, **options: Any) -> list[Record]:
    settings = sweeping.Settings(folder, "cpu", memory=folder / "memory", **{"pairs": "none", **options})
    return sweeping.run(cases, settings, Protocol(launches=1), launcher, Silent())


def ends(folder: Path) -> dict[tuple[str, int], tuple[str, str | None]]:
    return {(r.case["model"], r.case["height"]): (r.status, r.reason) for r in read(folder)}


def test_a_usage_error_of_a_launch_is_a_row_that_a_resume_keeps_and_retry_measures(tmp_path: Path) -> None:
    go(tmp_path, Refusing("measure"))
    found = ends(tmp_path)
    assert found.pop(("deit_t", 384)) == ("error", SAID)
    assert set(found.values()) == {("ok", None)}
    go(tmp_path, again := Refusing("measure"))
    assert again.measured == []
    assert "error" in set(of_folders([tmp_path])["status"])
    go(tmp_path, retried := FakeLauncher(), retry=True)
    assert [case.height for case in retried.measured] == [384]
    assert set(of_folders([tmp_path])["status"]) == {"ok"}


def test_a_usage_error_while_counting_costs_the_cell_its_count(tmp_path: Path) -> None:
    go(tmp_path, Refusing("count"))
    assert ends(tmp_path)["deit_t", 384] == ("ok", f"MACs not counted: {SAID}")
    assert [record.work is not None for record in read(tmp_path)].count(False) == 1


def test_a_usage_error_while_verifying_is_on_the_stamp(tmp_path: Path) -> None:
    class Unverified(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "verify" and argument["subject"] == "vig_t":
                raise UsageError("vig_t returned a list")
            return super().run(job, argument, timeout_s)

    records = go(tmp_path, Unverified())
    assert {record.status for record in records} == {"ok"}
    (stamp,) = {json.dumps(record.verified) for record in records if record.case["model"] == "vig_t"}
    assert json.loads(stamp)["failed"] == ["vig_t: not verified, vig_t returned a list"]
    verdict = verify.verify("vig_t", Unverified())
    assert (verdict.ok, verdict.reason) == (False, "vig_t returned a list")


def test_a_usage_error_in_turns_is_the_blocks_and_the_sweep_goes_on(tmp_path: Path) -> None:
    class Standing(Seats):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "take_rounds" and argument["case"]["height"] == 384:
                raise UsageError(SAID)
            return super().run(job, argument, timeout_s)

    settings = sweeping.Settings(tmp_path, "cpu", memory=tmp_path / "memory")
    protocol = Protocol(launches=1, turns_s=0.1, rounds=2, company_s=0.0)
    standing = Standing({"deit_t parallel": 2.0, "vig_t parallel": 3.0})
    sweeping.run(CASES, settings, protocol, standing, Silent())
    blocks = {(block.cases[0]["height"], block.status) for block in read_turns(tmp_path)}
    assert blocks == {(224, "ok"), (384, "error")}
    assert any(SAID in (block.reason or "") for block in read_turns(tmp_path))


def test_a_batch_that_the_model_refuses_ends_the_search_for_the_largest_one_below_it(tmp_path: Path) -> None:
    class Small(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "attempt" and argument["case"]["batch"] > 11:
                raise UsageError("deit_t takes 11 images at most")
            return super().run(job, argument, timeout_s)

    cases = [replace(case, batch="max") for case in CASES if case.model == "deit_t" and case.height == 224]
    (record,) = go(tmp_path, launcher := Small(), cases)
    assert launcher.batches == [11]
    assert record.throughput is not None
    assert (12, "unsupported") in {(probe["size"], probe["status"]) for probe in record.throughput["probes"]}


def test_a_usage_error_while_a_plan_is_estimated_is_a_row_of_the_plan() -> None:
    class Foreseeing(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "peaks":
                return Ending("error", "none here")
            raise UsageError(SAID)

    found, _ = estimate.run(CASES, Protocol(), Foreseeing())
    assert set(found) == {SAID}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    (folder / "choosy.py").write_text(
        """
from torch import nn
from vbench.errors import ResolutionError

class Net(nn.Module):
    def __init__(self, img_size=64):
        super().__init__()
        if img_size > 64:
            raise ResolutionError(f"choosy takes up to 64 px, not {img_size}")
        self.c = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x):
        return self.c(x).mean((2, 3))

def sixteen():
    return 16
"""
    )
    return folder


def test_a_users_model_that_refuses_a_size_is_measured_at_the_others(room: Path) -> None:
    asked = ("--models", "choosy:Net,choosy:sixteen", "--res", "32,96", "--modes", "parallel", "--batch", "1")
    brief = ("--rigor", "quick", "--seconds", "0.02", "--pairs", "none", "--device", "cpu", "-o", "run")
    done = vbench("sweep", *asked, *brief, cwd=room)
    assert done.returncode == 1, done.stderr
    found = ends(room / "run")
    assert found["choosy:Net", 32] == ("ok", None)
    status, reason = found["choosy:Net", 96]
    assert status == "unsupported"
    assert "ResolutionError: choosy takes up to 64 px, not 96" in str(reason)
    assert "64x64 works" in str(reason)
    assert {found["choosy:sixteen", side][0] for side in (32, 96)} == {"error"}
    assert "returned int" in str(found["choosy:sixteen", 32][1])
    assert "choosy:Net" in done.stdout


def test_other_commands_go_on_beside_a_size_that_is_refused(room: Path) -> None:
    counted = vbench("flops", "choosy:Net", "--res", "32,96", "--json", cwd=room)
    assert counted.returncode == 1
    assert [one["height"] for one in json.loads(counted.stdout)] == [32]
    assert "choosy:Net 96 parallel float32 cannot be counted" in counted.stderr
    predicted = vbench("memory", "choosy:Net", "--res", "32,96", "--json", cwd=room)
    assert predicted.returncode == 1
    assert [row["height"] for row in json.loads(predicted.stdout)] == [32]
    assert "cannot be predicted" in predicted.stderr
    largest = vbench("maxres", "choosy:Net", "--limit", "128", "--device", "cpu", cwd=room)
    assert largest.returncode == 0, largest.stderr
    assert "64 px fit" in largest.stdout
    assert "96 px is refused" in largest.stdout
