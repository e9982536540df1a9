"""VisionGRU: the published stage maps, any size, both modes, and what it loads."""

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
from vbench.models.vision_gru import VisionGRU
from vbench.plan import Sweep, plan

FORMS = forms("mingru")
STATE = Golden("vision_gru_t").state()


def small(size: tuple[int, int], form: str) -> nn.Module:
    model = VisionGRU(size, dim=16, depths=(1, 1, 2, 1), form=form, num_classes=10).eval()
    model.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "seed", "size"), [("even", 2, (256, 320)), ("odd", 3, (250, 330))])
def test_stage_maps_are_the_published_ones(name: str, seed: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    arrays = Golden("vision_gru_t_stages").arrays
    x = image(seed, 1, *size).to(dtype)
    model = create("vision_gru_t", size).to(dtype)
    model.load_state_dict(STATE)
    with torch.inference_mode():
        maps = model.feature_maps(x)
    for stage, found in enumerate(maps, start=1):
        wanted = arrays[f"{name}_{stage}"].double()
        channels = found if stage == 4 else found[:, ::8]  # of stages 1 to 3 every eighth channel is kept
        # The maps are stored in float32: half a unit in their last place is all that float64 may differ by.
        bound = 1e-6 * wanted.abs().clamp_min(1) if dtype == torch.float64 else torch.tensor(2e-5)
        assert channels.shape == wanted.shape
        assert ((channels - wanted).abs() <= bound).all(), stage


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (97, 65)])
def test_forms_agree_at_any_size(size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    maps: dict[str, list[Tensor]] = {}
    for form in FORMS:
        model = small(size, form).double()
        with torch.inference_mode():
            maps[form] = model.feature_maps(x)
            assert torch.equal(model.forward_features(x), maps[form][-1])
            assert torch.allclose(model(x), model.fc(maps[form][-1].mean(dim=(2, 3))))
    assert spec("vision_gru_t").grid(*size) == model.grid == tuple(maps["scan"][0].shape[2:])
    assert [m.shape[1] for m in maps["scan"]] == [16, 32, 64, 128]
    for each in maps.values():
        for found, wanted in zip(each, maps["reference"], strict=True):
            assert (found - wanted).norm() < 1e-12 * wanted.norm()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_near(form: str) -> None:
    x = image(0, 1, 64, 96)
    with torch.inference_mode():
        wanted = small((64, 96), form)(x)
        found = small((64, 96), form).to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert (found - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("mode", ["parallel", "recurrent"])
def test_every_parameter_gets_a_gradient(mode: Any) -> None:
    model = create("vision_gru_t", (40, 48), mode, drop_path_rate=0.1, num_classes=10).train()
    assert [block.drop_path.drop_prob for blocks in model.snake_gru.layers for block in blocks] == pytest.approx(
        [0.1 * i / 13 for i in range(14)]
    )
    torch.manual_seed(0)
    model(image(0, 4, 40, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "side", "gmacs", "updates"),
    [
        ("vision_gru_t", 224, 4.87, 4.7e6),
        ("vision_gru_t", 1248, 151.09, 147.2e6),
        ("vision_gru_b", 224, 14.90, None),
        ("vision_gru_b", 2048, 1245, None),
    ],
)
def test_macs_are_the_hand_count_and_one_a_state_and_token(
    name: str, side: int, gmacs: float, updates: float | None
) -> None:
    sweep = Sweep((name,), ((side, side),), ("parallel", "recurrent"))
    parallel, recurrent = (count(case) for case in plan(sweep))
    assert parallel["macs"] == recurrent["macs"] == recurrent["macs_executed"] < parallel["macs_executed"]
    assert parallel["macs"] / 1e9 == pytest.approx(gmacs, rel=2e-3)
    if updates is not None:
        scans = (parallel["macs_executed"] - parallel["macs"]) / 1.15  # scan executes 2.15 updates for each one needed
        assert scans == pytest.approx(updates, rel=0.05)


def test_as_a_backbone() -> None:
    x = image(0, 2, 64, 32)
    with torch.inference_mode():
        model = create("vision_gru_t", (64, 32), num_classes=0)
        assert model(x).shape == (2, model.num_features) == (2, 576)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert model.get_classifier() is model.fc
    with pytest.raises(ShapeError, match="built for 64x32 px"):
        model(image(0, 1, 32, 64))


def test_published_prefixes_are_stripped_and_a_missing_classifier_is_named() -> None:
    model = create("vision_gru_t", 32)
    load_published(model, {f"_orig_mod.{key}": value for key, value in STATE.items()})
    assert all(torch.equal(value, STATE[key]) for key, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"missing: fc\.weight, fc\.bias$"):
        load_published(
            model, {f"backbone.vig.{key}": value for key, value in STATE.items() if not key.startswith("fc.")}
        )
