"""Exports: operators and models as files of runtimes compute what eager mode does, or it is said what stops them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import ExportError, UnsupportedError
from vbench.exports import files, program, verdict
from vbench.jobs.launch import Launcher
from vbench.kernels import OPS, blocks, operator
from vbench.kernels.registry import trials
from vbench.kernels.trials import relative
from vbench.models import MODELS, create, spec
from vbench.plan import Sweep
from vbench.plan import plan as planned
from vbench.reports import exports as rendering

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
QUICK = (("gla", "chunkwise"), ("mingru", "reference"))  # all are tried by `pytest -m full`
FORMS = [
    pytest.param(op, form, marks=() if (op, form) in QUICK else pytest.mark.full, id=f"{op} {form}")
    for op in ("gla", "wkv", "wkv6", "mlstm", "retention", "mingru", "selective_scan", "linear_attention")
    for form in (program.exportable_form(op, mode) for mode in ("parallel", "recurrent"))
]
TOKENS = 135  # two whole chunks and a shorter one
TINY = tuple(re.findall(r"^TINY = (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0].split(","))


class Operator(nn.Module):
    """A trial of an operator as a model: its inputs -> its output and its state."""

    def __init__(self, op: str, form: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.options = operator(op, form), options

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, **self.options)


def traced(op: str, form: str, *, tokens: int = TOKENS) -> tuple[torch.export.ExportedProgram, tuple[Tensor, ...], Any]:
    """An operator in reverse, if it has that direction: its graph, inputs, and its results in eager mode."""
    trial = next((each for each in trials(op) if each.direction == "reverse"), trials(op)[0])
    inputs = tuple(x.float() for x in trial.draw(tokens, torch.Generator().manual_seed(0)).values())
    model = Operator(op, form, dict(trial.options)).eval()
    with torch.no_grad(), program.quiet():
        return torch.export.export(model, inputs, strict=False), inputs, model(*inputs)


def error(found: Any, wanted: Any) -> float:
    pairs = zip(*map(torch.utils._pytree.tree_leaves, (found, wanted)), strict=True)
    return max(relative(a, b) for a, b in pairs)


@pytest.mark.parametrize(("op", "form"), FORMS)
def test_an_operator_exports_with_its_loops_as_scans(op: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "UNROLLED", 1)
    graph, inputs, wanted = traced(op, form)
    assert error(graph.module()(*inputs), wanted) < 1e-5
    scans = sum("scan" in str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    looped = OPS[op][form].mode == "recurrent" or op in ("gla", "wkv6", "mlstm")  # the others have no long loop
    assert (scans > 0) is looped


def test_a_graph_does_not_grow_with_the_tokens() -> None:
    (few, _, _), (many, inputs, wanted) = (traced("mlstm", "reference", tokens=tokens) for tokens in (20, 90))
    assert program.nodes(few) == program.nodes(many) < 200
    assert error(many.module()(*inputs), wanted) < 1e-5


def test_a_part_that_is_the_whole_is_not_split() -> None:
    """OpenVINO takes no split of a dimension whose length it cannot infer."""
    graph, inputs, wanted = traced("wkv", "scan")
    assert [node for node in graph.graph.nodes if "split" in str(node.target)] == []
    assert error(graph.module()(*inputs), wanted) < 1e-5


def test_eager_mode_does_not_know_of_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is for exports is left out in eager mode, and under torch.compile."""
    monkeypatch.setattr(blocks, "scanned", None)
    trial = trials("gla")[-1]
    inputs = trial.draw(TOKENS, torch.Generator().manual_seed(0))
    for form in ("chunkwise", "reference"):
        trial.run(operator("gla", form), inputs)


class Once(nn.Module):
    """A model of one function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def branching(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else x.mean(1)


IMAGE = torch.ones(1, 3, 8, 8)


def test_what_stops_an_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch\.export stops at test_exports\.py:[0-9]+, in branching") as found:
        program.exported(Once(branching), IMAGE)
    assert found.value.stopped_by is not None
    assert isinstance(found.value, UnsupportedError)
    graph = program.exported(Once(lambda x: x.cummax(3).values), IMAGE)
    pytest.importorskip("onnxscript")
    with pytest.raises(ExportError, match=r"ONNX stops at aten\.cummax: ") as found:
        files.to_onnx(graph, tmp_path)
    assert found.value.stopped_by == "aten.cummax"
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_unrolls_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "NODES", 5)
    with pytest.raises(ExportError, match=r"unrolls to 6 nodes at 8x8 px; the limit is 5"):
        program.exported(Once(lambda x: x + 1 + 2 + 3 + 4 + 5 + 6), IMAGE)


def test_open_sides_are_tried() -> None:
    open_ = program.exported(Once(lambda x: x.mean((2, 3))), IMAGE, dynamic=True)
    assert open_.module()(torch.ones(1, 3, 24, 40)).shape == (1, 3)
    with pytest.raises(ExportError, match=r"the model takes one size: .* 8 and 8 px"):
        program.exported(Once(lambda x: x + torch.zeros(8, 8)), IMAGE, dynamic=True)


OWN = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
class Loud(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.max() > 0 else x.sum((2, 3))
"""


def test_a_model_of_ones_own_is_exported_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "my_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    usual = ["--to", "onnx", "--res", "32", "--json", "-o"]
    done = CliRunner().invoke(app, ["export", "my_net:net", "--check", *usual, "files"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["target"], row["exports"], row["dynamic"]) == ("onnx", "yes", "yes")
    assert row["error"] < 1e-5
    assert Path(row["file"]).stat().st_size == row["bytes"]
    assert [file.name for file in Path("files").iterdir()] == ["my_net-net-parallel-32.onnx"]
    done = CliRunner().invoke(app, ["export", "my_net:Loud", *usual, "loud.onnx"])
    assert done.exit_code == 1
    (row,) = json.loads(done.stdout)
    assert (row["exports"], row["stopped_by"], row["file"]) == ("no", "my_net.py:7, in forward", None)
    assert not Path("loud.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vig_t", "--to", "tflite"), "'tflite' is not one of torch.export, aoti, onnx"),
        (("deit_t", "--mode", "recurrent"), "deit_t has no recurrent mode"),
        (("vig_t", "--mode", "recurrent:scan"), "vig_t has no recurrent form 'scan'; it has"),
        (("vig_t", "--res", "224,512"), "one --res"),
        (("vig_t,deit_t", "-o", "one.onnx"), "is one file, and several are asked for"),
        (("vig_t", "-o", "one.pt2"), "'one.pt2' is to hold onnx, whose files end in .onnx"),
        (("vig_t", "--to", "torch.export", "-o", "one.onnx"), "is to hold torch.export, whose files end in .pt2"),
        (("vig_t", "-o", __file__), "is there already, and is no folder"),
    ],
)
def test_a_wrong_request_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["export", *words])
    assert said in str(done.exception)


def test_a_form_in_machine_code_is_not_exported() -> None:
    case = planned(Sweep(("vig_t",), ((64, 64),), ("recurrent",), (1,), forms=("compiled",)))[0]
    assert program.exportable(case).form == "reference"
    with pytest.raises(UnsupportedError, match=r"gla compiled is machine code by numba.*use reference"):
        next(verdict.job({"case": case.to_json(), "weights": None, "check": False, "dynamic": False, "files": {}}))


def test_the_page_has_the_recorded_verdicts() -> None:
    rows = rendering.read()
    assert rendering.markdown(rows) in PAGE
    assert {row["model"] for row in rows} <= set(TINY)
    assert all(row["exports"] == "yes" or row["reason"] for row in rows)


def one_block(name: str) -> nn.Module:
    """A tiny model with its first block alone."""
    model = create(name, 32, form=program.exportable_form(spec(name).operator or "", "parallel"))
    trunk = getattr(model, "backbone", model)
    blocks_of = next(name for name in ("layers", "blocks", "levels") if hasattr(trunk, name))
    setattr(trunk, blocks_of, getattr(trunk, blocks_of)[:1])
    return model


@pytest.mark.full
@pytest.mark.parametrize("name", ["vir_s", "vig_t", "vrwkv_t", "vrwkv6_t"])
def test_a_block_of_a_tiny_model_exports(name: str) -> None:
    model, image = one_block(name), torch.randn(1, 3, 32, 32)
    graph = program.exported(model, image)
    with torch.no_grad():
        assert error(graph.module()(image), model(image)) < 1e-5


@pytest.mark.full
@pytest.mark.parametrize("name", TINY)
def test_the_recorded_verdicts_of_tiny_models_hold(name: str, tmp_path: Path) -> None:
    recorded = {(row["mode"], row["target"]): row["exports"] for row in rendering.read() if row["model"] == name}
    cases = verdict.cases((name,), (64, 64), modes=MODELS[name].modes, form=None, batch=1, dtype="float32")
    with Launcher() as launcher:
        for case in cases:
            wanted = {target: tmp_path / target for target in verdict.TARGETS if (case.mode, target) in recorded}
            rows = verdict.run(case, wanted, launcher, check=True, timeout_s=3600)
            assert {row["target"]: row["exports"] for row in rows} == {to: recorded[case.mode, to] for to in wanted}
