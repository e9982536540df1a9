"""A tiny model of each family, for ten classes, as a user would name it: `tiny_nets:vig`."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from vbench.kernels import default_form
from vbench.models.mlla import MLLA
from vbench.models.vig import ViG, ViGH
from vbench.models.vil import ViL
from vbench.models.vim import Vim
from vbench.models.vir import ViR
from vbench.models.vision_gru import VisionGRU
from vbench.models.vmamba import VMamba
from vbench.models.vrwkv import VRWKV, VRWKV6

Size = tuple[int, int]
FAMILIES = (
    "vrwkv",
    "vrwkv6",
    "vir",
    "deit",
    "vil2",
    "vision_gru",
    "mlla",
    "vmamba",
    "vil",
    "swin",
    "vig_h",
    "vig",
    "vim",
)  # fast ones first
CLASSES = 10


def _form(op: str) -> str:
    return default_form(op, "parallel")


def vig(image_size: Size = (32, 32)) -> nn.Module:
    return ViG(image_size, dim=64, heads=1, mlp_dim=128, silu=True, form=_form("gla"), num_classes=CLASSES)


def vig_h(image_size: Size = (32, 32)) -> nn.Module:
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "mlp_dims": (64, 128, 256, 512)}
    return ViGH(image_size, dim=32, heads=1, form=_form("gla"), num_classes=CLASSES, **sizes)


def vrwkv(image_size: Size = (32, 32)) -> nn.Module:
    rest: dict[str, Any] = {"layer_scale": None, "key_norm": False, "head_dim": None}
    return VRWKV(image_size, dim=64, depth=3, form=_form("wkv"), num_classes=CLASSES, **rest)


def vrwkv6(image_size: Size = (32, 32)) -> nn.Module:
    return VRWKV6(image_size, dim=64, depth=3, layer_scale=None, form=_form("wkv6"), num_classes=CLASSES)


def vil(image_size: Size = (32, 32)) -> nn.Module:
    return ViL(image_size, dim=64, depth=4, stride=8, version=1, form=_form("mlstm"), num_classes=CLASSES)


def vil2(image_size: Size = (32, 32)) -> nn.Module:
    return ViL(image_size, dim=64, depth=4, version=2, form=_form("mlstm"), num_classes=CLASSES)


def vir(image_size: Size = (32, 32)) -> nn.Module:
    sizes: dict[str, Any] = {"dim": 64, "depth": 2, "heads": 2, "patch": 8}
    return ViR(image_size, op="retention", form=_form("retention"), num_classes=CLASSES, **sizes)


def vision_gru(image_size: Size = (32, 32)) -> nn.Module:
    return VisionGRU(image_size, dim=16, depths=(1, 1, 1, 1), form=_form("mingru"), num_classes=CLASSES)


def vim(image_size: Size = (32, 32)) -> nn.Module:
    return Vim(image_size, dim=32, depth=2, stride=8, form=_form("selective_scan"), num_classes=CLASSES)


def mlla(image_size: Size = (32, 32)) -> nn.Module:
    return MLLA(image_size, dim=32, depths=(1, 1, 1, 1), form=_form("linear_attention"), num_classes=CLASSES)


def vmamba(image_size: Size = (32, 32)) -> nn.Module:
    sizes: dict[str, Any] = {"dim": 16, "depths": (1, 1, 1, 1), "ratio": 1}
    return VMamba(image_size, form=_form("selective_scan"), num_classes=CLASSES, **sizes)


def deit(image_size: Size = (32, 32)) -> nn.Module:
    sizes: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 8}
    return timm.create_model("vit_tiny_patch16_224", img_size=image_size, num_classes=CLASSES, **sizes)


def swin(image_size: Size = (32, 32)) -> nn.Module:
    sizes: dict[str, Any] = {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4)}
    name = "swin_tiny_patch4_window7_224"
    return timm.create_model(name, img_size=image_size, num_classes=CLASSES, **sizes)
