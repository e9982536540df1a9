"""From which image size on a recurrent backbone is cheaper than attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vbench.reports.appearance import COLOURS, MARKERS
from vbench.reports.figures import curves, marks, names
from vbench.reports.figures.places import Place, Taken, em, place
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, across, ink, named, panels
from vbench.results.answers import Pair, pairs
from vbench.results.axes import SETTING, differing, said
from vbench.results.frame import rows_of
from vbench.results.scaling import COSTS, crossing, crossovers

COMPARED = ("macs_executed", "latency_ms", "peak_memory_bytes")
MOST, MOST_STACKED = 20, 7  # pairs that fit on a page, with panels beside each other and below each other
ROW_IN = 0.3
BAND = 5.0  # points; the height of the band of an interval
UNKNOWN = "* 95 % interval not known"


def crossover(table: pd.DataFrame, options: Options) -> Drawn:
    """One panel for each cost, one row for each pair: a point where the two costs cross, its 95 % interval as a band.

    The pairs are those of the page's answers: a recurrent backbone in one mode and the attention model nearest in
    parameters. Without such a pair they are any two models. A pair that does not cross within the measured sizes is an
    arrow at that end.
    """
    table = table[(table["status"] == "ok") & (table["phase"] == "infer")]
    families = dict(zip(table["model"], table["family"], strict=True))
    costs = [cost for cost in options.costs or COMPARED if cost in COSTS]
    found = _of_pairs(table, costs)
    labels = list(dict.fromkeys(label for rows in found.values() for label in rows))
    if not labels:
        raise NotDrawnError("no two models or modes share two sizes under equal settings")
    beside = across(len(found), 3) == len(found)
    shown = labels[: MOST if beside else MOST_STACKED]
    height = 0.8 + ROW_IN * len(shown)
    figure, axes = panels(len(found), height, most=len(found), stacked_in=height, sharey=True)
    sides = curves.sides_of(table)
    curves.size_axis(axes, sides)
    notes: list[str] = []
    keys: dict[str, Artist] = {}
    for axis, (cost, rows) in zip(axes, found.items(), strict=True):
        for number, label in enumerate(shown):
            if label in rows:
                keys |= _row(axis, number, rows[label], families.get(_model(rows[label]["a"]), ""), sides)
                notes.append(f"{rows[label]['reading']}.")
        axis.set_title(COSTS[cost][0].upper() + COSTS[cost][1:])
        axis.set_ylim(len(shown) - 0.4, -0.8)
        axis.set_yticks(range(len(shown)), [named(label) for label in shown])
        axis.grid(visible=False, axis="y")
    names.legend(figure, dict(sorted(keys.items(), reverse=True)))
    marks.thin_ticks(figure, axes, sides)
    for axis in axes:
        _place(figure, axis)
    if left_out := len(labels) - len(shown):
        notes.append(f"{left_out} more pairs are not drawn; 'vbench fit' prints them.")
    return Drawn(
        figure,
        (
            "In each row, which of the two costs less, and from which size on, in its colour. Band: 95 % "
            "interval; a size without one has an asterisk. Arrow: at every size that both have.",
            *notes,
        ),
    )


def _of_pairs(table: pd.DataFrame, costs: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By cost and by the label of a pair: where it crosses, as a dict of `Crossover`; `a` is cheaper at large sizes."""
    every = pairs(table)
    if not every:
        return {cost: _of_any(crossovers(table, cost)) for cost in costs}
    found: dict[str, dict[str, dict[str, Any]]] = {cost: {} for cost in costs}
    for pair in every:
        for cost in costs:
            if crossed := _crossed(pair, cost):
                found[cost][f"{pair.subject}{pair.under}\nvs {pair.baseline}"] = crossed
    return found


def _crossed(pair: Pair, cost: str) -> dict[str, Any] | None:
    mine, theirs, ends = pair.mine.reset_index(), pair.theirs.reset_index(), (pair.subject, pair.baseline)
    found = crossing(mine, theirs, ends, cost)
    if found is not None and found.verdict == "not reached":
        found = crossing(theirs, mine, ends[::-1], cost)
    return None if found is None else {**asdict(found), "reading": found.reading + pair.under}


def _of_any(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows of `crossovers` by the label of their pair."""
    told = differing(found, SETTING)
    return {
        " ".join(["\nvs ".join(sorted((row["a"], row["b"]))), *(said(key, row[key]) for key in told if row[key])]): row
        for row in rows_of(found)
    }


def _model(name: str) -> str:
    return name.partition(" ")[0]


def _row(axis: Axes, number: int, row: Mapping[str, Any], family: str, sides: Mapping[float, str]) -> dict[str, Artist]:
    """Draw one pair. Returns the entries of a legend that it needs."""
    colour, marker, keys = ink(COLOURS.get(family, "#000000")), MARKERS.get(family, "x"), dict[str, Artist]()
    first, last = min(sides), max(sides)
    if row["interval_known"] and (_known(row["px_lo"]) or _known(row["px_hi"])):
        ends = [_known(row["px_lo"]) or first, _known(row["px_hi"]) or last]
        band: dict[str, Any] = {"linewidth": BAND, "alpha": 0.35, "solid_capstyle": "butt", "zorder": 1}
        axis.plot(ends, [number, number], color=colour, **band)
        keys["95 % interval"] = Line2D([], [], color=MUTED, **band)
    if row["verdict"] != "crosses":
        x, arrow = (first, "<") if row["verdict"] == "cheaper at every size" else (last, ">")
        axis.plot([x], [number], marker=arrow, color=colour, markerfacecolor="none", linestyle="none")
        texts = (f"{_model(row['a'])} at every size", "at every size") if arrow == "<" else ("at no size",)
    else:
        x = float(row["px"])
        axis.plot([x], [number], marker=marker, color=colour, linestyle="none")
        star = "" if row["interval_known"] else "*"
        texts = (f"{_model(row['a'])} from {x:.0f} px{star}", f"{x:.0f} px{star}")
        keys |= {UNKNOWN: Line2D([], [], linestyle="none")} if star else {}
    for text in texts:
        marks.note(axis, text, (x, number), (0, 0), color=colour, path_effects=marks.halo(), gid="from")
    return keys


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _place(figure: Figure, axis: Axes) -> None:
    """Move the text of each row above it, within the panel: the long one if it has room, else the short one."""
    taken = Taken(figure, axis, without=[text for text in axis.texts if text.get_gid() == "from"])
    for texts in list(_by_row(axis)):
        placed = False
        for text in texts:
            if placed or not place(figure, taken, text, list(_above())):
                text.remove()
            else:
                placed = True


def _by_row(axis: Axes) -> Iterator[list[Any]]:
    """The texts of each row, the long one first."""
    rows: dict[float, list[Any]] = {}
    for text in axis.texts:
        if text.get_gid() == "from":
            rows.setdefault(text.xy[1], []).append(text)  # type: ignore[attr-defined]
    yield from rows.values()


def _above() -> Iterator[Place]:
    """Places above a row's point, the middle of the text ever farther to one side of it."""
    for high in (em(1.0), em(1.2)):
        yield from ((x, high, side) for x, side in ((-em(0.5), "left"), (em(0.5), "right"), (0.0, "center")))  # type: ignore[misc]
