"""What users of timm expect of a backbone: timm's registry, heads, features, stochastic depth, gradients."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from weights import image, uninitialised

from vbench.errors import UsageError
from vbench.models import MODELS, create, register_timm
from vbench.models.layers import Backbone

SMALLEST = ["vig_t", "vig_h_t", "vrwkv_t", "vrwkv6_t", "vil_t", "vil2_t", "vir_s", "vision_gru_t", "vmamba_t", "mlla_t"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> list[str]:
    return register_timm()


def test_every_backbone_is_in_timms_registry_once(registered: list[str]) -> None:
    assert registered == [f"vbench_{name}" for name, row in MODELS.items() if row.operator]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert register_timm() == registered
    assert set(timm.list_models("vbench_*")) == set(registered)


@pytest.mark.parametrize("name", SMALLEST)
def test_heads_and_features(name: str) -> None:
    x = image(0, 2, 96, 64)
    model = timm.create_model(f"vbench_{name}", img_size=(96, 64), num_classes=7)
    assert isinstance(model, Backbone)
    with torch.inference_mode():
        logits = model(x)
        assert logits.shape == (2, 7)
        features = model.forward_features(x)
        assert torch.allclose(model.forward_head(features), logits, atol=1e-5)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        model.reset_classifier(3)
        assert model.num_classes == 3
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
        with uninitialised():
            without = create(name, (96, 64), num_classes=0)
        assert without(x).shape == (2, model.num_features)
    with pytest.raises(ValueError, match="pools as published"):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize("name", SMALLEST)
def test_stage_maps(name: str) -> None:
    x = image(0, 2, 96, 64)
    model = timm.create_model(f"vbench_{name}", img_size=(96, 64), features_only=True)
    with torch.inference_mode():
        maps = model(x)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    for found, reduction in zip(maps, model.feature_info.reduction(), strict=True):
        assert found.shape[0] == 2
        assert abs(found.shape[2] - 96 / reduction) < 1
        assert abs(found.shape[3] - 64 / reduction) < 1
    with uninitialised():
        last = timm.create_model(f"vbench_{name}", img_size=(96, 64), features_only=True, out_indices=(-1,))
    assert last.feature_info.channels() == [maps[-1].shape[1]]
    assert len(last(x)) == 1


@pytest.mark.parametrize("mode", ["parallel", "recurrent"])
@pytest.mark.parametrize("name", SMALLEST)
def test_every_parameter_learns(name: str, mode: str) -> None:
    model = create(name, 64, mode).train()  # type: ignore[arg-type]
    model(image(0, 2, 64, 64)).square().mean().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", SMALLEST)
def test_stochastic_depth_acts_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    model, x = create(name, 64, drop_path_rate=0.9), image(0, 4, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("mode", ["parallel", "recurrent"])
@pytest.mark.parametrize("name", SMALLEST)
def test_other_types(name: str, mode: str) -> None:
    model = create(name, 64, mode)  # type: ignore[arg-type]
    for dtype in (torch.bfloat16, torch.float64):
        with torch.inference_mode():
            logits = model.to(dtype)(image(0, 1, 64, 64).to(dtype))
        assert logits.dtype == dtype
        assert torch.isfinite(logits).all()


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no weights come with vbench"):
        timm.create_model("vbench_vig_t", pretrained=True)
    with pytest.raises(UsageError, match="vig_t has no option drop_rate; it has num_classes, drop_path_rate"):
        timm.create_model("vbench_vig_t", drop_rate=0.1)
