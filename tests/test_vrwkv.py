"""Vision-RWKV: modes, readings, the token shift, its initial values, and how its weights are loaded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights import Golden, image, weight

from vbench.errors import CheckpointError, UsageError
from vbench.models import MODELS, create, load_published, spec
from vbench.models.vrwkv import q_shift

READINGS: list[tuple[str, dict[str, Any]]] = [
    ("vrwkv_t", {"reading": "paper"}),
    ("vrwkv_t", {"reading": "kernel"}),
    ("vrwkv6_t", {}),
]


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize(("name", "options"), READINGS)
@pytest.mark.parametrize("size", [(40, 72), (113, 16)])
def test_modes_agree_at_sizes_that_nobody_trained(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    with torch.inference_mode():
        parallel, recurrent = (
            filled(create(name, size, mode, **options)).double()(x) for mode in ("parallel", "recurrent")
        )
    assert (parallel - recurrent).norm() / recurrent.norm() < 1e-12


@pytest.mark.parametrize(("name", "options"), READINGS)
@pytest.mark.parametrize("mode", ["parallel", "recurrent"])
def test_bfloat16_is_float32_rounded(name: str, options: dict[str, Any], mode: Any) -> None:
    model = filled(create(name, 64, mode, **options))
    x = image(0, 1, 64, 64)
    with torch.inference_mode():
        wanted = model(x)
        found = model.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).norm() / wanted.norm() < 3e-2


@pytest.mark.parametrize(
    ("name", "options", "mode"),
    [
        *((*reading, mode) for reading in READINGS for mode in ("parallel", "recurrent")),
        ("vrwkv_s", {"drop_path_rate": 0.1}, "parallel"),
        ("vrwkv6_s", {"drop_path_rate": 0.1}, "parallel"),
    ],
)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any], mode: Any) -> None:
    torch.manual_seed(0)
    model = create(name, 48, mode, **options).train()
    model(image(0, 4, 48, 48)).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize(("size", "grid"), [((48, 32), (3, 2)), ((49, 33), (4, 3)), ((1, 20), (1, 2))])
def test_images_are_filled_up_with_zeros(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert spec("vrwkv_t").grid(*size) == grid
    model, larger = filled(create("vrwkv_t", size)), filled(create("vrwkv_t", (16 * grid[0], 16 * grid[1])))
    x = image(0, 1, *size)
    y = torch.zeros(1, 3, 16 * grid[0], 16 * grid[1])
    y[..., : size[0], : size[1]] = x
    with torch.inference_mode():
        assert torch.equal(model(x), larger(y))
        assert model.feature_maps(x)[0].shape == (1, 192, *grid)
    assert (spec("vrwkv_t").padding(*size) is None) == (size == (48, 32))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("grid", [(3, 5), (1, 4), (2, 1)])
def test_every_quarter_comes_from_its_neighbour(heads: int, grid: tuple[int, int]) -> None:
    x = torch.randn(2, grid[0] * grid[1], 24)
    before = x.clone()
    wanted = torch.zeros_like(x)
    for y in range(grid[0]):
        for column in range(grid[1]):
            for channel in range(24):
                quarter = channel % (24 // heads) // (6 // heads)
                up, left = [(0, -1), (0, 1), (-1, 0), (1, 0)][quarter]
                if 0 <= y + up < grid[0] and 0 <= column + left < grid[1]:
                    wanted[:, y * grid[1] + column, channel] = x[:, (y + up) * grid[1] + column + left, channel]
    assert torch.equal(q_shift(x, grid, heads), wanted)
    assert torch.equal(x, before)


def test_both_readings_are_within_the_published_logits_tolerance() -> None:
    golden = Golden("vrwkv_t")
    x, logits = golden.cases()[0]
    found = {}
    for reading in ("paper", "kernel"):
        model = create("vrwkv_t", reading=reading)
        load_published(model, golden.state())
        with torch.inference_mode():
            found[reading] = float((model(x) - logits).abs().max())
    assert found["kernel"] < 2e-6 < found["paper"] < 1e-4


def test_a_reading_that_does_not_exist_and_one_where_there_is_no_choice() -> None:
    with pytest.raises(UsageError, match="vrwkv6_t has no option reading"):
        create("vrwkv6_t", reading="kernel")


def test_initial_values_are_the_published_ones() -> None:
    att = create("vrwkv_t").backbone.layers[3].att
    q = 100
    assert att.spatial_decay[q].item() == pytest.approx(-5 + 8 * (q / 191) ** (0.7 + 1.3 * 3 / 11), rel=1e-5)
    assert att.spatial_first[q].item() == pytest.approx(math.log(0.3) + 0.5, rel=1e-5)  # (100 + 1) % 3 - 1 = 1
    assert att.spatial_mix_v[0, 0, q].item() == pytest.approx((q / 192) ** (1 - 3 / 12) + 0.3 * 3 / 11, rel=1e-5)
    att = create("vrwkv6_t").backbone.layers[3].att
    assert att.time_decay[0, 0, q].item() == pytest.approx(-6 + 5 * (q / 191) ** (0.7 + 1.3 * 3 / 11), rel=1e-5)
    assert att.time_faaaa[1, 36].item() == pytest.approx(3 / 11 * (1 - q / 191) + 0.1, rel=1e-5)
    assert att.time_maa_r[0, 0, q].item() == pytest.approx(1 - (q / 192) ** ((1 - 3 / 12) / 2), rel=1e-5)
    assert att.time_maa_w2.abs().max() <= 1e-4
    gammas = {name: MODELS[name].args["layer_scale"] for name in MODELS if name.startswith("vrwkv")}
    assert gammas["vrwkv_s"] == 1 != gammas["vrwkv6_s"]
    assert torch.equal(create("vrwkv_s", 32).backbone.layers[2].gamma2, torch.ones(384))


class TestLoading:
    @pytest.fixture
    def state(self) -> dict[str, Tensor]:
        return Golden("vrwkv_t").state()

    def test_the_position_table_takes_the_grid_of_the_image(self, state: dict[str, Tensor]) -> None:
        model = create("vrwkv_t", (256, 320))
        load_published(model, {"state_dict": state})
        assert model.state_dict()["backbone.pos_embed"].shape == (1, 16 * 20, 192)

    def test_keys_of_the_dense_prediction_code_need_a_head(self, state: dict[str, Tensor]) -> None:
        model = create("vrwkv_t")
        bare = {key.removeprefix("backbone."): value for key, value in state.items()}
        load_published(model, {"module": bare})
        assert torch.equal(model.state_dict()["backbone.ln1.weight"], state["backbone.ln1.weight"])
        with pytest.raises(CheckpointError, match="missing"):
            load_published(model, {key: value for key, value in bare.items() if not key.startswith("head.")})

    def test_the_large_model_has_a_classifier_of_two_layers(self) -> None:
        with torch.device("meta"):
            model = create("vrwkv_l", num_classes=21_841)
            assert model.get_classifier().weight.shape == (21_841, 3072)
            assert model(torch.empty(1, 3, 224, 224)).shape == (1, 21_841)
            model.reset_classifier(0)
            assert model(torch.empty(1, 3, 224, 224)).shape == (1, model.num_features)
            assert model.forward_features(torch.empty(1, 3, 224, 224)).shape == (1, 196, 1024)

    def test_a_smaller_classifier(self) -> None:
        model = create("vrwkv_t", 32, num_classes=0)
        assert model(image(0, 1, 32, 32)).shape == (1, 192)
        model.reset_classifier(7)
        assert model(image(0, 1, 32, 32)).shape == (1, 7)
        assert "head.fc.weight" in model.state_dict()
