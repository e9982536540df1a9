"""How the inputs and results of the operators with a matrix state lie in memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vbench.kernels.fused.launch import power_of_two, stored
from vbench.kernels.fused.policy import Operands


def with_dense_rows(x: Tensor) -> Tensor:
    """x, copied only if its last dimension is not dense."""
    return x if x.stride(-1) == 1 else x.contiguous()


def dense(x: Operands) -> Operands:
    """The operands as kernels read them: the last dimension of each is dense."""
    gates = with_dense_rows(x.gates) if x.policy.decay == "vector" else x.gates
    return replace(x, q=with_dense_rows(x.q), k=with_dense_rows(x.k), v=with_dense_rows(x.v), gates=gates)


def empty_state(q: Tensor, v: Tensor, ways: int, *, stable: bool) -> tuple[Tensor, ...]:
    """Room for a final state, as `Operands.state`."""
    (B, H, _, D), E = q.shape, v.shape[-1]
    sizes = ((ways * B * H, D * E), (B * H, D), (B * H,))
    return tuple(q.new_empty(size, dtype=torch.float32) for size in sizes[: 3 if stable else 1])


def present(state: tuple[Tensor, ...], *, stable: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The three parts of a state, as kernels take them; absent parts are None."""
    return (*state[: 3 if stable else 1], None, None, None)[:3]  # type: ignore[return-value]


def empty_output(q: Tensor, value_dim: int) -> Tensor:
    """Room for o (B, H, N, E), laid out as (B, N, H · E), which is how the next layer reads it."""
    B, H, N, _ = q.shape
    return q.new_empty(B, N, H, value_dim, dtype=stored(q)).transpose(1, 2)


def empty_like(x: Tensor) -> Tensor:
    """Room for a gradient of x (B, H, N, ·), laid out as `empty_output`, in the type of x."""
    B, H, N, size = x.shape
    return x.new_empty(B, N, H, size).transpose(1, 2)


def tile(size: int, most: int) -> int:
    """The tile of a head dimension: a power of two from 16 to `most`; 32 if a tile of 64 would be half empty."""
    found = min(power_of_two(size, 16), most)
    return 32 if found > 32 and size % found else found


def gates_of(x: Operands, *, mirrored: bool = False) -> dict[str, object]:
    """Gates as kernels take them, with strides by direction (0 if both share the gates), image, head and token.

    If `mirrored`, the gates of the reverse direction come first, and those of the forward direction are `g_x` away.
    """
    gates, two = x.gates, x.both and x.gates.ndim == 5
    found: tuple[int, ...] = (0, *gates.stride()[:3])
    if x.policy.decay == "head":
        found = (0, 0, gates.stride(0), 0)
    elif two:
        found = ((-1 if mirrored else 1) * gates.stride(0), *gates.stride()[1:4])
    found += x.inputs.stride() if x.inputs is not None else (0, 0, 0)
    names = ("g_x", "g_b", "g_h", "g_n", "i_b", "i_h", "i_n")
    return {"gates": gates[1] if mirrored and two else gates, **dict(zip(names, found, strict=True))}


def strides(**tensors: Tensor) -> dict[str, int]:
    """Strides of image, head and token of tensors (B, H, N, ·), as kernels name them: q_b, q_h, q_n."""
    return {f"{name}_{dim}": x.stride(i) for name, x in tensors.items() for i, dim in enumerate("bhn")}
