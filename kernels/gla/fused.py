"""Gated linear attention by Triton kernels: three launches in chunks, both directions at once; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import matrix_state
from vbench.kernels.gla import cost
from vbench.kernels.gla.shapes import check
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
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, fused form (Yang et al. 2024, arXiv:2312.06635, section 4), on CUDA.

    Arguments, results and errors are those of `reference.gla`, but for float64, which it does not take.

    Raises besides: UnsupportedError for tensors that Triton cannot run on here.
    """
    return _call(q, k, v, g, direction, scale, state, "fused")


def gla_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, fused recurrent form: one launch, one token a step (equation 3 of the paper).

    Arguments, results and errors are those of `gla` here.
    """
    return _call(q, k, v, g, direction, scale, state, "fused_recurrent")


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    direction: Direction,
    scale: float | None,
    state: Tensor | None,
    form: str,
) -> tuple[Tensor, Tensor]:
    check(q, k, v, g, direction, state)
    if q.is_meta:
        return cost.on_meta(q, k, v, direction, form)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    before = [] if state is None else [state.float().flatten(-2).contiguous().view(-1, q.shape[3] * v.shape[3])]
    o, s = matrix_state(q, k, v, g, None, None, before, "vector", False, direction, scale, 1.0, 0.0, "gla", form)
    pair = (2,) if direction == "both" else ()
    return o, s.view(*pair, *q.shape[:2], q.shape[3], v.shape[3])
