"""A value of ours beside a claim's, whether its interval reaches the claim, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vbench.results.claims import Claim
from vbench.results.text import short

TOLERANCE = 0.05  # two printed digits leave this open: "90 % saved" means 9.5 to 10.5 times less

ClaimVerdict = Literal["holds", "holds only against unfused attention", "does not hold", "open", "not measurable here"]
HOLDS, UNFUSED, FAILS, OPEN, UNKNOWN = VERDICTS = get_args(ClaimVerdict)


@dataclass(frozen=True, slots=True)
class OurValue:
    """A value that we measured or counted. `lo` and `hi` are its 95 % interval; None if it is not known.

    An exact value was counted, and needs no interval; if it has bounds, they are a range.
    """

    value: float
    lo: float | None
    hi: float | None
    basis: str  # what it is a ratio of and under which settings, in words
    case_ids: tuple[str, ...] = ()  # of its records; empty if it was counted by closed form
    unit: str = "×"
    exact: bool = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, or an exact value twice; None if the interval is not known."""
        if self.lo is not None and self.hi is not None:
            return self.lo, self.hi
        return (self.value, self.value) if self.exact else None

    def __str__(self) -> str:
        known = "" if self.exact else " (interval not known)"
        bounds = known if self.lo is None or self.hi is None else f" ({short(self.lo)}–{short(self.hi)})"
        return f"{short(self.value)}{self.unit}{bounds}"


@dataclass(frozen=True, slots=True)
class Bound:
    """What an advantage must reach: `least`; or, if `above`, more than it."""

    least: float
    words: str  # of the claim: "4×"
    above: bool = False

    def reached(self, ours: OurValue) -> bool | None:
        """True if the low end of the interval reaches it, False if the high end misses it; None if neither is so.

        Without an interval nothing is decided.
        """
        if ours.bounds is None:
            return None
        low, high = (value > self.least if self.above else value >= self.least for value in ours.bounds)
        return True if low else None if high else False


def bound_of(claim: Claim) -> Bound | None:
    """What an advantage must reach for the claim to hold; None if the paper prints neither a number nor a direction.

    A printed number is lowered by `TOLERANCE`, as far as its digits leave it open.
    """
    if claim.ratio is not None:
        return Bound(claim.ratio * (1 - TOLERANCE), f"{claim.ratio:.3g}×")
    if claim.unit in ("grows", "any"):
        return Bound(1, "growth, above 1×" if claim.unit == "grows" else "any advantage, above 1×", above=True)
    return None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim, our verdict, and why."""

    claim: Claim
    verdict: ClaimVerdict
    reason: str
    stated: OurValue | None = None  # (a)
    fair: OurValue | None = None  # (b)
    predicted: bool = False  # whether the values are predictions, which a GPU's record would replace
    undecided: str = ""  # of an open verdict: the value, its interval and what it is held against

    @property
    def label(self) -> str:
        """The verdict, what leaves it open, and whether it is predicted."""
        words = f"{self.verdict}: {self.undecided}" if self.undecided else self.verdict
        return f"{words} (predicted)" if self.predicted and self.verdict != UNKNOWN else words

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The case_ids of all records behind the verdict."""
        return tuple(dict.fromkeys(one for ours in (self.stated, self.fair) if ours for one in ours.case_ids))


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict from values alone: why, and what leaves it open."""

    verdict: ClaimVerdict
    rule: str
    undecided: str = ""


def rule(bound: Bound, fair: OurValue | None, stated: OurValue | None, does: tuple[str, str]) -> Ruling:
    """The verdict from our values against fused and against unfused attention.

    Args:
        stated: None if it was not measured; `fair` itself if the claim's own baseline is the fair one.
        does: what a value does that reaches the bound, and what one does that misses it, in words.
    """
    if fair is None:
        return Ruling(UNKNOWN, "fused attention was not measured")
    reached = bound.reached(fair)
    if reached is None:
        return _open(fair, bound, "" if stated is fair else "fused")
    return Ruling(HOLDS, f"{does[0]} against fused attention") if reached else _missed(bound, fair, stated, does)


def without_attention(bound: Bound, ours: OurValue, does: tuple[str, str]) -> Ruling:
    """The verdict from our value against a baseline that has no attention; `does` as in `rule`."""
    reached = bound.reached(ours)
    if reached is None:
        return _open(ours, bound, "")
    return Ruling(HOLDS, does[0]) if reached else Ruling(FAILS, does[1])


def _missed(bound: Bound, fair: OurValue, stated: OurValue | None, does: tuple[str, str]) -> Ruling:
    """The verdict if the ratio to fused attention misses the bound."""
    if stated is None:
        return Ruling(UNKNOWN, f"{does[1]} against fused attention; unfused was not measured")
    if stated is fair:
        return Ruling(FAILS, does[1])
    unfused = bound.reached(stated)
    if unfused is None:
        return _open(stated, bound, "unfused")
    only = f"{does[0]} against unfused attention, not against fused"
    return (
        Ruling(UNFUSED, only) if unfused else Ruling(FAILS, f"{does[1]} against fused attention, nor against unfused")
    )


def _open(ours: OurValue, bound: Bound, attention: str) -> Ruling:
    undecided = f"{ours} against {bound.words}"
    which = f" of the ratio to {attention} attention" if attention else ""
    lacks = "is not known" if ours.bounds is None else "lies on both sides"
    return Ruling(OPEN, f"the interval{which} {lacks}: {undecided}", undecided)


def words_of(bound: Bound, claim: Claim) -> tuple[str, str]:
    """What a value does that reaches the bound, and one that misses it: "reaches 4×", "does not reach 4×"."""
    if claim.unit == "grows":
        return "grows", "does not grow"
    what = bound.words.split(",")[0]
    return f"reaches {what}", f"does not reach {what}"
