"""ViR: one function in both modes, a recurrent pass of constant memory, and the released rules for other sizes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ResolutionError
from vbench.flops.count import count
from vbench.flops.second import second_count
from vbench.kernels import forms
from vbench.models import create, load_published, names, spec
from vbench.models.vir import BAND, ViR
from vbench.plan import Case, Mode

SMALL = {"dim": 32, "depth": 3, "heads": 4, "patch": 4}
FORMS = [(op, form) for op in ("retention", "softmax_retention") for form in forms(op)]


def small(size: tuple[int, int], form: str, op: str = "retention", **options: Any) -> ViR:
    model = ViR(size, op=op, form=form, num_classes=10, **SMALL, **options)
    model.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model.eval()


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm().detach() / wanted.double().norm().detach())


@pytest.mark.parametrize("size", [(4, 4), (32, 32), (33, 35), (45, 91), (8, 300), (300, 8)])
def test_modes_agree_at_sizes_that_nobody_trained(size: tuple[int, int]) -> None:
    x = image(3, 2, *size).double()
    with torch.no_grad():
        wanted = small(size, "quadratic").double()
        for form in ("chunkwise", "reference"):
            model = small(size, form).double()
            assert relative(model(x), wanted(x)) < 1e-11
            assert relative(model.forward_features(x), wanted.forward_features(x)) < 1e-11
            assert relative(model.feature_maps(x)[0], wanted.feature_maps(x)[0]) < 1e-11


@pytest.mark.parametrize(("op", "form"), FORMS)
def test_what_users_of_timm_expect(op: str, form: str) -> None:
    model = small((33, 60), form, op)
    x = image(0, 2, 33, 60)
    features = model.forward_features(x)
    assert features.shape == (2, 8 * 15 + 1, 32)
    assert torch.allclose(model.forward_head(features), model(x), atol=1e-5)
    (stage,) = model.feature_maps(x)
    assert stage.shape == (2, 32, 8, 15)
    assert torch.equal(stage[:, :, 2, 3], features[:, 2 * 15 + 3])
    model.reset_classifier(0)
    assert model(x).shape == (2, 32)
    wanted = model.double()(x.double())
    assert relative(model.bfloat16()(x.bfloat16()), wanted) < 0.1


def test_decays_survive_a_cast_to_half() -> None:
    model = small((8, 8), "chunkwise")
    before = model.decay.clone()
    assert torch.equal(model.bfloat16().double().decay, before)
    assert "decay" not in model.state_dict()


class Largest(TorchDispatchMode):
    """Bytes alive at once, and of the largest piece, of what is made under this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves(args):
            if isinstance(leaf, Tensor):
                self.seen.add(leaf.untyped_storage())
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage() not in self.seen:
                nbytes = leaf.untyped_storage().nbytes()
                self.seen.add(leaf.untyped_storage())
                self.now += nbytes
                self.peak, self.largest = max(self.peak, self.now), max(self.largest, nbytes)
                weakref.finalize(leaf.untyped_storage(), self.drop, nbytes)
        return out

    def drop(self, nbytes: int) -> None:
        self.now -= nbytes


def test_a_recurrent_pass_needs_no_more_memory_at_any_size() -> None:
    live = {}
    for size in ((32, 64), (96, 96), (16, 256), (128, 32)):
        model, x = small(size, "reference"), image(0, 1, *size)
        with torch.no_grad(), Largest() as live[size]:
            model(x)
    least = live.pop((32, 64))
    assert least.largest == BAND * 4 * 32 * 4 + 4 * 4 * 32  # the MLP's inner activations
    for size, run in live.items():
        assert (run.peak, run.largest) == (least.peak, least.largest), size


@pytest.mark.parametrize(("op", "form"), FORMS)
def test_every_parameter_gets_a_gradient(op: str, form: str) -> None:
    model = ViR((36, 52), op=op, form=form, num_classes=10, **SMALL).train()
    model(image(0, 2, 36, 52)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_training_is_the_same_in_both_modes() -> None:
    """Gradients too; and an image's branch is dropped for all its tokens or for none."""
    grads, logits = [], []
    for form in ("chunkwise", "reference"):
        model = small((36, 52), form, drop_path_rate=0.6).double().train()
        torch.manual_seed(5)
        logits.append(model(image(0, 4, 36, 52).double()))
        grads.append(torch.autograd.grad(logits[-1].square().sum(), list(model.parameters())))
    assert relative(logits[1], logits[0].detach()) < 1e-11
    for found, wanted in zip(*grads, strict=True):
        assert relative(found, wanted) < 1e-10


@pytest.mark.parametrize(("op", "form"), FORMS)
def test_only_the_softmax_sees_the_future(op: str, form: str) -> None:
    model, x = small((40, 40), form, op), image(0, 1, 40, 40)
    changed = x.clone()
    changed[:, :, -4:, -4:] = 0
    with torch.no_grad():
        before, after = model.forward_features(x), model.forward_features(changed)
    assert torch.equal(before[:, :99], after[:, :99]) == (op == "retention")
    assert not torch.equal(before[:, 99], after[:, 99])


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "size", "grid"),
        [
            ("vir_s", (224, 224), (14, 14)),
            ("vir_s", (239, 16), (14, 1)),
            ("vir_s_softmax", (256, 320), (16, 20)),
            ("vir_l14", (384, 384), (27, 27)),
            ("vir_l14_softmax", (256, 320), (18, 22)),
        ],
    )
    def test_grids_are_cut_down(self, name: str, size: tuple[int, int], grid: tuple[int, int]) -> None:
        assert spec(name).grid(*size) == grid
        with torch.device("meta"):
            assert create(name, size).grid == grid
        assert (spec(name).padding(*size) or "").startswith("cuts off") == (grid[0] * spec(name).patch != size[0])

    def test_less_than_a_patch_is_refused(self) -> None:
        with pytest.raises(ResolutionError, match="15 px is too small; the least is 16"):
            create("vir_s", (224, 15))

    def test_what_is_cut_off_is_not_seen(self) -> None:
        x = image(0, 1, 39, 35)
        with torch.no_grad():
            for form in forms("retention"):
                assert torch.allclose(small((39, 35), form)(x), small((36, 32), form)(x[:, :, :36, :32]), atol=1e-6)


class TestLoading:
    def test_position_tables_are_resized_as_released(self) -> None:
        arrays = Golden("vir_pos_embed_resize").arrays
        for size, wanted in ((384, 384), arrays["resized_384x384"]), ((256, 320), arrays["resized_256x320"]):
            with torch.device("meta"):
                model = create("vir_s", size)
            found = model.adapt_published({"pos_embed": arrays["source"][None]})["pos_embed"][0]
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() < 2e-6 * wanted.abs().max()

    def test_a_grid_of_as_many_tokens_keeps_the_table(self) -> None:
        table = torch.randn(1, 196, 384)
        with torch.device("meta"):
            model = create("vir_s", (7 * 16, 28 * 16))
        assert torch.equal(model.adapt_published({"pos_embed": table})["pos_embed"], table)

    def test_snapshots_and_old_layouts(self) -> None:
        model = small((32, 32), "chunkwise")
        state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
        old = {f"module.{key}": value for key, value in state.items()}
        old["module.patch_embed.proj.weight"] = old["module.patch_embed.proj.weight"].flatten(1)
        old["module.pre_logits.fc.weight"] = torch.zeros(3, 3)
        zeros = {key: torch.zeros_like(value) for key, value in state.items()}
        load_published(model, {"state_dict": zeros, "state_dict_ema": old, "epoch": 3})
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[key]), key

    def test_another_patch_is_refused(self) -> None:
        model = small((32, 32), "chunkwise")
        state = {**model.state_dict(), "patch_embed.proj.weight": torch.zeros(32, 3 * 64)}
        with pytest.raises(CheckpointError, match=r"patch_embed.proj.weight \(32, 192\) instead of \(32, 3, 4, 4\)"):
            load_published(model, state)


class TestTable:
    def test_a_pattern_takes_the_papers_function(self) -> None:
        assert names("vir_*") == ["vir_s", "vir_b", "vir_l16", "vir_l14"]
        assert names("vir_*_softmax") == [f"{name}_softmax" for name in names("vir_*")]
        assert spec("vir_s").modes == ("parallel", "recurrent")
        assert spec("vir_s_softmax").modes == ("parallel",)

    @pytest.mark.parametrize(
        ("name", "side", "mode", "gmacs"),
        [
            ("vir_s", 224, "recurrent", 4.24 + 0.12),
            ("vir_s", 224, "parallel", 4.24 + 0.12),
            ("vir_s", 1024, "parallel", 88.2 + 2.42),
            ("vir_b", 224, "parallel", 16.85 + 0.23),
            ("vir_l14", 224, "parallel", 77.77 + 0.81),
        ],
    )
    def test_macs_are_the_hand_count(self, name: str, side: int, mode: Mode, gmacs: float) -> None:
        form = {"parallel": "chunkwise", "recurrent": "reference"}[mode]
        work = count(Case(name, side, side, mode, form, 1, "float32", "cpu"))
        assert work["macs"] / 1e9 == pytest.approx(gmacs, rel=2e-3)
        assert (work["macs_executed"] == work["macs"]) == (mode == "recurrent")

    @pytest.mark.parametrize(("name", "form"), [("vir_s", "chunkwise"), ("vir_s_softmax", "suffix")])
    def test_two_counters_agree(self, name: str, form: str) -> None:
        case = Case(name, 96, 176, "parallel", form, 1, "float32", "cpu")
        assert second_count(case, count(case)["macs_executed"])["agree"]


def test_runs_are_short() -> None:
    model = small((64, 64), "reference")
    lengths = [run.shape[1] for run in model.runs(image(0, 1, 64, 64))]
    assert lengths == [BAND, BAND, BAND, BAND + 1]
    assert len(list(small((64, 64), "chunkwise").runs(image(0, 1, 64, 64)))) == 1
