"""From which image size on a recurrent backbone is cheaper than attention."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from vbench.reports.appearance import COLOURS, MARKERS
from vbench.reports.figures import curves, marks
from vbench.reports.figures.style import Drawn, NotDrawnError, Options, ink, sheet
from vbench.results.axes import SETTING, differing, said
from vbench.results.frame import rows_of
from vbench.results.models import attention_models
from vbench.results.scaling import COSTS, crossovers

COMPARED = ("macs_executed", "latency_ms", "peak_memory_bytes")
MOST = 20  # pairs that fit on a page
BAND = 5.0  # points; the height of the band of an interval


def crossover(table: pd.DataFrame, options: Options) -> Drawn:
    """One panel for each cost, one row for each pair: a point where the two costs cross, its 95 % interval as a band.

    A pair is a recurrent backbone and an attention model; if one kind is missing, any two models. A pair that does not
    cross within the measured sizes is an arrow at that end.
    """
    table = table[(table["status"] == "ok") & (table["phase"] == "infer")]
    costs = options.costs or COMPARED
    attends = attention_models(table)
    families = dict(zip(table["model"], table["family"], strict=True))
    found = {cost: _pairs(crossovers(table, cost), attends) for cost in costs if cost in COSTS}
    labels = list(dict.fromkeys(label for rows in found.values() for label in rows))
    if not labels:
        raise NotDrawnError("no two models or modes share two sizes under equal settings")
    shown, left_out = labels[:MOST], labels[MOST:]
    figure = sheet(2, 0.8 + 0.3 * len(shown))
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    sides = curves.sides_of(table)
    notes = []
    for axis, (cost, rows) in zip(panels, found.items(), strict=True):
        for number, label in enumerate(shown):
            if label in rows:
                _row(axis, number, rows[label], families.get(_model(rows[label]["a"]), ""), sides)
                notes.append(f"{rows[label]['reading']}.")
        axis.set_title(COSTS[cost][0].upper() + COSTS[cost][1:])
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_yticks(range(len(shown)), shown)
        axis.grid(visible=False, axis="y")
    curves.size_axis(list(panels), sides)
    marks.settle(figure)
    marks.thin_ticks(figure, list(panels), sides)
    if left_out:
        notes.append(f"{len(left_out)} more pairs are not drawn; 'vbench fit' prints them.")
    return Drawn(
        figure,
        (
            "In each row, which of the two costs less, and from which size on, in its colour. Band: 95 % "
            "interval; a size without one has an asterisk. Arrow: at every size that both have.",
            *notes,
        ),
    )


def _pairs(found: pd.DataFrame, attends: Container[str]) -> dict[str, dict[str, Any]]:
    """Rows of `crossovers` by pair, the recurrent model first. If there are pairs with attention, only these.

    `attends` are the attention models, which have one mode: it is not named.
    """
    rows = rows_of(found)
    mixed = [row for row in rows if len({_model(row[end]) in attends for end in "ab"}) == 2]
    told = differing(found, SETTING)
    named = {}
    for row in mixed or rows:
        pair = sorted((row["a"], row["b"]), key=lambda name: (_model(name) in attends, name))
        setting = [said(key, row[key]) for key in told if row[key] is not None]
        short = [name.removesuffix(" parallel") if _model(name) in attends else name for name in pair]
        named[" ".join(["\n".join(short), *setting])] = row
    return named


def _model(name: str) -> str:
    return name.partition(" ")[0]


def _row(axis: Axes, number: int, row: dict[str, Any], family: str, sides: dict[float, str]) -> None:
    colour, marker = ink(COLOURS.get(family, "#000000")), MARKERS.get(family, "x")
    first, last = min(sides), max(sides)
    if row["interval_known"] and (row["px_lo"] or row["px_hi"]):
        ends = [row["px_lo"] or first, row["px_hi"] or last]
        axis.plot(ends, [number, number], color=colour, linewidth=BAND, alpha=0.35, solid_capstyle="butt", zorder=1)
    if row["verdict"] != "crosses":
        x, arrow = (first, "<") if row["verdict"] == "cheaper at every size" else (last, ">")
        axis.plot([x], [number], marker=arrow, color=colour, markerfacecolor="none", linestyle="none")
        words = f"{_model(row['a'])} at every size" if arrow == "<" else "at no size"
        offset, side = ((6.0, 0.0), "left") if arrow == "<" else ((-6.0, 0.0), "right")
        marks.note(axis, words, (x, number), offset, ha=side, color=colour, path_effects=marks.halo())
        return
    px = float(row["px"])
    axis.plot([px], [number], marker=marker, color=colour, linestyle="none")
    right = px > (first * last) ** 0.5
    text = f"{_model(row['a'])} from {px:.0f} px" + ("" if row["interval_known"] else "*")
    offset, side = ((-5.0, 6.5), "right") if right else ((5.0, 6.5), "left")
    marks.note(axis, text, (px, number), offset, ha=side, color=colour, path_effects=marks.halo())
