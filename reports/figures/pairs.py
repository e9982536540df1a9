"""The two curves of a ratio, and the ratio with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vbench.errors import UsageError
from vbench.models.registry import ours
from vbench.reports.figures import curves
from vbench.reports.figures.measures import MEASURES, Measure
from vbench.reports.figures.style import Options
from vbench.reports.series import Series
from vbench.results.answers import params_of
from vbench.results.models import attention_models
from vbench.results.ratios import Ratio, ratio

BASELINE = "deit_t"  # the baseline of the papers; preferred
LIKE = 2.0  # models whose parameters differ at most by this factor are preferred


class Pair(NamedTuple):
    """A ratio is the value of the baseline over that of the subject."""

    baseline: Series
    subject: Series


def pair_of(series: Sequence[Series], options: Options) -> Pair | None:
    """The baseline and the subject: the named ones, or an attention model and the fastest recurrent model of like size.

    Both have equal settings. The fastest has the least latency at the largest common size. None if there is no pair.

    Raises: UsageError for a name that no series has.
    """
    baselines = _named(series, options.baseline, "--baseline") if options.baseline else _attention(series)
    for baseline in baselines:
        if options.subject:
            subjects = _named(series, options.subject, "--subject")
        else:
            subjects = [one for one in series if one.model not in attention_models(one.cells)]
            like = [one for one in subjects if 1 / LIKE <= params_of(one.cells) / params_of(baseline.cells) <= LIKE]
            subjects = like or subjects
        rivals = [one for one in subjects if one is not baseline and one.setting == baseline.setting]
        if rivals:
            return Pair(baseline, min(rivals, key=lambda one: _pace(one, baseline)))
    return None


def ratio_at(pair: Pair, measure: Measure, side: float) -> Ratio | None:
    """The ratio at a size; None if one of both has no value there."""
    ends = [one.cells for one in pair]
    ends = [end[(end["side"] == side) & end[measure.column].notna()] for end in ends]
    if any(end.empty for end in ends):
        return None
    above, below = (end.iloc[0] for end in ends)
    return ratio(above, below, measure.column)


def _named(series: Sequence[Series], name: str, option: str) -> list[Series]:
    model, _, mode = name.partition(" ")
    found = [one for one in series if one.model in (model, ours(model)) and (not mode or one.mode == mode.lower())]
    if not found:
        there = ", ".join(dict.fromkeys(f"{one.model} {one.mode}" for one in series))
        raise UsageError(f"{option}: the records have no '{name}'; they have {there or 'no curve'}")
    return found


def _attention(series: Sequence[Series]) -> list[Series]:
    """The attention models: `BASELINE` first, then fused attention, then small models."""

    def order(one: Series) -> tuple[bool, bool, float]:
        return one.model != BASELINE, bool((one.cells["attention"] != "fused").any()), params_of(one.cells)

    return sorted((one for one in series if one.model in attention_models(one.cells)), key=order)


def _pace(one: Series, other: Series) -> tuple[float, float]:
    """A key that sorts the faster first: by latency at the largest size common with `other`."""
    latency = MEASURES["latency_ms"]
    common = set(curves.points(one, latency)[0]) & set(curves.points(other, latency)[0])
    side = max(common, default=0.0)
    return -side, curves.value_at(one, latency, side) or float("inf")
