"""What a sweep, a plan and a gate say where work is not counted, and how they exit: nothing is lost in silence.

The first model is that of allenai/olmoearth_pretrain#605, on what silent zeros do to a comparison.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fakes import failed, make_record
from rich.console import Console
from rich.table import Table

from vbench.commands import reports
from vbench.flops import estimate as estimates
from vbench.flops.estimate import Estimate, Parts
from vbench.plan import Sweep, plan
from vbench.reports import paper_tables, payload, proofs, tables, work
from vbench.reports.figures import draw
from vbench.reports.runs import Run
from vbench.results.answers import answers
from vbench.results.counters import Baseline, Counted, CountedCell, compare
from vbench.results.frame import frame
from vbench.results.lint import unfair
from vbench.results.store import read

QUICK = ("--rigor", "quick", "-o", "run")
CASE = plan(Sweep(("deit_t",), ((32, 32),), ("parallel",), (1,)))[0]


ALONE = """
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10)

    def forward(self, x):
        if x.is_meta or _get_current_dispatch_mode() is not None:
            raise RuntimeError("this model runs alone")
        return self.head(self.stem(x).mean((2, 3)))
"""
CELLS = ("--models", "alone:Net", "--res", "32,48", "--modes", "parallel", "--batch", "1", "--seconds", "0.02")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Path]:
    """A folder with a model that can be measured, and not counted, as it refuses to be looked at."""
    (tmp_path / "alone.py").write_text(ALONE)
    yield tmp_path
    sys.modules.pop("alone", None)


def test_measured_cells_without_macs_make_the_exit_code_1(alone: Path) -> None:
    done = vbench("sweep", *CELLS, *QUICK, "--device", "cpu", cwd=alone)
    assert done.returncode == 1, done.stderr
    records = read(alone / "run")
    assert len(records) == 2
    for record in records:
        assert (record.status, record.work) == ("ok", None)
        assert record.latency is not None
        assert record.latency["samples_ms"]
        assert record.reason == "MACs not counted: RuntimeError: this model runs alone"
    said = "MACs not counted: RuntimeError: this model runs alone (alone:Net parallel 32, alone:Net parallel 48)"
    assert said in " ".join(done.stdout.split())
    assert said in (alone / "run" / "table.md").read_text().replace("\\", "")
    again = vbench("report", "run", "--json", cwd=alone)
    rows = json.loads(again.stdout)
    assert [row["uncounted_reason"] for row in rows] == [record.reason for record in records]
    assert all("uncounted" in row["flags"] for row in rows)
    assert said in again.stderr


def test_a_plan_says_what_it_does_not_know(alone: Path) -> None:
    done = vbench("plan", *CELLS, "--rigor", "quick", "--device", "cpu", cwd=alone)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "2 cells could not be estimated: " in said
    assert "RuntimeError: this model runs alone (alone:Net parallel 32x32, alone:Net parallel 48x48)" in said
    assert "2 cells on cpu: how long they take is not known." in said
    assert "minutes" not in said


def estimated(**changes: Any) -> dict[str, Any]:
    """A row of a plan."""
    guess = Estimate(0.1, 2.0, 1.0, 2**20)
    return {**estimates.row(CASE, guess, 4.0, 2), **changes}


def test_the_sum_of_a_plan_names_what_it_lacks() -> None:
    parts = Parts(measuring=60.0, pairs=0.0, verifying=0.0, counting=0.0, starting=2.0)
    lost = estimates.row(CASE, "RuntimeError: why", None, None)
    assert (lost["not_estimated"], lost["unsupported"]) == ("RuntimeError: why", None)
    assert (lost["seconds"], lost["launches"], lost["peak_memory_bytes"]) == (None, None, None)
    assert work.not_estimated([estimated(), lost, lost, lost, lost]) == [
        "4 cells could not be estimated: RuntimeError: why (deit_t parallel 32x32, deit_t parallel 32x32, "
        "deit_t parallel 32x32 and 1 more)"
    ]
    assert work.whole([estimated()], 0, parts, "cpu").startswith(
        "1 cell, 0 blocks of turns, roughly 1.1 minutes on cpu: "
    )
    said = work.whole([estimated(), lost], 3, parts, "cpu")
    assert "roughly 1.1 minutes on cpu, and what the 1 cell without an estimate takes: " in said
    impossible = estimated(unsupported="no such mode", seconds=None)
    assert work.whole([impossible], 0, parts, "cpu") == "1 cell on cpu: none can exist, so nothing would be measured."
    assert work.whole([lost, lost], 0, parts, "cpu") == "2 cells on cpu: how long they take is not known."
    blind = estimates.row(CASE, Estimate(0.1, 2.0, 1.0, None, "the peak is not predicted"), 4.0, 2)
    assert "the peak is not predicted" in printed(work.estimates_to_rich([blind]))
    assert "not estimated" in printed(work.estimates_to_rich([lost]))
    deployed = estimated(backend="onnxruntime", layout="nhwc", dtype="bfloat16", attention=None)
    assert "deit_t onnxruntime nhwc  32x32" in printed(work.estimates_to_rich([deployed]))


def printed(table: Table) -> str:
    console = Console(width=300)
    with console.capture() as said:
        console.print(table)
    return said.get()


def test_all_work_that_is_not_counted_is_named_once_a_reason() -> None:
    found = [make_record(side=side, work=None, reason="MACs not counted: because") for side in (224, 384)]
    found += [make_record("deit_t", work=None), make_record("deit_t", 512)]
    found.append(failed("oom", "out of memory; MACs not counted: because", model="vig_t", side=1024, work=None))
    found.append(make_record("vrwkv_t", 224, work=partly({"aten.x": {"calls": 1, "bytes": 9}})))
    found.append(make_record("vrwkv_t", 512, work=partly({"aten.x": {"calls": 1, "bytes": 1}}, flops_total=7)))
    table, partly_ = frame(found), "not fully counted: aten.x in no table of the ledger, 3 % of the bytes"
    assert tables.uncounted(table) == [
        "MACs not counted: no reason is recorded (deit_t parallel 224)",
        "MACs not counted: because (vig_t parallel 224, vig_t parallel 384, vig_t parallel 1024)",
        f"{partly_}; no total of FLOPs (vrwkv_t parallel 224)",
        f"{partly_} (vrwkv_t parallel 512)",
    ]
    flagged = table["flags"].str.contains("uncounted")
    assert list(table["uncounted_reason"].notna()) == list(flagged)
    assert flagged.sum() == 6
    assert tables.uncounted(frame([make_record(), failed("timeout", "time was over", work=None)])) == []


def partly(unknown: dict[str, Any], flops_total: int | None = None) -> dict[str, Any]:
    return {**(make_record().work or {}), "unknown": unknown, "coverage": 0.97, "flops_total": flops_total}


def test_the_exit_code_of_a_sweep_counts_what_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.reports.write.write_all", lambda *_: [])

    def failures(*found: Any) -> int:
        return reports.write(tmp_path, frame(found), as_json=True)

    assert failures(make_record()) == 0
    assert failures(make_record(), make_record(side=512, work=None)) == 1
    assert failures(make_record(work=partly({"aten.x": {"calls": 1, "bytes": 9}}))) == 1
    assert failures(failed("error", "boom; MACs not counted: why", work=None), make_record(side=512)) == 1
    assert failures(failed("oom", "out of memory")) == 0


def test_a_paper_table_says_why_a_count_is_missing_and_not_that_a_launch_failed() -> None:
    reason = "MACs not counted: because"
    text = paper_tables.render(paper_tables.make(frame([make_record(work=None, reason=reason)]), "all", None)[0], "md")
    assert "not every launch ended" not in text
    assert reason in text


def test_a_page_names_a_model_that_is_not_counted() -> None:
    (row,) = proofs.ledger([make_record(work=None, second_count=None, reason="MACs not counted: because")])
    assert row[1:] == ("1", "not counted", "not counted", "MACs not counted: because", "not recorded")


def test_a_model_without_weights_and_products_is_a_row_like_any_other(tmp_path: Path) -> None:
    """As those of sovrasov/flops-counter issues 48 and 84."""
    settings = {"attention": None, "weights_dtype": None, "tf32": False}
    bare = {**(make_record().work or {}), "params": 0, "macs": 0, "macs_executed": 0, "bytes_min": 0, "intensity": None}
    none, usual = make_record("deit_t", work=bare, settings=settings), {**settings, "weights_dtype": "float32"}
    table = frame([none, make_record(settings=usual)])
    assert not [line for line in unfair(table) if "weights" in line]
    assert list(table["flags"]) == ["", ""]
    (row,) = [row for row in tables.rows(table) if row[0] == "deit_t"]
    assert row[tables.HEADER.index("GMACs")] == "0"
    assert payload.payload([Run("run", [none])], table)["rows"]["macs"][0] == 0  # not above 0, so it is not drawn
    assert "the MACs cannot be compared" in " ".join(answer.text for answer in answers(table))
    drawn, missing = draw.write(draw.Request(("resolution",), formats=("png",)), table[table["macs"] == 0], tmp_path)
    assert (len(drawn), missing) == (2, [])


def test_a_gate_names_a_count_that_neither_side_knows() -> None:
    fields = {"model": "deit_t", "height": 32, "width": 32, "mode": "parallel"}
    counts = {"params": 5, "macs": 7, "macs_inside": None, "flops_total": None}
    cell = CountedCell("deit_t 32", fields, counts, {"aten.mm float32": 1}, {})
    now = Counted({}, {"deit_t 32": cell}, {}, {}, {}, {}, {})
    outcome = compare(Baseline({}, (cell,), {}), now, name="a", head="b")
    (lost,) = outcome.of("UNMEASURED")
    assert (lost.what, lost.note) == ("flops_total", "not known on either side; 'vbench flops --strict' says why")
    assert (outcome.exit_code(), outcome.exit_code(strict=True)) == (0, 4)
