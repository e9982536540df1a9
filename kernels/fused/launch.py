"""How Triton kernels are launched, interpreted, and recorded for a compiler that needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from vbench.kernels.registry import interpreted


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel: its arguments by name, its compile-time constants, its warps and stages."""

    kernel: Any
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int
    stages: int


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Within, launches are written down and not run; every tensor that they are given is left full of zeros, so that
    what is computed from it is some number, and an index if it is used as one."""
    global _recorded  # noqa: PLW0603 - launches happen deep inside operators, on one thread
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


def can_run(x: Tensor) -> bool:
    """Whether a kernel can be launched on a tensor: on CUDA, where kernels are interpreted, or where launches are
    only written down."""
    return x.is_cuda or interpreted() or _recorded is not None


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    args: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    warps: int = 4,
    stages: int = 1,
) -> None:
    """Run a kernel on the device of its tensors.

    Args:
        kernel: a function under `triton.jit`.
        grid: programs in each dimension.
        args: tensors, whole numbers and floats, by the kernel's parameter names; None for an absent tensor.
        constants: its `tl.constexpr` parameters.
        warps, stages: of a program.
    """
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, dict(args), dict(constants), warps, stages))
        for value in args.values():
            if isinstance(value, Tensor) and 0 not in value.stride():
                value.data.zero_()  # unseen by autograd, which keeps some of them
        return
    where = next(value.device for value in args.values() if isinstance(value, Tensor))
    with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
        # FP fusion is spelled out, for its default changes with Triton 3.10, and with it every last digit.
        kernel[grid](**args, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=True)


@lru_cache(maxsize=64)
def device_name(device: torch.device) -> str:
    """A device in the tuning table: its name by CUDA; "cpu" where kernels are interpreted, else "any"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "cpu" if interpreted() else "any"


def precision(x: Tensor) -> str:
    """How products are rounded on tensor cores for inputs of this type.

    Inputs enter times decays, in float32. TF32 cuts these to 11 bits: more than the 8 that bfloat16 keeps of the
    output, and no more than float16 does. So float16 and float32 take three TF32 products for one, which keep 22.
    The interpreter multiplies in float32.
    """
    if interpreted():
        return "ieee"
    return "tf32" if x.dtype == torch.bfloat16 else "tf32x3"


def stored(x: Tensor) -> torch.dtype:
    """The type in which a kernel stores results that are to have x's: its own.

    But the interpreter cuts a bfloat16's digits off where the device rounds, which doubles the error; there it
    stores float32, and the caller rounds.
    """
    return torch.float32 if interpreted() and x.dtype == torch.bfloat16 else x.dtype


def cdiv(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and `least`."""
    return max(least, 1 << (n - 1).bit_length())
