"""ViL: published names and files, both directions and modes, sizes, training, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ResolutionError
from vbench.flops.count import count
from vbench.flops.second import second_count
from vbench.models import MODELS, create, load_published
from vbench.models.layers import resize_map
from vbench.models.vil import SIDES, Block, CausalConv, ImageConv, Layer
from vbench.plan import Case

PUBLISHED = {
    "vil_t": "vil_tiny_e400",
    "vil_tplus": "vil_tinyplus",
    "vil_s": "vil_small",
    "vil_splus": "vil_smallplus",
    "vil_b": "vil_base",
    "vil_splus_s8": "vil_smallplus_stride8",
    "vil_b_s8": "vil_base_stride8",
    "vil2_t": "vil2_tiny_e400",
    "vil2_b": "vil2_base",
}  # and whatever has logits
SMALL = ("vil_t", "vil_tplus_s8", "vil2_t")


def filled(name: str, size: Any, **options: Any) -> nn.Module:
    model = create(name, size, **options)
    model.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize(("name", "manifest"), list(PUBLISHED.items()))
def test_keys_and_shapes_are_the_published_ones(name: str, manifest: str) -> None:
    published = Golden(f"manifests/{manifest}").manifest
    with torch.device("meta"):
        model = create(name)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {
        key: shape for key, shape, _ in published["state"]
    }
    assert sum(p.numel() for p in model.parameters()) == published["params"]


@pytest.mark.parametrize("name", ["vil_t", "vil2_t"])
def test_the_published_files_load_under_their_own_names(name: str) -> None:
    model = create(name, (32, 48))
    state = {key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    final, pooled = ("legacy_norm", "norm") if name == "vil_t" else ("norm", "legacy_norm")

    def original(key: str) -> str:
        root, _, rest = key.partition(".")
        if root == final:
            return f"xlstm.post_blocks_norm.{rest}"
        if root in (pooled, "head"):
            return f"head.{0 if root == pooled else 1}.{rest}"
        if root != "blocks":
            return key
        at, _, rest = rest.partition(".")
        if name == "vil2_t":
            side, _, rest = rest.partition(".")
            at = str(2 * int(at) + SIDES.index(side))
        rest = rest.replace("layer.conv.", "layer.conv1d.")
        part, _, rest = rest.partition(".")
        return f"xlstm.blocks.{at}.{'xlstm_norm' if part == 'norm' else 'xlstm'}.{rest}"

    file = {original(key): value for key, value in state.items()}
    assert sum(key.startswith("xlstm.blocks.23.") for key in file) > 10
    file["xlstm.blocks.0.xlstm.mlstm_cell.causal_mask"] = torch.ones(1)
    load_published(model, {"state_dict": file})
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    file["xlstm.blocks.24.xlstm.learnable_skip"] = torch.ones(384)
    with pytest.raises(CheckpointError, match="unexpected: blocks"):
        load_published(model, {"state_dict": file})


def test_a_table_of_any_grid_is_resized() -> None:
    state = Golden("vil2_tiny").state()
    model = create("vil2_t", (64, 96))
    for grid in ((14, 14), (3, 5), (4, 6)):
        state["pos_embed.embed"] = weight("table", (1, *grid, 192))
        load_published(model, state)
        wanted = resize_map(state["pos_embed.embed"], (4, 6))
        assert torch.equal(model.state_dict()["pos_embed.embed"], wanted)
    assert wanted is state["pos_embed.embed"]


def test_stride_8_resizes_its_table_twice() -> None:
    state = Golden("vil_tinyplus_stride8").state()
    model = create("vil_tplus_s8", 384)
    load_published(model, state)
    assert model.grid == (47, 47)
    twice = resize_map(resize_map(state["pos_embed.embed"], (24, 24)), (47, 47))
    assert torch.equal(model.pos_embed(torch.zeros(1, 47, 47, 192)), twice)
    assert not torch.allclose(twice, resize_map(state["pos_embed.embed"], (47, 47)), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "size"), [("vil_t", (176, 112)), ("vil_tplus_s8", (48, 64)), ("vil2_t", (176, 112)), ("vil2_t", (16, 16))]
)
def test_modes_agree_at_sizes_that_nobody_trained(name: str, size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    with torch.inference_mode():
        parallel, recurrent = (filled(name, size, mode=mode).double()(x) for mode in ("parallel", "recurrent"))
    assert (parallel - recurrent).norm() < 1e-10 * parallel.norm()


def test_sizes_that_are_no_multiple_of_16_are_refused() -> None:
    with pytest.raises(ResolutionError, match="230 px is not a multiple of 16"):
        create("vil_tplus_s8", (224, 230))


@pytest.mark.parametrize("version", [1, 2])
def test_a_reverse_layer_is_a_forward_layer_on_the_image_turned_by_180_degrees(version: Any) -> None:
    ahead, back = (Layer(16, (3, 5), version, "chunkwise", reverse).double() for reverse in (False, True))
    state = {key: weight(key, tuple(value.shape)).double() for key, value in ahead.state_dict().items()}
    for layer in (ahead, back):
        layer.load_state_dict(state)
    x = torch.randn(2, 15, 16, dtype=torch.float64)
    assert torch.allclose(back(x), ahead(x.flip(1)).flip(1), rtol=1e-12, atol=1e-12)


def test_a_causal_convolution_ends_at_its_own_token() -> None:
    for reverse in (False, True):
        conv = CausalConv(1, reverse)
        with torch.no_grad():
            conv.conv.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
            conv.conv.bias.zero_()
            seen = conv(torch.eye(6)[3].reshape(1, 6, 1)).flatten().tolist()
        assert seen == ([1.0, 2.0, 3.0, 4.0, 0.0, 0.0] if reverse else [0.0, 0.0, 0.0, 4.0, 3.0, 2.0])


def test_every_second_block_travels_backward() -> None:
    def directions(model: nn.Module) -> list[tuple[str, bool]]:
        cells = [module.direction for module in model.modules() if hasattr(module, "direction")]
        convs = [module.reverse for module in model.modules() if isinstance(module, CausalConv | ImageConv)]
        return list(zip(cells, convs, strict=True))

    for name, depth in (("vil_t", 24), ("vil_tplus", 29), ("vil_splus", 26), ("vil2_t", 24)):
        with torch.device("meta"):
            found = directions(create(name))
        assert found == ([("forward", False), ("reverse", True)] * 15)[:depth]


@pytest.mark.parametrize("name", SMALL)
def test_forward_reads_two_tokens_of_the_features(name: str) -> None:
    model = filled(name, (32, 48))
    x = image(0, 2, 32, 48)
    with torch.inference_mode():
        features = model.forward_features(x)
        assert features.shape == (2, model.grid[0] * model.grid[1], 192)
        assert torch.allclose(model.forward_head(features), model(x), atol=1e-6)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        (fine,) = model.feature_maps(x)
        assert fine.shape == (2, 192, *model.grid)
        assert torch.allclose(
            fine[:, :, -1, 0], (model.norm if name != "vil2_t" else nn.Identity())(features)[:, -model.grid[1]]
        )
        model.reset_classifier(0)
        assert model(x).shape == (2, model.num_features)


@pytest.mark.parametrize(
    ("name", "mode"), [(name, "parallel") for name in SMALL] + [("vil_t", "recurrent"), ("vil2_t", "recurrent")]
)
def test_every_parameter_gets_a_gradient(name: str, mode: Any) -> None:
    model = create(name, 32, mode, drop_path_rate=0.1).train()
    model(image(0, 2, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert {block.drop_prob for block in model.modules() if hasattr(block, "drop_prob")} == {0.1}


def test_gates_and_gains_begin_as_published() -> None:
    model = create("vil2_t", 16)
    state = model.state_dict()
    for side in SIDES:
        layer = f"blocks.0.{side}.layer"
        assert state[f"{layer}.mlstm_cell.fgate.bias"].tolist() == [3, 4, 5, 6]
        assert not state[f"{layer}.mlstm_cell.fgate.weight"].any()
        assert not state[f"{layer}.mlstm_cell.outnorm.weight"].any()
        assert state[f"{layer}.proj_up.weight"].std() == pytest.approx((2 / (5 * 192)) ** 0.5, rel=0.02)
        assert state[f"{layer}.q_proj.weight"].std() == pytest.approx((2 / (5 * 192)) ** 0.5, rel=0.1)
        assert state[f"{layer}.proj_down.weight"].std() == pytest.approx(2 / 192**0.5, rel=0.02)
    assert state["patch_embed.proj.weight"].abs().max() == pytest.approx((6 / (192 + 768)) ** 0.5, rel=0.01)
    assert state["head.weight"].std() == pytest.approx(2e-5, rel=0.02)


@pytest.mark.parametrize("version", [1, 2])
def test_half_precision_costs_its_rounding(version: Any) -> None:
    """One block alone: 24 under random weights amplify any rounding, version 1's most."""
    x = torch.randn(2, 77, 64).bfloat16()
    for form, reverse in (("chunkwise", False), ("reference", True)):
        block = Block(64, (7, 11), version, form, 0.0, reverse=reverse)
        block.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in block.state_dict().items()})
        with torch.inference_mode():
            found, exact = block.bfloat16()(x), block.double()(x.double())
        assert found.dtype == torch.bfloat16
        assert (found - exact).norm() < 0.03 * (exact - x).norm()


@pytest.mark.parametrize(("name", "height", "width"), [("vil_t", 224, 224), ("vil_b_s8", 96, 64), ("vil2_s", 512, 256)])
def test_work_equals_its_closed_form(name: str, height: int, width: int) -> None:
    args = MODELS[name].args
    d, taps = args["dim"], 4 if args["version"] == 1 else 9
    E, stride = 2 * d, args.get("stride", 16)
    N = ((height - 16) // stride + 1) * ((width - 16) // stride + 1)
    # Projections up and down, headwise ones, convolution, gates, and the state's update and read-out.
    layer = 3 * d * E + 3 * 4 * E + taps * E + 2 * 3 * E * 4 + 2 * E * (E // 4 + 1)
    found = count(Case(name, height, width, "parallel", "chunkwise", 1, "float32", "cpu"))
    assert found["macs"] == N * 768 * d + args["depth"] * N * layer + 1000 * d * args["version"]
    assert found["macs_executed"] > found["macs"]


def test_the_second_counter_agrees() -> None:
    case = Case("vil2_t", 224, 224, "parallel", "chunkwise", 1, "float32", "cpu")
    assert second_count(case, count(case)["macs_executed"])["agree"] is True
