"""The matrix LSTM by Triton kernels: three launches in chunks; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import run
from vbench.kernels.mlstm.readout import EPS
from vbench.kernels.mlstm.shapes import Memory
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
    form: str = "fused",
) -> tuple[Tensor, Memory]:
    """The matrix LSTM on CUDA.

    Arguments, results and errors are those of `reference.mlstm`; it does not take float64. Besides:

    Args:
        form: "fused" works in chunks (Beck et al. 2025, arXiv:2503.14376), "fused_recurrent" takes one token a step
            (Beck et al. 2024, arXiv:2405.04517).

    Raises: UnsupportedError for tensors that Triton cannot run on here.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return run("mlstm", form, q, k, v, f, inputs=i, direction=direction, key_scale=scale, eps=eps, state=state)
