"""WKV6 in chunks: exact, any N, memory linear in N, both directions in one pass, by gla's machinery.

Between tokens i < t, gla has the decays i+1 ... t, and WKV6 has i+1 ... t-1. gla folds a chunk: it joins blocks of
tokens, with queries and keys damped up to the common border. Only the start of the folding differs: the queries do not
take their own token's decay, and the bonus is on the diagonal.
"""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.gla.chunkwise import attend
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
) -> tuple[Tensor, Tensor]:
    """WKV6, chunkwise form (Yang et al. 2024, arXiv:2312.06635, section 4, for the decays of RWKV-6).

    Arguments, results and errors are those of `reference.wkv6`.
    """
    return attend(r, k, v, [g], direction, scale=1.0, state=state, bonus=u * (direction != "reverse"))
