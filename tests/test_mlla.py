"""MLLA: the published attention, angles, any size, both modes, counts, and what it loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ShapeError
from vbench.flops.count import count
from vbench.kernels import forms
from vbench.models import create, drawn, load_published, spec
from vbench.models.closed_forms import closed_form
from vbench.models.mlla import MLLA, TABLE, Attention, RoPE, rotations
from vbench.plan import Sweep, plan

FORMS = forms("linear_attention")


def small(size: tuple[int, int], form: str = "summary", **options: Any) -> MLLA:
    model = MLLA(size, dim=32, depths=(1, 1, 1, 1), form=form, num_classes=10, **options).eval()
    model.load_state_dict(drawn.weights(model, torch.Generator().manual_seed(0)))
    return model


class TestAttention:
    @pytest.mark.parametrize("form", FORMS)
    def test_is_the_published_one(self, form: str) -> None:
        arrays = Golden("mlla_attn_op").arrays
        for case in "012":
            h, w = arrays[f"{case}_hw"].tolist()
            mixer = Attention(64, (h, w), form)
            filled = {
                key: weight(key, tuple(value.shape)) for key, value in mixer.state_dict().items() if TABLE not in key
            }
            mixer.load_state_dict(filled | {TABLE: mixer.rope.rotations})
            with torch.inference_mode():
                found = mixer.double()(arrays[f"{case}_x"].double().unflatten(1, (h, w))).flatten(1, 2)
            assert (found - arrays[f"{case}_out"]).abs().max() < 1e-10, (h, w)

    def test_places_turn_what_the_numerator_reads_and_not_the_normaliser(self) -> None:
        """One token alone reads itself, whatever its place: a rotation turns its query and its key alike."""
        mixer = Attention(64, (1, 1), "summary").double()
        v = torch.randn(1, 1, 1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            plain = mixer(v)
            mixer.rope.rotations = rotations(64, (30, 40))[29:, 39:].double()
            assert torch.allclose(mixer(v), plain, rtol=1e-6)  # the table has the digits of float32
            q, k = (nn.functional.elu(mixer.qk(v)) + 1).unflatten(-1, (2, 2, 32)).unbind(-3)
            share = (q * k).sum(-1, keepdim=True) / ((q * k).sum(-1, keepdim=True) + 1e-6)
            assert torch.allclose(plain - mixer.lepe(v), (share * v.unflatten(-1, (2, 32))).flatten(-2))


class TestAngles:
    def test_rows_turn_the_first_half_of_the_pairs_and_columns_the_second(self) -> None:
        found = rotations(64, (3, 5))
        assert found.shape == (3, 5, 32, 2)
        assert found.dtype == torch.float32
        for y, x, pair in ((2, 4, 0), (2, 4, 7), (1, 3, 15), (2, 4, 16), (1, 3, 31)):
            angle = torch.tensor((y if pair < 16 else x) * 10_000.0 ** (-(pair % 16) / 16))
            assert torch.allclose(found[y, x, pair], torch.stack((angle.cos(), angle.sin())), atol=1e-6)

    def test_a_pair_is_turned(self) -> None:
        x = torch.zeros(1, 1, 2, 8)
        x[..., 4], x[..., 5] = 3, 1  # of the columns
        cos, sin = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
        found = RoPE(8, (1, 2))(x)
        assert torch.equal(found[0, 0, 0], x[0, 0, 0])
        assert torch.allclose(found[0, 0, 1, 4:6], torch.stack((3 * cos - sin, 3 * sin + cos)))
        assert not found[0, 0, 1, [0, 1, 2, 3, 6, 7]].any()

    def test_are_as_exact_under_autocast(self) -> None:
        x = torch.rand(1, 9, 9, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        rope = RoPE(64, (9, 9))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(rope(x), rope(x.float()).to(torch.bfloat16))
            assert rope(x.float()).dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (97, 65)])
def test_forms_agree_at_any_size(size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    maps: dict[str, list[Tensor]] = {}
    for form in FORMS:
        model = small(size, form).double()
        with torch.inference_mode():
            maps[form] = model.feature_maps(x)
            last = model.norm(maps[form][-1].flatten(2).mT)
            assert torch.allclose(model.forward_features(x), last)
            assert torch.allclose(model(x), model.head(last.mean(1)))
    assert spec("mlla_t").grid(*size) == model.grid == tuple(maps["summary"][0].shape[2:])
    assert [m.shape[1] for m in maps["summary"]] == [32, 64, 128, 256]
    for each in maps.values():
        for found, wanted in zip(each, maps["reference"], strict=True):
            assert (found - wanted).norm() < 1e-12 * wanted.norm()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_near(form: str) -> None:
    x = image(0, 1, 64, 96)
    with torch.inference_mode():
        wanted = small((64, 96), form)(x)
        found = small((64, 96), form).to(torch.bfloat16)(x.to(torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = small((64, 96), form)(x)
    assert found.dtype == mixed.dtype == torch.bfloat16
    assert (found - wanted).norm() < 0.05 * wanted.norm()
    assert (mixed - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("form", ["summary", "compiled"])
def test_every_parameter_gets_a_gradient_and_batch_norms_count(form: str) -> None:
    model = MLLA((40, 48), dim=32, depths=(1, 2, 2, 1), form=form, num_classes=10, drop_path_rate=0.1).train()
    assert [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks] == pytest.approx(
        [0.1 * i / 5 for i in range(6)]
    )
    assert float(model.head.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not model.layers[0].blocks[0].in_proj.bias.any()
    torch.manual_seed(0)
    model(image(0, 4, 40, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.patch_embed.conv1.norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("name", "side", "gmacs"), [("mlla_t", 224, 4.13), ("mlla_t", 1024, 86.4), ("mlla_b", 512, 84.2)]
)
def test_macs_are_the_hand_count_in_both_modes(name: str, side: int, gmacs: float) -> None:
    parallel, recurrent = (count(each) for each in plan(Sweep((name,), ((side, side),), ("parallel", "recurrent"))))
    assert parallel["macs"] == recurrent["macs"] == closed_form(name, side, side)
    assert parallel["macs_executed"] == recurrent["macs_executed"] == parallel["macs"]
    assert parallel["macs"] / 1e9 == pytest.approx(gmacs, rel=2e-3)
    assert parallel["state_bytes"] == 4 * (8 * spec(name).args["dim"] * 33 + 1)  # of the last stage


def test_as_a_backbone() -> None:
    x = image(0, 2, 64, 32)
    with torch.inference_mode():
        model = create("mlla_t", (64, 32), num_classes=0)
        assert model(x).shape == (2, model.num_features) == (2, 512)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert model.get_classifier() is model.head
    with pytest.raises(ShapeError, match="built for 64x32 px"):
        model(image(0, 1, 32, 64))


class TestCheckpoints:
    def test_tables_of_another_size_are_made_anew(self) -> None:
        published = small((64, 64)).state_dict()
        assert published["layers.0.blocks.0.attn.rope.rotations"].shape == (16, 16, 16, 2)
        model = small((33, 70))
        for state in (published, {key: value for key, value in published.items() if not key.endswith(TABLE)}):
            load_published(model, {"model": state})
            for key, value in model.state_dict().items():
                wanted = small((33, 70)).state_dict()[key] if key.endswith(TABLE) else published[key]
                assert torch.equal(value, wanted), key

    def test_the_average_of_training_comes_first(self) -> None:
        model, state = small((64, 64)), small((64, 64)).state_dict()
        average = {key: value / 2 if value.is_floating_point() else value for key, value in state.items()}
        loaded = load_published(model, {"model": state, "state_dict_ema": average, "epoch": 299})
        assert loaded.place == "state_dict_ema"
        assert any("model fits too" in note for note in loaded.notes)
        assert torch.equal(model.norm.weight, average["norm.weight"])
        assert load_published(model, {"model": state}).place == "model"

    def test_counters_may_be_missing_and_weights_may_not(self) -> None:
        state = small((64, 64)).state_dict()
        load_published(small((64, 64)), {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")})
        with pytest.raises(CheckpointError, match=r"2 missing: norm\.weight, norm\.bias"):
            load_published(small((64, 64)), {k: v for k, v in state.items() if not k.startswith("norm.")})
        with pytest.raises(CheckpointError, match=r"1 unexpected: layers\.0\.blocks\.0\.attn\.extra"):
            load_published(small((64, 64)), {**state, "layers.0.blocks.0.attn.extra": torch.zeros(1)})


def test_random_weights_leave_the_angles_as_they_are() -> None:
    model = small((64, 64))
    table = model.layers[0].blocks[0].attn.rope.rotations
    assert torch.equal(table, rotations(32, (16, 16)))
