"""Vim: the class token in the middle, two directions and their mean, both rules of positions, values, and loading."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from weights import Golden, image, uninitialised, weight

from vbench.errors import CheckpointError, ResolutionError, UsageError
from vbench.kernels import forms
from vbench.models import create, load_published, names, spec
from vbench.models.closed_forms import closed_form
from vbench.models.vim import Mixer, Vim, resize_positions

FORMS = forms("selective_scan", dtype="float64")
FEW = [(16, 16), (16, 33), (31, 32), (32, 48), (70, 52)]  # 1, 2, 2, 6 and 12 patches


def small(size: tuple[int, int], form: str = "reference", **options: Any) -> Vim:
    model = Vim(size, dim=32, depth=3, form=form, num_classes=10, **options).eval()
    state = model.state_dict()
    model.load_state_dict({k: v if "A_" in k else weight(k, tuple(v.shape)) for k, v in state.items()})
    return model


def relative(found: Tensor, wanted: Tensor) -> float:
    return float(((found.double() - wanted.double()).norm() / wanted.double().norm()).detach())


@pytest.mark.parametrize("form", FORMS)
def test_the_mixer_is_the_published_one(form: str) -> None:
    golden = Golden("vim_mixer_op")
    mixer = Mixer(48, 24, form)
    mixer.load_state_dict(golden.state())
    mixer = mixer.double()
    for case in ("a", "b", "c"):
        with torch.inference_mode():
            found = mixer(golden.arrays[f"{case}_x"].double())
        assert (found - golden.arrays[f"{case}_out"]).abs().max() < 1e-10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", FEW)
def test_forms_agree_at_sizes_that_nobody_trained(size: tuple[int, int], form: str) -> None:
    x = image(3, 2, *size).double()
    with torch.inference_mode():
        wanted, model = small(size).double()(x), small(size, form).double()
        assert relative(model(x), wanted) < 1e-12
        assert spec("vim_t").grid(*size) == model.grid


def test_a_direction_with_the_others_weights_sees_the_mirrored_sequence() -> None:
    torch.manual_seed(1)
    mixer, mirrored = Mixer(32, 1, "reference").double(), Mixer(32, 1, "reference").double()
    state = mixer.state_dict()

    def other(key: str) -> str:
        if key in ("A_log", "A_b_log"):
            return "A_b_log" if key == "A_log" else "A_log"
        name, dot, kind = key.partition(".")
        both = name.removesuffix("_b") + "_b" in {k.partition(".")[0] for k in state}
        return (name.removesuffix("_b") if name.endswith("_b") else f"{name}_b" if both else name) + dot + kind

    assert sum(other(key) != key for key in state) == len(state) - 2  # all but the two projections
    mirrored.load_state_dict({other(key): value for key, value in state.items()})
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    with torch.inference_mode():
        assert relative(mirrored(x.flip(1)).flip(1), mixer(x)) < 1e-14
        assert relative(mirrored(x), mixer(x)) > 0.1


class TestClassToken:
    @pytest.mark.parametrize(("size", "patches"), [((16, 16), 1), ((16, 48), 3), ((48, 64), 12)])
    def test_it_stands_in_the_middle_and_is_read_alone(self, size: tuple[int, int], patches: int) -> None:
        model, x = small(size), image(0, 2, *size)
        tokens: list[Tensor] = []
        model.layers[0].register_forward_hook(lambda _, given, __: tokens.append(given[0]))
        with torch.inference_mode():
            logits, features = model(x), model.forward_features(x)
            (stage,) = model.feature_maps(x)
        entered, p = tokens[0], patches // 2
        assert entered.shape == features.shape == (2, patches + 1, 32)
        assert torch.equal(entered[:, p], (model.cls_token + model.pos_embed[:, p : p + 1])[0].expand(2, -1))
        assert torch.equal(model.pool(features), features[:, p])
        assert stage.shape == (2, 32, *model.grid)
        with torch.inference_mode():
            assert torch.allclose(model.forward_head(features), logits, atol=1e-6)
            rows = torch.cat((features[:, :p], features[:, p + 1 :]), dim=1)
            assert torch.allclose(model.norm_f(stage.flatten(2).mT), rows, atol=1e-6)

    def test_both_halves_of_the_image_reach_it(self) -> None:
        model, x = small((48, 64)), image(0, 1, 48, 64)
        with torch.inference_mode():
            logits = model(x)
            for corner in (slice(0, 16), slice(32, 48)):
                changed = x.clone()
                changed[:, :, corner, corner] += 1
                assert relative(model(changed), logits) > 1e-3


class TestPositions:
    def test_only_aligned_keeps_the_row_of_the_class_token(self) -> None:
        """All rows are 0 but the class token's: only the released rule spreads it."""
        table = torch.zeros(1, 14 * 14 + 1, 1)
        table[0, 98] = 1
        aligned = resize_positions(table, (16, 12), "aligned")[0, :, 0]
        assert torch.equal(aligned, F.one_hot(torch.tensor(96), 193).float())
        released = resize_positions(table, (16, 12), "released")[0, :, 0]
        assert (released != 0).sum() > 4
        assert released[0] == 0

    @pytest.mark.parametrize(("positions", "before", "after"), [("released", 0, 0), ("aligned", 98, 100)])
    def test_all_rows_but_one_are_a_grid(self, positions: Any, before: int, after: int) -> None:
        """The row that is kept is at `before` in a table of 14 x 14 patches and at `after` in one of 20 x 10."""
        table = torch.randn(1, 14 * 14 + 1, 5)
        found = resize_positions(table, (20, 10), positions)
        assert torch.equal(found[:, after], table[:, before])
        grid, wide = (torch.cat((t[0, :p], t[0, p + 1 :])).T for t, p in ((table, before), (found, after)))
        wanted = F.interpolate(grid.reshape(1, 5, 14, 14), (20, 10), mode="bicubic")
        assert torch.allclose(wide, wanted.flatten(2)[0], atol=1e-6)

    def test_the_rule_is_an_option_of_the_model(self) -> None:
        golden = Golden("vim_t")
        x, logits = golden.cases()[2]
        with uninitialised():
            model = create("vim_t", (x.shape[2], x.shape[3]), positions="aligned")
        load_published(model, golden.state())
        with torch.inference_mode():
            apart = float((model(x) - logits).abs().max())
        assert apart == pytest.approx(1.8e-2, rel=0.03)  # what the sheet of the file measured between the rules
        with pytest.raises(UsageError, match="positions is 'released' or 'aligned', not 'front'"):
            create("vim_t", positions="front")

    def test_a_table_that_fits_or_is_no_square(self) -> None:
        with torch.device("meta"):
            model = create("vim_t", (112, 448))
        table = torch.randn(1, 197, 192)
        assert torch.equal(model.adapt_published({"pos_embed": table})["pos_embed"], table)
        oblong = torch.randn(1, 10 * 20 + 1, 192)
        assert torch.equal(resize_positions(oblong, (14, 14), "aligned"), oblong)


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "size", "grid"),
        [
            ("vim_t", (224, 224), (14, 14)),
            ("vim_s", (231, 16), (14, 1)),
            ("vim_t_plus", (224, 224), (27, 27)),
            ("vim_s_plus", (128, 31), (15, 2)),
        ],
    )
    def test_what_a_step_does_not_fill_is_cut_off(
        self, name: str, size: tuple[int, int], grid: tuple[int, int]
    ) -> None:
        row = spec(name)
        assert row.grid(*size) == grid
        cut = [side - (16 + (n - 1) * row.args.get("stride", 16)) for side, n in zip(size, grid, strict=True)]
        said = f"cuts off {cut[0]} rows and {cut[1]} columns of pixels" if any(cut) else None
        assert row.padding(*size) == said
        with torch.device("meta"):
            model = create(name, size)
            assert model.grid == grid
            assert model(torch.empty(1, 3, *size)).shape == (1, 1000)

    def test_less_than_a_patch_is_refused(self) -> None:
        with pytest.raises(ResolutionError, match="15 px is too small; the least is 16"):
            create("vim_t_plus", (224, 15))

    @pytest.mark.parametrize("stride", [16, 8])
    def test_what_is_cut_off_is_not_seen(self, stride: int) -> None:
        x = image(0, 1, 39, 52)
        with torch.inference_mode():
            wanted = small((32, 48), stride=stride)(x[:, :, :32, :48])
            assert torch.allclose(small((39, 52), stride=stride)(x), wanted, atol=1e-6)


class TestTraining:
    def test_it_is_the_same_in_all_forms(self) -> None:
        grads, logits = [], []
        for form in FORMS:
            model = small((36, 52), form, drop_path_rate=0.6).double().train()
            torch.manual_seed(5)
            logits.append(model(image(0, 4, 36, 52).double()))
            grads.append(torch.autograd.grad(logits[-1].square().sum(), list(model.parameters())))
        for more, other in zip(logits[1:], grads[1:], strict=True):
            assert relative(more, logits[0]) < 1e-11
            assert max(relative(*pair) for pair in zip(other, grads[0], strict=True)) < 1e-9

    @pytest.mark.parametrize("mode", ["parallel", "recurrent"])
    def test_every_parameter_gets_a_gradient(self, mode: Any) -> None:
        torch.manual_seed(0)
        model = create("vim_t", 48, mode, drop_path_rate=0.1).train()
        rates = [block.drop_path.drop_prob for block in model.layers]
        assert rates == pytest.approx([0.1 * i / 23 for i in range(24)])
        model(image(0, 4, 48, 48)).square().mean().backward()
        assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_initial_values_are_the_released_ones(self) -> None:
        torch.manual_seed(0)
        model = Vim((224, 224), dim=64, depth=6, form="reference")
        mixer, inner, rank = model.layers[0].mixer, 128, 4
        for log_rates in (mixer.A_log, mixer.A_b_log):
            assert torch.allclose(log_rates.exp(), torch.arange(1.0, 17.0).expand(inner, 16))
        assert (mixer.D == 1).all()
        assert (mixer.D_b == 1).all()
        steps = F.softplus(mixer.dt_proj.bias)
        assert 0.001 < steps.min() < 0.002
        assert 0.05 < steps.max() < 0.1
        assert (mixer.dt_proj_b.bias == 0).all()
        for layer, bound in (
            (mixer.in_proj, 64**-0.5),
            (mixer.x_proj, inner**-0.5),
            (mixer.dt_proj, rank**-0.5),
            (mixer.dt_proj_b, rank**-0.5),
            (mixer.conv1d_b, 0.5),
            (mixer.out_proj, (inner * 6) ** -0.5),
        ):
            assert 0.97 * bound < layer.weight.abs().max() <= bound, layer
        patches = model.patch_embed["proj"]
        assert float(patches.weight.detach().std()) == pytest.approx(768**-0.5, rel=0.02)
        assert not patches.bias.any()
        assert not model.head.bias.any()
        for normal in (model.head.weight, model.pos_embed):
            assert float(normal.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert (model.norm_f.weight == 1).all()


class TestTypes:
    @pytest.mark.parametrize("form", FORMS)
    def test_half_types_stay_near(self, form: str) -> None:
        x = image(0, 1, 48, 64)
        with torch.inference_mode():
            wanted = small((48, 64), form)(x)
            with torch.autocast("cpu", torch.bfloat16):
                cast = small((48, 64), form)(x)
            found = small((48, 64), form).bfloat16()(x.bfloat16())
        assert found.dtype == cast.dtype == torch.bfloat16
        assert relative(found, wanted) < 0.03
        assert relative(cast, wanted) < 0.03

    @pytest.mark.parametrize("autocast", [False, True])
    def test_the_sum_of_branches_stays_in_float32(self, autocast: bool) -> None:
        model, x = small((48, 64)), image(0, 1, 48, 64)
        model, x = (model, x) if autocast else (model.bfloat16(), x.bfloat16())
        sums: list[Tensor] = []
        branches: list[Tensor] = []
        model.layers[1].register_forward_hook(lambda _, __, out: sums.append(out))
        model.layers[1].mixer.register_forward_hook(lambda _, __, out: branches.append(out))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(x)
            assert model.feature_maps(x)[0].dtype == x.dtype
        assert (sums[0].dtype, branches[0].dtype) == (torch.float32, torch.bfloat16)


class TestLoading:
    def test_the_plain_weights_come_first_and_the_average_is_told(self) -> None:
        model = small((32, 32))
        state = {key: torch.rand_like(value) for key, value in model.state_dict().items()}
        average = {key: torch.rand_like(value) for key, value in state.items()}
        snapshot = {"model": state, "model_ema": average, "epoch": 299, "scaler": {}, "args": None}
        loaded = load_published(model, snapshot)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert loaded.place == "model"
        assert loaded.notes == ("loaded model; model_ema fits too, with other weights",)
        assert load_published(model, {"model_ema": average}).place == "model_ema"
        assert all(torch.equal(value, average[key]) for key, value in model.state_dict().items())

    def test_an_average_that_does_not_fit_is_no_matter(self) -> None:
        model = small((32, 32))
        state = model.state_dict()
        broken = {key: value for key, value in state.items() if key != "head.bias"}
        assert load_published(model, {"model": state, "model_ema": broken}).notes == ()

    def test_what_is_missing_is_named(self) -> None:
        model = small((32, 32))
        state = model.state_dict()
        del state["layers.1.mixer.dt_proj_b.bias"]
        with pytest.raises(CheckpointError, match=r"1 missing: layers\.1\.mixer\.dt_proj_b\.bias"):
            load_published(model, {"model": state})

    def test_the_plus_variants_have_the_published_keys(self) -> None:
        published = Golden("manifests/vim_s_plus").manifest
        with torch.device("meta"):
            state = create("vim_s_plus").state_dict()
        assert {key: list(value.shape) for key, value in state.items()} == {k: s for k, s, _ in published["state"]}

    def test_a_new_classifier(self) -> None:
        model = small((32, 32))
        model.reset_classifier(0)
        assert model(image(0, 2, 32, 32)).shape == (2, 32)
        model.reset_classifier(7)
        assert model(image(0, 2, 32, 32)).shape == (2, 7)
        assert isinstance(model.head, nn.Linear)


class TestPrintedWork:
    """Papers count the scan in ways of their own. Ours, counted by their rules, is what they print."""

    @staticmethod
    def tokens(name: str, side: int) -> tuple[int, int, int]:
        """T, C and D."""
        h, w = spec(name).grid(side, side) or (0, 0)
        C = spec(name).args["dim"]
        return h * w + 1, C, 2 * C

    def test_vim_s_with_nine_a_state_and_without_what_lies_between(self) -> None:
        """VMamba's script: 9 a state, skip and gate; convolutions and the projections of steps, B and C are lost."""
        T, C, D = self.tokens("vim_s", 224)
        between = 2 * (4 * D + D * (C // 16 + 32) + C // 16 * D)
        scans = 2 * (2 * D * 16 + D)
        theirs = 2 * (9 * D * 16 + 2 * D)
        count = (closed_form("vim_s", 224, 224) or 0) + 24 * T * (theirs - scans - between)
        assert f"{count / 1e9:.4f}" == "5.3015"

    @pytest.mark.parametrize(("side", "printed"), [(512, 7.7), (1024, 30.8), (2048, 123)])
    def test_vim_t_with_three_a_state(self, side: int, printed: float) -> None:
        """The figure of ViG's paper, read off: 3 a state, skip and gate."""
        T, _, D = self.tokens("vim_t", side)
        count = (closed_form("vim_t", side, side) or 0) + 24 * T * 2 * (D * 16 + D)
        assert count / 1e9 == pytest.approx(printed, rel=5e-3)

    def test_vim_s_in_full(self) -> None:
        """MLLA's table quotes 5.1."""
        assert f"{(closed_form('vim_s', 224, 224) or 0) / 1e9:.1f}" == "5.1"

    def test_the_variants(self) -> None:
        assert names("vim_*") == ["vim_t", "vim_s", "vim_b", "vim_t_plus", "vim_s_plus"]
        assert {spec(name).params for name in names("vim_*")} == {7148008, 25796584, 97598440, 7250344, 26001256}
