"""Accuracy against each cost of a budget: the cells, the Pareto front, the limit, and the cell that was picked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from vbench.reports.appearance import member
from vbench.reports.figures import curves, marks, names
from vbench.reports.figures.accuracy_cost import FRONT, SIZED, UNSIZED, front, front_key
from vbench.reports.figures.places import Place, Side, Taken, em, place
from vbench.reports.figures.style import MUTED, RATIO, Drawn, NotDrawnError, ground, ink, panels
from vbench.reports.pick import METRICS, sentences
from vbench.results.pick import KINDS, Candidate, Kind, Pick


def pareto(found: Pick) -> Drawn:
    """One panel for each cost of the budget: accuracy against it, with intervals, a curve for each model and setting.

    Filled points were measured, hollow ones are published. What lies
    beyond the limit is shaded; a disc marks the pick. Raises: NotDrawnError without cells.
    """
    if not found.candidates:
        raise NotDrawnError("no cell has both an accuracy and a cost")
    figure, axes = panels(len(found.budget), 2.9, most=min(2, len(found.budget)), sharey=True)
    drawn: list[marks.Name] = []
    for axis, option, letter in zip(axes, found.budget, "abcdef", strict=False):
        drawn += _panel(axis, found, option)
        title = KINDS[option].words.capitalize()
        axis.set_title(f"({letter}) {title}" if len(found.budget) > 1 else title)
    kinds = {one.accuracy.measured for one in found.candidates}
    origin = ", measured" if kinds == {True} else ", published" if kinds == {False} else ""
    for axis in axes:
        if axis.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axis.set_ylabel(f"{METRICS[found.metric].capitalize()} (%){origin}")
    names.legend(figure, {**{name.text: name.handle for name in drawn}, **front_key()})  # curves end close together
    for axis in axes:
        _name_limit(figure, axis)
    sized = marks.place_sizes(figure, axes)
    legend = "Red disc: the pick. Shaded: beyond the limit. Grey step: the Pareto front."
    legend += f" {SIZED if sized else UNSIZED}"
    hollow = "Hollow: published accuracy, without an interval. Filled: measured, with its 95 % interval."
    return Drawn(figure, (*sentences(found), legend, hollow))


def _panel(axis: Axes, found: Pick, option: str) -> list[marks.Name]:
    kind, drawn = KINDS[option], []
    groups: dict[str, list[Candidate]] = {}
    for one in found.candidates:
        groups.setdefault(one.label, []).append(one)
    looks = _looks(found.candidates)
    lines = {label: ("-", "--", ":", "-.")[number % 4] for number, label in enumerate(sorted(groups))}
    for label, own in sorted(groups.items(), key=lambda group: (found.best not in group[1], group[0])):
        own.sort(key=lambda one: one.row["height"] * one.row["width"], reverse=kind.least)  # names stand at the right
        drawn.append(_curve(axis, own, option, label, (*looks[str(own[0].row["model"])], lines[label])))
        for one in own:
            at = one.costs[option].value, one.accuracy.hi if one.accuracy.measured else one.accuracy.value
            marks.size(axis, one.size, at, looks[str(one.row["model"])][0])
    sign = -1 if kind.least else 1
    points = np.array([(sign * one.costs[option].value, one.accuracy.value) for one in found.candidates])
    best = front(points) * (sign, 1)
    axis.step(best[:, 0], best[:, 1], where="post", **FRONT)
    axis.margins(x=0.08, y=0.1)
    _limit(axis, found.budget[option], kind)
    if found.best:
        at = found.best.costs[option].value, found.best.accuracy.value
        axis.plot(*at, "o", markersize=11, color=ink(RATIO), alpha=0.35, markeredgewidth=0, zorder=1.5)
    curves.log_axis(axis, "x")
    axis.set_xlabel(f"{kind.words.capitalize()} ({kind.symbol})")
    return drawn


def _looks(cells: Sequence[Candidate]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each model: those of its family, in shades of their own."""
    families: dict[str, set[str]] = {}
    for one in cells:
        families.setdefault(str(one.row["family"]), set()).add(str(one.row["model"]))
    return {
        model: member(family, number)
        for family, models in families.items()
        for number, model in enumerate(sorted(models))
    }


def _curve(axis: Axes, own: list[Candidate], option: str, label: str, look: tuple[str, str, str]) -> marks.Name:
    """The cells of one model and setting, with bars where they have intervals; `look` is colour, marker and line."""
    colour, marker, line = look
    x, y = [one.costs[option].value for one in own], [one.accuracy.value for one in own]
    name = marks.curve(
        axis, x, y, label, colour, line, linewidth=0.9, marker=marker, markerfacecolor=ground(), zorder=3
    )
    filled = [one for one in own if one.accuracy.measured]
    if filled:
        at = [one.costs[option].value for one in filled]
        tops = np.array([one.accuracy.value for one in filled])
        ends = np.array([(one.accuracy.lo, one.accuracy.hi) for one in filled]).T
        bars = np.abs(ends - tops)
        axis.errorbar(at, tops, yerr=bars, fmt=marker, color=ink(colour), linewidth=0.8, capsize=1.5, zorder=4)
    for one in own:
        cost = one.costs[option]
        if cost.lo is not None and cost.hi is not None and cost.lo < cost.hi:
            axis.plot([cost.lo, cost.hi], [one.accuracy.value] * 2, color=ink(colour), linewidth=0.8, zorder=2)
    return name


def _limit(axis: Axes, limit: float, kind: Kind) -> None:
    """Draw the limit and shade what lies beyond it."""
    values = [float(x) for line in axis.get_lines() for x in np.atleast_1d(line.get_xdata())]
    low, high = min([*values, limit]), max([*values, limit])
    room = (high / low) ** 0.07 * 1.05
    beyond = (low * 1e-3, limit) if kind.least else (limit, high * 1e3)  # names of curves may widen the axis
    axis.axvline(limit, color=ink(RATIO), linewidth=0.9, zorder=1)
    axis.axvspan(*beyond, color=ink(MUTED), alpha=0.12, linewidth=0, zorder=0)
    axis.set_xlim(low / room, high * room)
    words = f"{'≥' if kind.least else '≤'} {limit:g} {kind.symbol}"
    look = {"xycoords": ("data", "axes fraction"), "color": ink(RATIO), "rotation": 90, "va": "bottom", "gid": "limit"}
    marks.note(axis, words, (limit, 0.0), (-2 if kind.least else 2, 3), ha="right" if kind.least else "left", **look)


def _name_limit(figure: Figure, axis: Axes) -> None:
    """Move the words of the limit to a free place beside its line, at whatever height."""
    text = next(text for text in axis.texts if text.get_gid() == "limit")
    assert isinstance(text, Annotation)
    sizes = [other for other in axis.texts if other.get_gid() == "size"]
    high = axis.get_window_extent().height * 72 / figure.dpi
    (x, y), side = text.xyann, text.get_horizontalalignment()
    other: Side = "right" if side == "left" else "left"
    heights = [y + em(row) for row in range(int(high / em(1)))]
    places: list[Place] = [(x, at, side) for at in heights] + [(-x, at, other) for at in heights]
    place(figure, Taken(figure, axis, without=[text, *sizes]), text, places)
