"""Marks on curves: names at their ends, ratios between them, walls where they end, and insets.

Positions are searched in pixels, from the extents of the renderer, after everything else is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from vbench.reports.figures.style import MUTED, RATIO, ground, ink

WIDEST = 0.45  # the largest share of a panel's width for names; wider names go to a legend
STEPS = 60  # half line heights above and below in which a place for a name is searched
NEAR = 13  # the places that are tried before those on the other side of the curve's end
LEADER = 1.3  # line heights; a name farther from its curve gets a line to it
Side = Literal["left", "right", "center"]
BESIDE: tuple[tuple[float, float, Side], ...] = (  # places of an arrow's text, in shares of the font size
    (0.4, 0.0, "left"),
    (-0.4, 0.0, "right"),
    (0.0, -1.5, "center"),
    (0.0, 1.5, "center"),
    (0.5, -1.1, "left"),
    (-0.5, 1.1, "right"),
)
ON_A_WALL = 2  # curves that a wall names; if there are more, it shows their number
ROOM = 0.55  # share of the font size between a curve's end and its name


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a curve, for its end. `handle` is the curve for a legend."""

    axis: Axes
    x: float
    y: float
    text: str
    colour: str
    handle: Line2D


def em(share: float) -> float:
    """A share of the font size, in points."""
    return share * float(mpl.rcParams["font.size"])


def halo() -> list[Any]:
    """A rim in the colour of the background. It keeps text readable on lines."""
    return [withStroke(linewidth=1.8, foreground=ground())]


def curve(axis: Axes, x: Any, y: Any, text: str, colour: str, line: str, **look: Any) -> Name:
    """Draw a curve and return its name. `colour` is the colour on a light background."""
    (handle,) = axis.plot(x, y, line, color=ink(colour), **look)
    return Name(axis, float(x[-1]), float(y[-1]), text, ink(colour), handle)


def note(axis: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any) -> Annotation:
    """Write small text `offset` points from a place. `look` has options of matplotlib."""
    usual: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": "small"}
    return axis.annotate(text, at, xytext=offset, **{**usual, **look})


def ratio(axis: Axes, x: float, ends: tuple[float, float], text: str) -> None:
    """Draw a vertical arrow with two heads between two values at `x`, and its text; `place_ratios` moves the text."""
    low, high = sorted(ends)
    axis.annotate(
        "",
        xy=(x, high),
        xytext=(x, low),
        arrowprops={"arrowstyle": "<->", "color": ink(RATIO), "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
    )
    middle = (low * high) ** 0.5 if axis.get_yscale() == "log" else (low + high) / 2
    note(axis, text, (x, middle), (em(0.4), 0), fontweight="bold", path_effects=halo(), gid="ratio", zorder=5)


def place_ratios(figure: Figure, axes: Sequence[Axes]) -> None:
    """Move the text of each ratio to the place beside its arrow where it covers least. Call it after `settle`."""
    for axis in axes:
        points = along(axis)
        panel, taken = axis.get_window_extent(), [extent(figure, t) for t in axis.texts if t.get_gid() == "name"]
        for text in (t for t in axis.texts if t.get_gid() == "ratio"):
            places = [(em(x), em(y), side) for x, y, side in BESIDE]
            costs = []
            for x, y, side in places:
                _move(text, x, y, side)
                box = extent(figure, text)
                covered = int(within(points, box, 1).sum())
                out = not (panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1)
                costs.append(covered + 1000 * (out + sum(box.overlaps(other) for other in taken)))
            _move(text, *places[int(np.argmin(costs))])
            taken.append(extent(figure, text))


def _move(text: Text, x: float, y: float, side: Side) -> None:
    text.set_position((x, y))
    text.set_horizontalalignment(side)


def wall(axis: Axes, x: float, ended: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Draw a wall at the size where curves end. `ended` has the (name, colour) of the curves for each reason."""
    whose = [colour for curves in ended.values() for _, colour in curves]
    axis.axvline(x, color=whose[0] if len(set(whose)) == 1 else MUTED, linewidth=2.2, alpha=0.35, zorder=1)
    for number, (why, curves) in enumerate(ended.items()):
        names = ", ".join(name for name, _ in curves) if len(curves) <= ON_A_WALL else f"{len(curves)} curves"
        text, colour = f"{names}: {why}", curves[0][1] if len(curves) == 1 else MUTED
        place, look = (em(0.4 + 1.1 * number), -2), {"rotation": 90, "ha": "left", "va": "top", "color": colour}
        look |= {"path_effects": halo(), "annotation_clip": False, "gid": "wall", "zorder": 6}
        note(axis, text, (x, 1.0), place, xycoords=("data", "axes fraction"), **look).set_in_layout(False)


def settle(figure: Figure) -> None:
    """Lay out the panels once and for all, so that extents in pixels still hold when the figure is saved.

    The figure keeps no layout engine, so saving draws it once, not twice.
    """
    if not hasattr(figure.canvas, "get_renderer"):
        FigureCanvasAgg(figure)
    ConstrainedLayoutEngine().execute(figure)


def extent(figure: Figure, text: Text) -> Bbox:
    """The extent of a text in pixels, without its arrow. Call it after `settle`."""
    renderer = cast(FigureCanvasAgg, figure.canvas).get_renderer()  # type: ignore[no-untyped-call]
    if isinstance(text, Annotation):
        text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def name_curves(figure: Figure, names: Sequence[Name]) -> None:
    """Write each name beside the end of its curve, without overlap. Names of a crowded panel go to a legend above."""
    beside = dict.fromkeys(name.axis for name in names)
    height = figure.get_figheight()
    while True:
        for old in list(figure.legends):
            old.remove()
        figure.set_figheight(height)
        legend(figure, {name.text: name.handle for name in names if name.axis not in beside})
        crowded = [axis for axis in beside if not _name(figure, axis, [name for name in names if name.axis is axis])]
        if not crowded:
            return
        for axis in {name.axis: None for name in names}:
            for text in [text for text in axis.texts if text.get_gid() in ("name", "leader")]:
                text.remove()
        for axis in crowded:
            del beside[axis]


def legend(figure: Figure, handles: Mapping[str, Line2D]) -> None:
    """Add a legend above the panels, make the figure higher for it, and lay out the panels again."""
    if handles:
        wide = figure.get_figwidth() > 1.5 * mpl.rcParams["figure.figsize"][0]
        columns = min(4 if wide else 2, len(handles))
        made = figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=columns, handlelength=3
        )
        rows = -(-len(handles) // columns)
        line_in = 1.5 * float(made.get_texts()[0].get_fontsize()) / 72
        figure.set_figheight(figure.get_figheight() + rows * line_in)
    settle(figure)


def _name(figure: Figure, axis: Axes, names: Sequence[Name]) -> bool:
    """Write the names of one panel. Returns False if they do not fit; the caller then removes the texts."""
    limits = axis.get_xlim()
    texts = [_text(name) for name in names]
    fits = _make_room(figure, axis, texts) and _spread(figure, axis, texts)
    if not fits:
        axis.set_xlim(limits)
    return fits


def _text(name: Name) -> Annotation:
    look = {"color": name.colour, "path_effects": halo(), "annotation_clip": False, "gid": "name", "zorder": 6}
    text = note(name.axis, name.text, (name.x, name.y), (em(ROOM), 0), **look)
    text.set_in_layout(False)
    return text


def _make_room(figure: Figure, axis: Axes, texts: Sequence[Annotation]) -> bool:
    """Widen the x axis until every name ends within the panel. Returns False if names need too much of it."""
    scale = axis.xaxis.get_transform()
    panel = axis.get_window_extent()
    left, right = scale.transform(np.array(axis.get_xlim(), dtype=float))
    needed = right
    for text in texts:
        box = extent(figure, text)
        share = (box.width + 1.5 * em(ROOM) * figure.dpi / 72) / panel.width
        if share > WIDEST:
            return False
        x = float(scale.transform(np.array([text.xy[0]], dtype=float))[0])
        needed = max(needed, (x - share * left) / (1 - share))
    low, high = scale.inverted().transform(np.array([left, needed], dtype=float))
    axis.set_xlim(float(low), float(high))
    return True


def _spread(figure: Figure, axis: Axes, texts: Sequence[Annotation]) -> bool:
    """Move names up, down or before the end of their curve, as little as possible, until none overlap.

    Places off the curves come first. Returns False if not all names fit.
    """
    panel = axis.get_window_extent()
    point = figure.dpi / 72
    taken = [extent(figure, other) for other in axis.texts if other not in texts and other.get_text()]
    curves = along(axis)
    for text in sorted(texts, key=lambda one: -extent(figure, one).y0):
        box = extent(figure, text)
        height = box.height * 0.8  # of the text, without line spacing
        shifts = [(step + 1) // 2 * (1 if step % 2 else -1) * 0.5 * height for step in range(2 * STEPS)]
        back = box.width + 2 * em(ROOM) * point  # to the other side of the end
        places = [(0.0, near) for near in shifts[:NEAR]]
        places += [(back, near) for near in shifts[:NEAR]]
        places += [(0.0, far) for far in shifts[NEAR:]]
        for left, shift, clear in [(*place, True) for place in places[: 2 * NEAR]] + [(*at, False) for at in places]:
            moved = Bbox.from_bounds(box.x0 - left, box.y0 + shift + 0.1 * box.height, box.width, height)
            inside = panel.x0 <= moved.x0 and panel.y0 - 2 <= moved.y0 and moved.y1 <= panel.y1 + 4
            if clear and within(curves, moved, 1).any():
                continue
            if inside and not any(moved.overlaps(other) for other in taken):
                break
        else:
            return False
        taken.append(moved)
        text.set_position((em(ROOM) - left / point, shift / point))
    for text in texts:
        if text.xyann[0] == em(ROOM) and abs(text.xyann[1]) > LEADER * 0.8 * extent(figure, text).height / point:
            arrow = {"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1}
            look = {"arrowprops": arrow, "annotation_clip": False, "gid": "leader"}
            note(axis, "", text.xy, text.xyann, **look).set_in_layout(False)
    return True


def thin_ticks(figure: Figure, axes: Sequence[Axes], sides: dict[float, str]) -> None:
    """Put ticks at the measured sizes, and name as many as have room, round sizes first."""
    first = [min(sides), max(sides)] if sides else []
    order = [*first, *(side for side in (1024.0, 512.0, 2048.0, 256.0) if side in sides), *sorted(sides)]
    for axis in axes:
        apart = 2.0 * figure.dpi / 72
        labels = axis.xaxis.get_ticklabels()
        size = float(labels[0].get_fontsize()) if labels else 0.0
        kept: dict[float, tuple[float, float]] = {}
        for side in dict.fromkeys(order):
            x = axis.transData.transform((side, axis.get_ylim()[1]))[0]
            half = len(sides[side]) * 0.33 * size * figure.dpi / 72 + apart
            if all(x + half < low or high < x - half for low, high in kept.values()):
                kept[side] = (x - half, x + half)
        axis.set_xticks(sorted(kept), [sides[side] for side in sorted(kept)])
        axis.set_xticks([side for side in sides if side not in kept], minor=True)


def zoom(figure: Figure, axis: Axes, box: tuple[float, float, float, float]) -> Axes | None:
    """An empty inset to magnify (x0, x1, y0, y1), where the panel has no curve or text; None if there is no room.

    Call it when everything else is drawn.
    """
    panel = axis.get_window_extent()
    points = along(axis)
    source = Bbox(axis.transData.transform([(box[0], box[2]), (box[1], box[3])]))
    texts = [extent(figure, text) for text in axis.texts if text.get_text()]
    for x, y in ((0.1, 0.62), (0.66, 0.62), (0.6, 0.12), (0.1, 0.12), (0.6, 0.6), (0.34, 0.6), (0.4, 0.12)):
        place = Bbox.from_bounds(
            panel.x0 + (x - 0.09) * panel.width,
            panel.y0 + (y - 0.09) * panel.height,
            0.42 * panel.width,
            0.46 * panel.height,
        )
        if not within(points, place, 0).any() and not any(place.overlaps(other) for other in (source, *texts)):
            inset = axis.inset_axes((x, y, 0.32, 0.36))
            inset.set_in_layout(False)
            return inset
    return None


def frame_inset(axis: Axes, inset: Axes, box: tuple[float, float, float, float]) -> None:
    """Make an inset show (x0, x1, y0, y1), and frame it and its source in the panel."""
    inset.set_xlim(box[0], box[1])
    inset.set_ylim(box[2], box[3])
    inset.tick_params(length=2, pad=1.5)
    for spine in inset.spines.values():
        spine.set_visible(True)
    axis.indicate_inset_zoom(inset, edgecolor="#888888", linewidth=0.6)


def within(points: NDArray[np.float64], box: Bbox, margin: float) -> NDArray[np.bool_]:
    """Which of (n, 2) points lie in a box or less than `margin` pixels from it."""
    x, y = points[:, 0], points[:, 1]
    across = (box.x0 - margin < x) & (x < box.x1 + margin)
    found: NDArray[np.bool_] = across & (box.y0 - margin < y) & (y < box.y1 + margin)
    return found


def along(axis: Axes) -> NDArray[np.float64]:
    """(n, 2) points along all curves of a panel, in pixels."""
    found = [_along(line) for line in axis.get_lines()]
    return np.concatenate(found) if found else np.empty((0, 2))


def _along(line: Line2D) -> NDArray[np.float64]:
    points = line.get_transform().transform(np.array(line.get_xydata(), dtype=float))
    if len(points) < 2:
        return points
    steps = np.linspace(0, len(points) - 1, 40 * len(points))
    return np.column_stack([np.interp(steps, np.arange(len(points)), points[:, n]) for n in (0, 1)])
