"""WKV6 by Triton kernels: three launches in chunks, both directions at once; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import run
from vbench.kernels.shapes import Direction


def wkv6(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
    form: str = "fused",
) -> tuple[Tensor, Tensor]:
    """WKV6 on CUDA (Yang et al. 2024, arXiv:2312.06635, section 4, for the decays of RWKV-6).

    Arguments, results and errors are those of `reference.wkv6`; it does not take float64. Besides:

    Args:
        form: "fused" works in chunks, "fused_recurrent" takes one token a step.

    Raises: UnsupportedError for tensors that Triton cannot run on here.
    """
    bonus = (u * (direction != "reverse")).contiguous()
    return run("wkv6", form, r, k, v, g, bonus=bonus, direction=direction, state=state)
