"""Re-parameterised backbones in the form in which they are deployed: right figures, equal outputs, and what has none.

The figures are those of fvcore for `timm.utils.reparameterize_model` of timm's models at 224 px. A public report of
twice the published numbers is WongKinYiu/yolov9#406; timm's own results list the deployed form.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fakes import make_record, of_case
from torch import Tensor, nn

from vbench.errors import UnsupportedError, UsageError
from vbench.flops.count import cases, count, second_count
from vbench.gate.counters import case_of, names_of
from vbench.kernels.trials import relative
from vbench.models.deployed import deployed, parameters_deployed
from vbench.plan import USUAL, Case, parse, plan
from vbench.reports import tables, work
from vbench.results.frame import frame


def case(model: str, side: int = 224, **changes: Any) -> Case:
    return Case(model, side, side, "parallel", None, 1, "float32", "cpu", **{"reparam": "yes", **changes})


@pytest.mark.parametrize(
    ("model", "gmacs", "millions"),
    [
        ("repvgg_a0", 1.3615, 8.31),
        ("mobileone_s0", 0.2751, 2.08),
        ("ghostnetv3_050", 0.0496, 2.85),
        ("repvit_m0_9", 0.8156, 5.07),
    ],
)
def test_the_published_form_is_counted(model: str, gmacs: float, millions: float) -> None:
    work = count(case(f"timm/{model}"))
    assert round(work["macs_matmul"] / 1e9, 4) == gmacs
    assert round(work["params"] / 1e6, 2) == millions
    assert work["params_deployed"] is None
    assert not any("--reparam" in note for note in work["notes"])


def test_both_counters_agree_on_it() -> None:
    of = case("timm/repvgg_a0", 64)
    assert second_count(of, count(of)["macs_matmul"])["agree"]


def test_a_model_with_two_forms_says_so() -> None:
    work = count(case("timm/repvgg_a0", reparam="no"))
    assert round(work["macs_matmul"] / 1e9, 3) == 1.513
    assert (work["params"], work["params_deployed"]) == (9_108_968, 8_309_384)
    line = "timm/repvgg_a0 has a deployed form, of 8.31 M parameters instead of 9.11: --reparam yes"
    assert work["notes"] == [line]
    assert count(case("timm/resnet18", 64, reparam="no"))["params_deployed"] is None


@pytest.mark.parametrize(
    "model",
    [
        *("fastvit_t8", "repghostnet_050", "lcnetv2_small", "levit_128s", "efficientvit_m0", "tiny_vit_5m_224"),
        *("shvit_s1", "iformer_t"),
    ],
)
def test_it_is_the_form_that_timm_deploys(model: str) -> None:
    if not timm.is_model(model):
        pytest.skip(f"timm {timm.__version__} lacks it")
    with torch.device("meta"):
        ours, theirs = timm.create_model(model).eval(), timm.create_model(model).eval()
        theirs = timm.utils.reparameterize_model(theirs)
    ours = deployed(ours, model)
    assert shapes(ours) == shapes(theirs)
    assert {name.shape for name in ours.parameters()} == {name.shape for name in theirs.parameters()}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.named_parameters()}


class Branches(nn.Module):
    """A block in RepVGG's way: two convolutions in training, one when deployed. Written for this test."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if hasattr(self, "one") else self.wide(x) + self.narrow(x)

    def switch_to_deploy(self) -> None:
        if hasattr(self, "one"):
            return
        self.one = nn.Conv2d(self.wide.in_channels, self.wide.out_channels, 3, padding=1)
        self.one.weight.data = self.wide.weight + nn.functional.pad(self.narrow.weight, [1, 1, 1, 1])
        self.one.bias.data = self.wide.bias + self.narrow.bias  # type: ignore[operator]
        del self.wide, self.narrow


class Normed(nn.Sequential):
    """A convolution and a norm that `fuse` makes one layer of."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))

    def fuse(self) -> nn.Module:
        return nn.utils.fuse_conv_bn_eval(self[0], self[1])  # type: ignore[type-var]


class Whole(nn.Module):
    """A model with a method of its own, a block that it uses twice, and a layer that is called `fuse`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.block = Branches(8)
        self.again = self.block
        self.normed = Normed(8)
        self.fuse = nn.Conv2d(8, 8, 1)
        self.extra: nn.Module | None = nn.Identity()

    def reparameterize(self) -> None:
        self.extra = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(self.again(self.block(self.stem(x))))
        return self.fuse(x).mean((2, 3))


class Fuses(nn.Module):
    """A model whose `fuse` takes features: it merges nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        return torch.stack(maps).sum(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse([self.stem(x)])


def noisy(model: nn.Module) -> nn.Module:
    """With statistics and weights that no merging can ignore."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return model.eval()


@pytest.mark.parametrize("model", ["own", "mobileone_s0", "repvit_m0_9"])
def test_both_forms_are_one_function(model: str) -> None:
    net = noisy(Whole() if model == "own" else timm.create_model(model))
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        wanted = deepcopy(net).double()(image)
        before = sum(weight.numel() for weight in net.parameters())
        merged = deployed(net, model).double()  # merged in float32
        assert relative(merged(image), wanted) < 1e-5
    assert sum(weight.numel() for weight in merged.parameters()) < before
    assert not merged.training


def test_each_module_is_merged_once_and_layers_are_no_methods() -> None:
    merged: Any = deployed(Whole(), "own")
    assert merged.again is merged.block
    assert merged.extra is None
    assert isinstance(merged.normed, nn.Conv2d)
    assert {name for name, _ in merged.block.named_children()} == {"one"}
    assert isinstance(merged.fuse, nn.Conv2d)
    assert deployed(merged, "own") is merged  # it has this form already
    assert parameters_deployed(merged) is None


@pytest.mark.parametrize("model", [nn.Conv2d(3, 8, 4), Fuses()])
def test_a_model_without_one_is_unsupported(model: nn.Module) -> None:
    with pytest.raises(UnsupportedError, match="net has no deployed form: none of its modules has a method fuse or"):
        deployed(model, "net")
    assert parameters_deployed(model) is None


def test_asking_leaves_the_model_as_it_is() -> None:
    model = Whole()
    before = shapes(model)
    merged = parameters_deployed(model)
    assert merged is not None
    assert merged < sum(weight.numel() for weight in model.parameters())
    assert shapes(model) == before


def test_a_method_that_fails_is_said_nothing_of() -> None:
    class Fails(Branches):
        def switch_to_deploy(self) -> None:
            raise RuntimeError("not here")

    assert parameters_deployed(nn.Sequential(Fails(8))) is None
    with pytest.raises(RuntimeError, match="not here"):
        deployed(nn.Sequential(Fails(8)), "net")


def test_the_axis() -> None:
    usual = {**USUAL, "models": "timm/repvgg_a0,vig_t", "res": "64", "modes": "parallel", "phase": "infer,train"}
    planned = plan(parse({**usual, "reparam": "no,yes"}, "cpu"))
    assert len(planned) == 8
    said = {(one.model, one.phase): one.unsupported for one in planned if one.reparam == "yes"}
    assert said["timm/repvgg_a0", "infer"] is None
    assert "does not train" in str(said["timm/repvgg_a0", "train"])
    assert "vig_t has no deployed form" in str(said["vig_t", "infer"])
    with pytest.raises(UsageError, match="--reparam: 'maybe' is not one of no, yes"):
        parse({**usual, "reparam": "maybe"}, "cpu")
    one = case("timm/repvgg_a0", 64)
    assert str(one) == "timm/repvgg_a0 64 parallel float32 reparam yes"
    plain = replace(one, reparam="no")
    assert plain.id != one.id
    older = {key: value for key, value in asdict(plain).items() if key != "reparam"}
    assert Case(**older).id == plain.id


def test_flops_takes_it() -> None:
    (one,) = cases("timm/repvgg_a0", ((64, 64),), mode=None, form=None, dtype="float32", reparam="yes")
    assert one.reparam == "yes"
    with pytest.raises(UsageError, match="--reparam: vig_t has no deployed form"):
        cases("vig_t", ((64, 64),), mode=None, form=None, dtype="float32", reparam="yes")


def test_a_baseline_of_counters_keeps_it() -> None:
    both = [replace(case("timm/repvgg_a0", 64), reparam=form) for form in ("no", "yes")]
    named = names_of(both)
    assert list(named) == ["timm/repvgg_a0 64 parallel float32", "timm/repvgg_a0 64 parallel float32 reparam yes"]
    assert ["reparam" in fields for fields in named.values()] == [False, True]
    assert [case_of(fields).reparam for fields in named.values()] == ["no", "yes"]
    with pytest.raises(UsageError, match="a cell has the fields"):
        case_of({**named["timm/repvgg_a0 64 parallel float32"], "reparam": "maybe"})


def test_rows_name_their_form() -> None:
    plain = make_record("deit_t", work={**make_record().work, "params_deployed": 4_000_000})  # type: ignore[dict-item]
    merged = of_case(make_record("deit_t"), reparam="yes")
    table = frame([plain, merged])
    assert list(table["reparam"]) == ["no", "yes"]
    assert ["deployable" in flags.split() for flags in table["flags"]] == [True, False]
    assert [row[0] for row in tables.rows(table)] == ["deit_t", "deit_t reparam yes"]
    remarks = tables.remarks(table)
    assert tables.NOTES["deployable"] in remarks
    assert "rows differ in reparam: no (1), yes (1); compare within one" in remarks
    trained = of_case(plain, phase="train")
    assert "deployable" not in frame([trained]).iloc[0]["flags"]


def test_a_table_of_work_names_it() -> None:
    found = {**count(case("timm/repvgg_a0", 64)), "model": "timm/repvgg_a0", "height": 64, "width": 64}
    found |= {"mode": "parallel", "form": None, "reparam": "yes", "macs_fvcore": None}
    assert list(map(str, work.to_rich([found]).columns[0].cells)) == ["timm/repvgg_a0 reparam yes"]


def test_a_launch_measures_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vbench import jobs
    from vbench.plan import RIGORS
    from vbench.sweeps import measure

    (tmp_path / "merging.py").write_text("from test_deployed import Whole\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("merging", None)
    fast = replace(RIGORS["quick"], warmup_s=0.01, sample_s=0.02, sample_max_s=0.1)
    found = {
        form: dict(measure.measure(jobs.measure(case("merging:Whole", 32, reparam=form), fast)[1]))
        for form in ("no", "yes")
    }
    held = {form: parts["memory"]["weights_bytes"] for form, parts in found.items()}
    assert held["yes"] < held["no"]
    assert {parts["outputs"]["differs"] for parts in found.values()} == {0}
