"""Holm's correction, for many cells judged at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values, each adjusted for there being so many, in the same order (Holm 1979).

    With a bound of 5 % on the adjusted ones, any true null is refused in at most 5 % of sessions.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted
