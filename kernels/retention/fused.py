"""Retention by Triton kernels: three launches in chunks; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import matrix_state
from vbench.kernels.retention import cost
from vbench.kernels.retention.shapes import check


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Retention, fused form (Sun et al. 2023, arXiv:2307.08621, equation 7, with real decays), on CUDA.

    Arguments, results and errors are those of `reference.retention`, but for float64, which g alone may have.

    Raises besides: UnsupportedError for tensors that Triton cannot run on here.
    """
    return _call(q, k, v, g, scale, state, "fused")


def retention_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Retention, fused recurrent form: one launch, one token a step (equation 1 of the paper).

    Arguments, results and errors are those of `retention` here.
    """
    return _call(q, k, v, g, scale, state, "fused_recurrent")


def _call(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float | None, state: Tensor | None, form: str
) -> tuple[Tensor, Tensor]:
    check(q, k, v, g, state)
    if q.is_meta:
        return cost.on_meta(q, k, v, form)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    before = [] if state is None else [state.float().flatten(-2).contiguous().view(-1, q.shape[3] * v.shape[3])]
    o, s = matrix_state(q, k, v, g, None, None, before, "head", False, "forward", scale, 1.0, 0.0, "retention", form)
    return o, s.view(*q.shape[:2], q.shape[3], v.shape[3])
