"""Gradients of the operators with a matrix state, in chunks.

A gradient needs two matrix states from other chunks: that of the forward pass, and that of the mirrored operator. The
mirrored operator has the queries as keys and the output's gradients as values, and meets the tokens in the opposite
order. `states` finds both; then no chunk needs another. If decays are vectors, the gradient of v is the mirrored
operator's output, and `pull` finds those of q, k and the decays by the same fold as the forward pass. If decays are
numbers, `pull_gates` finds all gradients from one matrix of weights.

The gradient of a log decay is a sum over all pairs of tokens with the decay between them. Inside a chunk it is a
running sum of what rows and columns of pairs contribute. Beyond the chunk it is exactly the product of the two states
at its border.
"""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused import gradient_numbers, gradient_vectors
from vbench.kernels.fused.chunks import states
from vbench.kernels.fused.layout import with_dense_rows
from vbench.kernels.fused.policy import Operands


def gradients(
    x: Operands, o_grad: Tensor, final_grad: tuple[Tensor, ...], chunk: int, warps: int
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Gradients of the tensors of `x`, by name, each in the type of its tensor.

    Args:
        o_grad: of the output, (B, H, N, E).
        final_grad: of the final state, shaped as `x.state`; () for zeros.
        chunk, warps: as in `chunks.attend`; they need not be those of the forward pass.
    """
    of_decays = gradient_vectors.gradients if x.policy.decay == "vector" else gradient_numbers.gradients
    return of_decays(x, with_dense_rows(o_grad), final_grad, states(x, chunk, warps), warps)
