"""`vbench eval --on`: evaluations in shards, shared out, killed, sent again, and joined.

Most of it is without torch: what evaluates here writes predictions that follow from the place of an image.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import vbench
from test_cluster import Forked, Heard
from test_eval import noise_images
from test_eval_records import ASKED

from vbench.accuracy import predictions
from vbench.accuracy.run import Settings, Survey
from vbench.cluster import drive, evaluation, merge, shard
from vbench.cluster import folder as files
from vbench.errors import UsageError
from vbench.jobs.launch import Ending
from vbench.reports import accuracy as report
from vbench.results import accuracy

COUNT, SIZE = 23, 4  # images; of a shard
WEIGHTS = {"vig_t": {"checkpoint": "random", "path": None, "sha256": None}}
FOUND = Survey({"count": COUNT, "parts": [], "digest": "d"}, {"vig_t": {"note": ""}}, WEIGHTS)
ASKED_FOR = [replace(ASKED, height=side, width=side) for side in (32, 48, 64)]
OF = 6  # shards of images of each


class Bare:
    """In the place of the launcher of a job. `fails`: where it ends; `waits`: the attempt that goes no further."""

    waits = "nowhere"
    fails: Callable[[str, int], bool] = staticmethod(lambda model, number: False)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "probe":
            return Ending("ok", parts={"gpu": None})
        for number, begin, end in argument["shards"]:
            if self.fails(argument["asked"]["model"], number):
                return Ending("oom", "out of memory")
            draws = np.random.default_rng([argument["asked"]["height"], number])
            top = draws.permuted(np.tile(np.arange(6, dtype=np.int16), (end - begin, 1)), axis=1)[:, :5]
            seconds = {"wall_s": 1.0, "loader_s": 1.0, "model_s": 1.0}
            facts = predictions.Facts(argument["eval_id"], argument["conditions"], number, seconds, 1, 1)
            names = [f"{place}.png" for place in range(begin, end)]
            place = Path(argument["folder"])
            predictions.write(place, facts, names, [[0]] * len(names), top, {}, [""] * len(names))
            if self.waits in argument["folder"] and number == 1:
                time.sleep(60)
        return Ending("ok")


@pytest.fixture(autouse=True)
def bare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "full" not in request.keywords:
        monkeypatch.setattr(shard, "_OfJob", Bare)


def planned(run: Path, count: int, found: Survey = FOUND) -> evaluation.Plan:
    settings = Settings(run, "data", "cpu", 1, SIZE, 1, 1, 300.0)
    parts = evaluation.parted(ASKED_FOR, found, SIZE, count)
    plan = evaluation.Plan(tuple(ASKED_FOR), found, evaluation.settings_of(settings), parts)
    evaluation.write_plan(run, plan)
    assert evaluation.read_plan(run) == plan
    return plan


def go(run: Path, scheduler: Forked, plan: evaluation.Plan, heard: Heard | None = None) -> drive.Outcome:
    terms = drive.Terms(300.0, retry=True, again=2)
    return drive.run(evaluation.Evaluations(run, plan), scheduler, terms, heard or Heard())  # type: ignore[arg-type]


def told(run: Path) -> list[dict[str, Any]]:
    found = sorted(accuracy.measured([run]), key=lambda row: (row.model, row.height))
    return [asdict(row) | {"predictions": pd.read_parquet(row.predictions).to_json()} for row in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one shard alone finds."""
    run = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "_OfJob", Bare)
        assert go(run, Forked(), planned(run, 1)).failed == {}
    return told(run)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "preempted"])
def test_a_shard_that_is_ended_goes_on_and_the_counts_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, whole: list[dict[str, Any]]
) -> None:
    plan, scheduler, heard = planned(tmp_path, 2), Forked(), Heard()
    home, poll = evaluation.home(tmp_path), scheduler.alive
    monkeypatch.setattr(Bare, "waits", "/000/1/")

    def alive(names: Collection[str]) -> dict[str, str]:
        if child := scheduler.children.get(scheduler.names[0]):
            deadline = time.monotonic() + 30
            while not list((files.own(home, 0) / "1").glob("accuracy/*.shards/000001.parquet")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(child, how)
        return poll(names)

    scheduler.alive = alive  # type: ignore[method-assign]
    assert go(tmp_path, scheduler, plan, heard).failed == {}
    assert scheduler.sent == [0, 1, 0]
    assert told(tmp_path) == whole
    assert len(whole) == 3
    first, second = files.attempts(home, 0)
    assert len(list(first.glob("accuracy/*.shards/*.parquet"))) == 2
    kept = accuracy.read(first)
    assert accuracy.read(second)[: len(kept)] == kept
    assert len(accuracy.read(tmp_path)) == 3 * OF  # none was done twice
    assert (heard.tallies[-1].rows, heard.tallies[-1].of, heard.tallies[-1].measured) == (3 * OF, 3 * OF, 2)
    assert go(tmp_path, Forked(), plan).merged.new == 0  # type: ignore[union-attr]
    found = merge.merge([path for number in (0, 1) for path in files.attempts(home, number)], tmp_path / "again")
    assert found.accuracies == 3 * OF
    assert told(tmp_path / "again") == whole


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 18, 40])
def test_pieces_are_all_images_once_in_about_equal_parts(count: int) -> None:
    parts = evaluation.parted(ASKED_FOR, FOUND, SIZE, count)
    done = [(piece.evaluation, number) for part in parts for piece in part for number in range(piece.begin, piece.end)]
    assert done == [(place, number) for place in range(3) for number in range(OF)]
    pixels = [asked.height * asked.width for asked in ASKED_FOR]
    loads = [sum(SIZE * (p.end - p.begin) * pixels[p.evaluation] for p in part) for part in parts]
    assert len(parts) <= count
    assert max(loads) <= sum(COUNT * one for one in pixels) / count + SIZE * pixels[-1]


def test_a_failure_is_a_row_and_is_tried_again_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(Bare, "fails", staticmethod(lambda model, number: number == 3))
    plan = planned(tmp_path, 2)
    assert go(tmp_path, Forked(), plan).failed == {}
    assert accuracy.measured([tmp_path]) == []
    assert all("oom, out of memory" in line for line in report.unfinished([tmp_path]))
    monkeypatch.setattr(Bare, "fails", staticmethod(lambda model, number: False))
    scheduler = Forked()
    assert go(tmp_path, scheduler, plan).failed == {}
    assert scheduler.sent == [0, 1]
    assert told(tmp_path) == whole


def test_weights_that_a_job_does_not_see_are_told_and_not_tried_again(tmp_path: Path) -> None:
    weights = {"vig_t": {"checkpoint": "vig_t.pth", "path": str(tmp_path / "gone" / "vig_t.pth"), "sha256": "0"}}
    scheduler = Forked()
    outcome = go(tmp_path, scheduler, planned(tmp_path, 1, replace(FOUND, weights=weights)))
    assert scheduler.sent == [0]
    assert outcome.failed[0].startswith("vig_t: its job does not see the weights, vig_t.pth; put them on a disk")


def test_nodes_that_differ_are_not_added_up(tmp_path: Path) -> None:
    plan = planned(tmp_path, 1)
    go(tmp_path, Forked(), plan)
    assert evaluation.apart(tmp_path, plan) == []
    file = tmp_path / accuracy.FILE
    shards = [replace(one, conditions="other", host={"device_name": "H9"}) for one in accuracy.read(tmp_path)[1::2]]
    both = [shards.pop(0) if number % 2 else one for number, one in enumerate(accuracy.read(tmp_path))]
    file.unlink()
    accuracy.append(tmp_path, both)
    assert accuracy.measured([tmp_path]) == []
    (line, *_) = evaluation.apart(tmp_path, plan)
    assert line.startswith("vig_t 32 float32: its images were evaluated on machines or versions that differ (")
    assert "H9" in line


def test_a_run_of_other_evaluations(tmp_path: Path) -> None:
    plan = planned(tmp_path, 2)
    settings = Settings(tmp_path, "data", "cpu", 1, SIZE, 1, 1, 300.0)
    evaluation.agree(tmp_path, ASKED_FOR, FOUND, settings, plan)
    other = replace(FOUND, images={**FOUND.images, "digest": "e"})
    with pytest.raises(UsageError, match=r"with other models, sizes or preprocessing, images, --batch\. Take another"):
        evaluation.agree(tmp_path, ASKED_FOR[:1], other, replace(settings, batch=2), plan)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--on", "lsf"), "--on: 'lsf' is not slurm or local:K"),
        (("--gres", "gpu:1"), "--gres goes with --on slurm"),
        (("--on", "local:1", "--detach"), "--detach: the shards of --on local:1 end with this command"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    done = vbench("eval", "--models", "vig_t", "--data", "data", *more, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_in_two_slots_of_this_machine_the_counts_are_those_of_one_process(tmp_path: Path) -> None:
    """Through the command line, with a tiny model of timm."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    noise_images(tmp_path / "data", 40)
    asked = ["eval", "--models", "timm/test_vit", "--res", "32,48", "--data", "data", "--checkpoint", "random"]
    asked += ["--shard", "7", "--batch", "4", "--threads", "1", "--workers", "1", "--device", "cpu"]
    done = [
        vbench(*asked, "-o", name, *more, cwd=tmp_path) for name, more in (("one", ()), ("two", ("--on", "local:2")))
    ]
    assert [one.returncode for one in done] == [0, 0], done[1].stderr
    assert "[12/12] 2 shards: 2 measured" in done[1].stderr
    one, two = ({row.eval_id: row for row in accuracy.measured([tmp_path / name])} for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, own in one.items():
        assert (own.height, own.top1, own.top5) == (two[key].height, two[key].top1, two[key].top5)
        pd.testing.assert_frame_equal(pd.read_parquet(own.predictions), pd.read_parquet(two[key].predictions))
    again = vbench(*asked, "-o", "two", "--on", "local:2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "running" not in again.stderr  # nothing is left to do
    refused = vbench(*asked, "-o", "two", "--on", "local:2", "--limit", "9", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "holds shards of evaluations with other models, sizes or preprocessing, images" in refused.stderr
