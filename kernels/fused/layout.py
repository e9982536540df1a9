"""Where the inputs and results of family A lie in memory."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.launch import power_of_two, stored
from vbench.kernels.fused.policy import Policy


def rows_of_tokens(x: Tensor) -> Tensor:
    """x, copied only if its last dimension is not dense."""
    return x if x.stride(-1) == 1 else x.contiguous()


def empty_output(q: Tensor, value_dim: int) -> Tensor:
    """Room for o (B, H, N, E), laid out as (B, N, H · E), which is how the next layer reads it."""
    B, H, N, _ = q.shape
    return q.new_empty(B, N, H, value_dim, dtype=stored(q)).transpose(1, 2)


def empty_like(x: Tensor) -> Tensor:
    """Room for a gradient of x (B, H, N, ·), laid out likewise, and in its type."""
    B, H, N, size = x.shape
    return x.new_empty(B, N, H, size).transpose(1, 2)


def tile(size: int, most: int) -> int:
    """The tile of a head dimension: a power of two from 16 to `most`, and 32 where 64 would be left half empty."""
    found = min(power_of_two(size, 16), most)
    return 32 if found > 32 and size % found else found


def first(gates: Tensor, swapped: bool) -> Tensor:
    """The gates of the direction that a kernel takes for the forward one, from which others are `g_x` away."""
    return gates[1] if swapped and gates.ndim == 5 else gates


def gate_strides(
    gates: Tensor, inputs: Tensor | None, policy: Policy, both: bool, *, swapped: bool = False
) -> dict[str, int]:
    """Strides of the gates by direction (0 where they are shared), image, head and token; of input gates too."""
    found: tuple[int, ...]
    if policy.decay == "head":
        found = (0, 0, gates.stride(0), 0)
    elif both and gates.ndim == 5:
        found = ((-1 if swapped else 1) * gates.stride(0), *gates.stride()[1:4])
    else:
        found = (0, *gates.stride()[:3])
    names = ("g_x", "g_b", "g_h", "g_n", "i_b", "i_h", "i_n")
    return dict(zip(names, (*found, *(inputs.stride() if inputs is not None else (0, 0, 0))), strict=True))


def strides(**tensors: Tensor) -> dict[str, int]:
    """Strides of image, head and token of tensors (B, H, N, ·), as kernels name them: q_b, q_h, q_n."""
    return {f"{name}_{dim}": x.stride(i) for name, x in tensors.items() for i, dim in enumerate("bhn")}
