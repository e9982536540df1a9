"""What a sweep says and how it exits where a counter fails: MACs are never lost in silence."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from command import vbench
from taken_away import NO_FVCORE, without
from timm.layers.attention import Attention

from vbench.flops import count as flops
from vbench.flops import second
from vbench.jobs.launch import Launcher
from vbench.models import create
from vbench.plan import Case, Sweep, plan
from vbench.results.store import read

BRIEF = ("--modes", "parallel", "--batch", "1", "--seconds", "0.02", "--rigor", "quick", "-o", "run")


def test_without_fvcore_its_opinion_alone_is_lacking(tmp_path: Path) -> None:
    sweep = ("sweep", "--models", "deit_t", "--res", "32", *BRIEF)
    done, counted = without(NO_FVCORE, tmp_path, sweep, ("flops", "deit_t", "--res", "32", "--json"))
    assert done.returncode == 0, done.stderr
    (record,) = read(tmp_path / "run")
    assert record.status == "ok"
    assert record.work is not None
    assert record.work["macs"] > 0
    assert record.second_count == second.not_counted("fvcore is not installed; pip install fvcore")
    (work,) = json.loads(counted.stdout)
    assert (counted.returncode, work["macs_fvcore"]) == (0, None)
    assert work["macs"] > 0
    assert work["fvcore_reason"] == "fvcore is not installed; pip install fvcore"


NO_LEDGER = """
import sys

from torch import nn

sys.modules["vbench.flops.ledger"] = None

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_measured_cells_without_macs_make_the_exit_code_1(tmp_path: Path) -> None:
    """The model takes the ledger away, from the processes that import it."""
    (tmp_path / "no_ledger.py").write_text(NO_LEDGER)
    sweep = ("sweep", "--models", "no_ledger:net", "--res", "32,48", *BRIEF)
    done, again = (vbench(*sweep, *more, cwd=tmp_path) for more in ((), ("--json",)))
    assert done.returncode == 1, done.stderr
    records = read(tmp_path / "run")
    assert len(records) == 2
    for record in records:
        assert (record.status, record.work) == ("ok", None)
        assert record.latency is not None
        assert record.latency["samples_ms"]
    said = " ".join(done.stdout.split())
    assert "MACs not counted: ModuleNotFoundError: import of vbench.flops.ledger halted" in said
    assert "(no_ledger:net parallel 32, no_ledger:net parallel 48)" in said
    assert again.returncode == 1
    assert len(json.loads(again.stdout)) == 2
    assert "MACs not counted" in again.stderr
    assert len(read(tmp_path / "run")) == 2


CASE = plan(Sweep(("deit_t",), ((32, 32),), ("parallel",), (1,)))[0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a wrong\nvalue"), "fvcore could not count: ValueError: a wrong"),
        (ModuleNotFoundError("No module named 'iopath'", name="iopath"), "fvcore could not count: ModuleNotFoundError"),
        (ModuleNotFoundError("No module named 'fvcore.nn'", name="fvcore.nn"), "fvcore is not installed"),
        (MemoryError(), "fvcore could not count: MemoryError: no message"),
    ],
)
def test_whatever_befalls_the_second_counter_is_its_reason(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(case: Case) -> int:
        raise error

    monkeypatch.setattr(second, "_second_count", fail)
    opinion = second.second_count(CASE, 1)
    assert opinion["macs_fvcore"] is None
    assert opinion["reason"].startswith(reason)


def test_the_first_count_stays_where_the_second_counter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second, "_second_count", lambda _: {}["a wrong value"])
    found = dict(flops.count_cells({"cases": [asdict(CASE)]}))[CASE.id]
    assert found["work"]["macs"] > 0
    assert found["second_count"]["reason"].startswith("fvcore could not count: KeyError")
    *_, (part, opinion) = flops.count_in_full({"case": asdict(CASE), "depth": None})
    assert part == "second_count"
    assert opinion == found["second_count"]


def count_what_reads(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """`count_in_full` where timm's attention calls `.item()` while it is built, as timm 1.0.20 does."""
    build = Attention.__init__

    def built(self: Attention, *args: Any, **kwargs: Any) -> None:
        torch.zeros(1).item()
        build(self, *args, **kwargs)

    Attention.__init__ = built  # type: ignore[method-assign]
    try:
        with torch.device("meta"):
            create("deit_t", 32)
    except RuntimeError as error:
        yield "on meta", str(error)
    yield from flops.count_in_full(argument)


def test_a_constructor_that_reads_values_is_counted_as_any_other() -> None:
    with Launcher() as launcher:
        ending = launcher.run("test_uncounted:count_what_reads", {"case": asdict(CASE), "depth": None}, 120)
    assert ending.status == "ok", ending.reason
    assert "cannot be called on meta tensors" in ending.parts["on meta"]
    assert ending.parts["work"]["macs"] == ending.parts["second_count"]["macs_fvcore"] == flops.count(CASE)["macs"]


def count_and_die(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """`count_cells` where the second counter ends the process."""
    flops.second_count = lambda case, macs: os.kill(os.getpid(), signal.SIGSEGV)  # type: ignore[assignment,return-value]
    yield from flops.count_cells(argument)


def test_a_second_counter_that_ends_the_process_loses_nothing_but_its_word() -> None:
    with Launcher() as launcher:
        ending = launcher.run("test_uncounted:count_and_die", {"cases": [asdict(CASE)]}, 120)
    assert ending.status == "error"
    assert ending.parts[CASE.id]["work"]["macs"] > 0
    assert ending.parts[CASE.id]["second_count"] == second.not_counted(flops.ENDED)
