"""What a sweep measures, as plain values: Sweep -> list of Case. Pure; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar, get_args

from vbench.errors import ResolutionError, UsageError
from vbench.kernels.registry import Mode, default_form
from vbench.models.registry import names, spec

GRID = (224, 384, 512, 640, 768, 1024, 1280, 1536, 2048)  # px; where the papers' curves have their points
MODES: tuple[Mode, ...] = get_args(Mode)
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Batch = int | Literal["auto"]
T = TypeVar("T", bound=str)
LARGEST = 65_536  # px; a longer side is a slip of the keyboard


@dataclass(frozen=True, slots=True)
class Protocol:
    """How long a meter looks, and under what settings. Part of a record's conditions.

    Times in seconds, for one cell. Sampling stops after `samples_max`, or once `samples_min` are in and
    `sample_s` have passed; a slow model may stop earlier: after `slow_s` with 3 samples, after twice that
    with 2, and its row is flagged `few_samples`. Where the memory pass alone took `slow_s`, it is the warm-up.
    """

    threads: int = 1
    warmup_s: float = 0.5
    sample_s: float = 2.0
    samples_min: int = 6
    samples_max: int = 200
    slow_s: float = 15.0
    throughput_s: float = 6.0  # no batch is tried that would exceed it
    batch_gain: float = 0.03  # the search ends where a larger batch gains less than this share
    batch_max: int = 1024
    tf32: bool = False  # on CUDA, whether float32 products may be rounded to TF32
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: what is measured. `form` is None for models without an operator of ours."""

    model: str
    height: int  # px
    width: int  # px
    mode: Mode
    form: str | None
    batch: Batch  # images a call for throughput; latency and memory are always at 1
    dtype: Dtype
    device: str
    phase: Literal["infer"] = "infer"

    @property
    def id(self) -> str:
        """A digest of all fields: the key by which a sweep resumes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def unsupported(self) -> str | None:
        """Why this cell cannot exist, or None."""
        modes = spec(self.model).modes
        if self.mode in modes:
            return None
        return f"{self.model} has no {self.mode} mode: attention keeps no state of fixed size"

    def __str__(self) -> str:
        size = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        return f"{self.model} {size} {self.mode} {self.dtype}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """The axes of a plan."""

    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # (height, width) in px
    modes: tuple[Mode, ...] = MODES
    batches: tuple[Batch, ...] = ("auto",)
    dtypes: tuple[Dtype, ...] = ("float32",)
    device: str = "cpu"


def plan(sweep: Sweep) -> list[Case]:
    """Every cell once, from small images to large.

    Raises: UnknownModelError; ResolutionError for a size that a model cannot take.
    """
    cases: dict[Case, None] = {}
    for height, width in sorted(sweep.sizes, key=lambda size: (size[0] * size[1], size)):
        for model in sweep.models:
            row = spec(model)
            try:
                row.grid(height, width)
            except ResolutionError as error:
                raise ResolutionError(f"{model} cannot take {height}x{width}: {error}") from None
            for mode in sweep.modes:
                form = default_form(row.operator, mode) if row.operator and mode in row.modes else None
                for batch in sweep.batches:
                    for dtype in sweep.dtypes:
                        cases[Case(model, height, width, mode, form, batch, dtype, sweep.device)] = None
    return list(cases)


def parse_models(text: str) -> tuple[str, ...]:
    """ "vig_t,deit_*,timm/resnet50" -> names, patterns expanded.

    Raises: UnknownModelError for a name that is not there, UsageError for a pattern that matches none.
    """
    found: dict[str, None] = {}
    for item in _items(text, "--models", "vig_t,deit_t"):
        matches = names("*") if item == "all" else names(item) if set(item) & set("*?[") else [item]
        if not matches:
            raise UsageError(f"--models: no model matches '{item}'; see 'vbench models'")
        for name in matches:
            spec(name)
            found[name] = None
    return tuple(found)


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """ "224:2048", "224:2048:128", "224,512x1024" -> (height, width) in px.

    A range without a step takes the standard grid (`GRID`) within its bounds.

    Raises: ResolutionError for a malformed, reversed, empty or non-positive one.
    """
    found: dict[tuple[int, int], None] = {}
    for item in _items(text, "--res", "224:2048"):
        for size in _range(item) if ":" in item else [_size(item)]:
            found[size] = None
    return tuple(found)


def parse_modes(text: str) -> tuple[Mode, ...]:
    """ "parallel,recurrent" -> modes. Raises: UsageError."""
    return _choices(text, "--modes", MODES)


def parse_dtypes(text: str) -> tuple[Dtype, ...]:
    """ "float32,bfloat16" -> dtypes. Raises: UsageError."""
    return _choices(text, "--dtype", DTYPES)


def parse_batches(text: str) -> tuple[Batch, ...]:
    """ "auto" or "1,8" -> batches. Raises: UsageError."""
    found: dict[Batch, None] = {}
    for item in _items(text, "--batch", "auto"):
        if item == "auto":
            found["auto"] = None
        elif item.isdecimal() and int(item) > 0:
            found[int(item)] = None
        else:
            raise UsageError(f"--batch: '{item}' is neither 'auto' nor a positive number")
    return tuple(found)


def _items(text: str, option: str, example: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise UsageError(f"{option}: '{text}' has an empty item; write it like {example}")
    return items


def _choices(text: str, option: str, allowed: Sequence[T]) -> tuple[T, ...]:
    found: dict[T, None] = {}
    for item in _items(text, option, ",".join(allowed)):
        match = next((choice for choice in allowed if choice == item), None)
        if match is None:
            raise UsageError(f"{option}: '{item}' is not one of {', '.join(allowed)}")
        found[match] = None
    return tuple(found)


def _pixels(text: str, item: str) -> int:
    if not text.lstrip("-").isdecimal() or not text.isascii():
        raise ResolutionError(
            f"--res: '{item}' is not a size; write 512, 512x1024 (height x width), 224:2048 or 224:2048:128"
        )
    if not 0 < int(text) <= LARGEST:
        raise ResolutionError(f"--res: {text} px in '{item}' is not between 1 and {LARGEST}")
    return int(text)


def _size(item: str) -> tuple[int, int]:
    height, times, width = item.partition("x")
    return _pixels(height, item), _pixels(width if times else height, item)


def _range(item: str) -> list[tuple[int, int]]:
    low, high, *step = (_pixels(part, item) for part in item.split(":"))
    if len(step) > 1:
        raise ResolutionError(f"--res: '{item}' has too many parts; write low:high or low:high:step")
    if low > high:
        raise ResolutionError(f"--res: the range '{item}' is reversed; write {high}:{low}")
    sides = list(range(low, high + 1, step[0])) if step else [px for px in GRID if low <= px <= high]
    if not sides:
        grid = " ".join(map(str, GRID))
        raise ResolutionError(f"--res: no size of the standard grid ({grid}) is in '{item}'; add a step, {item}:32")
    return [(px, px) for px in sides]
