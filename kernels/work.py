"""What a counter asks of one call of an operator; `entry.work` answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one call, by the formulas beside the kernels.

    `macs` are what the form executes, `macs_algorithm` what every form must at least equal. `flops_elementwise`
    is the form's pointwise work that no MAC counts: gates, decays, exponentials, sums and quotients, one FLOP an
    operation or function value.
    """

    macs: int
    macs_algorithm: int
    flops_elementwise: int
