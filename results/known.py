"""The accuracy that is known of a model at a size: measured if there is one, else published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vbench.errors import UsageError
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.mcnemar import Metric
from vbench.results.published import Accuracy, accuracies
from vbench.results.text import tame

VARIANT = ("dataset", "labels", "checkpoint", "dtype", "crop_pct", "crop_mode", "interpolation")
RANDOM = "random"  # the checkpoint of weights that nobody trained


@dataclass(frozen=True, slots=True)
class Known:
    """An accuracy in percent. `lo` and `hi` are its 95 % interval if it was measured.

    Of a published one nobody knows the error; `lo` and `hi` are what its printed digits leave open, and what reading it
    off a curve adds.
    """

    value: float
    lo: float
    hi: float
    of: MeasuredAccuracy | Accuracy

    @property
    def measured(self) -> bool:
        return isinstance(self.of, MeasuredAccuracy)

    @property
    def source(self) -> str:
        """ "measured", with the dtype; or "published"."""
        return f"measured, {self.of.dtype}" if isinstance(self.of, MeasuredAccuracy) else "published"

    def __str__(self) -> str:
        """ "77.20 % (76.83–77.57)" if it was measured; "77.2 %" as it is printed."""
        if self.measured:
            return f"{self.value:.2f} % ({self.lo:.2f}–{self.hi:.2f})"
        return f"{self.text} %"

    @property
    def text(self) -> str:
        """The figure alone, with as many digits as it has."""
        digits = 2 if self.measured else max(1, len(f"{self.value:.10g}".partition(".")[2]))
        return f"{self.value:.{digits}f}"

    def overlaps(self, other: Known) -> bool:
        return self.lo <= other.hi and other.lo <= self.hi


def usable(rows: Sequence[MeasuredAccuracy]) -> list[MeasuredAccuracy]:
    """The rows of trained weights: random ones say nothing of a model."""
    return [row for row in rows if row.checkpoint != RANDOM]


def of_one_set(
    rows: Sequence[MeasuredAccuracy], data: str | None = None, labels: str | None = None
) -> list[MeasuredAccuracy]:
    """The rows of one data set under one map of labels: accuracies of two are not compared.

    Raises: UsageError if there are several and it is not said which, or if no row is of what was asked for.
    """
    kept = [row for row in rows if data in (None, row.dataset) and labels in (None, row.labels)]
    there = list(dict.fromkeys((row.dataset, row.labels) for row in rows))
    named = "; ".join(f"--data {one} --labels {under}" for one, under in there)
    if not kept and (data or labels):
        asked = f"--data {data or 'any'} --labels {labels or 'any'}"
        raise UsageError(f"no accuracy of {asked} was measured; there are: {named or 'none'}")
    if len({(row.dataset, row.labels) for row in kept}) > 1:
        raise UsageError(f"accuracies of several data sets do not compare; choose one of: {named}")
    return kept


class Accuracies:
    """What is known of every model: `rows` are of one data set."""

    def __init__(self, rows: Sequence[MeasuredAccuracy] = (), metric: Metric = "top1") -> None:
        self.metric = metric
        self.rows = usable(rows)
        self._measured: dict[tuple[str, int, int], list[MeasuredAccuracy]] = {}
        for row in self.rows:
            self._measured.setdefault((row.model, row.height, row.width), []).append(row)

    def of(self, model: str, height: int, width: int, dtype: str | None = None) -> Known | None:
        """The accuracy of a model at exactly this size; None if none is known.

        Of several measured ones that of this dtype comes first, then that of most images, then the newest. Papers
        print top-1 alone, at square sizes.
        """
        if rows := self._measured.get((model, height, width)):
            *_, (_, row) = sorted(enumerate(rows), key=lambda one: (one[1].dtype == dtype, one[1].images, one[0]))
            value, lo, hi = (getattr(row, f"{self.metric}{end}") for end in ("", "_lo", "_hi"))
            return Known(value, lo, hi, row)
        found = accuracies().get((model, height)) if height == width and self.metric == "top1" else None
        return Known(found.top1, found.top1 - found.error, found.top1 + found.error, found) if found else None


@dataclass(frozen=True, slots=True)
class Gap:
    """A measured top-1 beside the published one of the same model and size."""

    measured: MeasuredAccuracy
    published: Accuracy

    @property
    def points(self) -> float:
        """Measured less published."""
        return self.measured.top1 - self.published.top1

    @property
    def beyond(self) -> bool:
        """Whether it is more than what the printed digits, and reading off a curve, leave open."""
        return abs(self.points) > self.published.error

    @property
    def text(self) -> str:
        of, printed = self.measured, self.published
        known = Known(of.top1, of.top1_lo, of.top1_hi, of)
        within = of.top1_lo <= printed.top1 + printed.error and printed.top1 - printed.error <= of.top1_hi
        return (
            f"At {of.height} px {of.model} has {known} top-1 of {of.images:,} images of {tame(of.dataset)}, "
            f"{abs(self.points):.2f} points {'above' if self.points > 0 else 'below'} the published "
            f"{printed.top1:.1f} ± {printed.error:g} % ({printed.source.partition(' (')[0]}), which lies "
            f"{'within' if within else 'outside'} the measured interval"
        )


def gaps(rows: Sequence[MeasuredAccuracy]) -> list[Gap]:
    """Every measured accuracy of trained weights beside the published one, where it differs by more than its error."""
    found = [
        Gap(row, printed)
        for row in usable(rows)
        if row.height == row.width and (printed := accuracies().get((row.model, row.height)))
    ]
    return [gap for gap in found if gap.beyond]


def ways(rows: Sequence[MeasuredAccuracy], model: str) -> Iterator[tuple[str, list[MeasuredAccuracy]]]:
    """The measured accuracies of a model, small sizes first, for each way of measuring, with a name for it.

    Random weights are left out. The name has what the ways differ in.
    """
    own = [row for row in usable(rows) if row.model == model]
    told = [key for key in VARIANT if len({getattr(row, key) for row in own}) > 1]
    ways: dict[tuple[Any, ...], list[MeasuredAccuracy]] = {}
    for row in own:
        ways.setdefault(tuple(getattr(row, key) for key in VARIANT), []).append(row)
    for same in ways.values():
        words = [tame(f"{'crop ' * (key == 'crop_pct')}{getattr(same[0], key)}") for key in told]
        yield " ".join([model, *words]), sorted(same, key=lambda row: row.height * row.width)


def side_of(row: MeasuredAccuracy) -> float:
    """The root of height · width in px."""
    return float((row.height * row.width) ** 0.5)
