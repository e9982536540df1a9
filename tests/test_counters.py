"""The gate on counters: each way of doing more work for the same result is caught, and named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vbench import jobs
from vbench.commands import app as cli
from vbench.errors import SchemaError, UsageError, VbenchError
from vbench.flops.inside import count_inside
from vbench.gate import counters
from vbench.jobs.launch import Ending, Launcher
from vbench.kernels.gla import chunkwise, quadratic
from vbench.kernels.registry import OPS
from vbench.models import create
from vbench.operators import compile as kernel_compile
from vbench.plan import Case, Sweep, plan
from vbench.results import counters as baselines
from vbench.results.causes import by_cell
from vbench.results.counters import Baseline, Counted, CountedCell, Equality
from vbench.results.outcome import Finding, Outcome

PACKAGE = """
import torch
import torch.nn.functional as F
from torch import nn

MUTATION = None

class Net(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode, self.stem = mode, nn.Conv2d(3, 8, 8, 8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 5)
        if MUTATION == "parameters":
            self.unused = nn.Parameter(torch.zeros(7))

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2).contiguous()
        if MUTATION == "a matmul more":
            x = x @ torch.eye(8, dtype=x.dtype, device=x.device)
        if MUTATION == "float64":
            x = x.double().to(x.dtype)
        if MUTATION == "addmm split":
            q, k, v = (x @ self.qkv.weight.T + self.qkv.bias).chunk(3, -1)
        else:
            q, k, v = self.qkv(x).chunk(3, -1)
        if MUTATION == "attention unfused":
            x = ((q * 8**-0.5) @ k.mT).softmax(-1) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        slip = 1e-3 if MUTATION == "modes" and self.mode == "recurrent" else 0.0
        return self.head(x.mean(1) + slip)

def net(image_size): return Net("parallel")
def two(image_size, mode="parallel"): return Net(mode)
"""


class Here:
    """Runs jobs in this process; what they yield passes through JSON, as a child's does."""

    _one = Lock()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        module, _, name = jobs.target(job).partition(":")
        with self._one:  # children share nothing; threads would
            parts = dict(getattr(import_module(module), name)(json.loads(json.dumps(argument))))
        return Ending("ok", None, json.loads(json.dumps(parts)))


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package of a user's own; its `MUTATION` changes what it does."""
    (tmp_path / "our_nets.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield import_module("our_nets")
    del sys.modules["our_nets"]


def cases(*models: str, sides: tuple[int, ...] = (32, 64)) -> list[Case]:
    return plan(Sweep(models, tuple((side, side) for side in sides)))


def cell(case: Case) -> CountedCell:
    fields = next(iter(counters.names_of([case]).values()))
    return CountedCell(name=str(case), case=fields, **json.loads(json.dumps(count_inside(case))))


def counted(*cells: CountedCell, **changes: Any) -> Counted:
    versions = counters.versions()
    empty = Counted(versions, {cell.name: cell for cell in cells}, {}, {}, {}, {}, {})
    return replace(empty, **changes)


def judge(base: Baseline, now: Counted) -> Outcome:
    return baselines.compare(base, now, name="base", head="head")


def finding(outcome: Outcome, what: str, cell: str | None = None) -> Finding:
    return next(each for each in outcome.findings if each.what == what and cell in (None, each.cell))


MUTANTS = [  # what is told, and the operation that is named
    ("a matmul more", "macs_matmul", "1 new aten.mm"),
    ("addmm split", "operations", "aten.addmm 2 → 1"),
    ("attention unfused", "launches", "1 aten.scaled_dot_product_attention gone"),
    ("float64", "operations", "2 new aten._to_copy float64"),
]


@pytest.mark.parametrize(("mutation", "what", "culprit"), MUTANTS)
def test_more_work_for_the_same_result_is_caught_and_named(nets: Any, mutation: str, what: str, culprit: str) -> None:
    case = cases("our_nets:net")[0]
    torch.manual_seed(0)
    model, image = create(case.model, (32, 32)), torch.randn(1, 3, 32, 32)
    wanted, before = model(image), cell(case)
    nets.MUTATION = mutation
    torch.testing.assert_close(model(image), wanted)
    outcome = judge(Baseline(counters.versions(), (before,), {}), counted(cell(case)))
    assert outcome.exit_code() == 1
    found = finding(outcome, what)
    assert found.verdict == "MORE"
    (told,) = by_cell(outcome.findings)  # one finding, whatever it moved
    assert culprit in re.split(", | and ", told.cause), told.cause


def test_a_quadratic_form_behind_a_linear_name_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula beside the kernel says the same as before; what is dispatched does not, whatever the versions."""
    sizes = cases("vig_t", sides=(128, 256))[::2]
    before = [cell(case) for case in sizes]

    monkeypatch.setattr(chunkwise, "gla", quadratic.gla)
    base = Baseline({**counters.versions(), "torch": "1.0"}, tuple(before), {})
    outcome = judge(base, counted(*(cell(case) for case in sizes)))
    assert {each.verdict for each in outcome.findings if each.what == "macs_executed"} == {"SAME"}
    assert finding(outcome, "macs_inside").verdict == "MORE"
    assert finding(outcome, "operations inside").verdict == "AMBIGUOUS"
    grown = finding(outcome, "exponent of flops_inside", "vig_t parallel float32")
    assert grown.verdict == "MORE"
    assert grown.base == pytest.approx(1.0, abs=0.05)
    assert grown.head is not None
    assert grown.head > 1.8
    assert outcome.exit_code() == 1


def test_the_operations_of_the_model_are_those_that_torch_dispatches(nets: Any) -> None:
    """One conv, two linears, attention and a mean, each launched; parameters and work by hand."""
    found = cell(cases("our_nets:net")[0])
    tokens = 16
    work = tokens * (3 * 64 * 8 + 8 * 24) + 2 * tokens * tokens * 8 + 8 * 5
    assert found.counts["macs_executed"] == work
    assert found.counts["params"] == 3 * 64 * 8 + 8 + 8 * 24 + 24 + 8 * 5 + 5
    wanted = {"aten.convolution", "aten.addmm", "aten.scaled_dot_product_attention", "aten.mean", "aten.add"}
    assert {name.partition(" ")[0] for name in found.operations} == wanted | {"aten.clone"}
    assert found.operations["aten.addmm float32"] == 2
    assert found.counts["launches"] == sum(found.operations.values()) == 7
    assert found.inside == {}
    assert found.counts["flops_inside"] is None


@pytest.mark.skipif(kernel_compile.triton_version() is None, reason="no Triton")
def test_forms_that_torch_cannot_look_into_say_so_and_count_their_launches() -> None:
    fused = Case("vig_t", 128, 128, "parallel", "fused", 1, "float32", "cuda")
    found = count_inside(fused)
    assert found["inside"] == {"triton.carry_kernel": 12, "triton.read_kernel": 12, "triton.summarise_kernel": 12}
    assert "launches alone" in found["unseen"]
    chunked = count_inside(replace(fused, form="chunkwise"))
    assert found["operations"].pop("vbench.gla fused") == chunked["operations"].pop("vbench.gla chunkwise") == 12
    assert found["counts"]["launches"] < chunked["counts"]["launches"]
    assert found["counts"]["flops_inside"] is None
    assert chunked["unseen"] is None
    compiled = count_inside(replace(fused, mode="recurrent", form="compiled", device="cpu"))
    assert compiled["inside"] == {"numba.gla": 12}


def test_a_baseline_is_written_read_and_judged(nets: Any, tmp_path: Path) -> None:
    """Of a user's own models: the one without modes has no equality, the other's modes are held to each other."""
    file, chosen = tmp_path / "counters.json", cases("our_nets:net", "our_nets:two")
    assert counters.gate(file, Here(), cases=chosen, write=True).exit_code() == 0
    text = file.read_text()
    assert [each.name for each in baselines.read(file).cells] == [
        "our_nets:net 32 parallel float32",  # and no recurrent one: it stays out
        "our_nets:two 32 parallel float32",
        "our_nets:two 32 recurrent float32",
        "our_nets:net 64 parallel float32",
        "our_nets:two 64 parallel float32",
        "our_nets:two 64 recurrent float32",
    ]
    same = counters.gate(file, Here())
    assert same.exit_code(strict=True) == 0
    assert finding(same, "mode equality").cell == "our_nets:two"
    assert same.facts["nothing_to_compare"] == {"our_nets:net": "it has one mode"}
    exponent = finding(same, "exponent of macs_executed", "our_nets:net parallel float32")
    assert exponent.base is not None
    assert 1 < exponent.base < 2

    nets.MUTATION = "parameters"
    grown = counters.gate(file, Here())
    assert (finding(grown, "params").verdict, grown.exit_code()) == ("CHANGED", 1)
    nets.MUTATION = "modes"
    apart = counters.gate(file, Here())
    assert (finding(apart, "mode equality").verdict, apart.exit_code()) == ("UNEQUAL", 5)
    assert counters.gate(file, Here(), write=True).exit_code() == 5
    assert file.read_text() == text  # what is not one function is not written
    del nets.two
    gone = counters.gate(file, Here())
    assert {each.cell for each in gone.of("BROKEN") if each.what == "counters"} == {
        each.name for each in baselines.read(file).cells if "two" in each.name
    }
    assert gone.exit_code() == 1
    with pytest.raises(UsageError, match="two 32 parallel float32 cannot be counted"):
        counters.gate(file, Here(), write=True)
    with pytest.raises(UsageError, match="--write"):
        counters.gate(file, Here(), cases=chosen)


BASE = CountedCell(
    "net 32 parallel float32",
    {"model": "net", "height": 32, "width": 32},
    {"params": 100, "macs": 1000, "bytes_min": 4000, "predicted_peak_bytes": 100_000, "launches": 9, "tokens": 16},
    {"aten.mm float32": 9, "aten.view float32": 4},
    {},
)


def changed(**counts: Any) -> CountedCell:
    return replace(BASE, counts={**BASE.counts, **counts})


@pytest.mark.parametrize(
    ("head", "verdict", "other", "code"),
    [
        (BASE, None, None, 0),
        (changed(predicted_peak_bytes=100_099), None, None, 0),  # within the declared 0.1 %
        (changed(predicted_peak_bytes=100_101), "MORE", "AMBIGUOUS", 0),
        (changed(bytes_min=3999), "LESS", "AMBIGUOUS", 0),
        (changed(launches=10), "MORE", "AMBIGUOUS", 0),
        (replace(BASE, operations={"aten.bmm float32": 9, "aten.view float32": 4}), "CHANGED", "AMBIGUOUS", 0),
        (replace(BASE, operations={"aten.mm float64": 1}), "MORE", "AMBIGUOUS", 0),
        (changed(macs=1001), "MORE", "MORE", 1),
        (changed(macs=999), "LESS", "LESS", 0),
        (changed(params=99), "CHANGED", "CHANGED", 1),
        (changed(macs=None), "CHANGED", "CHANGED", 1),
    ],
)
def test_what_belongs_to_libraries_is_ambiguous_under_other_ones(
    head: CountedCell, verdict: str | None, other: str | None, code: int
) -> None:
    """`verdict` under the baseline's versions, `other` under another torch, `code` the exit code under the latter."""
    base = Baseline(counters.versions(), (BASE,), {})
    found = [each.verdict for each in judge(base, counted(head)).findings if each.verdict != "SAME"]
    assert found == ([verdict] if verdict else [])
    later = judge(base, counted(head, versions={**base.versions, "torch": "9.9"}))
    apart = [each for each in later.findings if each.verdict != "SAME"]
    assert [each.verdict for each in apart] == ([other] if other else [])
    assert all("torch 9.9 here" in str(each.note) for each in apart if each.verdict == "AMBIGUOUS")
    assert list(later.facts["versions_that_differ"]) == ["torch"]
    assert later.exit_code() == code
    assert later.exit_code(strict=True) == (4 if other == "AMBIGUOUS" else code)


KERNEL = {"gla fused read_kernel bfloat16 sm_90": {"registers": 100, "stack": 0, "shared": 4096}}


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({"registers": 108}, []),  # the compiler's whim, as declared
        ({"registers": 109}, ["MORE"]),
        ({"shared": 4100, "stack": 8}, ["MORE", "MORE"]),
        ({"shared": 2048}, ["LESS"]),
    ],
)
def test_a_kernel_that_needs_more_is_caught(change: dict[str, int], verdicts: list[str]) -> None:
    name, before = next(iter(KERNEL.items()))
    base, now = Baseline(counters.versions(), (BASE,), KERNEL), {name: before | change}
    assert [e.verdict for e in judge(base, counted(BASE, kernels=now)).findings if e.verdict != "SAME"] == verdicts
    other = counted(BASE, kernels=now, versions={**base.versions, "triton": "9.9"})
    assert {e.verdict for e in judge(base, other).findings} == {"SAME", *(["AMBIGUOUS"] if verdicts else [])}


def test_kernels_that_are_not_compiled_are_said_to_be() -> None:
    base = Baseline(counters.versions(), (BASE,), KERNEL)
    without = judge(base, counted(BASE, uncompiled={"": "Triton is not installed: not compared"}))
    assert (finding(without, "resources").verdict, without.exit_code()) == ("UNMEASURED", 0)
    broken = judge(base, counted(BASE, uncompiled={"gla": "it does not compile"}))
    assert (finding(broken, "resources").note, broken.exit_code()) == ("it does not compile", 1)
    assert finding(judge(base, counted(BASE)), "resources").verdict == "GONE"


@pytest.mark.skipif(kernel_compile.triton_version() is None, reason="no Triton")
def test_the_compiler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that keeps twice as many tokens in registers takes more of them."""
    form, launch = next(kernel_compile.forward_launches("mingru", counters.KERNEL_DTYPE))
    found = []
    for steps in (8, 32):
        other = replace(launch, constants={**launch.constants, "STEPS": steps})
        monkeypatch.setattr(kernel_compile, "forward_launches", lambda *_, other=other: [(form, other)])
        found.append(dict(counters.compile_job({"op": "mingru"})))
    base = Baseline(counters.versions(), (BASE,), found[0])
    outcome = judge(base, counted(BASE, kernels=found[1]))
    assert {each.what for each in outcome.of("MORE")} & {"registers", "shared"}


def test_a_cell_that_lacks_a_package_is_not_measured_and_one_that_lost_its_mode_is_broken() -> None:
    fields = {"height": 32, "width": 32, "dtype": "float32", "device": "cpu", "layout": "nchw", "attention": None}
    lost = {**fields, "model": "deit_t", "mode": "recurrent", "form": None}
    unknown = {**fields, "model": "nothing", "mode": "parallel", "form": None}
    now = counters.count({"a": lost, "b": unknown}, Here())
    base = Baseline(now.versions, tuple(replace(BASE, name=name) for name in "ab"), {})
    assert [(each.cell, each.verdict) for each in judge(base, now).findings] == [("a", "BROKEN"), ("b", "BROKEN")]
    away = judge(base, counted(absent=dict.fromkeys("ab", "gla fused needs the package triton")))
    assert ({each.verdict for each in away.findings}, away.exit_code()) == ({"UNMEASURED"}, 3)
    with pytest.raises(UsageError, match="a cell has the fields"):
        counters.count({"a": {"model": "vig_t"}}, Here())


def test_unverified_modes_are_broken_and_unequal_ones_are_named() -> None:
    base = Baseline(counters.versions(), (BASE,), {})
    died = judge(base, counted(BASE, equality={"gla": Equality(3, False, "the process died", ())}))
    assert (finding(died, "mode equality").verdict, died.exit_code()) == ("BROKEN", 1)
    wrong = judge(base, counted(BASE, equality={"gla": Equality(9, True, None, ("gla scan: error 1",) * 5)}))
    assert (
        finding(wrong, "mode equality").note == "gla scan: error 1; gla scan: error 1; gla scan: error 1; and 2 others"
    )


def _with(**parts: Any) -> str:
    return json.dumps({**json.loads(baselines.to_text(Baseline({"torch": "1"}, (BASE,), KERNEL))), **parts})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "not a baseline"),
        ('{"schema": 1, "cells": []}', "not a baseline"),
        (_with(schema=2), "schema 2"),
        (_with(cells=3), "'3' is no list"),
        (_with(cells=[{"cell": "a"}]), "no 'case'"),
        (_with(kernels={"k": {"registers": 1}}), "no 'stack'"),
        (_with(tolerances={"speed": 1}), "no counter 'speed'"),
        (_with(tolerances={"macs": "5"}), "no number"),
        (_with(tolerances={"macs": -1}), "from 0 up"),
        (_with(cells=json.loads(_with())["cells"] * 2), "is in it twice"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "counters.json"
    file.write_text(text)
    with pytest.raises(SchemaError, match=said) as caught:
        counters.gate(file, Here())
    assert "\n" not in str(caught.value)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "counters.json"
    base = Baseline(
        {"torch": "1", "triton": None}, (BASE, replace(BASE, name="b 224", unseen="no")), KERNEL, {"macs": "5 %"}
    )
    file.write_text(baselines.to_text(base))
    assert baselines.read(file) == base


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty baseline judges nothing; what is missing or misused is one line. No child is started."""
    file = tmp_path / "counters.json"
    monkeypatch.chdir(tmp_path)

    def gate(*words: str) -> Any:
        return CliRunner().invoke(cli.app, ["gate", *words])

    for words, said in (
        ([], "give one of --counters FILE"),
        (["--counters", str(file)], "there is no"),
        (["--counters", str(file), "--models", "vig_t", "--res", "224"], "add --write"),
        (["--counters", str(file), "--write", "--models", "vig_t"], "give --models and --res"),
        (["--counters", str(file), "--write", "--device", "tpu"], "'tpu' is not one of cpu, cuda"),
        (
            ["--counters", str(file), "--phase", "train", "--rigor", "quick", "--batch", "1"],
            "--batch, --phase, --rigor: ",
        ),
    ):
        found = gate(*words)
        assert isinstance(found.exception, VbenchError)
        assert said in str(found.exception)
        assert not file.exists()
    nothing = gate("--counters", str(file), "--write", "--models", "deit_t", "--res", "224", "--modes", "recurrent")
    assert (nothing.exit_code, file.exists()) == (3, False)
    file.write_text(baselines.to_text(Baseline(counters.versions(), (), {})))
    assert gate("--counters", str(file), "--json").exit_code == 3


def test_ctrl_c_while_counting_decides_nothing_and_writes_no_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Launcher, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        raise KeyboardInterrupt

    monkeypatch.setattr(Launcher, "run", run)
    file, folder = tmp_path / "counters.json", tmp_path / "out"
    words = ["gate", "--counters", str(file), "--models", "vig_t", "--res", "32", "-o", str(folder)]
    written = CliRunner().invoke(cli.app, [*words, "--write"])
    assert (written.exit_code, file.exists()) == (3, False)
    names = counters.names_of(plan(Sweep(("vig_t",), ((32, 32),), ("parallel",))))
    cells = tuple(CountedCell(name, case, BASE.counts, BASE.operations, BASE.inside) for name, case in names.items())
    file.write_text(baselines.to_text(Baseline(counters.versions(), cells, {})))
    before = file.read_text()
    held = CliRunner().invoke(cli.app, ["gate", "--counters", str(file), "-o", str(folder)])
    assert (held.exit_code, file.read_text()) == (3, before)
    assert "interrupted" in held.output
    assert json.loads((folder / "gate.json").read_text())["interrupted"] is True


def test_the_projects_own_baseline_has_every_family_and_tells_linear_from_quadratic() -> None:
    file = Path(__file__).resolve().parent.parent / "results" / "counters.json"
    base = baselines.read(file)
    now = Counted(base.versions, {each.name: each for each in base.cells}, {}, {}, {}, base.kernels, {})
    outcome = judge(base, now)
    assert outcome.exit_code(strict=True) == 0
    exponents = {(each.cell, each.what): each.base for each in outcome.findings if each.what.startswith("exponent")}
    assert {op for op in OPS if kernel_compile.triton_forms(op)} == {name.split()[0] for name in base.kernels}
    linear = [value for (name, what), value in exponents.items() if what == "exponent of flops_inside" and value]
    assert len(linear) == 20
    assert all(value < 1.2 for value in linear)  # a form takes shorter chunks, so less work a token, for few tokens
    deit = exponents["deit_t parallel float32", "exponent of macs_executed"]
    assert deit is not None
    assert deit > 1.2
