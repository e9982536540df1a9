"""The zoo: the published function, in both modes, at any size; and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ResolutionError, ShapeError, UnknownModelError, UnsupportedError
from vbench.models import MODELS, create, load_published, names, registry, spec
from vbench.results.published import accuracies

MODES = ("parallel", "recurrent")


@pytest.mark.parametrize("size", [(7, 7), (97, 65), (230, 224), (232, 224), (225, 231)])
def test_modes_agree_at_sizes_that_nobody_trained(size: tuple[int, int]) -> None:
    models = {mode: create("vig_t", size, mode).double() for mode in MODES}
    state = {key: weight(key, tuple(value.shape)) for key, value in models["parallel"].state_dict().items()}
    x = image(3, 2, *size).double()
    logits = {}
    for mode, model in models.items():
        model.load_state_dict(state)
        with torch.inference_mode():
            logits[mode] = model(x)
    error = (logits["parallel"] - logits["recurrent"]).norm() / logits["parallel"].norm()
    assert error < 1e-12


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((230, 224), (14, 14)),
        ((232, 224), (15, 14)),
        ((225, 231), (14, 15)),
        ((97, 65), (6, 4)),
        ((7, 7), (1, 1)),
    ],
)
def test_grids_are_those_of_the_published_stem(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert spec("vig_t").grid(*size) == grid
    with torch.device("meta"):
        model = create("vig_t", size)
        assert model.grid == grid
        assert model.patch_embed(torch.empty(1, 3, *size)).shape[2:] == grid


def test_training_averages_the_directions_and_evaluation_halves_again() -> None:
    model = create("vig_t", 64)
    seen = []
    model.blocks[0].attn.g_norm.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    x = image(0, 1, 64, 64)
    with torch.no_grad():
        model(x)
        model.train()(x)
    assert torch.allclose(seen[1], 2 * seen[0], rtol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    model = create("vig_t", 48).train()
    model(image(0, 2, 48, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="built for 64x64 px; the image has 64x80"):
        create("vig_t", 64)(torch.zeros(1, 3, 64, 80))


class TestTable:
    def test_every_row_builds_with_its_parameters(self) -> None:
        modes = {(row.build, row.operator, mode) for row in MODELS.values() for mode in row.modes}
        for name, row in MODELS.items():
            for mode in row.modes:
                if (row.build, row.operator, mode) in modes or mode == "parallel":
                    modes.discard((row.build, row.operator, mode))
                    with torch.device("meta"):
                        model = create(name, mode=mode)
                    assert sum(p.numel() for p in model.parameters()) == row.params, name
                    assert not model.training

    def test_every_row_has_a_published_accuracy(self) -> None:
        without = {name for name in MODELS if (name, 224) not in accuracies()}
        # ViR's tables were not at hand; VRWKV-L was trained on more than ImageNet-1K, and tested at 384 px.
        assert without == {name for name in MODELS if name.startswith("vir_")} | {"vrwkv_l"} & set(MODELS)
        assert accuracies()["vig_t", 224].top1 == 77.2
        assert accuracies()["deit_t", 224].top1 == 72.2
        assert accuracies()["swin_t", 224].top1 == 81.2

    def test_listing_imports_no_torch(self) -> None:
        code = (
            "import sys; from vbench.models import names, spec; from vbench.reports.models import rows;"
            "names(); spec('vig_t'); rows();"
            "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0

    def test_a_name_that_stands_twice_is_refused(self) -> None:
        shared = registry.MODELS["vig_t"]
        twice = registry._family(shared, registry._variant("net", 1, {}), registry._variant("net", 2, {}))
        with pytest.raises(ValueError, match="two models are called net"):
            registry._table(twice)

    def test_names_and_patterns(self) -> None:
        assert names("vig_?") == ["vig_t", "vig_s", "vig_b"]
        assert names() == [name for name, row in MODELS.items() if row.caveat is None]

    @pytest.mark.parametrize(
        ("name", "size", "windows"),
        [
            ("swin_t", 224, None),
            ("swin_t", 512, "stage 1 128x128 to 133x133"),
            ("deit_t", 512, None),
            ("vrwkv_t", 230, "pads 10 rows and 10 columns"),
            ("vir_s", 230, "cuts off 6 rows and 6 columns"),
            ("vision_gru_t", 230, None),
        ],
    )
    def test_padding_is_said(self, name: str, size: int, windows: str | None) -> None:
        said = spec(name).padding(size, size)
        assert said is None if windows is None else said is not None and windows in said


class TestRefusals:
    def test_names(self) -> None:
        with pytest.raises(UnknownModelError, match="did you mean deit_t"):
            create("deit_x")
        with pytest.raises(UnknownModelError, match="timm/resnet50"):
            create("timm/resnet5O")

    def test_sizes(self) -> None:
        with pytest.raises(ResolutionError, match="230 px is not a multiple of 16; take 224 or 240"):
            create("deit_t", (224, 230))

    def test_modes_and_forms(self) -> None:
        with pytest.raises(UnsupportedError, match="deit_t has no recurrent mode"):
            create("deit_t", mode="recurrent")
        with pytest.raises(UnsupportedError, match="no form 'fast'"):
            create("vig_t", form="fast")
        with pytest.raises(UnsupportedError, match="no operator of ours"):
            create("deit_t", form="chunkwise")


class TestLoading:
    def test_snapshots_are_unwrapped_averaged_weights_first(self) -> None:
        model = create("vig_t")
        state = Golden("vig_t").state()
        zeros = {key: torch.zeros_like(value) for key, value in state.items()}
        load_published(model, {"model": zeros, "model_ema": state, "epoch": 300})
        assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])
        load_published(model, {"model": {f"module.{key}": value for key, value in zeros.items()}})
        assert model.state_dict()["head.weight"].abs().sum() == 0

    def test_everything_wrong_is_named_and_nothing_is_loaded(self) -> None:
        model = create("vig_t")
        before = model.head.weight.clone()
        state = Golden("vig_t").state()
        del state["norm.weight"]
        state["extra.weight"] = torch.zeros(1)
        state["head.bias"] = torch.zeros(10)
        with pytest.raises(CheckpointError) as caught:
            load_published(model, state)
        for part in (
            "missing: norm.weight",
            "unexpected: extra.weight",
            "head.bias (10,) instead of (1000,)",
        ):
            assert part in str(caught.value)
        assert torch.equal(model.head.weight, before)

    def test_entries_that_are_no_tensors_are_named(self) -> None:
        with pytest.raises(CheckpointError, match="no tensors: epoch"):
            load_published(create("vig_t"), {**Golden("vig_t").state(), "epoch": 3})

    def test_a_position_table_that_is_no_square_is_refused(self) -> None:
        state = Golden("vig_t").state()
        state["pos_embed"] = torch.zeros(1, 197, 192)
        with pytest.raises(CheckpointError, match="pos_embed"):
            load_published(create("vig_t"), state)

    @pytest.mark.parametrize("name", ["deit_t", "swin_t"])
    def test_baselines_take_timms_weights_at_another_resolution(self, name: str) -> None:
        published = timm.create_model(spec(name).args["name"])
        model = create(name, (256, 320))
        load_published(model, {"model": published.state_dict()})
        assert torch.equal(model.head.state_dict().popitem()[1], published.head.state_dict().popitem()[1])
        with torch.inference_mode():
            assert torch.isfinite(model(image(0, 1, 256, 320))).all()


def test_deit3_computes_what_its_authors_published() -> None:
    golden = Golden("deit3_tiny")
    for x, logits in golden.cases():
        model = create("deit3_t", (x.shape[2], x.shape[3]))
        load_published(model, golden.state())
        with torch.inference_mode():
            assert (model(x) - logits).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/vit_tiny_patch16_224"])
def test_any_model_of_timm(name: str) -> None:
    with torch.inference_mode():
        assert create(name, (96, 64))(image(0, 2, 96, 64)).shape == (2, 1000)


def test_a_size_that_timm_cannot_build_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="timm/xcit_tiny_12_p16_224 cannot take 100x96: "):
        create("timm/xcit_tiny_12_p16_224", (100, 96))
