"""Two models on the same images: which is right more often, size by size.

Images that both get right, or both get wrong, say nothing of who is better. Of those that one alone gets right, each
model has half if they are equally good: the exact test of McNemar asks whether it may be so. The interval
of the difference is Tango's (1998), which inverts the score test of the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import bdtr, ndtri

from vbench.errors import UsageError
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.holm import holm
from vbench.results.statistics import CONFIDENCE

ALPHA = 1 - CONFIDENCE
Metric = Literal["top1", "top5"]
METRICS: tuple[Metric, ...] = ("top1", "top5")
PREPROCESSING = ("crop_pct", "crop_mode", "interpolation")
CONDITIONS = ("dtype", *PREPROCESSING)
CORRECT: dict[Metric, str] = {"top1": "correct1", "top5": "correct5"}  # columns of a file of predictions


@dataclass(frozen=True, slots=True)
class Paired:
    """Model a against model b on the images that both predicted. Accuracies and their difference are in percent.

    `difference` is a less b, `lo` to `hi` its 95 % interval. `p` is McNemar's, `p_all` the same adjusted for all
    comparisons that were made together (`holm`).
    """

    a: MeasuredAccuracy
    b: MeasuredAccuracy
    metric: Metric
    images: int
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    lo: float
    hi: float
    p: float
    p_all: float
    notes: tuple[str, ...] = ()  # images that one alone has; settings in which they differ

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of a and of b on the shared images."""
        return 100 * (self.both + self.only_a) / self.images, 100 * (self.both + self.only_b) / self.images

    @property
    def apart(self) -> bool:
        """Whether the two are told apart at 95 % over all comparisons."""
        return self.p_all <= ALPHA

    @property
    def verdict(self) -> str:
        """Who is better, in words."""
        if not self.apart:
            return "not told apart"
        return f"{(self.a if self.difference > 0 else self.b).model} is better"


def exact(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p for so many images that one alone gets right; 1 if there are none."""
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def interval(only_a: int, only_b: int, images: int, level: float = CONFIDENCE) -> tuple[float, float]:
    """Tango's interval of the difference of two paired shares, each between -1 and 1.

    Raises: ValueError for no images, or fewer than the discordant ones.
    """
    if images < 1 or only_a + only_b > images:
        raise ValueError("images are one at least, and no fewer than those that one model alone gets right")
    wanted = float(ndtri((1 + level) / 2))

    def score(delta: float) -> float:
        """The score statistic of the difference `delta`; it falls as delta grows."""
        linear = -only_a - only_b + (2 * images - only_a + only_b) * delta
        root = max(linear**2 + 8 * images * only_b * delta * (1 - delta), 0.0) ** 0.5
        share = (root - linear) / (4 * images)  # the likeliest share of only_b if the difference is delta
        variance = images * (2 * share + delta * (1 - delta))
        return (only_a - only_b - images * delta) / variance**0.5 if variance > 0 else 0.0

    middle, edge = (only_a - only_b) / images, 1 - 1e-12
    lo = -1.0 if score(-edge) < wanted else float(brentq(lambda delta: score(delta) - wanted, -edge, middle))
    hi = 1.0 if score(edge) > -wanted else float(brentq(lambda delta: score(delta) + wanted, middle, edge))
    return lo, hi


def predictions(of: MeasuredAccuracy) -> pd.DataFrame:
    """What was right of the images behind an accuracy: label, correct1 and correct5; the index is the image's name.

    Raises: UsageError for a file that is not there or cannot be read, or that names an image twice.
    """
    try:
        table = pd.read_parquet(of.predictions, columns=["image", "label", *CORRECT.values()])
    except (OSError, ValueError, KeyError) as error:
        said = str(error).partition("\n")[0]
        raise UsageError(f"{of.predictions}: the predictions of {of.model} cannot be read ({said})") from None
    if table["image"].duplicated().any():
        raise UsageError(f"{of.predictions} names an image twice; run 'vbench eval' again")
    return table.set_index("image")


def pair(a: MeasuredAccuracy, b: MeasuredAccuracy, metric: Metric = "top1") -> Paired:
    """Compare two accuracies image by image, on the images that both have.

    Raises: UsageError if they share no image, if labels of an image differ, or as `predictions`.
    """
    mine, theirs = predictions(a), predictions(b)
    shared = mine.index.intersection(theirs.index)
    if not len(shared):
        raise UsageError(f"{_named(a)} and {_named(b)} share no image: {a.dataset} and {b.dataset}")
    mine, theirs = mine.loc[shared], theirs.loc[shared]
    if (wrong := mine["label"] != theirs["label"]).any():
        raise UsageError(
            f"{_named(a)} and {_named(b)} have different labels for {int(wrong.sum())} images, as "
            f"{shared[wrong.to_numpy()][0]}: {a.labels} and {b.labels}; run 'vbench eval' with one --labels"
        )
    one, other = (table[CORRECT[metric]].to_numpy(dtype=bool) for table in (mine, theirs))
    both, only_a, only_b = (int(np.sum(found)) for found in (one & other, one & ~other, ~one & other))
    neither = len(shared) - both - only_a - only_b
    lo, hi = interval(only_a, only_b, len(shared))
    p = exact(only_a, only_b)
    notes = [
        f"{of.images - len(shared)} images of {_named(of)} are left out: {other.model} has no prediction of them"
        for of, other in ((a, b), (b, a))
        if of.images > len(shared)
    ]
    differ = [
        f"{key} {getattr(a, key)} and {getattr(b, key)}" for key in CONDITIONS if getattr(a, key) != getattr(b, key)
    ]
    if a.model != b.model and differ:
        notes.append(f"{a.model} and {b.model} differ in {', '.join(differ)}")
    return Paired(
        a,
        b,
        metric,
        images=len(shared),
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=neither,
        difference=100 * (only_a - only_b) / len(shared),
        lo=100 * lo,
        hi=100 * hi,
        p=p,
        p_all=p,
        notes=tuple(notes),
    )


def together(found: Sequence[Paired]) -> list[Paired]:
    """The same comparisons with `p_all` over all of them."""
    return [replace(one, p_all=p) for one, p in zip(found, holm([one.p for one in found]), strict=True)]


def compare(rows: Sequence[MeasuredAccuracy], a: str, b: str, metric: Metric = "top1") -> list[Paired]:
    """Compare model a with model b at each size that both have on one data set with one map of labels.

    A row of a meets the row of b that has most of dtype and preprocessing in common with it.

    Raises: UsageError for a model that no row has, or if the two share no size; and as `pair`.
    """
    for name in (a, b):
        if not any(row.model == name for row in rows):
            there = ", ".join(dict.fromkeys(row.model for row in rows)) or "none"
            raise UsageError(f"no accuracy of {name} was measured here; models with one: {there}")
    found = []
    for mine in (row for row in rows if row.model == a):
        beside = [row for row in rows if row.model == b and _task(row) == _task(mine)]
        if beside:
            found.append(pair(mine, min(beside, key=lambda row: _unlike(mine, row)), metric))
    if not found:
        raise UsageError(f"{a} and {b} share no size on one data set; run 'vbench eval --models {a},{b}' on one")
    return together(sorted(found, key=lambda one: one.a.height * one.a.width))


def _task(row: MeasuredAccuracy) -> tuple[object, ...]:
    return row.height, row.width, row.dataset, row.labels


def _unlike(a: MeasuredAccuracy, b: MeasuredAccuracy) -> int:
    return sum(getattr(a, key) != getattr(b, key) for key in CONDITIONS)


def _named(of: MeasuredAccuracy) -> str:
    return f"{of.model} at {of.height} px" if of.height == of.width else f"{of.model} at {of.height}x{of.width} px"
