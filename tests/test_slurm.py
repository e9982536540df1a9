"""A sweep on a real Slurm of two nodes, one of which breaks off. `make slurm` runs it; it takes some minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import slurm
from test_eval import noise_images

from vbench.cluster import evaluation
from vbench.cluster import folder as files
from vbench.plan import Sweep, plan
from vbench.results import accuracy
from vbench.results.store import read, read_turns
from vbench.sweeps.companies import companies

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(slurm.missing()), reason=f"not installed: {', '.join(slurm.missing())}"),
]
SIDES = (64, 96)
QUICK = ("--res", ",".join(map(str, SIDES)), "--rigor", "quick", "--seconds", "0.1", "--batch", "1")
CELLS = ("--models", "vig_t,deit_t", "--modes", "parallel", *QUICK)
EMPTY = ("--models", "deit_t,deit_s", "--modes", "recurrent", "--res", "224,384")  # no cell exists: no torch is needed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    with slurm.running(tmp_path_factory.mktemp("slurm")) as one:
        yield one


def vbench(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "vbench", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def test_a_sweep_outlives_a_node_that_breaks_off(cluster: slurm.Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("sweep", *CELLS, "--on", "slurm", "--array-size", "2", "-o", run)
    sent = vbench(*command, "--detach")
    assert (sent.returncode, sent.stdout) == (0, ""), sent.stderr
    jobs = files.read_jobs(run)
    assert set(jobs) == {0, 1}
    assert all(job.id in sent.stderr for job in jobs.values())
    slurm.until(lambda: len({cluster.node_of(job.id) for job in jobs.values()} - {""}) == 2, "both nodes work")

    def measured(number: int) -> list[bytes]:
        attempts = files.attempts(run, number)
        file = attempts[0] / "records.jsonl" if attempts else run / "none"
        return file.read_bytes().splitlines() if file.exists() else []

    slurm.until(lambda: len(measured(0)) >= 1, "a first launch", limit_s=300)
    node = cluster.node_of(jobs[0].id)
    cluster.crash(node)
    kept = measured(0)
    assert len(kept) >= 1
    assert files.state(run, 0).ended is None  # type: ignore[union-attr]
    done = vbench(*command)
    sys.stderr.write(sent.stderr + done.stderr)  # for `make slurm`
    assert done.returncode == 0, done.stderr
    assert "Restarts=1" in cluster.ask("scontrol", "--oneliner", "show", "job", jobs[0].id)  # by Slurm itself
    assert len(files.attempts(run, 0)) == 2

    cases = plan(Sweep(("vig_t", "deit_t"), tuple((side, side) for side in SIDES), ("parallel",), batches=(1,)))
    records, blocks = read(run), read_turns(run)
    launches = [(record.case_id, record.launch) for record in records]
    assert len(launches) == len(set(launches))
    assert {case for case, number in launches if number == 0} == {case.id for case in cases}
    assert {record.status for record in records} == {"ok"}
    numbers = [(block.company, block.block) for block in blocks]
    assert len(numbers) == len(set(numbers))
    assert {company for company, _ in numbers} == {company.id for company in companies(cases)}
    merged = (run / "records.jsonl").read_bytes().splitlines()
    assert set(kept) <= set(merged)  # what the first attempt had measured was not measured again


def test_a_preempted_shard_goes_on_where_it_was(cluster: slurm.Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("sweep", *CELLS, "--on", "slurm", "--array-size", "1", "-o", run)
    assert vbench(*command, "--detach").returncode == 0
    (job,) = files.read_jobs(run).values()

    def begun() -> bool:
        attempts = files.attempts(run, 0)
        return bool(attempts) and (attempts[0] / "records.jsonl").exists() and len(read(attempts[0])) >= 1

    slurm.until(begun, "a first launch", limit_s=300)
    cluster.ask("scontrol", "requeue", job.id)  # as a preemption does
    done = vbench(*command)
    assert done.returncode == 0, done.stderr
    first, *_ = files.attempts(run, 0)
    assert len(files.attempts(run, 0)) == 2
    assert {record.status for record in read(run)} == {"ok"}  # the signal to the whole job is no cell's error
    assert set((first / "records.jsonl").read_bytes().splitlines()) <= set(
        (run / "records.jsonl").read_bytes().splitlines()
    )


def test_what_slurm_refuses_is_one_line(cluster: slurm.Cluster, tmp_path: Path) -> None:
    done = vbench("sweep", *EMPTY, "--on", "slurm", "--partition", "none-such", "-o", tmp_path / "run")
    assert done.returncode == 2
    assert "Slurm refused the jobs" in done.stderr
    assert "Invalid partition name" in done.stderr
    assert files.read_jobs(tmp_path / "run") == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can hide a folder from a node")
def test_a_node_that_does_not_see_the_folder(cluster: slurm.Cluster, tmp_path: Path) -> None:
    run = tmp_path / "here" / "run"
    run.parent.mkdir()
    with cluster.blind(run.parent) as partition:
        command = ("sweep", *EMPTY, "--on", "slurm", "--array-size", "1", "--partition", partition, "-o", run)
        done = vbench(*command, "--resubmit", "0")
    assert done.returncode == 1
    assert f"left nothing in {run}/shards/000; the folder must be on a disk that every node shares" in done.stderr


def test_evaluations_on_two_nodes_have_the_counts_of_one_process(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """A job is put back into the queue, as a preemption does; the command is ended and attaches again."""
    noise_images(tmp_path / "data", 120)
    asked = ("eval", "--models", "timm/test_vit", "--res", "64,96", "--data", tmp_path / "data", "--batch", "4")
    asked += ("--checkpoint", "random", "--shard", "7", "--threads", "1", "--workers", "1", "--device", "cpu")
    one, run = tmp_path / "one", tmp_path / "run"
    assert vbench(*asked, "-o", one).returncode == 0
    command = (*asked, "--on", "slurm", "--array-size", "2", "-o", run)
    sent = vbench(*command, "--detach")
    assert (sent.returncode, sent.stdout) == (0, ""), sent.stderr
    home = evaluation.home(run)
    slurm.until(lambda: bool(files.attempts(home, 0)), "a first attempt", limit_s=300)
    cluster.ask("scontrol", "requeue", files.read_jobs(home)[0].id)
    done = vbench(*command)
    assert done.returncode == 0, done.stderr
    assert len(files.attempts(home, 0)) == 2
    own, other = ({row.eval_id: row for row in accuracy.measured([folder])} for folder in (run, one))
    assert own.keys() == other.keys()
    for key, row in own.items():
        pd.testing.assert_frame_equal(pd.read_parquet(row.predictions), pd.read_parquet(other[key].predictions))
    assert len(accuracy.read(run)) == len(accuracy.read(one))  # none was done twice
