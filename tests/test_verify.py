"""The gate passes what is one function and fails every operator that was broken on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from weights import image

import vbench.kernels
from vbench import jobs, verify
from vbench.kernels import OPS, forms
from vbench.kernels.registry import trials, truth
from vbench.models import create, drawn, spec
from vbench.results.store import read
from vbench.verify import checks

KERNELS = Path(vbench.kernels.__file__).resolve().parent


def extent(op: str, *forms: str) -> verify.Extent:
    """All checks; on fewer tokens for the selective scan, whose chunks have 8 of them, and other operators' 64."""
    return verify.Extent(forms, tokens=45 if op == "selective_scan" else verify.TOKENS)


@pytest.mark.parametrize("op", list(OPS))
def test_every_operator_passes(op: str) -> None:
    """In brief: `test_operators` cuts and differentiates every form in every trial."""
    made = list(checks.operator_checks(op, seed=3, extent=replace(extent(op), brief=True, cuts=1)))
    assert [str(check) for check in made if not check.ok] == []
    kinds = {"float64", "float32", "half", "grad"}
    kinds |= {"split"} if any(trial.initial for trial in trials(op)) else set()
    kinds |= {"causal"} if any(trial.one_way for trial in trials(op)) else set()
    assert {check.kind for check in made} == kinds
    assert {check.form for check in made} == set(forms(op))


@dataclass(frozen=True)
class Mutant:
    """A form with one line of it changed. `direction` is one of the trials' that show it; None for any."""

    name: str
    op: str
    form: str
    old: str
    new: str
    direction: str | None = None


MUTANTS = [
    Mutant("decay sign", "gla", "chunkwise", "_tile(g, span, dtype).exp_()", "_tile(-g, span, dtype).exp_()"),
    Mutant("state dropped", "gla", "reference", "if state is None else state.to(dtype)", "if True else state"),
    Mutant("future seen", "gla", "quadratic", "at[rows, None] <= at if reverse else ", ""),
    Mutant("half sums", "gla", "chunkwise", "dtype = accumulator(q)", "dtype = q.dtype"),
    Mutant("decay sign", "wkv", "reference", "maximum(peaks[-1] - decay", "maximum(peaks[-1] + decay"),
    Mutant("no bonus", "wkv", "reference", "tokens(k.to(dtype) + u", "tokens(k.to(dtype)"),
    Mutant("no bonus", "wkv", "scan", "way = costs(w, at[1:-1], at, u)", "way = costs(w, at[1:-1], at, 0 * u)"),
    Mutant("state dropped", "wkv", "scan", "if state is None else state.to(dtype)", "if True else state"),
    Mutant("carry off by one", "wkv", "reference", "found[:, :, :-1].flip(2)", "found[:, :, 1:].flip(2)"),
    Mutant("decay sign", "wkv6", "reference", "decays.exp()", "decays.neg().exp()"),
    Mutant("no bonus", "wkv6", "chunkwise", "bonus=u *", "bonus=0 * u *"),
    Mutant("own decay taken", "wkv6", "quadratic", "upto - g.double(), upto", "upto, upto"),
    Mutant("state dropped", "wkv6", "quadratic", "if s is not None:", "if False:"),
    Mutant("decay sign", "mlstm", "chunkwise", "log_f.cumsum(3)\n", "-log_f.cumsum(3)\n"),
    Mutant("no floor", "mlstm", "quadratic", "normalise(num, den, m_t, eps)", "normalise(num, den, m_t + 50, eps)"),
    Mutant("state dropped", "mlstm", "quadratic", "if state is not None:", "if False:"),
    Mutant("carry off by one", "mlstm", "chunkwise", "keep.unsqueeze(-1), n", "keep.roll(1, -1).unsqueeze(-1), n"),
    Mutant("decay sign", "retention", "reference", "g.double().expm1()", "(-g).double().expm1()"),
    Mutant("carry off by one", "retention", "chunkwise", "states[:, :, :-1]", "states[:, :, 1:]"),
    Mutant("state dropped", "retention", "chunkwise", "if state is None else state.to(dtype)", "if True else state"),
    Mutant("causal", "softmax_retention", "suffix", "one * (N - stop)", "0 * one"),
    Mutant("mean for sum", "linear_attention", "summary", ".sum(dim=2, dtype=dtype)", ".mean(dim=2, dtype=dtype)"),
    Mutant(
        "turned normaliser", "linear_attention", "summary", "queries if q_norm is None else", "queries if True else"
    ),
    Mutant("q and k exchanged", "linear_attention", "quadratic", "for x in (q, k, v))", "for x in (k, q, v))"),
    Mutant(
        "one block's normaliser", "linear_attention", "quadratic", "rows] @ summed.mT", "rows] @ summed[:, :, rows].mT"
    ),
    Mutant("own tokens not counted", "linear_attention", "summary", "int(q.shape[2])", "0"),
    Mutant("state dropped", "linear_attention", "reference", "others(q, v, state)", "others(q, v, None)"),
    Mutant("state dropped", "linear_attention", "summary", "if state is not None:", "if False:"),
    Mutant("no floor", "linear_attention", "reference", "keepdim=True) + floor", "keepdim=True)"),
    Mutant("decay sign", "mingru", "quadratic", "F.logsigmoid(-b.double())", "F.logsigmoid(b.double())"),
    Mutant("carry off by one", "mingru", "scan", "ends[:, :-1]", "ends[:, 1:]"),
    Mutant("state dropped", "mingru", "reference", "if state is None else state.to(dtype)", "if True else state"),
    Mutant("state dropped", "selective_scan", "quadratic", "if walk.state is not None:", "if False:"),
    Mutant("state dropped", "selective_scan", "scan", "if walk.state is None", "if True"),
    *(
        Mutant("mean for sum", "linear_attention", form, old, new)
        for form, old, new in (
            ("reference", "(weighed * z).sum(-1", "(weighed * z).mean(-1"),
            ("quadratic", ".sum(dim=-1, keepdim=True)", ".mean(dim=-1, keepdim=True)"),
            ("compiled", "z.sum(0).add_", "z.sum(0).div_(N).add_"),
        )
    ),
    Mutant("q and k exchanged", "linear_attention", "reference", "(k, k if k_norm", "(q, k if k_norm"),
    Mutant("q and k exchanged", "linear_attention", "summary", "k.to(dtype).mT @", "q.to(dtype).mT @"),
    Mutant("q and k exchanged", "linear_attention", "compiled", "*flat(k), *flat(k if", "*flat(q), *flat(k if"),
    Mutant("state dropped", "linear_attention", "compiled", "S.sum(0).add_(state[0])", "S.sum(0)"),
    Mutant("own tokens not counted", "linear_attention", "compiled", "state[2] + N", "state[2] + 0"),
]

LANES = 20 * " "  # before the loop over the vectors of a tile's channels

# What can be wrong in a selective scan, in each form: the direction of a trial that shows it, and the changes.
SCANS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "decay of the previous token": (
        "forward",
        {
            "reference": ("(rates[t] * A)", "(rates[t - 1] * A)"),
            "quadratic": ("sums = step.double()", "sums = step.roll(1, 2).double()"),
            "scan": ("keep = (step.", "keep = (step.roll(1, 2)."),
            "compiled": (f"{LANES}for lane", f"{LANES}steps[1:n] = steps[: n - 1].copy()\n{LANES}for lane"),
        },
    ),
    "B and C exchanged": (
        "forward",
        {
            "reference": ("(walk.u, walk.delta, walk.B, walk.C)", "(walk.u, walk.delta, walk.C, walk.B)"),
            "quadratic": ("(walk.u, walk.delta, walk.B, walk.C)", "(walk.u, walk.delta, walk.C, walk.B)"),
            "scan": ("B.to(h.dtype), C.to(h.dtype)", "C.to(h.dtype), B.to(h.dtype)"),
            "compiled": (
                "= B[w * B_strides[0] :], C[w * C_strides[0] :]",
                "= C[w * C_strides[0] :], B[w * B_strides[0] :]",
            ),
        },
    ),
    "skip counted once": (
        "cross",
        dict.fromkeys(("reference", "quadratic"), ("else total + y", "else total + y - walk.D.unsqueeze(-2) * walk.u"))
        | {
            "scan": (
                "else total + y",
                "else total + y - found[len(ends)].D.unsqueeze(-2) * found[len(ends)].u",
            ),
            "compiled": ("D[w, g, c : c + some]", "(D if w == 0 else D - D)[w, g, c : c + some]"),
        },
    ),
    "directions swapped": (
        "forward",
        dict.fromkeys(("reference", "quadratic", "scan"), ("walk.reverse", "(not walk.reverse)"))
        | {"compiled": ("w >= W // 2 if W > 1 else backwards", "w < W // 2 if W > 1 else not backwards")},
    ),
    "step without bias": (
        "forward",
        {
            "reference": ("delta.to(dtype) + bias.unsqueeze(-2)", "delta.to(dtype)"),
            "quadratic": ("delta + walk.delta_bias.to(dtype).unsqueeze(-2)", "delta"),
            "scan": ("walk.delta_bias)", "0 * walk.delta_bias)"),
            "compiled": ("delta[c] + bias[c], u[c]", "delta[c], u[c]"),
        },
    ),
    "column order wrong": (
        "cross",
        dict.fromkeys(("reference", "quadratic"), ("walk.restored(torch", "walk.ordered(torch"))
        | {
            "scan": ("walk.ordered(x)", "walk.restored(x)"),
            "compiled": ("place % rows, place // rows", "place // columns, place % columns"),
        },
    ),
    "mean for sum": (
        "both",
        dict.fromkeys(
            ("reference", "quadratic", "scan"),
            ("assert total is not None", "assert total is not None\n    total = total / len(ends)"),
        )
        | {"compiled": ("return out.to(u.dtype)", "return (out / W).to(u.dtype)")},
    ),
}
MUTANTS += [
    Mutant(name, "selective_scan", form, *change, direction)
    for name, (direction, changes) in SCANS.items()
    for form, change in changes.items()
]


def test_every_form_of_the_selective_scan_has_every_mutant() -> None:
    """Those of Triton have them in test_fused_selective."""
    made = [form for form, about in OPS["selective_scan"].items() if about.package != "triton"]
    assert {name for name, (_, changes) in SCANS.items() if changes.keys() == set(made)} == set(SCANS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.op}-{m.form}-{m.name.replace(' ', '_')}")
def test_every_mutant_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, name = f"vbench.kernels.{mutant.op}.{mutant.form}", mutant.op
    module = import_module(path)
    source = (KERNELS / mutant.op / f"{mutant.form}.py").read_text(encoding="utf-8")
    assert mutant.old in source
    broken, file = ModuleType(path), tmp_path / f"{mutant.form}.py"
    file.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")  # machine code is kept by its source
    monkeypatch.setitem(sys.modules, path, broken)
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), broken.__dict__)
    assert getattr(broken, name) is not getattr(module, name)
    if mutant.direction:  # the first to show it: each type of numbers is compiled anew
        first = [trial for trial in trials(name) if trial.direction == mutant.direction]
        monkeypatch.setattr(checks, "trials", lambda op: first)
    own = extent(mutant.op, *([] if mutant.form == truth(mutant.op) else [mutant.form]))  # it is seen in its own checks
    assert any(not check.ok for check in checks.operator_checks(mutant.op, extent=own))


def test_a_models_forms_are_compared_with_the_same_weights() -> None:
    made = list(checks.model_checks("vig_t"))
    assert {(check.kind, check.form) for check in made} == {
        ("float64", "compiled"),
        ("float32", "chunkwise"),
        ("float32", "compiled"),
    }
    assert all(check.ok for check in made)


@pytest.mark.parametrize("dtype", ["bfloat16", "amp-bf16", "amp-fp16"])
def test_a_models_forms_are_compared_in_the_type_that_is_timed(dtype: str) -> None:
    made = [check for check in checks.model_checks("vig_t", dtype=dtype) if check.kind == "timed"]
    assert {check.form for check in made} == {"chunkwise", "compiled"}
    for check in made:
        assert check.where.endswith(dtype)
        assert 1e-4 < check.error <= check.bound < 0.05  # the rounding of half types, and far from float32's


def test_a_form_that_is_wrong_in_half_types_alone_fails_where_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes in float32 and float64, which is all that a stamp knew before."""
    right = checks._as_timed

    def coarse(model: nn.Module, image: torch.Tensor, dtype: str) -> torch.Tensor:
        wrong = any("compiled" in str(getattr(value, "__module__", "")) for value in forms_of(model))
        return right(model, image, dtype) * (1.1 if wrong else 1.0)

    def forms_of(model: nn.Module) -> Iterator[Any]:
        for module in model.modules():
            yield from (value for value in vars(module).values() if callable(value))

    monkeypatch.setattr(checks, "_as_timed", coarse)
    failed = [check for check in checks.model_checks("vig_t", dtype="amp-bf16") if not check.ok]
    assert {(check.kind, check.form) for check in failed} == {("timed", "compiled")}


@pytest.fixture
def tf32() -> Iterator[None]:
    """The flags for TF32 as torch has them by default, or worse."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in flags]
    for each in flags:
        each.allow_tf32 = True
    yield
    for each, allowed in zip(flags, before, strict=True):
        each.allow_tf32 = allowed


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("subject", ["gla", "vig_t"])
def test_nothing_is_rounded_to_tf32_in_a_check(subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flags(*_: Any) -> Iterator[checks.Check]:
        yield checks.Check("", "", "", "", float(torch.backends.cudnn.allow_tf32), 0.0)
        yield checks.Check("", "", "", "", float(torch.backends.cuda.matmul.allow_tf32), 0.0)

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name in ("operator_checks", "model_checks"):
        monkeypatch.setattr(checks, name, flags)
    _, argument = jobs.verify(subject, "cuda:0", 0, verify.Extent(), weights=None, image_size=(32, 32))
    (_, made) = next(verify.job(argument))
    assert [check["error"] for check in made] == [0.0, 0.0]


@pytest.mark.parametrize("rounds", [True, False])
def test_a_device_that_rounds_convolutions_does_not_widen_the_bound(
    rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is not the CPU and rounds to 10 bits, as TF32 does. All its forms are wrong alike."""
    there = False
    convolve, move, make = F.conv2d, nn.Module.to, checks.create

    def coarse(x: torch.Tensor, weight: torch.Tensor, *args: Any) -> torch.Tensor:
        if rounds and there and x.dtype == torch.float32:
            x, weight = (((y.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32) for y in (x, weight))
        return convolve(x, weight, *args)

    def moved(model: nn.Module, *args: Any) -> nn.Module:
        nonlocal there
        there = True
        return move(model, *args)

    def made(*args: Any, **kwargs: Any) -> nn.Module:
        nonlocal there
        there = False
        return make(*args, **kwargs)

    monkeypatch.setattr(F, "conv2d", coarse)
    monkeypatch.setattr(nn.Module, "to", moved)
    monkeypatch.setattr(checks, "create", made)
    monkeypatch.setattr(checks, "on_host", lambda device: False)
    passed = {check.form: check.ok for check in checks.model_checks("vig_t") if check.kind == "float32"}
    assert set(passed.values()) == {not rounds}


def test_a_network_that_sees_the_future_fails_the_causality_probe() -> None:
    """The released softmax path is such a network; ViR's retention is none."""
    x = image(0, 1, *checks.SIDES).double()
    for name, form, ok in (("vir_s", "chunkwise", True), ("vir_s_softmax", "suffix", False)):
        model = create(name, checks.SIDES, form=form).double()
        model.load_state_dict(drawn.weights(model, torch.Generator().manual_seed(0)))
        with torch.inference_mode():
            assert checks._model_causality(name, form, model, x, "160x144 px", 1e-10).ok is ok


def test_subjects_are_each_operator_once_and_then_the_models() -> None:
    assert verify.subjects(["vig_t", "deit_t", "vig_s"]) == ["gla", "vig_t", "deit_t", "vig_s"]
    assert spec("deit_t").operator is None


BOTH = """
import sys
from vbench.commands.app import main
for options in (["verify", "--models", "vir_s"], SWEEP):
    sys.argv = ["vbench", *options]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code)
"""


def test_a_broken_operator_fails_the_command_and_brands_the_rows_of_a_sweep(tmp_path: Path) -> None:
    """A copy of the package with one sign changed; one process, so that both commands share a fork server.

    Retention is verified in a tenth of gated linear attention's time.
    """
    root = KERNELS.parent
    for folder in ("vbench", "models", "kernels", "suites", "results", "reports"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.jsonl", "cpu-*"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    compiled = tmp_path / "kernels/retention/compiled.py"
    sign = ".double().expm1()", ".double().neg().expm1()"
    assert sign[0] in compiled.read_text()
    compiled.write_text(compiled.read_text().replace(*sign))

    sweep = ["sweep", "--models", "vir_s,deit_t", "--modes", "parallel", "--res", "32", "--batch", "1"]
    sweep += ["--seconds", "0.02", "--rigor", "quick", "--pairs", "none", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", BOTH.replace("SWEEP", repr(sweep))],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=tmp_path,
    )
    verified, swept, _ = done.stdout.split("exit code ")
    assert "FAILED" in verified
    assert "vir_s compiled, float64, 160x144 px: error" in done.stderr
    assert swept.startswith("5\n"), done.stderr  # of verify
    assert done.stdout.endswith("exit code 0\n"), done.stderr
    assert "MODES OF THIS MODEL DO NOT COMPUTE THE SAME FUNCTION" in swept
    for record in read(tmp_path / "out"):
        stamped = record.verified and record.verified["ok"]
        assert stamped is (False if record.case["model"] == "vir_s" else None)
    assert "modes_differ" in (tmp_path / "out/table.md").read_text()
