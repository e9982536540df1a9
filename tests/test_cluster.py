"""Shards of a sweep: how cells are shared out, sent, lost, sent again, and joined.

The cells are of attention models in recurrent mode: none exists, so that each has its row and no torch is needed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fake_nvml import FakeNvml
from fakes import make_record
from test_refine import noisy

from vbench import host
from vbench import plan as planning
from vbench.cluster import drive, local, shard, shards, sweep
from vbench.cluster import folder as files
from vbench.cluster.slurm import Slurm
from vbench.commands import cluster as options
from vbench.errors import UsageError
from vbench.flops.estimate import LAUNCH_OVERHEAD_S
from vbench.jobs.launch import Ending, Launcher
from vbench.plan import Case, Sweep, plan
from vbench.results.frame import frame
from vbench.results.store import FILE, Record, Store, read
from vbench.sweeps.companies import companies
from vbench.sweeps.loop import REFINED
from vbench.sweeps.rest import Rest

EMPTY = ("sweep", "--models", "deit_t,deit_s", "--modes", "recurrent", "--res", "224,384")
ONCE = planning.RIGORS["quick"]
NONE_EXISTS = [
    Case("deit_t", 16 * n, 16, "recurrent", None, 1, "float32", "cpu", attention="fused") for n in range(1, 61)
]


class TestSharingOut:
    CASES = plan(Sweep(("vig_t", "vil2_t", "deit_t"), ((224, 224), (384, 384), (512, 512)), batches=(1, 8)))

    def test_companies_and_what_shares_their_turns_stay_whole(self) -> None:
        together = companies(self.CASES)
        own = shards.groups(self.CASES, together)
        assert sorted(case.id for group in own for case in group) == sorted(case.id for case in self.CASES)
        of = {case: number for number, group in enumerate(own) for case in group}
        assert all(len({of[case] for case in company.cases}) == 1 for company in together)
        assert all(of[case] == of[replace(case, batch=1)] for case in self.CASES if not case.unsupported)
        assert len({of[case] for case in self.CASES if not case.unsupported}) == 3  # one a size

    @pytest.mark.parametrize("seconds", [[5.0, 4.0, 3.0, 3.0, 3.0], [9.0, 1.0, 1.0, 1.0], [1.0] * 7])
    def test_shards_take_about_equal_time(self, seconds: list[float]) -> None:
        small = [shards.Shard((case,), one, 2) for case, one in zip(NONE_EXISTS, seconds, strict=False)]
        found = shards.balanced(small, 3)
        assert sorted(case.height for one in found for case in one.cases) == [
            case.height for case in NONE_EXISTS[: len(seconds)]
        ]
        loads = [one.seconds for one in found]
        assert max(loads) <= max(*seconds, 4 / 3 * sum(seconds) / 3)  # the bound of this way of sharing out
        assert sum(one.rows for one in found) == 2 * len(seconds)

    def test_there_are_no_more_shards_than_groups(self) -> None:
        with Launcher() as launcher:
            assert len(shards.parted(NONE_EXISTS[:2], "auto", ONCE, launcher, 8)) == 2


class Forked:
    """A scheduler of this test: each job is a fork of this process, so it ends by real signals."""

    name, poll_s, settle_s, beside = "forked", 0.01, 0.0, None
    count = itertools.count()  # of all: no two commands have a job of one name

    def __init__(self, *, lasts: bool = True, before: Callable[[], None] = lambda: None) -> None:
        self.lasts, self.before = lasts, before
        self.children: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        self.sent: list[int] = []
        self.names: list[str] = []

    def submit(self, errands: Sequence[shard.Errand]) -> list[str]:
        for errand in errands:
            name = f"job-{next(self.count)}"
            self.sent.append(errand.number)
            self.names.append(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of forks of a process with threads
                child = os.fork()
            if not child:
                self._be(replace(errand, job=name))
            self.children[name] = child
        return self.names[-len(errands) :]

    def _be(self, errand: shard.Errand) -> None:
        code = 70
        warnings.simplefilter("ignore")  # as in a job, where they are no errors
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
            self.before()
            shard.run(errand)
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            os._exit(code)

    def alive(self, names: Collection[str]) -> dict[str, str]:
        for name, child in list(self.children.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self.codes[name] = os.waitstatus_to_exitcode(status)
                del self.children[name]
        return {name: "running" for name in names if name in self.children}

    def ended(self, name: str) -> str:
        return f"ended with {self.codes.get(name)}"

    def cancel(self, names: Collection[str]) -> None:
        for name in names:
            os.kill(self.children[name], signal.SIGTERM)

    def rest(self) -> None:
        pass


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tallies: list[drive.Tally] = []

    def stands(self, tally: drive.Tally) -> None:
        self.tallies.append(tally)

    def says(self, line: str) -> None:
        self.lines.append(line)


def planned(folder: Path, cases: Sequence[Case] = NONE_EXISTS, count: int = 2) -> files.Plan:
    parts = [shards.Shard(tuple(cases[number::count]), 1.0, len(cases[number::count])) for number in range(count)]
    made = files.Plan(ONCE, "none", False, tuple(case.id for case in cases), tuple(parts))
    return files.agree(folder, made, files.read_plan(folder))


def go(folder: Path, scheduler: Forked, heard: Heard, made: files.Plan, **terms: object) -> drive.Outcome:
    work = sweep.Sweep(folder, made, lambda _: [])
    return drive.run(work, scheduler, drive.Terms(300.0, **terms), heard)  # type: ignore[arg-type]


def ids(folder: Path) -> list[str]:
    return [record.case_id for record in read(folder)]


def waits(after: int) -> None:
    """In a job: measure so many cells and no more, until a signal comes."""
    done = shard._Watch.done

    def slow(self: shard._Watch, record: Record, rest: Rest) -> None:
        done(self, record, rest)
        if sum(line.count("\n") for line in (self._told._attempt / FILE).open()) >= after:
            time.sleep(60)

    shard._Watch.done = slow  # type: ignore[method-assign]


@contextmanager
def signalled(folder: Path, number: signal.Signals, scheduler: Forked) -> Iterator[None]:
    """Send a signal to the first job as soon as it has measured something."""
    poll = scheduler.alive

    def alive(names: Collection[str]) -> dict[str, str]:
        file = files.own(folder, 0) / "1" / FILE
        if child := scheduler.children.get(scheduler.names[0]):
            deadline = time.monotonic() + 30
            while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(child, number)
        return poll(names)

    scheduler.alive = alive  # type: ignore[method-assign]
    yield


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "preempted"])
def test_a_shard_that_is_ended_goes_on_where_it_was(tmp_path: Path, how: signal.Signals) -> None:
    scheduler, heard, made = Forked(), Heard(), planned(tmp_path)
    scheduler.before = lambda: waits(after=5) if scheduler.sent == [0] else None
    with signalled(tmp_path, how, scheduler):
        outcome = go(tmp_path, scheduler, heard, made)
    assert outcome.failed == {}
    assert scheduler.sent == [0, 1, 0]
    assert sorted(ids(tmp_path)) == sorted(case.id for case in NONE_EXISTS)  # each once
    first, second = files.attempts(tmp_path, 0)
    kept = (first / FILE).read_bytes()
    assert 0 < len(ids(first)) < 30
    assert (second / FILE).read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert any(
        line.startswith(f"shard 0 is sent again: its job {scheduler.names[0]} ended with") for line in heard.lines
    )
    last = heard.tallies[-1]
    assert (last.rows, last.of, last.measured, last.failed) == (60, 60, 2, 0)


def test_a_shard_that_always_fails_is_given_up_and_the_rest_is_joined(tmp_path: Path) -> None:
    cases = NONE_EXISTS[:4]
    scheduler = Forked(before=lambda: os.kill(os.getpid(), signal.SIGKILL))
    outcome = go(tmp_path, scheduler, Heard(), planned(tmp_path, cases, 1), again=1)
    assert scheduler.sent == [0, 0]
    assert "ended with -9 and left nothing in" in outcome.failed[0]
    assert "must be on a disk that every node shares" in outcome.failed[0]
    assert outcome.merged is not None
    assert outcome.merged.records == 0
    done = go(tmp_path, Forked(), Heard(), planned(tmp_path, cases, 1))  # the same command again
    assert (done.failed, len(ids(tmp_path))) == ({}, 4)


def test_what_would_fail_again_is_not_sent_again(tmp_path: Path) -> None:
    made = planned(tmp_path, NONE_EXISTS[:4])
    former = files.own(tmp_path, 0) / "1"
    former.mkdir(parents=True)
    (former / FILE).write_text("{half\n{half\n")
    scheduler = Forked()
    with pytest.warns(sweep.LeftOutWarning, match="line 1 is no JSON"):
        outcome = go(tmp_path, scheduler, Heard(), made)
    assert scheduler.sent == [0, 1]
    assert "line 1 is no JSON" in outcome.failed[0]
    assert len(ids(tmp_path)) == 2  # of the other shard


def test_detached_and_attached_again(tmp_path: Path) -> None:
    scheduler, heard, made = Forked(), Heard(), planned(tmp_path)
    outcome = go(tmp_path, scheduler, heard, made, detach=True)
    assert (outcome.merged, outcome.going_on) == (None, tuple(scheduler.names))
    assert go(tmp_path, scheduler, heard, planned(tmp_path)).failed == {}
    assert scheduler.sent == [0, 1]
    assert len(ids(tmp_path)) == 60
    assert go(tmp_path, scheduler, heard, planned(tmp_path)).merged.new == 0  # type: ignore[union-attr]
    assert scheduler.sent == [0, 1]  # nothing is left to send


def test_ctrl_c_leaves_the_jobs_of_a_scheduler_and_ends_all_others(tmp_path: Path) -> None:
    for lasts in (True, False):

        class Interrupted(Forked):
            def alive(self, names: Collection[str]) -> dict[str, str]:
                raise KeyboardInterrupt

        folder, heard = tmp_path / str(lasts), Heard()
        scheduler = Interrupted(lasts=lasts, before=lambda ends=not lasts: waits(after=5) if ends else None)
        with pytest.raises(KeyboardInterrupt):
            go(folder, scheduler, heard, planned(folder, NONE_EXISTS * 1))
        assert any(f"scancel {' '.join(scheduler.names)}" in line for line in heard.lines) == lasts
        for child in scheduler.children.values():
            _, status = os.waitpid(child, 0)
            assert (os.waitstatus_to_exitcode(status) == 0) == lasts
        whole = [files.state(folder, number) for number in (0, 1)]
        assert all(state and state.ended == files.COMPLETE for state in whole) == lasts


def test_shards_are_measured_anew_by_other_code_or_a_longer_limit(tmp_path: Path) -> None:
    made = planned(tmp_path, NONE_EXISTS[:4])
    go(tmp_path, Forked(), Heard(), made)
    (attempt,) = files.attempts(tmp_path, 1)
    state = files.state(tmp_path, 1)
    assert state is not None
    files.write_state(attempt, replace(state, code="older"))
    scheduler = Forked()
    go(tmp_path, scheduler, Heard(), made)
    assert scheduler.sent == [1]
    scheduler = Forked()
    drive.run(sweep.Sweep(tmp_path, made, lambda _: []), scheduler, drive.Terms(900.0), Heard())
    assert scheduler.sent == [0, 1]


def test_an_attempt_that_is_believed_dead_disturbs_nobody(tmp_path: Path) -> None:
    state = files.State("job", "code", 300.0)
    first = files.begin(tmp_path, 0, state)
    (first / FILE).write_text("1\n")
    second = files.begin(tmp_path, 0, state)
    with (first / FILE).open("a") as late:
        late.write("2\n")
    assert (second.name, (second / FILE).read_text()) == ("2", "1\n")
    assert [path.name for path in files.own(tmp_path, 0).iterdir() if path.name.startswith(".")] == []


def test_a_sweep_in_two_slots_of_this_machine(tmp_path: Path) -> None:
    """Through the command line: two processes on cores of their own, joined and reported."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    done = vbench(*EMPTY, "--on", "local:2", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[4/4] 2 shards: 2 measured" in done.stderr
    assert "deit_t has no recurrent mode" in done.stdout
    records = read(tmp_path / "run")
    assert len(records) == len({record.case_id for record in records}) == 4
    assert {record.load["beside"] for record in records if record.load} == {"1 other sweep of --on local:2"}
    logs = list((tmp_path / "run" / "shards" / "log").iterdir())
    cores = [line.split()[1] for log in logs for line in log.read_text().splitlines() if line.startswith("cores ")]
    assert len(set(cores)) == 2


def refused(folder: Path, *more: str) -> str:
    done = vbench(*EMPTY, "-o", "run", *more, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--on", "lsf"), "--on: 'lsf' is not slurm or local:K"),
        (("--on", "local:0"), "--on: 'local:0' is not slurm or local:K"),
        (("--on", "local:4000"), "4000 slots with 1 threads each need 4000 cores"),
        (("--on", "local:1", "--detach"), "--detach: the shards of --on local:1 end with this command"),
        (("--on", "local:1", "--partition", "gpu"), "--partition is for a scheduler"),
        (("--on", "local:1", "--budget", "10m"), "--budget: a scheduler decides when jobs begin"),
        (("--gres", "gpu:1"), "--gres goes with --on slurm"),
        (("--array-size", "3"), "--array-size goes with --on slurm or --on local:K"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    assert said in refused(tmp_path, *more)
    assert list(tmp_path.iterdir()) == []


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in refused(tmp_path, "--on", "slurm")
    assert "--time: '2 hours' is not a time" in refused(tmp_path, "--on", "slurm", "--time", "2 hours")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'vbench-backbones[cluster]'" in refused(tmp_path, "--on", "slurm")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_sweep(tmp_path: Path) -> None:
    planned(tmp_path / "run", NONE_EXISTS[:4])
    assert "holds shards of a sweep with other cells (4 are not asked for now, 4 are new)" in refused(
        tmp_path, "--on", "local:1"
    )
    (tmp_path / "run" / "shards" / "plan.json").write_text("{}")
    assert "plan.json cannot be read" in refused(tmp_path, "--on", "local:1")
    (tmp_path / "run" / "shards" / "plan.json").unlink()
    (tmp_path / "run" / FILE).write_text("\n")
    (tmp_path / "run" / FILE).write_text('{"schema": 2}\n')
    assert "lacks case, case_id" in refused(tmp_path, "--on", "local:1")


QUEUE = """#!/bin/sh
echo '7_0|RUNNING|None'
echo '7_1|PENDING|Priority'
echo '7_2|COMPLETED|None'
"""


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program in the place of one of Slurm's."""
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def test_what_the_queue_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    names = ["7_0", "7_1", "7_2", "7_3"]
    stand_in(tmp_path, "squeue", QUEUE)
    assert Slurm.alive_there(names) == {"7_0": "running", "7_1": "waiting Priority"}
    stand_in(tmp_path, "squeue", "#!/bin/sh\nexit 1\n")
    assert set(Slurm.alive_there(names)) == set(names)  # a controller that does not answer has ended no job


def test_jobs_in_the_queue_are_not_measured_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_jobs(tmp_path / "run", {0: files.Job("slurm", "7_0")})
    stand_in(tmp_path, "squeue", QUEUE)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = vbench(*EMPTY, "--on", "local:1", "-o", "run", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "in Slurm's queue: 7_0; attach to them with --on slurm, or end them with 'scancel 7_0'" in done.stderr


def test_what_is_asked_for() -> None:
    asked = ("gpu", "gpu:1", "90s", "lab", None, "a100", None)
    where = options.parse("slurm", asked, array_size=None, resubmit=None, detach=False, budget=None)
    assert where is not None
    assert [where.device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    from vbench.cluster.slurm import Asked

    own = Asked("gpu", "gpu:1", 90.0, "lab", None, "a100").parameters(threads=1)
    assert own == {
        **{"partition": "gpu", "gres": "gpu:1", "account": "lab", "constraint": "a100"},
        **{"exclusive": True, "mem": "0", "time": 2, "additional_parameters": {"requeue": True}},
    }
    assert Asked(exclusive=False).parameters(threads=4)["cpus_per_task"] == 5


def test_each_slot_has_a_gpu_and_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(uuids=("GPU-0", "GPU-1", "GPU-2")))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert local.slots(2, "cuda:0", 2) == [
        local.Slot((0, 1), "GPU-1", "CUDA_VISIBLE_DEVICES"),
        local.Slot((2, 3), "GPU-2", "CUDA_VISIBLE_DEVICES"),
    ]
    with pytest.raises(UsageError, match="shows 2 NVIDIA GPUs, and each slot takes one"):
        local.slots(3, "cuda:0", 1)
    assert local.slots(2, "cpu", 1) == [local.Slot((0, 1), None), local.Slot((2, 3), None)]


def test_the_plan_of_a_folder_comes_back(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert files.read_plan(tmp_path) == made
    values = json.loads((tmp_path / "shards" / "plan.json").read_text())
    assert values["protocol"]["rigor"] == "quick"
    with pytest.raises(UsageError, match="of a sweep with other protocol"):
        files.agree(tmp_path, replace(made, protocol=replace(ONCE, seed=1)), made)


def complete(folder: Path, number: int, records: Sequence[Record]) -> None:
    """A shard as if it had been measured."""
    attempt = files.begin(folder, number, files.State("job", host.code_digest(), 300.0, 0, files.COMPLETE))
    with Store(attempt) as store:
        for record in records:
            store.append(record)


def test_sizes_are_added_about_crossovers_of_all_shards(tmp_path: Path) -> None:
    sides = (224, 384, 640, 1024)
    own = [[noisy(model, side, 0.2) for model in ("vig_t", "deit_t")] for side in sides]
    parts = [[Case(**record.case) for record in records] for records in own]
    made = files.Plan(ONCE, "auto", True, (), tuple(shards.Shard(tuple(cases), 1.0, 2) for cases in parts))
    for number, records in enumerate(own):
        complete(tmp_path, number, records)
    added: list[list[Case]] = []

    def weigh(cases: Sequence[Case]) -> list[shards.Shard]:
        added.append(list(cases))
        return []  # so that nothing is measured here

    drive.run(sweep.Sweep(tmp_path, made, weigh), Forked(), drive.Terms(300.0), Heard())
    assert len(added) == REFINED
    assert {case.model for case in added[0]} == {"vig_t", "deit_t"}
    (side,) = {case.height for case in added[0]}
    assert 224 < side < 1024
    assert side not in sides


def test_retry_sends_the_shards_with_failures_alone(tmp_path: Path) -> None:
    cases = NONE_EXISTS[:2]
    made = planned(tmp_path, cases)
    for number, status in enumerate(("unsupported", "error")):
        about = {"case": asdict(cases[number]), "case_id": cases[number].id, "status": status}
        complete(tmp_path, number, [replace(make_record(), **about)])  # type: ignore[arg-type]
    scheduler = Forked()
    heard = Heard()
    files.write_jobs(tmp_path, {number: files.Job("forked", "job") for number in (0, 1)})
    go(tmp_path, scheduler, heard, made, retry=True)
    assert (scheduler.sent, heard.lines) == ([1], [])
    assert [record.status for record in read(tmp_path) if record.case_id == cases[1].id] == ["error", "unsupported"]


class Refusing:
    """A launcher that can estimate nothing."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        return Ending("error", "not here")


@pytest.mark.parametrize("attentions", [("fused",), ("fused", "unfused", "flash", "math")])
def test_shards_have_the_companies_of_the_whole_sweep(attentions: tuple[Any, ...]) -> None:
    """With four ways of attention there are too many cells for turns; parted, some would take turns all the same."""
    asked = Sweep(("vig_t", "deit_t"), ((224, 224), (384, 384)), ("parallel",), batches=(1,), attentions=attentions)
    cases = plan(asked)
    found = shards.parted(cases, "auto", ONCE, Refusing(), 3)  # type: ignore[arg-type]
    assert sorted(case.id for one in found for case in one.cases) == sorted(case.id for case in cases)
    together = [one.id for shard_ in found for one in companies(shard_.cases)]
    assert sorted(together) == sorted(one.id for one in companies(cases))
    assert len(found) == 2
    assert {one.seconds for one in found} == {len(cases) / 2 * (shards.UNKNOWN_S + LAUNCH_OVERHEAD_S)}


def test_rows_that_were_measured_side_by_side_say_so() -> None:
    beside = {"load_1min": 1.0, "free_bytes": 1, "beside": "1 other sweep of --on local:2"}
    records = [make_record("vig_t", 224), make_record("vig_t", 512, load=beside)]
    assert frame(records)["flags"].str.contains("side_by_side").tolist() == [False, True]
