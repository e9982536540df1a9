"""The matrix LSTM by Triton kernels: three launches in chunks; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import matrix_state
from vbench.kernels.mlstm import cost
from vbench.kernels.mlstm.readout import EPS
from vbench.kernels.mlstm.shapes import Memory, check
from vbench.kernels.shapes import Direction


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    eps: float = EPS,
    state: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, fused form (Beck et al. 2025, arXiv:2503.14376), on CUDA.

    Arguments, results and errors are those of `reference.mlstm`, but for float64, which it does not take.

    Raises besides: UnsupportedError for tensors that Triton cannot run on here.
    """
    return _call(q, k, v, i, f, direction, scale, eps, state, "fused")


def mlstm_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    eps: float = EPS,
    state: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, fused recurrent form: one launch, one token a step (Beck et al. 2024, arXiv:2405.04517).

    Arguments, results and errors are those of `mlstm` here.
    """
    return _call(q, k, v, i, f, direction, scale, eps, state, "fused_recurrent")


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    direction: Direction,
    scale: float | None,
    eps: float,
    state: Memory | None,
    form: str,
) -> tuple[Tensor, Memory]:
    check(q, k, v, i, f, direction, state)
    if q.is_meta:
        return cost.on_meta(q, k, v, form)
    (B, H, _, D), E = q.shape, v.shape[-1]
    scale = D**-0.5 if scale is None else scale
    before = []
    if state is not None:
        sizes = ((B * H, D * E), (B * H, D), (B * H,))
        before = [x.float().contiguous().view(size) for x, size in zip(state, sizes, strict=True)]
    h, C, n, m = matrix_state(q, k, v, f, i, None, before, "gate", False, direction, 1.0, scale, eps, "mlstm", form)
    return h, (C.view(B, H, D, E), n.view(B, H, D), m.view(B, H))
