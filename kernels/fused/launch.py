"""How Triton kernels are launched, interpreted, and recorded for a compiler that needs no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vbench.devices.torch_build import built_for
from vbench.errors import UnsupportedError
from vbench.kernels.registry import interpreted

GRID_MAX = 65535  # programs in the second and the third dimension of a grid, by CUDA; the first takes 2^31 - 1
REACH_MAX = 2**31 - 1  # numbers between an image's first and any other
CHUNK_MAX = 256  # tokens past the last one to which kernels compute offsets, and read nothing there


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel: its arguments by name, its compile-time constants, its warps and stages.

    `registers` is the most that a thread may take; None leaves it to the compiler.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int
    stages: int
    registers: int | None = None


_observer: Callable[[Launch], None] | None = None


@contextmanager
def observed(observer: Callable[[Launch], None]) -> Iterator[None]:
    """Within, launches go to `observer` instead of a device; tensors are left as they are."""
    global _observer  # noqa: PLW0603 - launches happen deep inside operators, on one thread
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Record launches instead of running them. Their tensors are filled with zeros: later steps then read valid
    numbers, and valid indices."""
    found: list[Launch] = []

    def record(launched: Launch) -> None:
        found.append(launched)
        for value in launched.args.values():
            if isinstance(value, Tensor) and 0 not in value.stride():
                value.data.zero_()  # unseen by autograd, which keeps some of them

    with observed(record):
        yield found


def can_run(x: Tensor) -> bool:
    """Whether a kernel can be launched on a tensor: on CUDA or ROCm, or where kernels are interpreted or observed."""
    return x.is_cuda or interpreted() or _observer is not None


def check_reach(form: str, *inputs: Tensor) -> None:
    """Raise UnsupportedError if an image has more numbers than kernels count: offsets inside an image have 32 bits.

    Args:
        inputs: (B, N, C) or (B, H, N, D), with any strides; results lie as (B, N, C) or (B, N, H, D).
    """
    for x in inputs:
        tokens, channels = x.shape[-2], x.shape[1:].numel() // max(1, x.shape[-2])
        step = max(x.stride(-2), channels)
        if (tokens + CHUNK_MAX) * step + x.shape[-1] * x.stride(-1) > REACH_MAX:
            raise UnsupportedError(
                f"{form} counts the numbers of an image in 32 bits; "
                f"it cannot take {tokens} tokens that lie {step} numbers apart"
            )


def check_grid(kernel: Any, grid: tuple[int, ...]) -> None:
    """Raise UnsupportedError unless a device takes a grid of that many programs."""
    if any(programs > GRID_MAX for programs in grid[1:]):
        raise UnsupportedError(
            f"{kernel.fn.__name__} would need {max(grid[1:])} programs in the second or third dimension of its grid; "
            f"a device takes {GRID_MAX}. The sequence is too long for chunks of this length"
        )


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    args: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    warps: int = 4,
    stages: int = 1,
    registers: int | None = None,
) -> None:
    """Run a kernel on the device of its tensors.

    Args:
        kernel: a function under `triton.jit`.
        grid: programs in each dimension.
        args: tensors, whole numbers and floats, by the kernel's parameter names; None for an absent tensor.
        constants: its `tl.constexpr` parameters.
        warps, stages: of a program.
        registers: the most that a thread may take; None leaves it to the compiler.

    Raises: UnsupportedError for a grid that no device takes.
    """
    if _observer is not None:
        _observer(Launch(kernel, grid, dict(args), dict(constants), warps, stages, registers))
        return
    check_grid(kernel, grid)
    if interpreted():
        _let_loops_end()
    where = next(value.device for value in args.values() if isinstance(value, Tensor))
    with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
        kernel[grid](**args, **constants, **options(warps, stages, registers))


def options(warps: int, stages: int, registers: int | None) -> dict[str, Any]:
    """Triton's options for a kernel, at a launch and ahead of time. Its ROCm back end knows no `maxnreg`."""
    # FP fusion is spelled out, for its default changes with Triton 3.10, and with it every last digit.
    told = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return told if registers is None or built_for("hip") else told | {"maxnreg": registers}


def ceiling(warps: int) -> int:
    """The most registers that a thread can take: 255, or its share of the 65536 of a multiprocessor.

    A kernel that needs many registers states it. Otherwise the compiler may store a few bytes in memory, so that more
    programs fit on a multiprocessor; which kernel it does that to changes with every Triton.
    """
    return min(255, 65536 // (32 * warps))


@cache
def _let_loops_end() -> None:
    """Let interpreted kernels loop up to a number that is an argument; once for this process.

    Triton 3.6 calls `int` on an array of one number, which numpy 2.4 refuses. Triton 3.7 does not.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor


def device_name(device: torch.device) -> str:
    """A device in the tuning table: its name by CUDA; "cpu" where kernels are interpreted, else "any"."""
    if device.type == "cuda" and _observer is None:  # launches may be observed where there is no CUDA
        return _cuda_name(device)
    return "cpu" if interpreted() else "any"


@cache
def _cuda_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def threefold(x: Tensor) -> bool:
    """Whether one product of inputs of this type is made of three on tensor cores.

    Inputs enter times decays, in float32. TF32 cuts these to 11 bits: more than the 8 that bfloat16 keeps of the
    output, and no more than float16 does. So float16 and float32 take three TF32 products for one, which keep 22.
    """
    return x.dtype != torch.bfloat16


def precision(x: Tensor) -> str:
    """How products of inputs of this type are rounded on tensor cores. The interpreter multiplies in float32, and so
    do the kernels of ROCm: Triton's back end for it has no TF32x3, and TF32 on few GPUs alone."""
    if interpreted() or built_for("hip"):
        return "ieee"
    return "tf32x3" if threefold(x) else "tf32"


def stored(x: Tensor) -> torch.dtype:
    """The type in which a kernel stores results that will have the type of x: that type.

    The interpreter truncates bfloat16 where the device rounds, which doubles the error. There the kernel stores
    float32, and the caller rounds.
    """
    return torch.float32 if interpreted() and x.dtype == torch.bfloat16 else x.dtype


def cdiv(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and `least`."""
    return max(least, 1 << (n - 1).bit_length())
