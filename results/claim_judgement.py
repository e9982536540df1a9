"""A value of ours beside a claim's, and the verdict on the claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vbench.results.claims import Claim
from vbench.results.text import short

ClaimVerdict = Literal["holds", "holds only against unfused attention", "does not hold", "not measurable here"]
HOLDS, UNFUSED, FAILS, UNKNOWN = VERDICTS = get_args(ClaimVerdict)


@dataclass(frozen=True, slots=True)
class OurValue:
    """A value that we measured or counted. `lo` and `hi` are its interval; None if it is not known, or for a count."""

    value: float
    lo: float | None
    hi: float | None
    basis: str  # what it is a ratio of and under which settings, in words
    case_ids: tuple[str, ...] = ()  # of its records; empty if it was counted by closed form
    unit: str = "×"

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; the value twice if there is none."""
        return (self.value if self.lo is None else self.lo, self.value if self.hi is None else self.hi)

    def __str__(self) -> str:
        bounds = "" if self.lo is None or self.hi is None else f" ({short(self.lo)}–{short(self.hi)})"
        return f"{short(self.value)}{self.unit}{bounds}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim, our verdict, and why."""

    claim: Claim
    verdict: ClaimVerdict
    reason: str
    stated: OurValue | None = None  # (a)
    fair: OurValue | None = None  # (b)
    predicted: bool = False  # whether the values are predictions, which a GPU's record would replace

    @property
    def label(self) -> str:
        """The verdict, and whether it is predicted."""
        return f"{self.verdict} (predicted)" if self.predicted and self.verdict != UNKNOWN else self.verdict

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The case_ids of all records behind the verdict."""
        return tuple(dict.fromkeys(one for ours in (self.stated, self.fair) if ours for one in ours.case_ids))
