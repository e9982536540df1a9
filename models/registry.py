"""The table of models, and `create`, which builds one. Reading the table imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from inspect import signature
from itertools import chain
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from vbench.errors import UnknownModelError, UnsupportedError, UsageError
from vbench.kernels.registry import Mode, default_form
from vbench.models import field
from vbench.models.external import is_external
from vbench.models.naming import TIMM, hint, of_timm
from vbench.models.row import EXTERNAL, ModelSpec
from vbench.options import folded, shown

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from vbench.models.checkpoint import Loaded


_Variant = tuple[str, dict[str, Any], dict[str, Any]]  # name, arguments of `build`, fields of the row


def _family(shared: ModelSpec, *variants: _Variant) -> list[tuple[str, ModelSpec]]:
    """A row for each variant: the family's row, with what the variant adds or replaces."""
    return [(name, replace(shared, args={**shared.args, **args}, **fields)) for name, args, fields in variants]


def _variant(name: str, params: int, args: dict[str, Any], **fields: Any) -> _Variant:
    """One model of a family: `args` are added to the family's, `fields` replace those of the family's row."""
    return name, args, {"params": params, **fields}


def _table(*families: list[tuple[str, ModelSpec]]) -> dict[str, ModelSpec]:
    """All rows by name, in order. Raises: ValueError if two rows have one name."""
    rows: dict[str, ModelSpec] = {}
    for name, row in chain.from_iterable(families):
        if name in rows:
            raise ValueError(f"two models are called {name}")
        rows[name] = row
    return rows


_TIMM = "vbench.models.baselines:timm_model"
_VIG = "Liao et al. 2024, arXiv:2405.18425"
_GRU = "Yin et al. 2024, arXiv:2412.18178"
_VIL = "Alkin et al. 2024, arXiv:2406.04303"
_VIR = "Hatamizadeh et al. 2023, arXiv:2310.19731"
_VIR_SOFTMAX = "the released default: a softmax over masked scores, which sees the future; not ViR's retention"
_VRWKV = "Duan et al. 2024, arXiv:2403.02308"
_VIM = "Zhu et al. 2024, arXiv:2401.09417"
_VMAMBA = "Liu et al. 2024, arXiv:2401.10166"
_MLLA = "Han et al. 2024, arXiv:2405.16605"
_DEIT = "Touvron et al. 2021, arXiv:2012.12877"
_DEIT3 = "Touvron et al. 2022, arXiv:2204.07118"
_SWIN = "Liu et al. 2021, arXiv:2103.14030"

_VIG_H_MLP, _VIG_H_B_MLP = (256, 512, 1024, 2048), (352, 704, 1376, 2752)
_VRWKV_L = {"dim": 1024, "depth": 24, "layer_scale": 1e-5, "key_norm": True, "head_dim": 3072}
_VIR_L = {"dim": 1024, "depth": 24, "heads": 16}

_HALVED_TWICE = ((3, 2, 1), (3, 2, 1))
_PATCH4 = ((4, 4, 0),)
_PATCH16 = ((16, 16, 0),)
_PATCH16_EVERY_8 = ((16, 8, 0),)
# A side of any size is cut down to whole patches of 14 or 16 px, or filled up to them.
_CUT_14: dict[str, Any] = {"stem": ((14, 14, 0),), "patch": 14}
_CUT_16: dict[str, Any] = {"stem": _PATCH16, "patch": 16}
_CUT_8: dict[str, Any] = {"stem": _PATCH16_EVERY_8, "patch": 8}
_FILLED_16: dict[str, Any] = {**_CUT_16, "filled": True}

MODELS: dict[str, ModelSpec] = _table(
    _family(
        ModelSpec("vig", "vbench.models.vig:ViG", {}, _VIG, stem=((9, 8, 1), (3, 2, 1)), operator="gla"),
        _variant("vig_t", 5_834_536, {"dim": 192, "heads": 3, "mlp_dim": 512, "silu": True}),
        _variant("vig_s", 22_615_144, {"dim": 384, "heads": 6, "mlp_dim": 1024, "silu": False}),
        _variant("vig_b", 89_022_184, {"dim": 768, "heads": 12, "mlp_dim": 2048, "silu": False}),
    ),
    _family(
        ModelSpec("vig", "vbench.models.vig:ViGH", {}, _VIG, stem=_HALVED_TWICE, operator="gla"),
        _variant("vig_h_t", 28_600_680, {"dim": 96, "depths": (2, 2, 5, 2), "heads": 3, "mlp_dims": _VIG_H_MLP}),
        _variant("vig_h_s", 50_051_688, {"dim": 96, "depths": (2, 2, 17, 2), "heads": 3, "mlp_dims": _VIG_H_MLP}),
        _variant("vig_h_b", 88_904_360, {"dim": 128, "depths": (2, 2, 17, 2), "heads": 4, "mlp_dims": _VIG_H_B_MLP}),
    ),
    _family(
        ModelSpec(
            "vrwkv",
            "vbench.models.vrwkv:VRWKV",
            {"depth": 12, "key_norm": False, "head_dim": None},
            _VRWKV,
            operator="wkv",
            **_FILLED_16,
        ),
        _variant("vrwkv_t", 6_155_176, {"dim": 192, "layer_scale": None}),
        _variant("vrwkv_s", 23_820_136, {"dim": 384, "layer_scale": 1.0}),
        _variant("vrwkv_b", 93_645_544, {"dim": 768, "layer_scale": 1e-5}),
        _variant("vrwkv_l", 334_935_016, _VRWKV_L),
    ),
    _family(
        ModelSpec("vrwkv", "vbench.models.vrwkv:VRWKV6", {"depth": 12}, _VRWKV, operator="wkv6", **_FILLED_16),
        _variant("vrwkv6_t", 7_641_256, {"dim": 192, "layer_scale": None}),
        _variant("vrwkv6_s", 27_677_032, {"dim": 384, "layer_scale": 1e-5}),
        _variant("vrwkv6_b", 104_898_280, {"dim": 768, "layer_scale": 1e-5}),
    ),
    _family(
        ModelSpec("vil", "vbench.models.vil:ViL", {"version": 1}, _VIL, stem=_PATCH16, multiple=16, operator="mlstm"),
        _variant("vil_t", 6_088_360, {"dim": 192, "depth": 24}),
        _variant("vil_tplus", 7_277_840, {"dim": 192, "depth": 29}),
        _variant("vil_s", 22_792_360, {"dim": 384, "depth": 24}),
        _variant("vil_splus", 24_628_664, {"dim": 384, "depth": 26}),
        _variant("vil_b", 88_050_856, {"dim": 768, "depth": 24}),
        _variant("vil_tplus_s8", 7_277_840, {"dim": 192, "depth": 29, "stride": 8}, stem=_PATCH16_EVERY_8),
        _variant("vil_splus_s8", 24_628_664, {"dim": 384, "depth": 26, "stride": 8}, stem=_PATCH16_EVERY_8),
        _variant("vil_b_s8", 88_050_856, {"dim": 768, "depth": 24, "stride": 8}, stem=_PATCH16_EVERY_8),
    ),
    _family(
        ModelSpec("vil", "vbench.models.vil:ViL", {"version": 2}, _VIL, stem=_PATCH16, multiple=16, operator="mlstm"),
        _variant("vil2_t", 6_391_528, {"dim": 192, "depth": 24}),
        _variant("vil2_s", 23_398_696, {"dim": 384, "depth": 24}),
        _variant("vil2_b", 89_263_528, {"dim": 768, "depth": 24}),
    ),
    _family(
        ModelSpec(
            "vir",
            "vbench.models.vir:ViR",
            {"op": "retention", "patch": 16},
            _VIR,
            operator="retention",
            streams=True,
            **_CUT_16,
        ),
        _variant("vir_s", 22_059_496, {"dim": 384, "depth": 12, "heads": 6}),
        _variant("vir_b", 86_585_320, {"dim": 768, "depth": 12, "heads": 12}),
        _variant("vir_l16", 304_374_760, _VIR_L),
        _variant("vir_l14", 304_251_880, {**_VIR_L, "patch": 14}, **_CUT_14),
    ),
    _family(
        ModelSpec(
            "vir",
            "vbench.models.vir:ViR",
            {"op": "softmax_retention", "patch": 16},
            _VIR,
            operator="softmax_retention",
            caveat=_VIR_SOFTMAX,
            **_CUT_16,
        ),
        _variant("vir_s_softmax", 22_059_496, {"dim": 384, "depth": 12, "heads": 6}),
        _variant("vir_b_softmax", 86_585_320, {"dim": 768, "depth": 12, "heads": 12}),
        _variant("vir_l16_softmax", 304_374_760, _VIR_L),
        _variant("vir_l14_softmax", 304_251_880, {**_VIR_L, "patch": 14}, **_CUT_14),
    ),
    _family(
        ModelSpec("vision_gru", "vbench.models.vision_gru:VisionGRU", {}, _GRU, stem=_HALVED_TWICE, operator="mingru"),
        _variant("vision_gru_t", 30_216_952, {"dim": 72, "depths": (2, 2, 8, 2)}),
        _variant("vision_gru_b", 86_907_352, {"dim": 104, "depths": (2, 2, 15, 2)}),
    ),
    _family(
        ModelSpec("vim", "vbench.models.vim:Vim", {"depth": 24}, _VIM, operator="selective_scan", **_CUT_16),
        _variant("vim_t", 7_148_008, {"dim": 192}),
        _variant("vim_s", 25_796_584, {"dim": 384}),
        _variant("vim_b", 97_598_440, {"dim": 768}),
        _variant("vim_t_plus", 7_250_344, {"dim": 192, "stride": 8}, **_CUT_8),
        _variant("vim_s_plus", 26_001_256, {"dim": 384, "stride": 8}, **_CUT_8),
    ),
    _family(
        ModelSpec(
            "vmamba",
            "vbench.models.vmamba:VMamba",
            {"dim": 96},
            _VMAMBA,
            stem=_HALVED_TWICE,
            operator="selective_scan",
        ),
        _variant("vmamba_t", 30_249_064, {"depths": (2, 2, 8, 2), "ratio": 1}),
        _variant("vmamba_s", 50_147_752, {"depths": (2, 2, 15, 2), "ratio": 2}),
        _variant("vmamba_b", 88_557_800, {"dim": 128, "depths": (2, 2, 15, 2), "ratio": 2}),
        _variant("vmamba_t_s2l5", 30_705_832, {"depths": (2, 2, 5, 2), "ratio": 2}),
        _variant("vmamba_s_s1l20", 49_012_840, {"depths": (2, 2, 20, 2), "ratio": 1}),
        _variant("vmamba_b_s1l20", 86_614_504, {"dim": 128, "depths": (2, 2, 20, 2), "ratio": 1}),
    ),
    _family(
        ModelSpec(
            "vmamba",
            "vbench.models.vmamba:VMambaV0",
            {"dim": 96},
            _VMAMBA,
            stem=_PATCH4,
            patch=4,
            operator="selective_scan",
        ),
        _variant("vmamba_v0_t", 22_893_448, {"depths": (2, 2, 9, 2)}),
        _variant("vmamba_v0_s", 44_417_416, {"depths": (2, 2, 27, 2)}),
        _variant("vmamba_v0_b", 76_254_056, {"dim": 128, "depths": (2, 2, 27, 2)}),
    ),
    _family(
        ModelSpec("mlla", "vbench.models.mlla:MLLA", {}, _MLLA, stem=_HALVED_TWICE, operator="linear_attention"),
        _variant("mlla_t", 24_392_200, {"dim": 64, "depths": (2, 4, 8, 4)}),
        _variant("mlla_s", 43_015_048, {"dim": 64, "depths": (3, 6, 21, 6)}),
        _variant("mlla_b", 95_983_960, {"dim": 96, "depths": (3, 6, 21, 6)}),
    ),
    _family(
        ModelSpec("deit", _TIMM, {}, _DEIT, stem=_PATCH16, multiple=16),
        _variant("deit_t", 5_717_416, {"name": "deit_tiny_patch16_224"}),
        _variant("deit_s", 22_050_664, {"name": "deit_small_patch16_224"}),
        _variant("deit_b", 86_567_656, {"name": "deit_base_patch16_224"}),
    ),
    _family(
        ModelSpec("deit", "vbench.models.baselines:deit3", {}, _DEIT3, stem=_PATCH16, multiple=16),
        _variant("deit3_t", 5_721_832, {"name": "vit_tiny_patch16_224"}),
    ),
    _family(
        ModelSpec("swin", _TIMM, {}, _SWIN, stem=_PATCH4, multiple=4, window=7, depths=(2, 2, 18, 2)),
        _variant("swin_t", 28_288_354, {"name": "swin_tiny_patch4_window7_224"}, depths=(2, 2, 6, 2)),
        _variant("swin_s", 49_606_258, {"name": "swin_small_patch4_window7_224"}),
        _variant("swin_b", 87_768_224, {"name": "swin_base_patch4_window7_224"}),
    ),
)


def names(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern ("vig_*"), in the table's order.

    Models with a `caveat` are left out, unless no other model matches.
    """
    found = [name for name in MODELS if fnmatchcase(name, pattern)]
    return [name for name in found if MODELS[name].caveat is None] or found


def spec(name: str) -> ModelSpec:
    """The row of a model. A name is one of the table, "timm/NAME" for any model of timm, or a user's "module:callable".

    Nothing is imported: `create` finds out whether timm has the model, or whether the user's module is there and which
    modes it has.

    Raises: UnknownModelError, which names the nearest models.
    """
    if name.startswith(TIMM) and len(name) > len(TIMM):
        return ModelSpec("timm", _TIMM, {"name": name.removeprefix(TIMM)}, "timm")
    if is_external(name):
        return ModelSpec("external", EXTERNAL, {"name": name}, "a user's own")
    if folded(name) == field.NAME:
        raise UnknownModelError(
            f"'{field.NAME}' stands for several models, in --models alone; name one of these: {', '.join(field.FIELD)}"
        )
    if name not in MODELS:
        meant = hint(name, (*MODELS, field.NAME)) or f"none of the {len(MODELS)} is like it."
        raise UnknownModelError(
            f"unknown model '{shown(name)}': {meant} Any other of timm's is 'timm/NAME', and one of your own "
            "module:callable; see 'vbench models'"
        )
    return MODELS[name]


def ours(name: str) -> str:
    """The table's name of a model that is spelled otherwise ("ViG-T"), or that timm has too ("deit_tiny_patch16_224").

    A model of timm gets timm's spelling, "Timm/ResNet50" -> "timm/resnet50". Any other name stays as it is.
    """
    if name.lower().startswith(TIMM):
        return TIMM + of_timm(name[len(TIMM) :])
    if name in MODELS or is_external(name):
        return name
    known = {folded(row.args["name"]): own for own, row in MODELS.items() if row.build == _TIMM}
    known |= {folded(own): own for own in MODELS}
    return known.get(folded(name), name)


def create(
    name: str,
    image_size: int | tuple[int, int] = 224,
    mode: Mode = "parallel",
    *,
    form: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model for an image size: an nn.Module in eval(), (B, 3, height, width) -> (B, 1000).

    Args:
        name: a name of the table in any spelling, "timm/NAME", or "module:callable" (see `external`).
        image_size: (height, width) in px, or one number for both.
        mode: "parallel" takes all tokens at once, as in training. "recurrent" walks the tokens and carries a state of
            fixed size. Both compute the same logits.
        form: the operator's algorithm, a key of `kernels.OPS[operator]`. If None, the mode's default on torch's
            current default device. A model keeps its form when it is moved to another device.
        options: further arguments of the model's class, such as `num_classes` and `drop_path_rate`.

    Raises: UnknownModelError; ResolutionError if the model cannot take the size; UnsupportedError if it does not have
        the mode or the form; UsageError if it does not have an option.
    """
    name = ours(name)
    row = spec(name)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    row.grid(height, width)
    if mode not in row.modes:
        raise UnsupportedError(f"{name} has no {mode} mode; it has {', '.join(row.modes)}")
    args = dict(row.args)
    if row.operator:
        args["form"] = form or default_form(row.operator, mode, _default_device())
    elif form:
        raise UnsupportedError(f"{name} has no form '{form}': it has no operator of ours")
    elif row.external:
        args["mode"] = mode
    build = resolve_name(row.build)
    allowed = [option for option in signature(build).parameters if option not in {"image_size", *args}]
    if not row.external and (unknown := [option for option in options if option not in allowed]):
        raise UsageError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(allowed)}")
    model: nn.Module = build(image_size=(height, width), **args, **options)
    model.eval()  # by itself: a `train` that freezes norms often returns nothing
    return model


def _default_device() -> str:
    """The kind of torch's default device; "cpu" for meta, which computes nothing."""
    import torch

    kind = torch.get_default_device().type
    return "cpu" if kind == "meta" else kind


def load_published(model: nn.Module, source: Mapping[str, Any] | str | Path) -> Loaded:
    """Load published weights into a model. If anything does not fit, nothing is loaded.

    The weights may lie in any entry of a training snapshot, behind any prefix of wrappers: what fits the model is
    loaded. If several places fit with different weights, an average (`model_ema`, `ema`, `teacher`) comes first, then
    `model`, `module` and `state_dict`, and a copy that learns from another (`student`, `encoder_k`) last. Keys of older
    layouts are renamed, and position tables are resized to the model's grid, by the rule of the model's family.
    What is missing may only be the counters of batch norms; what is left over, only other parts of a larger model, or a
    classifier that the model was built without.

    Args:
        model: one from `create`, or any other module.
        source: a state dict, a path, an http(s) URL or "hf-hub:ORG/REPO/FILE" (see `vbench.models.checkpoint.read`).
            A file that would run code when read is refused.

    Returns: the place of the weights in the checkpoint, and notes on what was chosen, left out or converted. A choice
        between different weights is logged as a warning, too.

    Raises: CheckpointError, which says what is wrong with the file; names the keys that are missing, unexpected or of
        another shape; or counts the weights that are NaN, infinite, complex or whole numbers.
    """
    from vbench.models.checkpoint import load

    return load(model, source)
