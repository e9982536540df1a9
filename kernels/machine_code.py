"""Loops over tokens, compiled by numba. Their gradients are those of a parallel form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from vbench.kernels.shapes import State

Loop = TypeVar("Loop", bound=Callable[..., None])
Array = NDArray[Any]


def machine_code(loop: Loop) -> Loop:
    """Compile a loop over arrays. This takes about a second at its first call with a type, in each process.

    A product and a sum may be rounded once together. No sum is reordered. Nothing is written to disk.
    """
    return cast(Loop, numba.njit(loop, nogil=True, fastmath={"contract"}, error_model="numpy"))


def array(x: Tensor, dtype: torch.dtype) -> Array:
    """The numbers as a contiguous array of this type. It shares the memory of the tensor where it can."""
    return x.detach().to(dtype).contiguous().numpy()


def rows(x: Array, kept: int) -> Array:
    """The array with all dimensions before its last `kept` ones joined into one."""
    return x.reshape(-1, *x.shape[x.ndim - kept :])


def empty(dtype: torch.dtype, *shape: int) -> Array:
    """An array without values."""
    return np.empty(shape, dtype=str(dtype).removeprefix("torch."))


def recomputed(
    run: Callable[..., tuple[Tensor, State]],
    again: Callable[..., tuple[Tensor, State]],
    inputs: tuple[Tensor, ...],
    state: State | None,
) -> tuple[Tensor, Any]:
    """run(*inputs, state=state), an output and a state, with the gradients of `again`.

    `again` computes the same by operations of torch. torch refuses gradients of these gradients.
    """
    parts = state if isinstance(state, tuple) else (state,)

    def flat(function: Callable[..., tuple[Tensor, State]], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = tensors[len(inputs) :]
        o, last = function(*tensors[: len(inputs)], state=given if isinstance(state, tuple) else given[0])
        return (o, *last) if isinstance(last, tuple) else (o, last)

    apply = torch.compiler.disable(_Recomputed.apply)
    o, *last = apply(partial(flat, run), partial(flat, again), *inputs, *parts)
    return o, tuple(last) if isinstance(state, tuple) else last[0]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Any, again: Any, *tensors: Tensor | None) -> Any:
        ctx.again = again
        ctx.save_for_backward(*tensors)
        return run(*tensors)

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
