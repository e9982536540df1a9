"""Gradients of family A, in chunks.

What a gradient needs of other chunks is again a matrix state: the forward one, and one of the mirrored operator,
whose keys are the queries and whose values are the output's gradients, met in the opposite order; `states` finds
both. Then each chunk is on its own. For vector decays the gradient of v is the mirrored operator's output, and `pull`
takes those of q, k and the decays from the same fold as the forward pass; for decays that are numbers, `pull_gates`
takes them all from one matrix of weights.

The gradient of a log decay is the sum over all pairs of tokens that it stands between. Inside a chunk it is a running
sum of what rows and columns of pairs contribute; beyond it, the product of the two states at the border, exactly.
"""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused import gradient_numbers, gradient_vectors
from vbench.kernels.fused.chunks import states
from vbench.kernels.fused.layout import rows_of_tokens
from vbench.kernels.fused.policy import Operands


def gradients(
    x: Operands, o_grad: Tensor, final_grad: tuple[Tensor, ...], chunk: int, warps: int
) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Gradients of the tensors of `x`, by name, in the types of what they are of.

    Args:
        o_grad: (B, H, N, E).
        final_grad: those of the final state, shaped as `x.state`; () for zeros.
        chunk, warps: as in `chunks.attend`; they need not be those of the forward pass.
    """
    of_decays = gradient_vectors.gradients if x.policy.decay == "vector" else gradient_numbers.gradients
    return of_decays(x, rows_of_tokens(o_grad), final_grad, states(x, chunk, warps), warps)
