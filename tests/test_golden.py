"""The published function: logits of the published code, under its own keys, in every mode and form.

`pytest` runs all cases of each structure once, in parallel mode, and one in recurrent mode. Of a structure's other
files it runs one case in parallel mode, for what their sizes change, and one in recurrent mode where the memory is
another. It leaves out what is huge, and what follows from a stricter row. `pytest -m full` runs all files: every case
in both modes, and one in each other form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from weights import Golden, uninitialised

from vbench.kernels import OPS, default_form, forms
from vbench.models import create, load_published, spec

State = dict[str, Tensor]
DOUBLE = torch.float64
LARGE, HUGE = 40e6, 200e6  # parameters; above, `pytest` alone runs no case in float64, or none at all


@dataclass(frozen=True)
class File:
    """A golden file, the model that it is of, and how near that model must come in its logits."""

    name: str
    model: str
    tolerance: float
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)
    edit: Callable[[State], None] | None = None  # what the file's notes change in the filled weights
    size: int = 224  # px at which the published weights have their position table
    follows: bool = False  # from the row that holds the same model and type to logits in float64; see below


def _long_memory(state: State) -> None:
    for key, value in state.items():
        if key.endswith("to_hidden_and_gate.weight"):
            value[value.shape[0] // 2 :] *= 8


def open_forget_gates(state: State) -> None:
    """ViL's initial forget biases, so that memory spans the sequence."""
    for key, value in state.items():
        if key.endswith("mlstm_cell.fgate.bias"):
            value.copy_(torch.linspace(3, 6, 4))


def large_positions(state: State) -> None:
    state["pos_embed"] *= 256


def keep_decays(state: State) -> None:
    """VRWKV6's `time_decay` as initialised, so that what a state holds lasts for hundreds of tokens."""
    names = [key for key in state if key.endswith(".time_decay")]
    for block, key in enumerate(names):
        channel = torch.linspace(0, 1, state[key].numel(), dtype=torch.float64)
        state[key] = (5 * channel ** (0.7 + 1.3 * block / (len(names) - 1)) - 6).float().view_as(state[key])


KERNEL = {"reading": "kernel"}  # Bi-WKV as the released code computes it

FILES = [
    *(File(name, name, 2e-5) for name in ("vig_t", "vig_s", "vig_b")),
    File("vig_h_t", "vig_h_t", 2e-5),
    *(File(name, name, 1e-4) for name in ("vig_h_s", "vig_h_b")),
    *(File(f"{name}_f64", name, 2e-6, DOUBLE) for name in ("vig_h_s", "vig_h_b")),
    *(File(name, name, 1e-4, follows=True) for name in ("vision_gru_t", "vision_gru_b")),
    File("vision_gru_t_longmem", "vision_gru_t", 3e-4, edit=_long_memory, follows=True),
    *(
        File(f"{name}_f64", name.removesuffix("_longmem"), tolerance, dtype, edit=edit)
        for name, edit in (("vision_gru_t", None), ("vision_gru_b", None), ("vision_gru_t_longmem", _long_memory))
        for dtype, tolerance in ((DOUBLE, 2e-6), (torch.float32, 2e-5))
    ),
    File("vil_tiny", "vil_t", 1e-5, DOUBLE, edit=open_forget_gates),
    File("vil_tiny", "vil_t", 1e-3, edit=open_forget_gates),
    File("vil_tinyplus_stride8", "vil_tplus_s8", 1e-5, DOUBLE, edit=open_forget_gates),
    File("vil_tinyplus_stride8", "vil_tplus_s8", 1e-3, edit=open_forget_gates),
    File("vil_tiny_allfill", "vil_t", 1e-5, DOUBLE),
    File("vil2_tiny", "vil2_t", 2e-5),
    File("vil2_small", "vil2_s", 2e-5),
    File("vil2_tiny_longmem", "vil2_t", 2e-5, edit=open_forget_gates),
    *(File(name, f"{name}_softmax", 2e-5) for name in ("vir_s", "vir_b", "vir_l16", "vir_l14")),
    File("vir_s_bigpos", "vir_s_softmax", 2e-5, edit=large_positions),
    *(File(f"{name}_recurrent", name, 5e-5) for name in ("vir_s", "vir_b")),
    *(File(f"vrwkv_{size}", f"vrwkv_{size}", 5e-6, options=KERNEL) for size in "tsb"),
    File("vrwkv_l", "vrwkv_l", 5e-6, options=KERNEL, size=192),
    *(File(f"vrwkv_{size}_few_tokens_kernel", f"vrwkv_{size}", 5e-6, options=KERNEL) for size in "ts"),
    *(File(f"vrwkv_{size}_few_tokens_paper", f"vrwkv_{size}", 5e-6) for size in "ts"),
    *(File(f"vrwkv6_{size}", f"vrwkv6_{size}", 5e-6) for size in "tsb"),
    *(File(name, name, 5e-6) for name in ("mlla_t", "mlla_s", "mlla_b")),
    *(File(f"vrwkv6_{size}_longmem", f"vrwkv6_{size}", 5e-6, edit=keep_decays) for size in "ts"),
    *(File(name, name.removesuffix("_few"), 2e-5) for name in ("vim_t", "vim_t_few", "vim_t_plus", "vim_s", "vim_b")),
    File("vim_t_allfill", "vim_t", 2e-5),
    *(File(name, name, 5e-6) for name in ("vmamba_t", "vmamba_s", "vmamba_b", "vmamba_t_s2l5", "vmamba_v0_t")),
    *(File(name, "vmamba_t", 5e-6) for name in ("vmamba_t_few", "vmamba_t_allfill")),
]


def state_of(file: File, golden: Golden) -> State:
    state = golden.state()
    if file.edit:
        file.edit(state)
    return {key: value.to(file.dtype) for key, value in state.items()}


def gap(file: File, state: State, case: tuple[Tensor, Tensor], form: str | None, mode: Any) -> float:
    x, logits = case
    with uninitialised():
        model = create(file.model, (x.shape[2], x.shape[3]), mode, form=form, **file.options).to(file.dtype)
    load_published(model, state)
    with torch.inference_mode():
        return float((model(x.to(file.dtype)) - logits).abs().max())


def structure(file: File) -> tuple[Any, ...]:
    """What two files have in common whose models differ in sizes alone."""
    row = spec(file.model)
    return row.build, row.operator, row.args.get("version"), tuple(file.options)


def small(file: File) -> bool:
    return (spec(file.model).params or 0) < (LARGE if file.dtype == DOUBLE else HUGE)


OF_PYTEST = [file for file in FILES if small(file) and not file.follows]
FIRST = {structure(file): file for file in reversed(OF_PYTEST)}


def by_model(files: list[File]) -> list[File]:
    """Files of the same weights beside each other: `Golden` keeps the last ones."""
    return sorted(files, key=lambda file: file.model.removesuffix("_softmax"))


@pytest.mark.parametrize("file", by_model(OF_PYTEST), ids=lambda file: file.name)
def test_published_logits(file: File) -> None:
    golden = Golden(file.name)
    state, cases = state_of(file, golden), golden.cases()
    first = FIRST[structure(file)]
    carried = file is first or file.edit is not first.edit
    tried = {"parallel": cases if file is first else cases[-1:], "recurrent": cases[-1:] if carried else []}
    for mode in spec(file.model).modes:
        for case in tried[mode]:
            assert gap(file, state, case, None, mode) < file.tolerance, (mode, tuple(case[0].shape))


@pytest.mark.parametrize("file", [file for file in FILES if file.follows], ids=lambda file: file.name)
def test_what_pytest_leaves_out_follows(file: File) -> None:
    """Whoever comes as near to the logits in float64 as that row says is within this row's tolerance of these."""
    stricter = next(row for row in FILES if row.name == f"{file.name}_f64" and row.dtype == file.dtype)
    assert (stricter.model, stricter.edit, stricter.options) == (file.model, file.edit, file.options)
    single, double = Golden(file.name).arrays, Golden(stricter.name).arrays
    assert single.keys() == double.keys()
    apart = max(float((logits - double[key]).abs().max()) for key, logits in single.items())
    assert apart + stricter.tolerance < file.tolerance


@pytest.mark.full
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_published_logits_in_every_form(file: File) -> None:
    golden = Golden(file.name)
    state = state_of(file, golden)
    row = spec(file.model)
    timed = {default_form(row.operator, mode) for mode in row.modes}
    assert row.operator
    for form in forms(row.operator, dtype=str(file.dtype).removeprefix("torch.")):
        for case in golden.cases() if form in timed else golden.cases()[:1]:
            mode = OPS[row.operator][form].mode
            assert gap(file, state, case, form, mode) < file.tolerance, (form, tuple(case[0].shape))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_keys_and_shapes_are_the_published_ones(file: File) -> None:
    golden = Golden(file.name)
    with torch.device("meta"):
        model = create(file.model, file.size, **file.options)
    assert sum(p.numel() for p in model.parameters()) == golden.manifest["params"]
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert own == {key: shape for key, shape, _ in golden.manifest["state"]}
