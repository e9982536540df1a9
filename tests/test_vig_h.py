"""ViG-H: any size, every form, its scale, its cost, and what it loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ShapeError
from vbench.flops.count import count
from vbench.kernels import forms
from vbench.models import create, load_published, spec
from vbench.models.vig import ViGH
from vbench.plan import Sweep, plan

FORMS = forms("gla")


def small(size: tuple[int, int], form: str) -> nn.Module:
    model = ViGH(
        size, dim=32, depths=(1, 2, 1, 1), heads=1, mlp_dims=(96, 192, 352, 704), form=form, num_classes=10
    ).eval()
    model.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (97, 65)])
def test_forms_agree_at_any_size(size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    maps: dict[str, list[Tensor]] = {}
    for form in FORMS:
        model = small(size, form).double()
        with torch.inference_mode():
            maps[form] = model.feature_maps(x)
            normed = model.classifier["norm"](maps[form][-1])
            assert torch.equal(model.forward_features(x), normed)
            assert torch.allclose(model(x), model.get_classifier()(normed.mean(dim=(2, 3))))
    assert spec("vig_h_t").grid(*size) == model.grid == tuple(maps["reference"][0].shape[2:])
    assert [m.shape[1] for m in maps["reference"]] == [32, 64, 128, 256]
    for each in maps.values():
        for found, wanted in zip(each, maps["reference"], strict=True):
            assert (found - wanted).norm() < 1e-11 * wanted.norm()


def test_the_first_grid_is_rounded_up() -> None:
    assert spec("vig_h_t").grid(225, 231) == (57, 58)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_near(form: str) -> None:
    x = image(0, 1, 64, 96)
    with torch.inference_mode():
        wanted = small((64, 96), form)(x)
        found = small((64, 96), form).to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert (found - wanted).norm() < 0.05 * wanted.norm()


def test_directions_are_averaged_in_training_and_in_evaluation() -> None:
    model, x = small((32, 32), "chunkwise"), image(0, 1, 32, 32)
    mixer = model.layers[0].blocks[0].op
    gla, scales = mixer.gla, []

    def spy(*inputs: Tensor, direction: str, scale: float) -> tuple[Tensor, Tensor]:
        scales.append(scale)
        o, s = gla(*inputs, direction=direction, scale=scale)
        return o, s

    mixer.gla = spy
    with torch.no_grad():
        model(x)
        model.train()(x)
    assert scales == [16**-0.5 / 2] * 2


@pytest.mark.parametrize("mode", ["parallel", "recurrent"])
def test_every_parameter_gets_a_gradient(mode: Any) -> None:
    model = create("vig_h_t", (40, 48), mode, drop_path_rate=0.2, num_classes=10).train()
    assert [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks] == pytest.approx(
        [0.02 * i for i in range(11)]
    )
    torch.manual_seed(0)
    model(image(0, 4, 40, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_as_a_backbone() -> None:
    x = image(0, 2, 64, 32)
    with torch.inference_mode():
        model = create("vig_h_t", (64, 32), num_classes=0)
        assert model(x).shape == (2, model.num_features) == (2, 768)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert model.get_classifier() is model.classifier["head"]
    with pytest.raises(ShapeError, match="built for 64x32 px"):
        model(image(0, 1, 32, 64))


def closed_form(side: int, *, D: int, depths: tuple[int, ...], H: int, M: tuple[int, ...]) -> int:
    """MACs of ViG-H by hand, layer by layer."""
    half = -(-side // 2)
    total = half**2 * 27 * (D // 2)
    for s, (depth, m) in enumerate(zip(depths, M, strict=True)):
        half = -(-half // 2)
        N, C = half * half, D << s
        total += N * 9 * (C // 2) * C
        total += depth * N * (9 * C + 2 * C * C + 32 * C + 2 * C * C + 3 * C * m + 2048 * (H << s))
    return total + 1000 * 8 * D


@pytest.mark.parametrize("side", [225, 1024])
def test_macs_equal_the_closed_form(side: int) -> None:
    for name, sizes in {
        "vig_h_t": {"D": 96, "depths": (2, 2, 5, 2), "H": 3, "M": (256, 512, 1024, 2048)},
        "vig_h_b": {"D": 128, "depths": (2, 2, 17, 2), "H": 4, "M": (352, 704, 1376, 2752)},
    }.items():
        for case in plan(Sweep((name,), ((side, side),), ("parallel", "recurrent"))):
            assert count(case)["macs"] == closed_form(side, **sizes)


def test_old_names_and_convolutions_of_one_pixel_are_taken() -> None:
    state = Golden("vig_h_t").state()
    old = {}
    for key, value in state.items():
        name = key.replace("patch_embed.0.", "patch_embed.proj.").replace("patch_embed.2.", "patch_embed.norm.")
        name = name.replace(".norm.", ".ln_1.") if name.startswith("layers") else name
        name = name.replace(".op.", ".self_attention.").removeprefix("classifier.")
        matrix = name.startswith("layers") and value.ndim == 2
        old[name] = value[..., None, None] if matrix else value
    assert len(old.keys() & state.keys()) < len(state) / 2
    model = create("vig_h_t", 32)
    load_published(model, {"model_ema": old})
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    del old["norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing: classifier\.norm\.weight$"):
        load_published(model, old)
