"""Counts of a pass that would cost too much, from passes that cost less; exact, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from fractions import Fraction
from itertools import pairwise
from typing import Any

from vbench.flops.ledger import Ledger, Tally

Numbers = dict[tuple[str, Any, str], int]  # by the attribute of a ledger, the key in it, and the field of a tally
COUNTS = ("entries", "registered", "calls")  # what a ledger counts, by attribute; not every ledger has all


def numbers(ledger: Ledger) -> Numbers:
    """All that a ledger has counted."""
    found: Numbers = {}
    for name in COUNTS:
        for key, value in getattr(ledger, name, {}).items():
            if isinstance(value, Tally):
                found |= {(name, key, field.name): getattr(value, field.name) for field in fields(value)}
            else:
                found[name, key, ""] = value
    return found


def fill(ledger: Ledger, found: Numbers) -> None:
    """Enter numbers into a new ledger."""
    for (name, key, field), value in found.items():
        entries = getattr(ledger, name)
        if field:
            setattr(entries.setdefault(key, Tally()), field, value)
        else:
            entries[key] = value


def extrapolated(
    known: Sequence[Numbers], at: Fraction | int, *, check: Numbers, check_at: Fraction | int
) -> Numbers | None:
    """What is counted at place `at`, if each count is a polynomial of the place.

    Args:
        known: what is counted at the places 0, 1, 2 and so on; n places give a polynomial of degree n - 1.
        check: what is counted at the place `check_at`.

    Returns: None if the polynomials do not give just what is counted there, or no whole numbers.
    """
    if any(one.keys() != check.keys() for one in known):
        return None
    found: Numbers = {}
    for key, counted in check.items():
        values = [one[key] for one in known]
        there = polynomial(values, at)
        if polynomial(values, check_at) != counted or there.denominator != 1 or there < 0:
            return None
        found[key] = int(there)
    return found


def polynomial(values: Sequence[int], at: Fraction | int) -> Fraction:
    """The value at `at` of the polynomial with these values at 0, 1, 2 and so on, by Newton's forward differences."""
    total, factor, row = Fraction(0), Fraction(1), list(values)
    for order in range(len(values)):
        total += factor * row[0]
        factor *= Fraction(at - order) / (order + 1)
        row = [after - before for before, after in pairwise(row)]
    return total
