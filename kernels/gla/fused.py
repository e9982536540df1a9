"""Gated linear attention by Triton kernels: three launches in chunks, both directions at once; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import run
from vbench.kernels.shapes import Direction


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
    form: str = "fused",
) -> tuple[Tensor, Tensor]:
    """Gated linear attention on CUDA (Yang et al. 2024, arXiv:2312.06635).

    Arguments, results and errors are those of `reference.gla`; it does not take float64. Besides:

    Args:
        form: "fused" works in chunks (section 4), "fused_recurrent" takes one token a step (equation 3).

    Raises: UnsupportedError for tensors that Triton cannot run on here.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return run("gla", form, q, k, v, g, direction=direction, query_scale=scale, state=state)
