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

from vbench.kernels.disk_cache import DiskCache
from vbench.kernels.shapes import State

Loop = TypeVar("Loop", bound=Callable[..., Any])
Array = NDArray[Any]
Strides = tuple[int, ...]


def machine_code(loop: Loop) -> Loop:
    """Compile a loop over arrays. This takes a second or two at its first call with a type; then it lies on the disk.

    A product and a sum may be rounded once together. No sum is reordered. The loop runs without the interpreter's lock.
    It may call the functions of `vector_math`, and loops of this kind in the same folder.
    """
    compiled = numba.njit(loop, nogil=True, fastmath={"contract"}, error_model="numpy")
    compiled._cache = DiskCache(loop)
    return cast(Loop, compiled)


def array(x: Tensor, dtype: torch.dtype) -> Array:
    """The numbers as a contiguous array of this type. It shares the memory of the tensor where it can."""
    return x.detach().to(dtype).contiguous().numpy()


_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.uint16}  # as `vector_math.widened` takes them


def flat(x: Tensor) -> tuple[Array, Strides]:
    """The memory of a tensor from its first number to its last as one contiguous array, and the tensor's strides.

    Nothing is copied. In the array, element (i, j, ...) is at i · strides[0] + j · strides[1] + ... A bfloat16 is an
    int16 there and a float16 a uint16, of the same bits: `vector_math.widened` reads them.
    """
    reach = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    memory = x.detach().as_strided((reach,), (1,))
    return memory.view(_BITS.get(x.dtype, x.dtype)).numpy(), x.stride()


def number(x: float, dtype: torch.dtype) -> Any:
    """A number of this type: of a number of Python's, machine code would make all that it meets a float64."""
    return np.dtype(str(dtype).removeprefix("torch.")).type(x)


def recomputed(
    run: Callable[..., tuple[Tensor, State]],
    again: Callable[..., tuple[Tensor, State]],
    inputs: tuple[Tensor | None, ...],
    state: State | None,
) -> tuple[Tensor, Any]:
    """run(*inputs, state=state), an output and a state, with the gradients of `again`.

    An input may be None. `again` computes the same by operations of torch. torch refuses gradients of these gradients.
    """
    parts = state if isinstance(state, tuple) else (state,)

    def flat(function: Callable[..., tuple[Tensor, State]], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = tensors[len(inputs) :]
        o, last = function(*tensors[: len(inputs)], state=given if isinstance(state, tuple) else given[0])
        return (o, *last) if isinstance(last, tuple) else (o, last)

    apply = _Recomputed.apply
    if torch.compiler.is_dynamo_compiling():  # asked first, because `disable` takes seconds to import what it needs
        apply = torch.compiler.disable(apply)
    o, *last = apply(partial(flat, run), partial(flat, again), *inputs, *parts)
    return o, tuple(last) if isinstance(state, tuple) else last[0]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(run: Any, again: Any, *tensors: Tensor | None) -> Any:
        return run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.again, *tensors = inputs
        ctx.save_for_backward(*tensors)

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

    @staticmethod
    def vmap(info: Any, dims: Any, run: Any, again: Any, *tensors: Tensor | None) -> Any:
        """One call after the other: a loop in machine code has no dimension to add."""
        made = []
        for at in range(info.batch_size):
            each = [
                x if x is None or dim is None else x.select(dim, at) for x, dim in zip(tensors, dims[2:], strict=True)
            ]
            made.append(_Recomputed.apply(run, again, *each))
        return tuple(torch.stack(parts) for parts in zip(*made, strict=True)), (0,) * len(made[0])
