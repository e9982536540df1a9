"""What an evaluation is, as plain values: models, sizes, weights and preprocessing. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vbench.errors import ResolutionError, UsageError
from vbench.models.registry import ours, spec
from vbench.options import items
from vbench.plan import AUTOCAST, DTYPES, Dtype

CROP_MODES = ("center", "squash", "border")  # timm's words, as in `timm.data.create_transform`
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
TYPES: tuple[Dtype, ...] = tuple(dtype for dtype in DTYPES if "16" not in dtype or dtype in ("bfloat16", "amp-bf16"))
AUTO, RANDOM = "auto", "random"


@dataclass(frozen=True, slots=True)
class Asked:
    """One evaluation: a model at a size on a set of images. Part of its `eval_id` is all of this."""

    model: str
    height: int  # px
    width: int  # px
    dtype: str  # of the weights and the image; under autocast (amp-bf16) of products
    dataset: str  # as it was given to --data
    split: str
    labels: str  # the map of labels: imagenet, v2, real, or the name of a file
    classes: int  # of the map: outputs of the model
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    checkpoint: str  # file name, URL or hub id; "random"
    limit: int | None  # images of a sample
    seed: int  # of the sample, and of random weights

    @property
    def autocast(self) -> str | None:
        """Torch's name of the type to which autocast casts; None without autocast."""
        return AUTOCAST.get(self.dtype)

    @property
    def weights_dtype(self) -> str:
        """Torch's name of the type of weights and image."""
        return "float32" if self.dtype in AUTOCAST else self.dtype

    def to_json(self) -> dict[str, Any]:
        """All fields, as a record has them."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Asked:
        """The inverse of `to_json`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def eval_id(self, images: str) -> str:
        """A digest of what was asked for and of the images' names and labels, whose digest is `images`."""
        text = json.dumps([self.to_json(), images], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        size = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        return f"{self.model} {size} {self.dtype}"


def check_sizes(models: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
    """Raise ResolutionError for a size that a model cannot take; it names both."""
    for model in models:
        for height, width in sizes:
            try:
                spec(model).grid(height, width)
            except ResolutionError as error:
                raise ResolutionError(f"{model} cannot take {height}x{width}: {error}") from None


def parse_checkpoints(text: str, models: Sequence[str]) -> dict[str, str]:
    """ "auto" or "vig_t=FILE,deit_t=auto" -> the source of each model's weights.

    A source is a path, a URL, "hf-hub:ORG/REPO/FILE", "auto" (the published weights) or "random". A word without "=" is
    that of all models that are not named; without one it is "auto".

    Raises: UsageError for a model that is not evaluated, or that is named twice, and for a file for several models.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    for item in items(text, "--checkpoint", "vig_t=FILE,deit_t=auto"):
        name, equals, source = item.partition("=")
        if not equals or ours(name) not in models:
            if equals and "/" not in name and ":" not in name:
                raise UsageError(f"--checkpoint: '{name}' is not one of --models {','.join(models)}")
            rest.append(item)
        elif ours(name) in found:
            raise UsageError(f"--checkpoint: {name} has two sources: {found[ours(name)]} and {source}")
        elif not source:
            raise UsageError(f"--checkpoint: '{item}' names no file; write {name}=FILE, {name}=auto or {name}=random")
        else:
            found[ours(name)] = source
    if len(rest) > 1:
        raise UsageError(f"--checkpoint: {' and '.join(rest)} name no model; write MODEL=FILE for each")
    left = [model for model in models if model not in found]
    if rest and rest[0] not in (AUTO, RANDOM) and len(left) != 1:
        raise UsageError(f"--checkpoint: '{rest[0]}' belongs to one model; write MODEL={rest[0]}")
    return found | dict.fromkeys(left, rest[0] if rest else AUTO)


def parse_crop(text: float | None) -> float | None:
    """--crop-pct, a share. Raises: UsageError unless it is above 0 and at most 1."""
    if text is not None and not 0 < text <= 1:
        raise UsageError(f"--crop-pct: {text:g} is not above 0 and at most 1, like 0.875")
    return text


PREFIXES = ("hfds:", "wds:")  # of --data


def absolute(source: str) -> str:
    """A path, with what stands before it, as another process finds it; a word that is no file here stays as it is."""
    prefix = next((prefix for prefix in PREFIXES if source.startswith(prefix)), "")
    try:
        path = Path(source.removeprefix(prefix))
        return f"{prefix}{path.absolute()}" if source != prefix and path.exists() else source
    except (OSError, ValueError):  # too long for a path, or with a zero in it
        return source


def shown(source: str) -> str:
    """A data set as records name it: of a path from the root only the last two parts."""
    prefix = next((prefix for prefix in PREFIXES if source.startswith(prefix)), "")
    path = Path(source.removeprefix(prefix))
    return prefix + ("/".join(path.parts[1:][-2:]) if path.is_absolute() else path.as_posix())


def shards(count: int, size: int) -> list[tuple[int, int]]:
    """The (begin, end) of each shard of that many images."""
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]
