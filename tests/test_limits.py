"""The search for what fits: sizes, endings, and a real ration of memory."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from command import vbench
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.jobs.launch import Ending, Launcher
from vbench.sweeps import limits
from vbench.sweeps.limits import MIB, Probe, Task

SHORT = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"


def task(axis: Any = "px", model: str = "deit_t", **changes: Any) -> Task:
    options: dict[str, Any] = {
        "res": None if axis == "px" else "32",
        "batch": 1 if axis == "px" else None,
        "mode": "parallel",
        "dtype": "float32",
        "phase": "infer",
        "memory_gib": None,
        "device": "cpu",
        "limit": 1024,
        "timeout_s": 60.0,
        "threads": 1,
    }
    return limits.task(axis, model, **{**options, **changes})


class Fake:
    """A launcher of a machine on which sizes up to `most` fit; `ends` says how certain sizes end instead."""

    def __init__(self, most: int, ends: dict[int, Ending] | None = None) -> None:
        self.most, self.ends = most, ends or {}
        self.asked: list[dict[str, Any]] = []

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        assert job == "attempt"
        self.asked.append(argument)
        case = argument["case"]
        size = case["height"] if case["batch"] == 1 and case["height"] > 32 else max(case["batch"], case["height"])
        if size in self.ends:
            return self.ends[size]
        if size > self.most:
            return Ending("oom", SHORT, {"budget_bytes": 7 * MIB})
        return Ending("ok", None, {"budget_bytes": 7 * MIB, "memory": {"peak_bytes": size * MIB, "pass_s": 0.5}})


def find(task: Task, most: int, ends: dict[int, Ending] | None = None) -> tuple[limits.Limit, Fake]:
    fake = Fake(most, ends)
    return limits.find(task, cast(Launcher, fake)), fake


def sizes(found: limits.Limit) -> list[int]:
    return [probe.size for probe in found.probes]


def test_sizes_are_doubled_then_bisected() -> None:
    found, fake = find(task(), 400)
    assert sizes(found) == [32, 64, 128, 256, 512, 384, 448, 416]
    assert found.fits is not None
    assert found.stop is not None
    assert (found.fits.size, found.fits.peak_bytes, found.stop.size) == (384, 384 * MIB, 416)
    assert found.stop.allocation_bytes == 4096
    assert found.known
    assert limits.sentence(found) == (
        "deit_t, parallel, batch 1: 384 px fit in 7 MiB (peak 384 MiB), 416 do not: an allocation of 0.0 MiB fails"
    )
    assert [asked["budget_bytes"] for asked in fake.asked] == [None] + [7 * MIB] * 7  # all have the first one's


@given(st.integers(0, 70), st.integers(1, 60), st.integers(1, 5), st.integers(1, 70))
def test_the_search_finds_the_border(most: int, first: int, step: int, more: int) -> None:
    limit = first + more
    tried: list[int] = []

    def probe(size: int) -> Probe:
        tried.append(size)
        return Probe(size, "ok" if size <= most else "oom", None, size, 0.0)

    fits, stop, _ = limits.search(probe, first=first, step=step, limit=limit)
    legal = range(first, limit + 1, step)
    assert set(tried) <= set(legal)
    assert len(tried) == len(set(tried))
    assert (fits and fits.size) == max((size for size in legal if size <= most), default=None)
    assert (stop and stop.size) == min((size for size in legal if size > most), default=None)


def test_a_timeout_and_an_error_end_the_search() -> None:
    for status, says, exits in (
        ("timeout", "at least 128 px (peak 128 MiB); 256 px took longer than 60 s", True),
        ("error", "at least 128 px (peak 128 MiB); 256 px failed: took longer than 60 s", False),
    ):
        found, _ = find(task(), 9999, {256: Ending(cast(Any, status), "took longer than 60 s")})
        assert sizes(found) == [32, 64, 128, 256]
        assert limits.sentence(found) == f"deit_t, parallel, batch 1: {says}"
        assert found.known is exits


class Choosy(Fake):
    """A model that takes sides from 100 to 500 px alone. It raises as a user's model may, or the job says so."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__(9999)
        self.raises = raises

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        side = argument["case"]["height"]
        if 100 <= side <= 500:
            return super().run(job, argument, timeout_s)
        if self.raises:
            raise UsageError(f"my_net takes no {side} px")
        return Ending("unsupported", f"my_net takes no {side} px")


@pytest.mark.parametrize("raises", [False, True])
def test_the_search_goes_on_beside_sizes_that_the_model_refuses(raises: bool) -> None:
    found = limits.find(task(), cast(Launcher, Choosy(raises=raises)))
    assert sizes(found) == [32, 64, 128, 256, 512, 384, 448, 480]
    assert (found.known, found.refused) == (True, [32, 64, 512])
    assert limits.sentence(found) == (
        "deit_t, parallel, batch 1: 480 px fit (peak 480 MiB); 512 px is refused: my_net takes no 512 px; "
        "64 px and less are refused"
    )
    assert found.to_json()["refused"] == [32, 64, 512]


def test_a_model_that_refuses_all_sizes_is_not_asked_for_ever() -> None:
    found, _ = find(task(limit=8192), 9999, dict.fromkeys(range(32, 8193, 32), Ending("unsupported", "never")))
    assert sizes(found) == [32, 64, 128, 256, 512, 1024]
    assert not found.known
    assert limits.sentence(found) == "deit_t, parallel, batch 1: not known; 32 px is refused: never"


def test_an_error_while_bisecting_is_said_beside_what_is_known() -> None:
    found, _ = find(task(), 400, {448: Ending("error", "RuntimeError: broken")})
    assert sizes(found) == [32, 64, 128, 256, 512, 384, 448]
    assert limits.sentence(found).endswith(
        "at least 384 px (peak 384 MiB), less than 512; 448 px failed: RuntimeError: broken"
    )
    assert not found.known


def test_nothing_fits_and_everything_fits() -> None:
    nothing, _ = find(task(), 0)
    assert (sizes(nothing), nothing.fits, nothing.known) == ([32], None, False)
    assert "not even 32 px fit in 7 MiB" in limits.sentence(nothing)
    everything, _ = find(task(limit=100), 9999)
    assert (sizes(everything), everything.stop, everything.known) == ([32, 64, 96], None, True)
    assert "96 px fit (peak 96 MiB), the most that was asked for" in limits.sentence(everything)


def test_batches_step_by_one() -> None:
    found, fake = find(task("images", limit=4096), 37)
    assert found.fits is not None
    assert found.fits.size == 37
    assert {asked["case"]["height"] for asked in fake.asked} == {32}


@pytest.mark.parametrize(
    ("model", "step"), [("vig_t", 32), ("vil_t", 32), ("vision_gru_t", 32), ("vir_l14", 42), ("timm/resnet18", 32)]
)
def test_sides_step_in_what_the_model_takes(model: str, step: int) -> None:
    found, _ = find(task(model=model, limit=8 * step), 9999)
    assert found.step == step
    assert all(size % step == 0 for size in sizes(found))


@pytest.mark.parametrize(
    ("reason", "size"),
    [
        (SHORT, 4096),
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 4 GiB", 5 * 2**29),
        ("the kernel's out-of-memory killer ended the process", None),
    ],
)
def test_the_limiting_allocation_is_read_from_the_error(reason: str, size: int | None) -> None:
    found, _ = find(task(), 9999, {32: Ending("oom", reason)})
    assert found.stop is not None
    assert (found.stop.allocation_bytes, found.stop.reason) == (size, reason)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "recurrent"}, "no recurrent mode.*use --mode parallel"),
        ({"mode": "parallel,recurrent"}, "--mode: one at a time"),
        ({"model": "deit_*"}, "MODEL: one at a time"),
        ({"model": "deit"}, "unknown model"),
        ({"dtype": "int8"}, "--dtype: 'int8'"),
        ({"phase": "test"}, "--phase: 'test' is not one of infer, train"),
        ({"memory_gib": 0.0}, "--memory: 0 GiB"),
        ({"limit": 16}, "--limit: 16 px is not between 32 and"),
        ({"axis": "images", "res": "224,512"}, "--res: one size"),
        ({"axis": "images", "model": "vil_t", "res": "100"}, "not a multiple of 16"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        task(**changes)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def test_a_real_ration(launcher: Launcher) -> None:
    """Beside 115 MiB of weights there is room for a few images; how many depends on what oneDNN takes on this CPU."""
    asked = task("images", "vision_gru_t", res="64", memory_gib=152 / 1024, limit=512)
    found = limits.find(asked, launcher)
    assert found.fits is not None
    assert found.stop is not None
    assert found.stop.status == "oom", found.stop
    assert found.stop.size == found.fits.size + 1 < 128
    assert found.fits.peak_bytes is not None
    assert 115 * MIB < found.fits.peak_bytes < 154 * MIB
    assert {probe.status for probe in found.probes} == {"ok", "oom"}


def test_training_needs_more(launcher: Launcher) -> None:
    asked = replace(task("images", "deit_t", limit=1), budget_bytes=2**30)
    infer = limits.find(asked, launcher).fits
    train = limits.find(replace(asked, case=replace(asked.case, phase="train")), launcher).fits
    assert infer is not None
    assert train is not None
    assert cast(int, train.peak_bytes) > 3.5 * cast(int, infer.peak_bytes)  # gradients and two moments


@pytest.mark.parametrize(("budget_mib", "status"), [(24, "oom"), (300, "ok")])
def test_a_library_that_does_not_name_its_want_of_memory(launcher: Launcher, budget_mib: int, status: str) -> None:
    ending = launcher.run("jobs:rationed", {"mib": budget_mib}, 60)
    assert ending.status == status, ending.reason


def test_an_error_that_a_thread_keeps_is_not_taken_for_the_models() -> None:
    """oneDNN's code generator goes on failing in a thread where it once lacked memory, whatever there is now."""
    kept, rationed = threading.local(), 2**40
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def short() -> None:
        if getattr(kept, "failed", False) or resource.getrlimit(resource.RLIMIT_DATA)[0] == rationed:
            kept.failed = True
            raise RuntimeError("could not create a primitive")

    def broken() -> None:
        raise RuntimeError("could not create a primitive")

    try:
        resource.setrlimit(resource.RLIMIT_DATA, (rationed, before[1]))
        with pytest.raises(MemoryError, match="could not create a primitive"), limits.unmasked(short):
            short()
        with pytest.raises(RuntimeError, match="could not create a primitive"), limits.unmasked(broken):
            broken()
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_the_commands() -> None:
    done = CliRunner().invoke(app, ["maxres", "deit_t", "--memory", "0.01", "--device", "cpu", "--json"])
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert (found["largest"], found["smallest_failing"], found["budget_bytes"]) == (None, 32, int(0.01 * 2**30))
    assert [probe["status"] for probe in found["probes"]] == ["oom"]
    assert found["limiting_allocation_bytes"] > 0
    done = CliRunner().invoke(app, ["maxbatch", "deit_t", "--res", "32", "--limit", "2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "2 images fit" in done.stdout


def test_a_mode_that_is_not_there_is_a_usage_error() -> None:
    done = vbench("maxres", "deit_t", "--mode", "recurrent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "vbench: deit_t has no recurrent mode: attention keeps no state of fixed size; use --mode parallel"
    ]
