"""The loop resumes, types its failures, and loses nothing to a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import vbench
from fakes import latency, make_record

from vbench import host
from vbench.errors import OutputError
from vbench.jobs.launch import Ending
from vbench.plan import RIGORS, Case, Protocol, Sweep, plan, schedule
from vbench.reports import tables
from vbench.results import clean
from vbench.results.frame import frame
from vbench.results.pairs import Key, PairedRatio
from vbench.results.store import Record, TurnBlock, read, read_turns
from vbench.sweeps import loop as sweeping
from vbench.sweeps.agenda import pending
from vbench.sweeps.prepare import Task
from vbench.sweeps.rest import Rest
from vbench.verify import Check

CASES = plan(Sweep(("vig_t", "deit_t"), ((224, 224), (384, 384))))


class FakeLauncher:
    """Answers at once, as told; remembers what it was asked."""

    def __init__(self, endings: dict[tuple[str, int], Ending] | None = None, broken: tuple[str, ...] = ()) -> None:
        self.endings = endings or {}
        self.broken = broken
        self.measured: list[Case] = []
        self.verified: list[str] = []
        self.extents: list[tuple[str, bool, bool]] = []  # subject, values, gradients
        self.batches: list[int | None] = []
        self.whole: list[bool] = []
        self.counted = 0

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "verify":
            self.verified.append(argument["subject"])
            extent = argument["extent"]
            self.extents.append((argument["subject"], extent.get("values", True), extent["gradients"]))
            error = 1.0 if argument["subject"] in self.broken else 0.0
            check = Check(argument["subject"], "float64", "reference", "a trial", error, 1e-10)
            return Ending("ok", None, {"checks": [asdict(check)]})
        if job == "attempt":
            batch = argument["case"]["batch"]
            return Ending("ok", None, {"memory": {"peak_bytes": batch}}) if batch <= 37 else Ending("oom", "no memory")
        if job == "count":
            self.counted += 1
            counts = {}
            for case in (Case(**fields) for fields in argument["cases"]):
                made_up = make_record(case.model, case.height)
                counts[case.id] = {"work": made_up.work, "second_count": made_up.second_count}
            return Ending("ok", None, counts)
        if job == "roof":
            return Ending("ok", None, {"flops_per_s": 1e15, "bytes_per_s": 1e12, "copy_bytes_per_s": 1e11})
        case = Case(**argument["case"])
        made_up = make_record(case.model, case.height)
        self.measured.append(case)
        self.batches.append(argument["batch"])
        self.whole.append(argument["launch"] == 0)
        keys = ("memory", "warmup", "latency", "throughput", "state", "spent")
        parts = {key: getattr(made_up, key) for key in keys}
        return self.endings.get((case.model, case.height), Ending("ok", None, parts))


class Silent:
    """Watches a sweep and says nothing."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.left: list[int] = []
        self.tasks: list[str] = []

    def planned(self, rest: Rest, tasks: list[Task], protocol: Protocol) -> None:
        self.tasks = [str(task) for task in tasks]

    def prepares(self, number: int) -> None:
        self.heard.append(self.tasks[number])

    def doing(self, what: str) -> None:
        self.heard.append(what)

    def done(self, record: Record, rest: Rest) -> None:
        self.left.append(len(rest))

    def took_turns(self, block: TurnBlock, known: dict[Key, PairedRatio], rest: Rest) -> None:
        self.left.append(len(rest))

    def stopped(self, wishes: list[str]) -> None:
        self.heard += wishes


ONCE = Protocol(launches=1)


def go(folder: Path, launcher: FakeLauncher, protocol: Protocol = ONCE, **options: Any) -> list[Record]:
    settings = sweeping.Settings(folder, "cpu", memory=folder / "memory", pairs="none", **options)
    return sweeping.run(CASES, settings, protocol, launcher, Silent())


def test_every_cell_gets_a_record_and_the_second_run_measures_nothing(tmp_path: Path) -> None:
    first, second = FakeLauncher(), FakeLauncher()
    records = go(tmp_path, first)
    assert {record.case_id for record in records} == {case.id for case in CASES}
    assert Counter(record.status for record in records) == {"ok": 6, "unsupported": 2}
    assert len(first.measured) == 6
    assert go(tmp_path, second) == records
    assert second.measured == []


def test_a_run_measures_the_roof_once_and_each_launch_has_its_floor(tmp_path: Path) -> None:
    class Asked(FakeLauncher):
        roofs = 0

        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            self.roofs += job == "roof"
            return super().run(job, argument, timeout_s)

    first, second = Asked(), Asked()
    records = go(tmp_path, first)
    assert (first.roofs, {bool(r.floor) for r in records if r.status == "ok"}) == (1, {True})
    assert {record.floor["flops_per_s"] for record in records if record.floor} == {1e15}
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert run["roofs"] == {"float32": {"flops_per_s": 1e15, "bytes_per_s": 1e12, "copy_bytes_per_s": 1e11}}
    go(tmp_path, second)
    assert second.roofs == 0


def test_launches_are_spread_over_the_sweep_in_an_order_that_the_seed_decides(tmp_path: Path) -> None:
    protocol = Protocol(launches=3, seed=7)
    launcher, watcher = FakeLauncher(), Silent()
    settings = sweeping.Settings(tmp_path, "cpu", memory=tmp_path / "memory", pairs="none")
    records = sweeping.run(CASES, settings, protocol, launcher, watcher)
    order = schedule(CASES, 3, 7)
    assert [(record.case_id, record.launch) for record in records] == [(case.id, launch) for case, launch in order]
    assert [record.order for record in records] == list(range(len(order)))
    assert Counter(launch for _, launch in order) == {0: 8, 1: 6, 2: 6}
    rounds = [[case.id for case, at in order if at == launch and not case.unsupported] for launch in range(3)]
    assert rounds[0] != rounds[1]
    assert {frozenset(ids) for ids in rounds} == {frozenset(rounds[0])}
    assert order == schedule(CASES, 3, 7) != schedule(CASES, 3, 8)
    possible = [not case.unsupported for case, _ in order]  # the others are no work
    assert watcher.left == [sum(possible[number:]) for number in range(1, len(order) + 1)]
    assert launcher.whole == [True] * 6 + [False] * 12  # later launches only time
    assert launcher.counted == 2  # once a model
    assert all(record.work for record in records if record.status == "ok")
    assert frame(records)["latency_launches"].dropna().tolist() == [3] * 6


def test_a_cell_too_slow_for_all_launches_is_launched_once(tmp_path: Path) -> None:
    protocol = Protocol(launches=3, cell_s=-1.0)
    records = go(tmp_path, FakeLauncher(), protocol)
    assert {record.launch for record in records} == {0}
    assert "few_samples" in frame(records)["flags"].iloc[0]


class Slow(FakeLauncher):
    """Its energy pass takes `energy_s` seconds; all else takes none. It remembers the limits of its launches."""

    def __init__(self, energy_s: float) -> None:
        super().__init__()
        self.energy_s, self.limits = energy_s, set[float]()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        ending = super().run(job, argument, timeout_s)
        if job != "measure":
            return ending
        self.limits.add(timeout_s)
        if self.energy_s > timeout_s:
            return Ending("timeout", f"took longer than {timeout_s:g} s", ending.parts)
        return Ending("ok", None, {**ending.parts, "energy": {"reason": None, "wall_s": self.energy_s}})


def test_energy_is_not_under_the_limit_of_a_cell(tmp_path: Path) -> None:
    """15 s of energy, by a counter of 100 ms, under a limit of 10 s."""
    launcher = Slow(15.0)
    records = go(tmp_path, launcher, Protocol(launches=3), timeout_s=10.0)
    measured = [record for record in records if record.status != "unsupported"]
    assert {(record.status, (record.energy or {})["wall_s"]) for record in measured} == {("ok", 15.0)}
    assert len(measured) == 3 * 6
    assert launcher.limits == {10.0 + sweeping.ENERGY_LIMIT_S}
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert run["measured_s"] == pytest.approx(3 * 6 * (1.5 + 15))


def test_the_time_of_energy_does_not_cost_a_cell_its_other_launches() -> None:
    for energy_s, more in ((15.0, True), (0.0, False)):
        first = make_record(wall_s=20.0, energy={"reason": None, "wall_s": energy_s})
        assert pending(1, {0: first}, Protocol(launches=3, cell_s=36.0)) is more


def test_energy_that_takes_too_long_costs_a_cell_nothing_else(tmp_path: Path) -> None:
    records = go(tmp_path, Slow(1000.0), timeout_s=10.0)
    measured = [record for record in records if record.status != "unsupported"]
    assert {record.status for record in measured} == {"ok"}
    table = frame(measured)
    assert table["latency_ms"].notna().all()
    assert set(table["energy_reason"]) == {"not measured: energy took longer than 130 s with the rest"}


def test_a_sweep_that_measures_no_energy_has_the_limit_that_was_asked_for(tmp_path: Path) -> None:
    launcher = Slow(0.0)
    go(tmp_path, launcher, RIGORS["quick"], timeout_s=10.0)
    assert launcher.limits == {10.0}


def test_a_cell_that_fails_is_not_launched_again(tmp_path: Path) -> None:
    endings = {("vig_t", 384): Ending("oom", "no memory")}
    launcher = FakeLauncher(endings)
    records = go(tmp_path, launcher, Protocol(launches=3))
    failed = [record for record in records if record.status == "oom"]
    assert len(failed) == 2
    assert {record.launch for record in failed} == {0}
    assert len(launcher.measured) == 2 + 4 * 3
    go(tmp_path, again := FakeLauncher(), Protocol(launches=3), retry=True)
    assert len(again.measured) == 2 * 3
    assert frame(read(tmp_path))["status"].value_counts().to_dict() == {"ok": 6, "unsupported": 2}


def test_a_folder_that_goes_away_ends_the_sweep_at_the_next_record(tmp_path: Path) -> None:
    class Deletes(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "measure" and len(self.measured) == 1:
                shutil.rmtree(tmp_path / "run")
            return super().run(job, argument, timeout_s)

    launcher = Deletes()
    settings = sweeping.Settings(tmp_path / "run", "cpu", memory=tmp_path / "memory", pairs="none")
    with (
        pytest.warns(RuntimeWarning, match="the summary of this run is not kept"),
        pytest.raises(OutputError, match=r"run is gone \(No such file or directory\)"),
    ):
        sweeping.run(CASES, settings, ONCE, launcher, Silent())
    assert len(launcher.measured) == 2
    assert not (tmp_path / "run").exists()


LEAKS = {  # what a model's error says -> what a record has instead
    "/srv/people/mallory/nets/x.py": "~/nets/x.py",
    "by mallory on amber-falcon-7": "by <user> on <host>",
    "/home/trent/weights": "~/weights",
    "hf_AbCdEfGhIjKlMnOp": "<secret>",
    "AKIAIOSFODNN7EXAMPLE": "<secret>",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG": "AWS_SECRET_ACCESS_KEY=<secret>",
    "https://u:hunter2@host/w?key=k3y-0f-all&size=3": "https://<secret>@host/w?key=<secret>&size=3",
    "correct-horse-battery": "<secret>",  # the value of a variable whose name says so
    "\x1b[31mred\x1b[0m \udc80 \0": r"red \udc80 \x00",
}


def test_an_error_of_a_model_tells_nothing_private_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real sweep of a model whose error has it all, and megabytes of it."""
    for name, value in {"HOME": "/srv/people/mallory", "USER": "mallory", "MY_TOKEN": "correct-horse-battery"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: "amber-falcon-7.example.org")
    clean._personal.cache_clear()
    texts = {"one": " | ".join([*LEAKS][:5]), "two": " | ".join([*LEAKS][5:]), "long": "x" * 10**6}
    (tmp_path / "leaky_net.py").write_text(
        "\n".join(f"def {name}(image_size=32): raise RuntimeError({text!a})" for name, text in texts.items())
    )
    how = ("--modes", "parallel", "--rigor", "quick", "--batch", "1", "--pairs", "none", "--device", "cpu", "-o", "run")
    try:
        done = vbench(
            "sweep", "--models", "leaky_net:one,leaky_net:two,leaky_net:long", "--res", "32", *how, cwd=tmp_path
        )
        again = vbench("report", "run", cwd=tmp_path)
    finally:
        clean._personal.cache_clear()
    assert (done.returncode, again.returncode) == (1, 0)
    texts = {
        file.name: file.read_text() for kind in ("json*", "csv", "md") for file in (tmp_path / "run").glob(f"*.{kind}")
    }
    assert {"records.jsonl", "run.json", "summary.csv", "table.md"} <= set(texts)
    for text in (*texts.values(), done.stdout, done.stderr, again.stdout):
        for leak in (*("mallory", "amber-falcon", "trent", "hf_", "AKIA", "wJalr", "hunter2", "k3y"), "horse", "\x1b"):
            assert leak not in text
    reasons = {record.case["model"]: record.reason for record in read(tmp_path / "run")}
    for instead in LEAKS.values():
        assert instead in f"{reasons['leaky_net:one']} {reasons['leaky_net:two']}"
    assert len(str(reasons["leaky_net:long"])) <= 2000


def test_where_the_time_of_a_run_went_is_written_beside_its_records(tmp_path: Path) -> None:
    go(tmp_path, FakeLauncher(), Protocol(launches=2, seed=3))
    go(tmp_path, FakeLauncher(), Protocol(launches=2, seed=3))
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert (run["cells"], run["launches"], run["seed"], run["complete"]) == (6, 12, 3, True)
    assert (run["measured_s"], run["warmup_s"]) == (12 * 1.5, 12 * 0.5)
    assert run["overhead_s"] == pytest.approx(run["wall_s"] - 24, abs=0.01)
    assert run["overhead_s_per_cell"] == pytest.approx(run["overhead_s"] / 6, abs=0.01)


def test_the_largest_batch_is_searched_once_and_its_probes_are_kept(tmp_path: Path) -> None:
    cases = plan(Sweep(("deit_t",), ((224, 224),), ("parallel",), ("max",)))
    launcher = FakeLauncher()
    settings = sweeping.Settings(tmp_path, "cpu", memory=tmp_path / "memory", pairs="none")
    records = sweeping.run(cases, settings, Protocol(launches=2), launcher, Silent())
    assert launcher.batches == [37, None]  # a later launch measures no throughput
    assert records[0].throughput is not None
    probes = {probe["size"]: probe["status"] for probe in records[0].throughput["probes"]}
    assert (probes[37], probes[38]) == ("ok", "oom")
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert run["search_s"] >= 0
    assert frame(records)["batch_policy"].item() == "max"


def test_each_operator_and_model_is_verified_once_and_stamped_on_every_row(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    records = go(tmp_path, launcher)
    assert launcher.verified == ["gla", "vig_t"]  # not attention, which has one form
    stamps = {r.case["model"]: r.verified for r in records}
    assert stamps == {"vig_t": {"ok": True, "checks": 2, "failed": []}, "deit_t": None}
    again = FakeLauncher()
    go(tmp_path, again)
    assert again.verified == []


def test_what_comes_before_the_launches_is_named_and_done_once_for_all_folders(tmp_path: Path) -> None:
    larger = [replace(case, height=512, width=512) for case in CASES if case.height == 384]
    named = ["verifying gla", "verifying vig_t", "counting vig_t", "counting deit_t"]
    for folder, cases, wanted, counted in (
        ("first", CASES, named, 2),
        ("second", CASES, [], 0),
        ("larger", [*CASES, *larger], ["counting vig_t", "counting deit_t"], 2),
        ("smaller", CASES[:1], [], 0),
    ):
        launcher, watcher = FakeLauncher(), Silent()
        settings = sweeping.Settings(tmp_path / folder, "cpu", memory=tmp_path / "memory", pairs="none")
        records = sweeping.run(cases, settings, ONCE, launcher, watcher)
        assert watcher.tasks == wanted
        assert watcher.heard[: len(wanted)] == wanted
        assert len(watcher.heard) == len(wanted) + len(cases)
        assert launcher.counted == counted
        assert all(record.work for record in records if record.status == "ok")


def test_a_case_that_ends_the_counting_takes_no_other_along(tmp_path: Path) -> None:
    class Fragile(FakeLauncher):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "count" and any(fields["height"] == 384 for fields in argument["cases"]):
                return Ending("error", "the process died (signal 11)")
            return super().run(job, argument, timeout_s)

    records = go(tmp_path, Fragile())
    reasons = {(r.case["height"], r.work is not None, r.reason) for r in records if r.status == "ok"}
    assert reasons == {(224, True, None), (384, False, "MACs not counted: the process died (signal 11)")}


def test_gradients_are_verified_where_something_is_trained_and_nothing_twice(tmp_path: Path) -> None:
    """Sweeps into other folders, of which the second also trains, and the third is of other sizes."""
    larger = [replace(case, height=512, width=512) for case in CASES]
    for name, cases, wanted in (
        ("first", CASES, [("gla", True, False), ("vig_t", True, False)]),
        ("trains", [*CASES, replace(CASES[0], phase="train")], [("gla", False, True)]),
        ("larger", larger, []),
    ):
        launcher = FakeLauncher()
        settings = sweeping.Settings(tmp_path / name, "cpu", memory=tmp_path / "memory", pairs="none")
        sweeping.run(cases, settings, ONCE, launcher, Silent())
        assert launcher.extents == wanted, name


def test_a_model_that_fails_is_measured_and_branded(tmp_path: Path) -> None:
    launcher = FakeLauncher(broken=("gla",))
    records = go(tmp_path, launcher)
    assert len(launcher.measured) == 6
    stamp = next(r.verified for r in records if r.case["model"] == "vig_t")
    assert stamp is not None
    assert stamp["failed"] == ["gla reference, float64, a trial: error 1.0e+00, bound 1.0e-10"]
    table = frame(records)
    branded = table["flags"].str.contains("modes_differ") & table["verified"].eq(False)
    assert set(table.loc[branded, "model"]) == {"vig_t"}
    assert "DO NOT COMPUTE THE SAME FUNCTION" in "".join(tables.notes(table))


def test_a_failure_is_a_row_and_the_sweep_goes_on(tmp_path: Path) -> None:
    endings = {
        ("vig_t", 224): Ending("error", "the process died (signal 11)"),
        ("deit_t", 224): Ending("oom", "no memory", {"memory": None}),
        ("vig_t", 384): Ending("timeout", "took longer than 300 s", {"latency": latency([1.0])}),
    }
    records = {(r.case["model"], r.case["height"], r.case["mode"]): r for r in go(tmp_path, FakeLauncher(endings))}
    assert records["vig_t", 224, "parallel"].status == "error"
    assert records["deit_t", 224, "parallel"].status == "oom"
    assert records["deit_t", 224, "parallel"].work is not None
    assert records["vig_t", 384, "parallel"].latency == latency([1.0])
    assert records["deit_t", 384, "parallel"].status == "ok"
    again = FakeLauncher()
    go(tmp_path, again)
    assert again.measured == []


def test_retry_measures_what_did_not_end_well(tmp_path: Path) -> None:
    go(tmp_path, FakeLauncher({("vig_t", 224): Ending("error", "bad luck")}))
    again = FakeLauncher()
    go(tmp_path, again, retry=True)
    assert {(case.model, case.height, case.mode) for case in again.measured} == {
        ("vig_t", 224, "parallel"),
        ("vig_t", 224, "recurrent"),
    }
    assert {record.status for record in read(tmp_path)[-2:]} == {"ok"}


def test_a_time_out_is_final_only_for_as_long_as_it_was_given(tmp_path: Path) -> None:
    slow = {("deit_t", 384): Ending("timeout", "took longer than 10 s")}
    go(tmp_path, FakeLauncher(slow), timeout_s=10.0)
    for timeout_s, measured in ((5.0, 0), (10.0, 0), (60.0, 1)):
        again = FakeLauncher(slow)
        go(tmp_path, again, timeout_s=timeout_s)
        assert len(again.measured) == measured


def test_other_conditions_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path, FakeLauncher())
    again = FakeLauncher()
    with pytest.warns(sweeping.StaleWarning, match="8 cells were measured under other conditions"):
        go(tmp_path, again, replace(ONCE, threads=2))
    assert len(again.measured) == 6
    real = host.fingerprint
    monkeypatch.setattr(host, "fingerprint", lambda *a: {**real(*a), "source": "changed"})
    again = FakeLauncher()
    with pytest.warns(sweeping.StaleWarning):
        go(tmp_path, again)
    assert len(again.measured) == 6


def test_the_newest_record_decides_since_it_is_the_one_that_is_shown(tmp_path: Path) -> None:
    go(tmp_path, FakeLauncher())
    for threads in (2, 1):
        again = FakeLauncher()
        with pytest.warns(sweeping.StaleWarning):
            go(tmp_path, again, replace(ONCE, threads=threads))
        assert len(again.measured) == 6


def test_fresh_starts_over(tmp_path: Path) -> None:
    go(tmp_path, FakeLauncher())
    again = FakeLauncher()
    assert len(go(tmp_path, again, fresh=True)) == len(CASES)
    assert len(again.measured) == 6


def test_a_record_says_where_it_comes_from_and_nothing_private(tmp_path: Path) -> None:
    record = go(tmp_path, FakeLauncher())[0]
    assert record.host["versions"]["torch"]
    assert record.host["cpu"]
    assert record.schema == 2
    assert record.protocol["threads"] == 1
    text = json.dumps(record.host)
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text
    assert psutil.Process().username() not in record.host.values()


OPTIONS = ["--batch", "1", "--seconds", "0.05", "--rigor", "quick"]
COMMAND = ["sweep", "--models", "vig_t,deit_t", "--res", "32,48", *OPTIONS]
EXPECTED = {(m, s, mode) for m in ("vig_t", "deit_t") for s in (32, 48) for mode in ("parallel", "recurrent")}


# The last record waits, so that a signal never comes after the end, however late it is sent.
HELD = f"""
import time
from vbench.commands.app import main
from vbench.results.store import Store
append = Store.append
def held(store, record):
    if len(store.records) == {len(EXPECTED) - 1}:
        time.sleep(600)
    return append(store, record)
Store.append = held
main()
"""


def sweep_process(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-P", "-c", HELD, *COMMAND, "-o", str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(folder: Path) -> int:
    path = folder / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(folder: Path, goal: int, process: subprocess.Popen[bytes]) -> None:
    while lines(folder) < goal:
        assert process.poll() is None
        time.sleep(0.01)


def check_whole(folder: Path) -> None:
    """Every cell has been measured, and once."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read(folder)
    cells = Counter((r.case["model"], r.case["height"], r.case["mode"]) for r in records)
    assert set(cells) == EXPECTED
    assert {(r.case_id, r.launch) for r in records if r.launch == 0} == {(r.case_id, 0) for r in records}
    assert max(Counter((r.case_id, r.latency is None) for r in records).values()) == 1  # turns time a slow cell
    turns = Counter((block.company, block.block) for block in read_turns(folder))
    assert set(turns.values()) == {1}
    assert {r.status for r in records} == {"ok", "unsupported"}
    for name in ("summary.csv", "summary.parquet", "table.md", "resolution.png", "resolution.pdf"):
        assert (folder / name).stat().st_size > 0


def kill_a_child(process: subprocess.Popen[bytes]) -> None:
    """With signal 9, whatever child of the fork server runs, or is the first to."""
    while True:
        assert process.poll() is None
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.ppid() != process.pid:  # the fork server lives
                    child.kill()
                    return


def test_however_a_sweep_is_ended_the_same_command_goes_on(tmp_path: Path) -> None:
    """Killed before its first record, hung up, which is as Ctrl-C, killed between records; then left alone.

    Before it is hung up one of its children is killed, which is started once more, so that no cell is lost.
    """
    generator = random.Random(0)
    for goal, sent in ((0, signal.SIGKILL), (3, signal.SIGHUP), (5, signal.SIGKILL)):
        process = sweep_process(tmp_path)
        killed = sent == signal.SIGKILL
        if not killed:
            wait_for_lines(tmp_path, goal - 1, process)
            time.sleep(generator.uniform(0, 0.5))
            kill_a_child(process)
        wait_for_lines(tmp_path, goal, process)
        time.sleep(generator.uniform(0, 0.3) + 2 * (goal == 0) if killed else 0)
        process.send_signal(sent)
        assert process.wait(timeout=60) == (-signal.SIGKILL if killed else 130)
        if not killed:
            assert goal <= len(read(tmp_path)) < len(EXPECTED)
            assert (tmp_path / "table.md").exists()
            (tmp_path / "table.md").unlink()
    assert vbench(*COMMAND, "-o", str(tmp_path)).returncode == 0
    check_whole(tmp_path)
