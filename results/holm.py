"""Several verdicts at once, with no more chance of any false one than of one alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values in the given order, adjusted step by step (Holm 1979); compare each with the level wanted in all.

    The smallest is multiplied by their number, the next by one less, and so on; none falls below one before it. It
    holds however the tests depend on each other. Raises: ValueError for a value that is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values lie between 0 and 1")
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = least
    return adjusted
