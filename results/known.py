"""The accuracy that is known of a model at a size: measured if there is one, else published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vbench.errors import UsageError
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.mcnemar import Metric
from vbench.results.published import Accuracy, accuracies

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
        raise UsageError(
            f"no accuracy of --data {data or 'any'} --labels {labels or 'any'} was measured; there are: {named or 'none'}"
        )
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
