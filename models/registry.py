"""The literal table of models, and how a row of it becomes a module. Listing imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, get_args

from vbench.errors import ResolutionError, UnknownModelError, UnsupportedError, UsageError
from vbench.kernels.registry import OPS, Mode, default_form
from vbench.models.external import is_external

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


_EXTERNAL = "vbench.models.external:build"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of the zoo.

    `build` is a callable "module:name", imported by `create` and never before; it is called with
    `image_size`, with `args`, and with `form` where the model has an `operator`. `stem` lists the
    (kernel, stride, padding) of the convolutions between pixels and tokens. `params` counts the
    parameters at 224 px; tests hold it to the module. A model with a `caveat` is not what its family's
    paper describes: it carries these words wherever it is shown, and a pattern takes it only where it
    matches nothing else.
    """

    family: str
    build: str
    args: Mapping[str, Any]
    source: str  # paper, and where its figures stand
    stem: tuple[tuple[int, int, int], ...] = ()  # empty: not known
    multiple: int = 1  # each side of the image must be a multiple of this, in px
    patch: int = 1  # sides that are no multiple of this, in px, are `filled` up to one, or else cut down
    filled: bool = False
    window: int | None = None  # stage maps are padded to multiples of it, in tokens
    depths: tuple[int, ...] = ()  # blocks of each stage, of a model with a window
    operator: str | None = None  # a key of kernels.OPS; None for an attention baseline
    streams: bool = False  # in recurrent mode the whole network walks the tokens, not the operator alone
    caveat: str | None = None
    params: int | None = None
    modes: tuple[Mode, ...] = field(init=False)

    def __post_init__(self) -> None:
        forms = OPS[self.operator].values() if self.operator else ()
        alone: tuple[Mode, ...] = get_args(Mode) if self.build == _EXTERNAL else ("parallel",)
        object.__setattr__(self, "modes", tuple(dict.fromkeys(f.mode for f in forms)) or alone)

    @property
    def baseline(self) -> bool:
        """Whether this is one of the attention models that ours are held against."""
        return self.operator is None and not self.external

    @property
    def external(self) -> bool:
        """Whether this is a model of a user's own, of which no more is known than how to call it."""
        return self.build == _EXTERNAL

    def grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Tokens down and across that an image of height × width px becomes; None if not known.

        Raises: ResolutionError if a side is smaller than the first convolution, or no `multiple`.
        """
        for px in (height, width):
            if px % self.multiple:
                low = px // self.multiple * self.multiple
                near = " or ".join(str(n) for n in (low, low + self.multiple) if n > 0)
                raise ResolutionError(f"{px} px is not a multiple of {self.multiple}; take {near}")
        sides = []
        for px in (height, width):
            side = -(-px // self.patch) * self.patch if self.filled else px
            for kernel, stride, padding in self.stem:
                side = (side + 2 * padding - kernel) // stride + 1
                if side < 1:
                    least = self.stem[0][0] - 2 * self.stem[0][2]
                    raise ResolutionError(f"{px} px is too small; the least is {least}")
            sides.append(side)
        return (sides[0], sides[1]) if self.stem else None

    def padding(self, height: int, width: int) -> str | None:
        """What the model pads or cuts off at this size, in words; None if nothing."""
        grid = self.grid(height, width)
        if height % self.patch or width % self.patch:
            rest = (
                (-height % self.patch, -width % self.patch)
                if self.filled
                else (height % self.patch, width % self.patch)
            )
            return f"{'pads' if self.filled else 'cuts off'} {rest[0]} rows and {rest[1]} columns of pixels"
        found = [
            f"stage {stage} {real[0]}x{real[1]} to {full[0]}x{full[1]}"
            for stage, (real, full) in enumerate(self._maps(grid), start=1)
            if full != real
        ]
        return f"windows of {self.window} pad " + ", ".join(found) if found else None

    def padded_share(self, height: int, width: int) -> float | None:
        """Of what the model computes on at this size, the share that is padding; None if the grid is not known.

        With windows, of the tokens that attention sees, added up over all blocks; where the image is `filled`, of
        its pixels. 0 for every other model; the zeros at a convolution's border are not counted.
        """
        grid = self.grid(height, width)
        if grid is None:
            return None
        if self.filled:
            return 1 - height * width / (-(-height // self.patch) * -(-width // self.patch) * self.patch**2)
        maps = list(zip(self.depths, self._maps(grid), strict=True))
        seen = sum(depth * full[0] * full[1] for depth, (_, full) in maps)
        return 1 - sum(depth * real[0] * real[1] for depth, (real, _) in maps) / seen if seen else 0.0

    def _maps(self, grid: tuple[int, int] | None) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Each stage's map as it is, and as windows pad it; a small map is one window. Empty without windows."""
        found: list[tuple[tuple[int, int], tuple[int, int]]] = []
        if grid is None or self.window is None:
            return found
        for _ in self.depths:
            full = (-(-grid[0] // self.window) * self.window, -(-grid[1] // self.window) * self.window)
            found.append((grid, full if min(grid) > self.window else grid))
            grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
        return found


_VIG = "Liao et al. 2024, arXiv:2405.18425"
_VIG_STEM = ((9, 8, 1), (3, 2, 1))
_VISION_GRU = "Yin et al. 2024, arXiv:2412.18178"
_HALVED_TWICE = ((3, 2, 1), (3, 2, 1))
_VIL = "Alkin et al. 2024, arXiv:2406.04303"
_VIR = "Hatamizadeh et al. 2023, arXiv:2310.19731"
_VIR_SOFTMAX = "the released default: a softmax over masked scores, which sees the future; not ViR's retention"
_VRWKV = "Duan et al. 2024, arXiv:2403.02308"
_PATCH16 = ((16, 16, 0),)
_DEIT = "Touvron et al. 2021, arXiv:2012.12877"
_SWIN = "Liu et al. 2021, arXiv:2103.14030"
_TIMM = "vbench.models.baselines:timm_model"

MODELS: dict[str, ModelSpec] = {
    "vig_t": ModelSpec(
        "vig",
        "vbench.models.vig:ViG",
        {"dim": 192, "heads": 3, "mlp_dim": 512, "silu": True},
        _VIG,
        stem=_VIG_STEM,
        operator="gla",
        params=5_834_536,
    ),
    "vig_s": ModelSpec(
        "vig",
        "vbench.models.vig:ViG",
        {"dim": 384, "heads": 6, "mlp_dim": 1024, "silu": False},
        _VIG,
        stem=_VIG_STEM,
        operator="gla",
        params=22_615_144,
    ),
    "vig_b": ModelSpec(
        "vig",
        "vbench.models.vig:ViG",
        {"dim": 768, "heads": 12, "mlp_dim": 2048, "silu": False},
        _VIG,
        stem=_VIG_STEM,
        operator="gla",
        params=89_022_184,
    ),
    "vig_h_t": ModelSpec(
        "vig",
        "vbench.models.vig:ViGH",
        {"dim": 96, "depths": (2, 2, 5, 2), "heads": 3, "mlp_dims": (256, 512, 1024, 2048)},
        _VIG,
        stem=_HALVED_TWICE,
        operator="gla",
        params=28_600_680,
    ),
    "vig_h_s": ModelSpec(
        "vig",
        "vbench.models.vig:ViGH",
        {"dim": 96, "depths": (2, 2, 17, 2), "heads": 3, "mlp_dims": (256, 512, 1024, 2048)},
        _VIG,
        stem=_HALVED_TWICE,
        operator="gla",
        params=50_051_688,
    ),
    "vig_h_b": ModelSpec(
        "vig",
        "vbench.models.vig:ViGH",
        {"dim": 128, "depths": (2, 2, 17, 2), "heads": 4, "mlp_dims": (352, 704, 1376, 2752)},
        _VIG,
        stem=_HALVED_TWICE,
        operator="gla",
        params=88_904_360,
    ),
    "vrwkv_t": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV",
        {"dim": 192, "depth": 12, "layer_scale": None, "key_norm": False, "head_dim": None},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv",
        params=6_155_176,
    ),
    "vrwkv_s": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV",
        {"dim": 384, "depth": 12, "layer_scale": 1.0, "key_norm": False, "head_dim": None},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv",
        params=23_820_136,
    ),
    "vrwkv_b": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV",
        {"dim": 768, "depth": 12, "layer_scale": 1e-05, "key_norm": False, "head_dim": None},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv",
        params=93_645_544,
    ),
    "vrwkv_l": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV",
        {"dim": 1024, "depth": 24, "layer_scale": 1e-05, "key_norm": True, "head_dim": 3072},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv",
        params=334_935_016,
    ),
    "vrwkv6_t": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV6",
        {"dim": 192, "depth": 12, "layer_scale": None},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv6",
        params=7_641_256,
    ),
    "vrwkv6_s": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV6",
        {"dim": 384, "depth": 12, "layer_scale": 1e-05},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv6",
        params=27_677_032,
    ),
    "vrwkv6_b": ModelSpec(
        "vrwkv",
        "vbench.models.vrwkv:VRWKV6",
        {"dim": 768, "depth": 12, "layer_scale": 1e-05},
        _VRWKV,
        stem=_PATCH16,
        patch=16,
        filled=True,
        operator="wkv6",
        params=104_898_280,
    ),
    "vil_t": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 192, "depth": 24, "version": 1},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=6_088_360,
    ),
    "vil_tplus": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 192, "depth": 29, "version": 1},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=7_277_840,
    ),
    "vil_s": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 384, "depth": 24, "version": 1},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=22_792_360,
    ),
    "vil_splus": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 384, "depth": 26, "version": 1},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=24_628_664,
    ),
    "vil_b": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 768, "depth": 24, "version": 1},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=88_050_856,
    ),
    "vil_tplus_s8": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 192, "depth": 29, "stride": 8, "version": 1},
        _VIL,
        stem=((16, 8, 0),),
        multiple=16,
        operator="mlstm",
        params=7_277_840,
    ),
    "vil_splus_s8": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 384, "depth": 26, "stride": 8, "version": 1},
        _VIL,
        stem=((16, 8, 0),),
        multiple=16,
        operator="mlstm",
        params=24_628_664,
    ),
    "vil_b_s8": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 768, "depth": 24, "stride": 8, "version": 1},
        _VIL,
        stem=((16, 8, 0),),
        multiple=16,
        operator="mlstm",
        params=88_050_856,
    ),
    "vil2_t": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 192, "depth": 24, "version": 2},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=6_391_528,
    ),
    "vil2_s": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 384, "depth": 24, "version": 2},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=23_398_696,
    ),
    "vil2_b": ModelSpec(
        "vil",
        "vbench.models.vil:ViL",
        {"dim": 768, "depth": 24, "version": 2},
        _VIL,
        stem=((16, 16, 0),),
        multiple=16,
        operator="mlstm",
        params=89_263_528,
    ),
    "vir_s": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "retention", "dim": 384, "depth": 12, "heads": 6, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="retention",
        streams=True,
        params=22_059_496,
    ),
    "vir_b": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "retention", "dim": 768, "depth": 12, "heads": 12, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="retention",
        streams=True,
        params=86_585_320,
    ),
    "vir_l16": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "retention", "dim": 1024, "depth": 24, "heads": 16, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="retention",
        streams=True,
        params=304_374_760,
    ),
    "vir_l14": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "retention", "dim": 1024, "depth": 24, "heads": 16, "patch": 14},
        _VIR,
        stem=((14, 14, 0),),
        patch=14,
        operator="retention",
        streams=True,
        params=304_251_880,
    ),
    "vir_s_softmax": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "softmax_retention", "dim": 384, "depth": 12, "heads": 6, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="softmax_retention",
        caveat=_VIR_SOFTMAX,
        params=22_059_496,
    ),
    "vir_b_softmax": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "softmax_retention", "dim": 768, "depth": 12, "heads": 12, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="softmax_retention",
        caveat=_VIR_SOFTMAX,
        params=86_585_320,
    ),
    "vir_l16_softmax": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "softmax_retention", "dim": 1024, "depth": 24, "heads": 16, "patch": 16},
        _VIR,
        stem=((16, 16, 0),),
        patch=16,
        operator="softmax_retention",
        caveat=_VIR_SOFTMAX,
        params=304_374_760,
    ),
    "vir_l14_softmax": ModelSpec(
        "vir",
        "vbench.models.vir:ViR",
        {"op": "softmax_retention", "dim": 1024, "depth": 24, "heads": 16, "patch": 14},
        _VIR,
        stem=((14, 14, 0),),
        patch=14,
        operator="softmax_retention",
        caveat=_VIR_SOFTMAX,
        params=304_251_880,
    ),
    "vision_gru_t": ModelSpec(
        "vision_gru",
        "vbench.models.vision_gru:VisionGRU",
        {"dim": 72, "depths": (2, 2, 8, 2)},
        _VISION_GRU,
        stem=_HALVED_TWICE,
        operator="mingru",
        params=30_216_952,
    ),
    "vision_gru_b": ModelSpec(
        "vision_gru",
        "vbench.models.vision_gru:VisionGRU",
        {"dim": 104, "depths": (2, 2, 15, 2)},
        _VISION_GRU,
        stem=_HALVED_TWICE,
        operator="mingru",
        params=86_907_352,
    ),
    "deit_t": ModelSpec(
        "deit",
        _TIMM,
        {"name": "deit_tiny_patch16_224"},
        _DEIT,
        stem=((16, 16, 0),),
        multiple=16,
        params=5_717_416,
    ),
    "deit_s": ModelSpec(
        "deit",
        _TIMM,
        {"name": "deit_small_patch16_224"},
        _DEIT,
        stem=((16, 16, 0),),
        multiple=16,
        params=22_050_664,
    ),
    "deit_b": ModelSpec(
        "deit",
        _TIMM,
        {"name": "deit_base_patch16_224"},
        _DEIT,
        stem=((16, 16, 0),),
        multiple=16,
        params=86_567_656,
    ),
    "deit3_t": ModelSpec(
        "deit",
        "vbench.models.baselines:deit3",
        {"name": "vit_tiny_patch16_224"},
        "Touvron et al. 2022, arXiv:2204.07118",
        stem=_PATCH16,
        multiple=16,
        params=5_721_832,
    ),
    "swin_t": ModelSpec(
        "swin",
        _TIMM,
        {"name": "swin_tiny_patch4_window7_224"},
        _SWIN,
        stem=((4, 4, 0),),
        multiple=4,
        window=7,
        depths=(2, 2, 6, 2),
        params=28_288_354,
    ),
    "swin_s": ModelSpec(
        "swin",
        _TIMM,
        {"name": "swin_small_patch4_window7_224"},
        _SWIN,
        stem=((4, 4, 0),),
        multiple=4,
        window=7,
        depths=(2, 2, 18, 2),
        params=49_606_258,
    ),
    "swin_b": ModelSpec(
        "swin",
        _TIMM,
        {"name": "swin_base_patch4_window7_224"},
        _SWIN,
        stem=((4, 4, 0),),
        multiple=4,
        window=7,
        depths=(2, 2, 18, 2),
        params=87_768_224,
    ),
}


def names(pattern: str = "*") -> list[str]:
    """The table's names that match a shell pattern ("vig_*"), in the table's order.

    Those with a `caveat` only where no other matches.
    """
    found = [name for name in MODELS if fnmatchcase(name, pattern)]
    return [name for name in found if MODELS[name].caveat is None] or found


def spec(name: str) -> ModelSpec:
    """The row of `name`. "timm/NAME" is any model of timm and "module:callable" one of a user's own; whether they
    are there is seen by `create`. Of the latter's modes it is not known which it has.

    Raises: UnknownModelError, which names the nearest models.
    """
    if name.startswith("timm/") and len(name) > len("timm/"):
        return ModelSpec("timm", _TIMM, {"name": name.removeprefix("timm/")}, "timm")
    if is_external(name):
        return ModelSpec("external", _EXTERNAL, {"name": name}, "a user's own")
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"none of the {len(MODELS)} is like it."
        raise UnknownModelError(
            f"unknown model '{name}': {hint} Any other of timm's is 'timm/NAME', and one of your own module:callable; "
            "see 'vbench models'"
        )
    return MODELS[name]


def ours(name: str) -> str:
    """The table's name of a model that timm calls `name`: "deit_tiny_patch16_224" -> "deit_t". Others as they are."""
    return next((row for row, of in MODELS.items() if of.build == _TIMM and of.args["name"] == name), name)


def create(
    name: str,
    image_size: int | tuple[int, int] = 224,
    mode: Mode = "parallel",
    *,
    form: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model at a resolution: an nn.Module in eval(), (B, 3, height, width) -> (B, 1000).

    Args:
        name: a name of the table, "timm/NAME", or "module:callable" (see `external`).
        image_size: (height, width) in px, or one number for both.
        mode: "parallel" takes all tokens at once (the training form), "recurrent" carries a state of
            fixed size token by token. Both compute the same logits.
        form: the algorithm of the operator, by its name in `kernels.OPS`; if None, the mode's default on
            torch's current default device. A model built on the CPU and moved keeps its form.
        options: arguments of the model's class, as its docstring lists them: `num_classes`, `drop_path_rate`.

    Raises: UnknownModelError; ResolutionError for a size that the model cannot take; UnsupportedError for a
        mode or a form that it does not have; UsageError for an option that it does not have.
    """
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
    module, _, builder = row.build.partition(":")
    build = getattr(import_module(module), builder)
    allowed = [option for option in signature(build).parameters if option not in {"image_size", *args}]
    if not row.external and (strange := [option for option in options if option not in allowed]):
        raise UsageError(f"{name} has no option {', '.join(strange)}; it has {', '.join(allowed)}")
    model: nn.Module = build(image_size=(height, width), **args, **options)
    return model.eval()


def _default_device() -> str:
    """The kind of device that tensors are made on now; "cpu" for meta, which computes nothing."""
    import torch

    kind = torch.get_default_device().type
    return "cpu" if kind == "meta" else kind


def load_published(model: nn.Module, source: Mapping[str, Any] | str | Path) -> None:
    """Load weights under their published keys into a model from `create`, all or nothing.

    Training snapshots are unwrapped ("model_ema", "state_dict_ema", "model", "state_dict"; "module." prefixes),
    keys of older layouts are renamed, and position tables are resized to the model's grid by the family's own
    rule.

    Args:
        source: a state dict, or where one is: a path, an http(s) URL or "hf-hub:ORG/REPO/FILE"
            (see `vbench.models.checkpoint.read`). A file whose reading could run code is refused.

    Raises: CheckpointError, which says what is wrong with the file, or names the missing, unexpected and
        misshapen keys.
    """
    from vbench.models.checkpoint import load

    load(model, source)


def register_timm() -> list[str]:
    """Enter every backbone of the table into timm's registry, as `vbench_NAME`; the names.

    Then `timm.create_model("vbench_vig_t", img_size=384, num_classes=10, drop_path_rate=0.1)` works, and so do
    `features_only=True` with `out_indices`, `mode="recurrent"`, `form` and the options of the model's class.
    Calling it again changes nothing. Weights are loaded by `load_published`.
    """
    from vbench.models.timm_entries import register

    return register()
