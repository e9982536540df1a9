"""How loops over tokens become machine code, by numba, and take their gradients from a parallel form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

Loop = TypeVar("Loop", bound=Callable[..., None])
Array = NDArray[Any]


def machine_code(loop: Loop) -> Loop:
    """Compile a loop over arrays. This takes about a second at its first call with a type, in each process.

    A product and a sum may be rounded once together. No sum is reordered. Nothing is written to disk.
    """
    return cast(Loop, numba.njit(loop, nogil=True, fastmath={"contract"}, error_model="numpy"))


def array(x: Tensor, dtype: torch.dtype) -> Array:
    """The numbers as a contiguous array of this type. It shares the memory of the tensor where it can."""
    found: Array = x.detach().to(dtype).contiguous().numpy()
    return found


def rows(x: Array, kept: int) -> Array:
    """The array with all but its last `kept` dimensions made one."""
    return x.reshape(-1, *x.shape[x.ndim - kept :])


def empty(dtype: torch.dtype, *shape: int) -> Array:
    """An array without values."""
    return np.empty(shape, dtype=str(dtype).removeprefix("torch."))


def recomputed(
    run: Callable[..., tuple[Tensor, ...]], again: Callable[..., tuple[Tensor, ...]], *tensors: Tensor | None
) -> tuple[Tensor, ...]:
    """run(*tensors), with the gradients of again(*tensors), which computes the same by operations of torch.

    Gradients of gradients are refused by torch.
    """
    results: tuple[Tensor, ...] = torch.compiler.disable(_Recomputed.apply)(run, again, *tensors)
    return results


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Any, again: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.again = again
        ctx.save_for_backward(*tensors)
        results: tuple[Tensor, ...] = run(*tensors)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        asked = ctx.needs_input_grad[2:]
        inputs = [None if x is None else x.detach() for x in ctx.saved_tensors]
        wanted = [x.requires_grad_() for x, need in zip(inputs, asked, strict=True) if x is not None and need]
        with torch.enable_grad():
            results = ctx.again(*inputs)
        pairs = [(x, g) for x, g in zip(results, gradients, strict=True) if x.requires_grad]
        of, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(of, wanted, given, allow_unused=True))
        return None, None, *(next(found) if need else None for need in asked)
