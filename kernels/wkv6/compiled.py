"""WKV6, one token a step, in machine code on the CPU, by gla's loop."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vbench.kernels.gla.compiled import attend
from vbench.kernels.machine_code import recomputed
from vbench.kernels.shapes import Direction
from vbench.kernels.wkv6 import chunkwise


def wkv6(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """WKV6, recurrent form (Peng et al. 2024, arXiv:2404.05892, section 4.2), compiled.

    Arguments, results and errors are those of `reference.wkv6`. Gradients are those of `chunkwise.wkv6`.
    """

    def run(r: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        return attend(r, k, v, [g], direction, state=state, like=r, bonus=u * (direction != "reverse"))

    return recomputed(run, partial(chunkwise.wkv6, direction=direction), (r, k, v, g, u), state)
