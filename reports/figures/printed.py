"""Printed values of papers (hollow points) beside our records (filled points) of the same quantity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from vbench.devices import on_host
from vbench.reports.figures import marks, names
from vbench.reports.figures.curves import log_axis
from vbench.reports.figures.marks import Name
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import MUTED, ground, ink, named
from vbench.results.axes import PARTS, differing, said
from vbench.results.frame import batch_asked, rows_of
from vbench.results.published import Printed, efficiency


@dataclass(frozen=True, slots=True)
class Look:
    """The name and the look of a model in one paper's figure."""

    name: str
    colour: str
    marker: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A printed metric, and our column of the same quantity: printed = column · `unit`, or `unit` / column."""

    metric: str
    column: str
    unit: float
    inverse: bool = False
    counted: bool = False  # holds for every device
    per_image: bool = True  # False: of a batch that the paper does not state; then there is no reproduction ratio


WORK = Quantity("flops_g", "macs", 1e-9, counted=True)
LATENCY = Quantity("latency_ms", "throughput_img_s", 1e3, inverse=True)  # of an image within a batch
MEMORY = Quantity("peak_memory_gb", "peak_memory_bytes", 1e-9, per_image=False)
SPEED = Quantity("log10_throughput_img_s", "throughput_img_s", 1)

Points = dict[float, float]  # size in px -> value


def of_model(paper: str, model: str, metric: str) -> Points:
    """The values that a paper prints, or that were read off its figure."""
    rows = [row for row in of_paper(paper, metric) if row.model == model]
    return {float(row.res): row.value for row in rows if row.res and row.how in ("figure-digitised", "table")}


def of_paper(paper: str, metric: str) -> list[Printed]:
    """All rows of a metric that a paper prints."""
    return [row for row in efficiency() if row.metric == metric and row.source.startswith(paper)]


def measured(table: pd.DataFrame, model: str, quantity: Quantity, phase: str = "infer") -> dict[str, Points]:
    """Our values in the printed unit, by their conditions: parallel mode, one phase, on a GPU unless counted."""
    rows = table[(table["model"] == model) & (table["mode"] == "parallel") & (table["phase"] == phase)]
    rows = rows[(rows["height"] == rows["width"]) & rows[quantity.column].notna()]
    rows = rows.drop_duplicates("height") if quantity.counted else rows[~rows["device"].map(on_host).astype(bool)]
    keys = [*PARTS, "form"]
    rows = rows.assign(batch_asked=batch_asked(rows))
    unsaid = {"phase", "device", "threads", "reparam"} - set(differing(rows, PARTS))
    found: dict[str, Points] = {}
    for own in [rows] if quantity.counted else [own for _, own in rows.groupby(keys, dropna=False)]:
        value = own[quantity.column].astype(float)
        value = quantity.unit / value if quantity.inverse else quantity.unit * value
        points = dict(zip(own["height"].astype(float), value, strict=True))
        if points:
            first = rows_of(own.head(1))[0]
            words = [said(key, first[key]) for key in keys if key not in unsaid and first[key] is not None]
            found["counted" if quantity.counted else ", ".join(words)] = points
    return found


def printed_and_ours(
    axis: Axes,
    table: pd.DataFrame,
    paper: str,
    looks: Mapping[str, Look],
    quantity: Quantity,
    notes: list[str],
    limits: tuple[float, float] | None = None,
) -> list[Name]:
    """Draw printed curves (hollow) and ours (filled). Adds the reproduction ratios to `notes`.

    Args:
        limits: of the paper's y axis; None: it is logarithmic and holds what is printed.
    """
    printed = {model: of_model(paper, model, quantity.metric) for model in looks}
    found = [hollow(axis, printed[model].items(), model, look) for model, look in looks.items()]
    set_limits(axis, limits)
    what = MEASURES[quantity.column].title.lower() if not quantity.inverse else "latency per image"
    for model, look in looks.items():
        ours = measured(table, model, quantity)
        found += filled(axis, ours, printed[model], (model, look), notes, what, reproduced=quantity.per_image)
    there = not table.empty and table[quantity.column].notna().any()
    if there and not quantity.counted and table["device"].map(on_host).all():
        notes.append(
            f"Our {axis_words(quantity)} is not drawn: it was measured on a CPU, but the printed values are a GPU's."
        )
    if there and not quantity.per_image:
        notes.append("Memory has no reproduction ratio: the paper does not state its batch.")
    return found


def axis_words(quantity: Quantity) -> str:
    """The name of a quantity in a sentence."""
    return {"latency_ms": "latency per image", "peak_memory_gb": "memory"}.get(quantity.metric, "throughput")


def name_of(model: str, look: Look) -> str:
    """The name of a model as the paper prints it; the model's own name if it has a label, which then stands for it."""
    return look.name if named(model) == model else model


def hollow(axis: Axes, points: Iterable[tuple[float, float]], model: str, look: Look) -> Name:
    """Draw printed points, joined by a dotted line."""
    x, y = zip(*points, strict=True)
    line = {"marker": look.marker, "markerfacecolor": ground(), "linewidth": 1.0, "zorder": 3, "clip_on": False}
    return marks.curve(axis, x, y, name_of(model, look), look.colour, ":", **line)


def filled(
    axis: Axes,
    ours: Mapping[str, Points],
    theirs: Points,
    whose: tuple[str, Look],
    notes: list[str],
    what: str,
    *,
    reproduced: bool,
    places: Points | None = None,
) -> list[Name]:
    """Draw our curves within the limits of the printed ones. What lies beyond is left out, and said.

    Args:
        whose: the model, and how it looks.
        places: of sizes on the x axis; None: sizes are places.
    """
    found, (model, look) = [], whose
    name, (low, high) = name_of(model, look), axis.get_ylim()
    first, last = axis.dataLim.x0, axis.dataLim.x1
    for points in ours.values():
        shown: Points = {}
        beyond: dict[str, list[float]] = {}
        for side, value in points.items():
            at = side if places is None else places.get(side, first - 1)
            where = "" if low <= value <= high else "above" if value > high else "below"
            where = where if first <= at <= last else "beside"
            if where:
                beyond.setdefault(where, []).append(side)
            else:
                shown[at] = value
        if shown:
            x, y = list(shown), list(shown.values())
            found.append(marks.curve(axis, x, y, f"{name}, ours", look.colour, "-", marker=look.marker, zorder=4))
        for where, sides in beyond.items():
            if where != "beside":
                words = f"{name}, ours: {len(sides)} point{'s' * (len(sides) > 1)}"
                marks.clipped(axis, words, ink(look.colour), above=where == "above")
        if out := sorted(side for sides in beyond.values() for side in sides):
            listed = ", ".join(f"{side:.0f}" for side in out)
            notes.append(f"Outside the paper's range, so not drawn: our {what} of {look.name} at {listed} px.")
    if reproduced:
        notes += reproductions(look.name, what, ours, theirs)
    return found


def reproductions(name: str, what: str, ours: Mapping[str, Points], theirs: Points) -> list[str]:
    """The reproduction ratios (ours over printed) in words."""
    lines = []
    for under, points in ours.items():
        found = [f"{_ratio(points, theirs, side)} at {side:.0f}" for side in sorted(points) if side in theirs]
        if found:
            lines.append(f"Reproduction ratio (ours / printed), {what} of {name}, {under}: {', '.join(found)} px.")
    return lines


def _ratio(ours: Points, theirs: Points, side: float) -> str:
    value = ours[side] / theirs[side]
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.2g}"


def set_limits(axis: Axes, limits: tuple[float, float] | None) -> None:
    """Set the limits of the paper's y axis; None: make it logarithmic and as long as the printed values need."""
    if limits is None:
        low, high = axis.dataLim.y0, axis.dataLim.y1
        room = max(1.25, (high / low) ** 0.06)
        axis.set_yscale("log")
        limits = low / room, high * room
    axis.set_ylim(*limits)
    if axis.get_yscale() == "log":
        log_axis(axis)


def label_points(axis: Axes, points: Points, colour: str, *, above: bool, digits: int = 1) -> None:
    """Write the value of each point above or below it, or where `marks.place_values` finds room."""
    for x, y in points.items():
        look = {"ha": "center", "color": ink(colour), "path_effects": marks.halo(), "gid": "value"}
        marks.note(axis, f"{y:.{digits}f}", (x, y), (0, 7 if above else -7), **look)


def walls(axis: Axes, paper: str, looks: Mapping[str, Look], notes: list[str], places: Points | None = None) -> None:
    """Draw a wall where the paper prints that a model ran out of memory. Adds it to `notes`."""
    for row in of_paper(paper, "oom"):
        if row.model in looks and row.res is not None:
            x, look = places[float(row.res)] if places else float(row.res), looks[row.model]
            marks.wall(axis, x, f"{name_of(row.model, look)}: out of memory, as printed", ink(look.colour))
            notes.append(f"Wall: {name_of(row.model, look)} is out of memory at {row.res} px, as printed.")


def finish(figure: Figure, found: Sequence[Name], sides: Sequence[int] = ()) -> list[str]:
    """Write names, ratios, walls, values and what was left out, after everything else is drawn.

    Returns: notes for the caption.
    """
    names.name_curves(figure, found)
    if sides:
        axes = [axis for axis in figure.axes if axis.get_xlabel() == names.SIZES]
        marks.thin_ticks(figure, axes, {float(side): str(side) for side in sides})
    marks.place_ratios(figure, figure.axes)
    without = marks.place_values(figure, figure.axes)
    marks.place_walls(figure, figure.axes)
    marks.place_clipped(figure, figure.axes)
    return [f"Without room for their value: {without} of the points."] if without else []


def size_axis(axes: Sequence[Axes], sides: Sequence[int]) -> None:
    """Make the x axes linear in size, as in the papers, with ticks at these sizes."""
    margin = 0.05 * (sides[-1] - sides[0])
    for axis in axes:
        axis.set_xlabel(names.SIZES)
        axis.xaxis.set_major_locator(FixedLocator(list(sides)))
        axis.set_xlim(sides[0] - margin, sides[-1] + margin)
        axis.grid(visible=True, axis="x", color=MUTED, alpha=0.4, linestyle="--")
