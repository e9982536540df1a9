"""VMamba: the published mixer, the order of its walks, any size, both modes, its cost, and what it loads."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from weights import Golden, image, weight

from vbench.errors import CheckpointError, ResolutionError
from vbench.exports.program import nodes
from vbench.flops.count import count
from vbench.kernels import forms, operator
from vbench.kernels.selective_scan import scan
from vbench.models import create, load_published, spec
from vbench.models.closed_forms import closed_form
from vbench.models.vmamba import SS2D, Merging, VMamba, VMambaV0
from vbench.plan import Sweep, plan
from vbench.results.countings import published_macs

FORMS = forms("selective_scan")
NARROW: dict[str, Any] = {"dim": 32, "depths": (1, 1, 1, 1), "num_classes": 10}
DESIGNS = ("released", "v0")
MIXERS = Golden("ss2d_op")


def small(design: str, size: tuple[int, int], form: str) -> nn.Module:
    """A narrow model whose scans matter: steps near 1, and inputs that write and read much."""
    model = VMambaV0(size, form=form, **NARROW) if design == "v0" else VMamba(size, ratio=2, form=form, **NARROW)
    state = {key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    state |= {key: 16 * value for key, value in state.items() if key.endswith("x_proj_weight")}
    model.load_state_dict(state)
    return model.eval()


def mixer(kind: str, form: str) -> SS2D:
    """A mixer of `ss2d_op` with its weights, in float64."""
    shapes = {key: shape for key, shape, _ in MIXERS.manifest["cases"][kind]["state"]}
    golden = Golden("ss2d_op")
    golden.manifest |= golden.manifest["cases"][kind]
    dim, inner = shapes["out_proj.weight"]
    module = SS2D(dim, inner, shapes["A_logs"][1], form, gated=kind == "vanilla").double()
    module.load_state_dict(golden.state())
    return module


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, n) for kind, about in MIXERS.manifest["cases"].items() for n in range(len(about["shapes"]))],
)
def test_the_mixer_is_the_published_one(kind: str, number: int, form: str) -> None:
    """Among the cases is one of small inputs, by which a mean in place of the sum, or another ε, would show."""
    x, wanted = (MIXERS.arrays[f"{kind}{number}_{name}"] for name in ("x", "out"))
    module, seen = mixer(kind, form), list[Tensor]()
    module.out_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        found = module(x.double().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert (found - wanted).abs().max() < 1e-10
    merged = MIXERS.arrays.get(f"{kind}{number}_merged")
    if merged is not None:
        assert (seen[0].permute(0, 3, 1, 2) - merged).abs().max() < 1e-10 * merged.abs().max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("walk", range(4))
def test_each_walk_visits_the_map_in_the_published_order(walk: int, form: str) -> None:
    """What the first token of a walk writes fades from token to token: what is read there tells the order."""
    order, one = MIXERS.arrays["order_3x4"][walk], torch.ones(4, 1, 1, 1, dtype=torch.float64)
    u = torch.zeros(1, 1, 12, 1, dtype=torch.float64)
    u[:, :, order[0]] = 1
    delta, B = (value.expand(4, 1, 1, 12, 1) for value in (one[..., None], one[..., None]))
    C = torch.zeros(4, 1, 1, 12, 1, dtype=torch.float64)
    C[walk] = 1
    skip = torch.zeros(4, 1, 1, dtype=torch.float64)
    y, _ = operator("selective_scan", form)(u, delta, -one, B, C, skip, skip, direction="cross", width=4)
    step = F.softplus(torch.ones(()).double())
    assert torch.allclose(y[0, 0, order, 0], step * (-step * torch.arange(12)).exp(), rtol=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("size", [(4, 4), (17, 38), (29, 19)])
def test_forms_agree_at_any_size(size: tuple[int, int], design: str) -> None:
    x = image(3, 2, *size).double()
    maps: dict[str, list[Tensor]] = {}
    for form in FORMS:
        model = small(design, size, form).double()
        with torch.inference_mode():
            maps[form] = model.feature_maps(x)
            normed = model.classifier["norm"](maps[form][-1])
            assert torch.equal(model.forward_features(x), normed)
            assert torch.allclose(model(x), model.get_classifier()(normed.mean(dim=(2, 3))))
    name = "vmamba_v0_t" if design == "v0" else "vmamba_t"
    assert spec(name).grid(*size) == model.grid == tuple(maps["reference"][0].shape[2:])
    assert [m.shape[1] for m in maps["reference"]] == [32, 64, 128, 256]
    for before, after in zip(maps["reference"], maps["reference"][1:], strict=False):
        assert [-(-side // 2) for side in before.shape[2:]] == list(after.shape[2:])
    for each in maps.values():
        for found, wanted in zip(each, maps["reference"], strict=True):
            assert (found - wanted).norm() < 1e-12 * wanted.norm()


@pytest.mark.parametrize(("kind", "room", "loops"), [("released", 1 << 20, 0), ("vanilla", 1, 1)])
def test_an_exported_mixer_has_one_walk_for_all_four(
    kind: str, room: int, loops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scan.GROUPS, "cpu", room)
    module, x = mixer(kind, "scan"), MIXERS.arrays[f"{kind}0_x"].double().permute(0, 2, 3, 1)
    with torch.no_grad():
        graph = torch.export.export(module, (x,), strict=False)
        assert (graph.module()(-x) - module(-x)).abs().max() < 1e-12
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("scan" in target for target in called) == loops
    assert nodes(graph) < 400


def test_sizes_that_the_first_design_cuts_and_refuses() -> None:
    assert spec("vmamba_v0_t").grid(50, 91) == (12, 22)
    assert spec("vmamba_t").grid(50, 91) == (13, 23)
    assert spec("vmamba_v0_t").padding(50, 91) == "cuts off 2 rows and 3 columns of pixels"
    assert spec("vmamba_t").grid(1, 1) == (1, 1)
    with pytest.raises(ResolutionError, match="3 px is too small; the least is 4"):
        create("vmamba_v0_t", (3, 64))


def test_four_places_are_merged_column_by_column_and_odd_sides_are_filled_with_zeros() -> None:
    merging = Merging(1)
    merging.norm = nn.Identity()
    nn.init.zeros_(merging.reduction.weight)
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)  # 1 2 3 / 4 5 6
    found = []
    for place in range(4):
        with torch.no_grad():
            merging.reduction.weight[0] = torch.eye(4)[place]
        found.append(merging(x)[0, 0].tolist())
    assert found == [[[1, 3]], [[4, 6]], [[2, 0]], [[5, 0]]]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_and_autocast_stay_near(form: str, design: str) -> None:
    x = image(0, 1, 24, 32)
    model = small(design, (24, 32), form)
    with torch.inference_mode():
        wanted = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x)
        found = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == mixed.dtype == torch.bfloat16
    for other in (found, mixed):
        assert (other - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_gets_the_gradient_of_the_reference(form: str, design: str) -> None:
    found = {}
    for each in ("reference", form):
        model = small(design, (36, 44), each).double()
        model(image(0, 2, 36, 44).double()).square().mean().backward()
        found[each] = {name: p.grad for name, p in model.named_parameters()}
    for name, wanted in found["reference"].items():
        assert wanted.norm() > 0
        assert (found[form][name] - wanted).norm() < 1e-9 * wanted.norm(), name


@pytest.mark.parametrize("name", ["vmamba_t", "vmamba_v0_t"])
def test_stochastic_depth_grows_from_block_to_block(name: str) -> None:
    with torch.device("meta"):
        model = create(name, 32, drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.2 * i / (len(rates) - 1) for i in range(len(rates))])
    assert len(rates) == sum(spec(name).args["depths"])


def test_a_new_model_has_the_released_initialisation() -> None:
    torch.manual_seed(0)
    for gated, states in ((False, 1), (True, 16)):
        op = SS2D(32, 64, states, "reference", gated=gated)
        assert torch.allclose(op.A_logs.exp(), torch.arange(1.0, states + 1).expand(4 * 64, -1))
        assert op.Ds.eq(1).all()
        steps = F.softplus(op.dt_projs_bias).log()
        assert log(0.001) - 1e-3 < steps.min() < log(0.0015)
        assert log(0.07) < steps.max() < log(0.1) + 1e-3
        for own, rows in ((op.x_proj_weight, 64), (op.dt_projs_weight, 2)):
            assert 0.95 * rows**-0.5 < own.abs().max() <= rows**-0.5
        model = VMamba((32, 32), ratio=1, form="reference", **NARROW)
        assert model.layers[0].blocks[0].op.out_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", ["vmamba_s_s1l20", "vmamba_b_s1l20", "vmamba_v0_s", "vmamba_v0_b"])
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    published = Golden(f"manifests/{name}").manifest
    with torch.device("meta"):
        model = create(name)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == {
        key: shape for key, shape, _ in published["state"]
    }
    assert sum(p.numel() for p in model.parameters()) == published["params"] == spec(name).params


@pytest.mark.parametrize(
    ("name", "side", "gmacs"),
    [("vmamba_t", 224, 4.83), ("vmamba_s", 512, 44.66), ("vmamba_b", 1024, 316.3), ("vmamba_v0_t", 384, 12.09)],
)
def test_the_closed_form_gives_the_known_sizes(name: str, side: int, gmacs: float) -> None:
    assert (closed_form(name, side, side) or 0) / 1e9 == pytest.approx(gmacs, rel=5e-4)


def test_both_modes_need_the_same_and_the_recurrence_nothing_more() -> None:
    parallel, recurrent = (count(case) for case in plan(Sweep(("vmamba_t",), ((96, 96),), ("parallel", "recurrent"))))
    assert parallel["macs"] == recurrent["macs"] == recurrent["macs_executed"] <= parallel["macs_executed"]
    assert parallel["state_bytes"] == recurrent["state_bytes"] > 0


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("vmamba_t", 4_905_609_984),
        ("vmamba_t_s2l5", 4_857_742_080),
        ("vmamba_s_s1l20", 8_612_211_456),
        ("vmamba_b_s1l20", 15_220_859_904),
        ("vmamba_s", 8.7),
        ("vmamba_b", 15.4),
        ("vmamba_v0_t", 5.6),
        ("vmamba_v0_s", 11.2),
        ("vmamba_v0_b", 18.0),
    ],
)
def test_the_authors_counting_gives_what_they_print(name: str, printed: float) -> None:
    found = published_macs("vmamba", name, 224)
    assert found == printed if isinstance(printed, int) else round(found / 1e9, 1) == printed


@pytest.mark.parametrize("design", DESIGNS)
def test_old_names_and_convolutions_of_one_pixel_are_taken_and_averages_first(design: str) -> None:
    model = small(design, (32, 32), "scan")
    state, old = {key: value.clone() for key, value in model.state_dict().items()}, {}
    for key, value in state.items():
        renamed = key.replace("patch_embed.0.", "patch_embed.proj.").replace("patch_embed.2.", "patch_embed.norm.")
        if ".blocks." in key:
            renamed = renamed.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention.")
        matrix = renamed.endswith("proj.weight") and value.ndim == 2
        old[renamed.removeprefix("classifier.")] = value[..., None, None] if matrix else value
    assert len(old.keys() & state.keys()) < len(state) / 2
    load_published(model, {"model": {key: 2 * value for key, value in old.items()}, "model_ema": old, "epoch": 1})
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    del old["norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing: classifier\.norm\.weight$"):
        load_published(model, old)
