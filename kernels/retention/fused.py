"""Retention by Triton kernels: three launches in chunks; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import run


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    state: Tensor | None = None,
    form: str = "fused",
) -> tuple[Tensor, Tensor]:
    """Retention on CUDA (Sun et al. 2023, arXiv:2307.08621, with real decays).

    Arguments, results and errors are those of `reference.retention`; only g may be float64. Besides:

    Args:
        form: "fused" works in chunks (equation 7), "fused_recurrent" takes one token a step (equation 1).

    Raises: UnsupportedError for tensors that Triton cannot run on here.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return run("retention", form, q, k, v, g, query_scale=scale, state=state)
