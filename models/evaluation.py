"""How each model is tested on images, and where its published weights are. Facts of the authors, with their sources.

Preprocessing: an image is resized so that its short side is `crop_pct` times smaller than the resized one, and the
centre is cut out; then pixels are normalised. The table has a row for each family, or for a model that differs from its
family; of timm's models timm says it (`pretrained_cfg`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from vbench.errors import CheckpointError
from vbench.models.registry import spec
from vbench.options import folded

Three = tuple[float, float, float]
IMAGENET: tuple[Three, Three] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Three, Three] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TIMM = "vbench.models.baselines:timm_model"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the input of a model.

    Args:
        crop_pct: the side that is cut out, as a share of the side to which the image is resized.
        crop_mode, interpolation: in timm's words.
        mean, std: of the three channels, pixels from 0 to 1.
        source: who says so.
    """

    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: Three
    std: Three
    source: str


def _rule(crop_pct: float, interpolation: str, source: str, norm: tuple[Three, Three] = IMAGENET) -> Preprocessing:
    return Preprocessing(crop_pct, "center", interpolation, *norm, source)


_VIL = "NX-AI/vision-lstm, the authors' evaluation: short side to the size itself, no margin"
RULES = {  # by family, or by the name of a model
    "vig": _rule(0.875, "bicubic", "hustvl/ViG, classification/data/build.py: 256/224 of the size"),
    "vrwkv": _rule(0.875, "bicubic", "OpenGVLab/Vision-RWKV, test pipeline of classification/configs: 256, then 224"),
    "vil": _rule(1.0, "bicubic", _VIL),
    "vir": _rule(0.9, "bicubic", "the ViT tags that ViR's code takes over; no accuracy is published", HALF),
    "vision_gru": _rule(0.875, "bilinear", "YangLiu9208/VisionGRU, vig/val.py: timm's default"),
    "vim": _rule(0.875, "bicubic", "hustvl/Vim, vim/datasets.py: short side to size / 0.875"),
    "vmamba": _rule(0.875, "bicubic", "MzeroMiko/VMamba, classification/data/build.py: 256/224 of the size"),
    "mlla": _rule(0.875, "bicubic", "LeapLabTHU/MLLA, data/build.py: 256/224 of the size"),
    "deit3_t": _rule(1.0, "bicubic", f"{_VIL} (they trained this DeiT-III)"),
}
USUAL = _rule(0.875, "bicubic", "usual for ImageNet; nobody says it of this model")


def preprocessing(name: str) -> Preprocessing:
    """How a model is tested, by its name. Raises: UnknownModelError, as `spec`."""
    row = spec(name)
    if row.build == TIMM:
        return _of_timm(str(row.args["name"]))
    return RULES.get(name) or RULES.get(row.family) or USUAL


def _of_timm(architecture: str) -> Preprocessing:
    import timm

    known = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is None:
        return USUAL
    mean, std = ((float(x[0]), float(x[1]), float(x[2])) for x in (known.mean, known.std))
    usual = replace(USUAL, mean=mean, std=std, interpolation=known.interpolation, crop_mode=known.crop_mode)
    return replace(usual, crop_pct=float(known.crop_pct), source="timm's pretrained_cfg")


_VRWKV = "hf-hub:OpenGVLab/Vision-RWKV"  # the README of OpenGVLab/Vision-RWKV names the files
_JKU = "https://ml.jku.at/research/vision_lstm/download"  # hubconf.py of NX-AI/vision-lstm, and its logs
_VIM = "hf-hub:hustvl/Vim"  # README.md of hustvl/Vim names the repositories; users' scripts name the files
_VMAMBA = "https://github.com/MzeroMiko/VMamba/releases/download"  # its README and assets/performance.md name the files
_SIZES = ("tiny", "small", "base")
PUBLISHED = {  # the weights of the papers' accuracies: hf-hub:ORG/REPO, hf-hub:ORG/REPO/FILE, or a URL
    # README.md of hustvl/ViG names the repository and no file; the file has the model's name.
    **dict.fromkeys(("vig_t", "vig_s", "vig_b", "vig_h_t", "vig_h_s", "vig_h_b"), "hf-hub:hustvl/ViG"),
    **{name: f"{_VRWKV}/{name}_in1k_224.pth" for name in ("vrwkv_t", "vrwkv_s", "vrwkv_b")},
    **{name: f"{_VRWKV}/{name}_in1k_224.pth" for name in ("vrwkv6_t", "vrwkv6_s", "vrwkv6_b")},
    "vrwkv_l": f"{_VRWKV}/vrwkv_l_22kto1k_384.pth",
    "vil_t": f"{_JKU}/vil_tiny16_e800_in1k.th",
    "vil_tplus": f"{_JKU}/vil_tinyplus16_e800_in1k.th",
    "vil_s": f"{_JKU}/vil_small16_e400_in1k.th",
    "vil_splus": f"{_JKU}/vil_smallplus16_e400_in1k.th",
    "vil_b": f"{_JKU}/vil_base16_e400_in1k.th",
    "vil_splus_s8": f"{_JKU}/vil_smallplus16_e400_in1k_stride8.th",
    "vil_b_s8": f"{_JKU}/vil_base16_e400_in1k_stride8.th",
    "vil2_t": f"{_JKU}/vil2_tiny16_e800_in1k.th",
    "vil2_s": f"{_JKU}/vil2_small16_e400_in1k.th",
    "vil2_b": f"{_JKU}/vil2_base16_e400_in1k.th",
    "deit3_t": f"{_JKU}/vit_tiny16_e800_in1k_deit3reimpl.th",
    "vim_t": f"{_VIM}-tiny-midclstok/vim_t_midclstok_76p1acc.pth",
    "vim_s": f"{_VIM}-small-midclstok/vim_s_midclstok_80p5acc.pth",
    "vim_b": f"{_VIM}-base-midclstok/vim_b_midclstok_81p9acc.pth",
    "vim_t_plus": f"{_VIM}-tiny-midclstok/vim_t_midclstok_ft_78p3acc.pth",
    "vim_s_plus": f"{_VIM}-small-midclstok/vim_s_midclstok_ft_81p6acc.pth",
    "vision_gru_t": "hf-hub:yinkx3/VisionGRU-Ti",  # README.md of YangLiu9208/VisionGRU
    "vmamba_t": f"{_VMAMBA}/%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth",
    "vmamba_s": f"{_VMAMBA}/%23v2cls/vssm_small_0229_ckpt_epoch_222.pth",
    "vmamba_b": f"{_VMAMBA}/%23v2cls/vssm_base_0229_ckpt_epoch_237.pth",
    "vmamba_t_s2l5": f"{_VMAMBA}/%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth",
    "vmamba_s_s1l20": f"{_VMAMBA}/%23v2cls/vssm1_small_0229s_ckpt_epoch_240.pth",
    "vmamba_b_s1l20": f"{_VMAMBA}/%23v2cls/vssm1_base_0229s_ckpt_epoch_225.pth",
    "vmamba_v0_t": f"{_VMAMBA}/%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth",
    "vmamba_v0_s": f"{_VMAMBA}/%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth",
    "vmamba_v0_b": f"{_VMAMBA}/%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth",
    **{f"deit_{size[0]}": f"hf-hub:timm/deit_{size}_patch16_224.fb_in1k" for size in _SIZES},
    # The paper's table is of weights from ImageNet-1K alone; timm's default of Swin-S and Swin-B saw ImageNet-22K.
    **{f"swin_{size[0]}": f"hf-hub:timm/swin_{size}_patch4_window7_224.ms_in1k" for size in _SIZES},
}
UNPUBLISHED = {  # why there are none
    "vir": "the authors of ViR published no weights",
    "vision_gru": "of VisionGRU only the weights of vision_gru_t are published",
    "mlla": "the authors' weights lie in a cloud of Tsinghua's, see README.md of LeapLabTHU/MLLA",
    "vil_tplus_s8": "the stride-8 entry of the authors points at the weights of stride 16",
}


def published(name: str) -> str:
    """Where a model's published weights are, as `checkpoint.read` takes it. Raises: CheckpointError if nowhere."""
    row = spec(name)
    if found := PUBLISHED.get(name):
        return found
    if row.build == TIMM and row.family == "timm":
        return _hub_of_timm(name, str(row.args["name"]))
    why = UNPUBLISHED.get(name) or UNPUBLISHED.get(row.family) or "nobody publishes weights of your own model"
    raise CheckpointError(f"{name}: --checkpoint auto: {why}; give --checkpoint {name}=FILE")


def _hub_of_timm(name: str, architecture: str) -> str:
    import timm

    known = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        raise CheckpointError(f"{name}: --checkpoint auto: timm has no weights of it; give --checkpoint {name}=FILE")
    return f"hf-hub:{known.hf_hub_id}"


def own_file(name: str, files: Collection[str]) -> str | None:
    """The file of a repository with the weights of several models that has this model's name; None unless it is one.

    ("vig_t", ["vig_t.pth", "vig_h_t.pth"]) -> "vig_t.pth"
    """
    found = [file for file in files if folded(file.rpartition("/")[2]).startswith(folded(name))]
    return found[0] if len(found) == 1 else None


def size_rule(name: str) -> str:
    """What a model does at sizes at which it was not trained, in words: its windows and its table of positions."""
    row = spec(name)
    if row.window is not None:
        return f"windows stay {row.window}x{row.window} tokens; maps are padded to whole windows"
    return POSITIONS.get(name) or POSITIONS.get(row.family, "")


POSITIONS = {  # of models whose windows are none
    "vig": "position table resized to the grid, bicubic",
    **dict.fromkeys(("vig_h_t", "vig_h_s", "vig_h_b", "vision_gru", "vmamba"), "no positions"),
    "vrwkv": "position table resized to the grid in each call, bicubic",
    "vil": "position table resized to the grid, bicubic",
    "vir": "position table resized to the grid, bicubic",
    "vim": "position table resized to the grid as the authors do, bicubic: its first half is a place off",
    "mlla": "angles of rows and columns go on beyond the trained grid",
    "deit": "position table resized to the grid on loading, bicubic",
    "timm": "as timm builds it for the size",
}
