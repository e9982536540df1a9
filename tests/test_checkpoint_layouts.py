"""Weights that training saved inside wrappers: what fits the model is loaded, and nothing else."""

from __future__ import annotations

import inspect
import logging
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import list_modules
from torch import Tensor, nn
from weights import uninitialised, weight

from vbench import verify
from vbench.errors import CheckpointError, UsageError
from vbench.jobs.launch import Ending, Launcher
from vbench.models import create, load_published
from vbench.models.checkpoint.adapt import timm_rule
from vbench.verify import checks

State = dict[str, Tensor]


class Net(nn.Module):
    """A small backbone with a batch norm, a buffer of whole numbers and a classifier."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.register_buffer("index", torch.arange(4))
        self.head = nn.Linear(4, num_classes) if num_classes else nn.Identity()


def state_of(model: nn.Module, seed: int = 1) -> State:
    """Values for every tensor of a model, drawn by its name."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return {k: weight(k, tuple(v.shape), seed) if v.is_floating_point() and v.ndim else v for k, v in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def holds(model: nn.Module, state: State) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items())


REPORTED: dict[str, Callable[[State], dict[str, Any]]] = {  # by people whose loaders refused them; see the test
    "_orig_mod.": lambda s: under("_orig_mod.", s),
    "module._orig_mod.": lambda s: under("module._orig_mod.", s),
    "_orig_mod.module.": lambda s: under("_orig_mod.module.", s),
    "module.module.": lambda s: under("module.module.", s),
    "averaged": lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)},
    "state_dict, model.": lambda s: {"state_dict": under("model.", s), "epoch": 3},
    "state_dict, net.": lambda s: {"state_dict": under("net.", s), "epoch": 3},
    "teacher, backbone.": lambda s: {"teacher": under("backbone.", s), "student": under("module.backbone.", s)},
    "model, state_dict": lambda s: {"model": {"state_dict": s}, "epoch": 1},
    "ema": lambda s: {"ema": s, "epoch": 1},
    "ema_state_dict": lambda s: {"ema_state_dict": s, "epoch": 1},
}


@pytest.fixture(scope="module")
def deit() -> nn.Module:
    with uninitialised():
        return create("deit_t", 64)


@pytest.mark.parametrize("layout", list(REPORTED))
def test_layouts_that_were_reported(layout: str, deit: nn.Module) -> None:
    """Sources: pytorch/pytorch#94575, huggingface/pytorch-image-models#2003, mlfoundations/open_clip#639,
    Lightning-AI/pytorch-lightning#20545; `teacher.backbone.` is stripped by hand in many public loaders."""
    model = deit
    state = state_of(model)
    model.load_state_dict({key: torch.zeros_like(value) for key, value in state.items()})
    load_published(model, REPORTED[layout](state))
    assert holds(model, state)


def optimizer(state: State) -> dict[str, Any]:
    """As torch saves it: moments by the parameter's number."""
    moments = {n: {"exp_avg": torch.zeros_like(v), "step": torch.tensor(1.0)} for n, v in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}


RELATED: dict[str, Callable[[State], dict[str, Any]]] = {
    "Lightning": lambda s: {
        "state_dict": {**under("model.", s), "criterion.weight": torch.ones(5), "train_acc.confmat": torch.ones(5, 5)},
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [optimizer(s)],
        "pytorch-lightning_version": "2.5.0",
    },
    "Lightning, compiled DDP": lambda s: {"state_dict": under("model._orig_mod.module.", s)},
    "DeepSpeed": lambda s: {
        "module": s,
        "optimizer": optimizer(s),
        "ds_config": {"zero": 1},
        "buffer_names": ["index"],
    },
    "FSDP with activation checkpointing": lambda s: {
        key.replace("blocks.", "_fsdp_wrapped_module.blocks.").replace(
            ".weight", "._fsdp_wrapped_module._checkpoint_wrapped_module.weight"
        ): value
        for key, value in under("_fsdp_wrapped_module.", s).items()
    },
    "compiled blocks": lambda s: {key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in s.items()},
    "MoCo": lambda s: {
        "arch": "resnet50",
        "state_dict": {
            **under("module.encoder_q.", s),
            **under("module.encoder_k.", {key: value + 1 for key, value in s.items()}),
            "module.queue": torch.ones(4, 8),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
    },
    "Swin's trainer": lambda s: {"model": s, "optimizer": optimizer(s), "config": Namespace(a=1), "max_accuracy": 0.5},
    "an optimizer by names": lambda s: {
        "model": s,
        "optimizer": {"exp_avg": {key: value + 1 for key, value in s.items()}, "exp_avg_sq": s},
    },
    "nested five times": lambda s: {"state": {"ema": {"state_dict": {"model": under("module.model.net.module.", s)}}}},
    "a sequence with its normalisation": lambda s: {"0.mean": torch.zeros(3), **under("1.", s)},
    "a tower of CLIP": lambda s: {
        **under("visual.trunk.", s),
        **{f"transformer.{n}": torch.ones(2) for n in range(99)},
    },
    "float counters of an average": lambda s: {
        key: value + 0.5 if key.endswith("num_batches_tracked") else value.float() for key, value in s.items()
    },
    "an ordered dict of parameters": lambda s: OrderedDict(
        (key, nn.Parameter(v, v.is_floating_point())) for key, v in s.items()
    ),
}


@pytest.mark.parametrize("layout", list(RELATED))
def test_layouts_of_other_trainers(layout: str) -> None:
    model = Net()
    state = state_of(model)
    load_published(model, RELATED[layout](state))
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    assert holds(model, floats)
    assert torch.equal(model.state_dict()["index"], torch.arange(4))


def test_what_is_no_tensor_beside_weights_is_named() -> None:
    model = Net()
    state = state_of(model)
    with pytest.raises(CheckpointError, match=r"Net; 2 that are no tensors: epoch, 7$"):
        load_published(model, {**state, "epoch": 3, 7: torch.ones(1)})
    loaded = load_published(model, {"state_dict": {**under("model.", state), "criterion._extra_state": None}})
    assert loaded.notes == ()


def test_extra_state_stays_the_models() -> None:
    class Extra(Net):
        def get_extra_state(self) -> str:
            return "mine"

        def set_extra_state(self, state: str) -> None:
            assert state == "mine"

    model = Extra()
    state = state_of(Net())
    for given in (state, {**state, "_extra_state": "theirs"}):
        load_published(model, given)
        assert holds(model, state)


def test_a_module_in_a_snapshot_is_its_state() -> None:
    model, saved = Net(), Net()
    load_published(model, {"model": saved, "epoch": 1})
    assert holds(model, saved.state_dict())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_model_is_loaded_as_what_it_wraps(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = Net()
    state = state_of(model)
    load_published(nn.DataParallel(wrap(model)), {"model": state})
    assert holds(model, state)


def test_an_averaged_model_is_loaded() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(Net())
    state = state_of(averaged.module)
    load_published(averaged, {"ema": state})
    assert holds(averaged.module, state)


def test_files_older_than_the_counters_of_batch_norms_load() -> None:
    model = Net()
    state = {key: value for key, value in state_of(model).items() if "num_batches_tracked" not in key}
    load_published(model, state)
    assert holds(model, state)
    assert model.state_dict()["stem.1.num_batches_tracked"] == 0


def test_tied_weights_may_be_there_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

    model = Tied()
    load_published(model, {"b.weight": torch.ones(3, 3)})
    assert torch.equal(model.a.weight, torch.ones(3, 3))


@pytest.mark.parametrize("entry", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "model_ema_0", "swa_model"])
@pytest.mark.parametrize("inner", [(), ("state_dict",), ("module",)])
def test_an_average_comes_first_and_the_choice_is_said(
    entry: str, inner: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    model = Net()
    plain, averaged = state_of(model, 1), state_of(model, 2)
    nested: dict[str, Any] = averaged
    for key in reversed(inner):
        nested = {key: nested}
    with caplog.at_level(logging.WARNING, "vbench.models"):
        loaded = load_published(model, {"model": plain, entry: nested, "epoch": 1})
    assert holds(model, averaged)
    place = ".".join((entry, *inner))
    assert loaded.place == place
    assert loaded.notes == (f"loaded {place}; model fits too, with other weights",)
    assert caplog.messages == list(loaded.notes)


def test_the_order_of_preference() -> None:
    model = Net()
    states = {
        name: state_of(model, seed) for seed, name in enumerate(("student", "state_dict", "model", "teacher", "ema"))
    }
    for name in ("ema", "teacher", "model", "state_dict", "student"):
        loaded = load_published(model, states)
        assert loaded.place == name
        assert holds(model, states.pop(name))


def test_equal_weights_in_two_places_are_no_choice() -> None:
    model = Net()
    state = state_of(model)
    assert (
        load_published(model, {"model": state, "ema": {key: value.clone() for key, value in state.items()}}).notes == ()
    )


def test_an_average_that_does_not_fit_is_passed_over_and_said() -> None:
    model = Net()
    state = state_of(model)
    loaded = load_published(model, {"model": state, "model_ema": {**state, "more": torch.ones(1)}})
    assert loaded.notes == ("loaded model; model_ema comes first, but does not fit: 1 unexpected: more",)
    flattened = {key.replace(".", ""): value for key, value in state.items()}
    assert load_published(model, {"model": state, "model_ema": flattened}).notes == ()


def test_two_places_without_an_order_are_refused() -> None:
    model = Net()
    said = "2 places in it fit, with different weights: left; right; pass one of them"
    with pytest.raises(CheckpointError, match=said):
        load_published(model, {"left": state_of(model, 1), "right": state_of(model, 2)})
    with pytest.raises(CheckpointError, match=r"1 twice, with different weights: blocks.0.weight"):
        load_published(model, {**state_of(model), "module.blocks.0.weight": torch.ones(4, 4)})


def test_a_backbone_is_taken_out_of_a_larger_model() -> None:
    """DINO's teacher and mmpretrain's classifier: their heads are other modules, and are named."""
    model = Net(num_classes=0)
    state = state_of(model)
    heads = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    loaded = load_published(model, {"teacher": {**under("backbone.", state), **heads}})
    assert holds(model, state)
    assert loaded.place == "teacher, behind backbone."
    assert loaded.notes == ("left out 2 tensors that are not the model's: head.mlp.0.weight, head.last_layer.weight_g",)
    with pytest.raises(
        CheckpointError, match=r"no classifier: create the model with num_classes=0; 2 missing: head.weight, head.bias"
    ):
        load_published(Net(), {"teacher": {**under("backbone.", state), **heads}})


def test_a_classifier_is_left_out_only_if_the_model_was_built_without() -> None:
    model = create("deit_t", 64, num_classes=0)
    state = state_of(create("deit_t", 64))
    loaded = load_published(model, {"model": state})
    assert loaded.notes == ("left out 2 tensors that are not the model's: head.weight, head.bias",)
    with pytest.raises(CheckpointError, match=r"2 missing: head.weight, head.bias"):
        load_published(create("deit_t", 64), {key: value for key, value in state.items() if "head" not in key})
    with pytest.raises(
        CheckpointError, match=r"they have 1000 classes: create the model with num_classes=1000; 2 misshapen: head"
    ):
        load_published(create("deit_t", 64, num_classes=10), state)
    with pytest.raises(CheckpointError, match=r"1 unexpected: neck"):
        load_published(model, {**state, "neck": torch.ones(1)})


def test_a_part_of_another_model_is_not_taken_for_the_whole() -> None:
    """One convolution fits many places of a larger model; none of them is meant."""
    with pytest.raises(CheckpointError, match="2 missing: weight, bias"):
        load_published(nn.Linear(4, 4), state_of(Net()))


def test_weights_as_magnitude_and_direction_are_put_together() -> None:
    model = Net()
    state = state_of(model)
    for normed in (nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm):
        saved = Net()
        saved.load_state_dict(state)
        with pytest.warns(FutureWarning) if normed is torch.nn.utils.weight_norm else nullcontext():
            normed(saved.blocks[1], "weight")
        assert not saved.state_dict().keys() <= state.keys()
        load_published(model, saved.state_dict())
        assert torch.allclose(model.blocks[1].weight, state["blocks.1.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("blocks.0.parametrizations.weight.original", "they are parametrised: call remove_parametrizations"),
        ("blocks.0.weight_orig", "they are parametrised"),
        ("_fsdp_wrapped_module._flat_param", "flattened shards of FSDP: save with StateDictType.FULL_STATE_DICT"),
        ("blocks.0.lora_A.weight", r"adapters \(LoRA\): merge these"),
    ],
)
def test_what_cannot_be_undone_is_named(key: str, says: str) -> None:
    model = Net()
    state = {**state_of(model), key: torch.ones(4, 4)}
    del state["blocks.0.weight"]
    with pytest.raises(CheckpointError, match=says):
        load_published(model, state)


def as_timm_loads(name: str, published: State, **options: Any) -> State:
    """What timm's own loader makes of a published state."""
    made = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": published}, **options)
    return made.state_dict()  # type: ignore[no-any-return]


def deit3(state: State) -> State:
    return {k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for k, v in state.items()}


def crossvit(state: State) -> State:
    return {k.replace("pos_embed_", "pos_embed.").replace("cls_token_", "cls_token."): v for k, v in state.items()}


def densenet(state: State) -> State:
    found = {}
    for key, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key  # noqa: PLW2901
        found[key] = value
    return {key: value for key, value in found.items() if "num_batches_tracked" not in key}  # these files are older


VIT = {"depth": 2}
OF_TIMM: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[State], State]]] = {  # as saved, as built, layout
    "deit3_small_patch16_224": (VIT, VIT, deit3),  # facebookresearch/deit; huggingface/pytorch-image-models#2324
    "flexivit_small": (VIT, {**VIT, "img_size": 128}, dict),
    "vit_tiny_patch16_224": (VIT, {**VIT, "img_size": 96}, dict),
    "crossvit_tiny_240": ({}, {}, crossvit),  # IBM/CrossViT
    "densenet121": ({}, {}, densenet),  # torchvision's files
}


@pytest.mark.parametrize("name", list(OF_TIMM))
def test_timms_families_are_adapted_as_timm_does_it(name: str) -> None:
    as_saved, as_built, layout = OF_TIMM[name]
    with uninitialised():
        published = layout(state_of(timm.create_model(name, **as_saved)))
        model = timm.create_model(name, **as_built)
        wanted = as_timm_loads(name, published, **as_built)
    own = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in published.items()} != own
    load_published(model, {"model": under("module.", published)})
    assert holds(model, wanted)


def test_torchvisions_regnet_gives_its_logits_as_timms() -> None:
    torchvision = pytest.importorskip("torchvision")
    published = torchvision.models.regnet_y_400mf().eval()
    model = timm.create_model("regnety_004").eval()
    load_published(model, published.state_dict())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(model(x), published(x), atol=1e-5)


def test_a_rule_that_unwraps_a_file_itself() -> None:
    """VISSL's files of RegNet keep trunk and heads four entries deep; timm's rule knows them."""
    model = timm.create_model("regnety_002")
    state = state_of(model)
    trunk = {
        key.replace("stem.conv", "_feature_blocks.conv1.stem.0").replace(
            "stem.bn", "_feature_blocks.conv1.stem.1"
        ): value
        for key, value in state.items()
        if not key.startswith("head.")
    }
    heads = {key.replace("head.fc", "0.clf.0"): value for key, value in state.items() if key.startswith("head.")}
    load_published(model, {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}}})
    assert holds(model, state)


def test_rules_come_with_the_arguments_of_their_variant() -> None:
    bound = {
        "deit3_small_patch16_224": {"adapt_layer_scale": True},
        "flexivit_small": {"interpolation": "bilinear", "antialias": False},
        "sam2_hiera_tiny": {"prefix": ""},
    }
    for name, arguments in bound.items():
        assert timm_rule(name).keywords == arguments  # type: ignore[union-attr]
    names = {
        "vgg11": "_filter_fn",
        "densenet121": "_filter_torchvision_pretrained",
        "crossvit_tiny_240": "pretrained_filter_fn",
    }
    for name, function in names.items():
        assert timm_rule(name).__name__ == function  # type: ignore[union-attr]
    assert timm_rule("resnet18") is None
    assert isinstance(timm.create_model("test_vit"), nn.Module)  # timm builds again


@pytest.mark.parametrize("module", list_modules())
def test_no_rule_of_timms_is_missed(module: str) -> None:
    """Wherever a family's code hands over a rule, the first model of the family has one."""
    name = timm.list_models(module=module)[0]
    source = inspect.getsource(sys.modules[f"timm.models.{module}"])
    assert ("pretrained_filter_fn=" in source) == (timm_rule(name) is not None)


# Through `vbench verify --weights`


def test_a_users_model_is_verified_with_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n"
        "def two(mode='parallel'):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
        "def one():\n    return two()\n"
    )
    monkeypatch.chdir(tmp_path)
    state = {"1.weight": torch.ones(3, 12), "1.bias": torch.zeros(3)}
    torch.save({"model": state, "ema": {key: value + 1 for key, value in state.items()}}, tmp_path / "w.pth")
    for name, expected in (("nets_of_mine:two", 1), ("nets_of_mine:one", 0)):
        told: list[str] = []
        found = list(checks.own_checks(name, "cpu", 0, (2, 2), weights="w.pth", tell=told.append))
        assert [check.ok for check in found] == [True] * expected
        assert told == ["loaded ema; model fits too, with other weights"]
        with pytest.raises(CheckpointError, match=r"none\.pth: there is no such file"):
            list(checks.own_checks(name, "cpu", 0, (2, 2), weights="none.pth"))


def test_notes_are_said_once_and_weights_without_use_are_refused() -> None:
    endings = [
        Ending("ok", None, {"checks": [], "notes": ["loaded ema", "loaded ema"]}),
        Ending("ok", None, {"checks": []}),
    ]
    assert verify.joined("vig_t", endings).notes == ("loaded ema",)
    with Launcher() as launcher, pytest.raises(UsageError, match="deit_t has one form of attention"):
        verify.verify("deit_t", launcher, weights="w.pth")
