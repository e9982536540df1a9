"""Gated linear attention: every form against the published kernel's results, and against the recurrence."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from weights import GOLDEN

from vbench.kernels import forms, operator
from vbench.kernels.registry import trials
from vbench.kernels.trials import relative

DIRECTIONS = ("forward", "reverse", "both")


def run(form: str, x: dict[str, Tensor], direction: str, **options: object) -> tuple[Tensor, Tensor]:
    gate = {"forward": x["g"][0], "reverse": x["g"][1], "both": x["g"]}[direction]
    o, s = operator("gla", form)(x["q"], x["k"], x["v"], gate, direction=direction, **options)
    return o, s


with np.load(GOLDEN / "gla_bidir_op.npz") as _file:
    PUBLISHED = json.loads(str(_file["manifest"]))["cases"]


@pytest.mark.parametrize(("form", "case"), list(product(forms("gla"), PUBLISHED)))
def test_matches_the_published_operator(form: str, case: str) -> None:
    with np.load(GOLDEN / "gla_bidir_op.npz") as file:
        x = {name: torch.from_numpy(file[f"{case}_{name}"]) for name in ("q", "k", "v", "lf", "lb", "of", "ob")}
    x["g"] = torch.stack((x["lf"], x["lb"]))
    wanted = {"forward": x["of"], "reverse": x["ob"], "both": x["of"].double() + x["ob"].double()}
    for direction in DIRECTIONS:
        o, _ = run(form, x, direction)
        assert relative(o, wanted[direction]) < 1e-6


def test_both_directions_take_and_give_their_states() -> None:
    trial = next(each for each in trials("gla") if each.direction == "both")
    x = trial.draw(70, torch.Generator().manual_seed(0))
    state = torch.randn(2, 2, 2, 8, 12, dtype=torch.float64)
    for form in forms("gla"):
        o, s = run(form, x, "both", state=state)
        forward = run(form, x, "forward", state=state[0])
        backward = run(form, x, "reverse", state=state[1])
        assert relative(o, forward[0] + backward[0]) < 1e-12
        assert relative(s, torch.stack((forward[1], backward[1]))) < 1e-12
