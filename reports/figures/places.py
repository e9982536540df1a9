"""Free places in a panel: what it already holds, in pixels, and whether a box is free of that.

Positions are searched from the extents of the renderer, after everything else is drawn and laid out (`settle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Side = Literal["left", "right", "center"]
Place = tuple[float, float, Side]  # of a text beside a point: an offset in points, and the end of it that is there
SPACING = 0.07  # of the height of a line's box is space above its letters, and as much below
LATER = ("ratio", "value", "wall", "clipped", "size", "from")  # gids of texts that get a place when curves have names
ARROW = "arrow"  # the gid of an annotation without text that joins two points of the panel


def em(share: float) -> float:
    """A share of the font size, in points."""
    return share * float(mpl.rcParams["font.size"])


def settle(figure: Figure) -> None:
    """Lay out the panels once and for all, so that extents in pixels still hold when the figure is saved.

    The figure keeps no layout engine, so saving draws it once, not twice.
    """
    if not hasattr(figure.canvas, "get_renderer"):
        FigureCanvasAgg(figure)
    engine = ConstrainedLayoutEngine()
    engine.execute(figure)
    labels = {axis.yaxis.label: axis.get_window_extent() for axis in figure.axes}
    extents = {label: extent(figure, label) for label in labels}
    for label, panel in labels.items():
        if extents[label].height > panel.height:
            label.set_text(_folded(label.get_text()))
    if any(box.height > labels[label].height or box.x0 < 0 for label, box in extents.items()):
        engine.execute(figure)  # ticks, too, may have become longer


def _folded(text: str) -> str:
    """A text in two lines, the break at the space nearest to its middle."""
    spaces = [at for at, letter in enumerate(text) if letter == " "]
    if not spaces or "\n" in text:
        return text
    at = min(spaces, key=lambda at: abs(at - len(text) / 2))
    return f"{text[:at]}\n{text[at + 1 :]}"


def extent(figure: Figure, text: Text) -> Bbox:
    """The extent of a text in pixels, without its arrow. Call it after `settle`."""
    renderer = cast(FigureCanvasAgg, figure.canvas).get_renderer()  # type: ignore[no-untyped-call]
    if isinstance(text, Annotation):
        text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def letters(box: Bbox) -> Bbox:
    """The extent of a line's letters, from that of its box."""
    space = SPACING * box.height
    return Bbox.from_extents(box.x0, box.y0 + space, box.x1, box.y1 - space)


class Taken:
    """What a panel holds, in pixels: segments of curves and arrows, markers, and texts."""

    def __init__(self, figure: Figure, axis: Axes, without: Iterable[Text] = ()) -> None:
        """Everything that is drawn now, but for some texts."""
        lines = [line for line in axis.get_lines() if line.get_visible()]
        self.panel = axis.get_window_extent()
        self.segments = np.concatenate([np.empty((0, 4)), *map(_joints, lines), *_bars(axis), _arrows(axis)])
        self.markers = np.concatenate([np.empty((0, 4)), *(_markers(figure, line) for line in lines)])
        left_out = set(without)
        self.texts = [
            letters(extent(figure, text))
            for text in axis.texts
            if text not in left_out and text.get_text() and text.get_visible()
        ]

    def free(self, box: Bbox, margin: float = 1.0) -> bool:
        """Whether a box covers nothing."""
        return not (self.on_curve(box, margin) or self.on_marker(box, margin) or self.on_text(box))

    def inside(self, box: Bbox) -> bool:
        """Whether a box lies within the panel."""
        panel = self.panel
        across = panel.x0 <= box.x0 and box.x1 <= panel.x1
        return bool(across and panel.y0 <= box.y0 and box.y1 <= panel.y1)

    def on_curve(self, box: Bbox, margin: float = 1.0) -> bool:
        """Whether a curve or an arrow passes a box, or less than `margin` pixels from it."""
        return bool(crosses(self.segments, box, margin).any())

    def on_marker(self, box: Bbox, margin: float = 1.0) -> bool:
        """Whether a box covers a marker."""
        return bool(_overlap(self.markers, box, margin).any())

    def on_way(self, begin: tuple[float, float], end: tuple[float, float]) -> bool:
        """Whether something lies between two points, but for what lies at the first."""
        steps = np.linspace(0, 1, 12)[3:]
        ways = [(begin[0] + step * (end[0] - begin[0]), begin[1] + step * (end[1] - begin[1])) for step in steps]
        boxes = [Bbox.from_extents(x, y, x, y) for x, y in ways]
        return any(self.on_curve(box) or self.on_marker(box) for box in boxes)

    def on_text(self, box: Bbox) -> bool:
        """Whether a box covers a text."""
        return any(box.overlaps(other) for other in self.texts)


def place(figure: Figure, taken: Taken, text: Annotation, places: Sequence[Place], within: Bbox | None = None) -> bool:
    """Move a text to the first of these places that is free and in the panel, and note it as taken.

    Args:
        within: where it may stand, in place of the panel.

    Returns: False if none is free; then the text stands where it stood last.
    """
    for x, y, side in places:
        text.set_position((x, y))
        text.set_horizontalalignment(side)
        box = letters(extent(figure, text))
        there = taken.inside(box) if within is None else contains(within, box)
        if there and taken.free(box):
            taken.texts.append(box)
            return True
    return False


def around(distances: Sequence[float] = (1.0, 1.7, 2.6)) -> list[Place]:
    """Places about a point, the near ones first; distances are in shares of the font size."""
    found: list[Place] = []
    for far in map(em, distances):
        across = 0.6 * far
        found += [(0, far, "center"), (across, 0.75 * far, "left"), (across, 0, "left"), (0, -far, "center")]
        found += [(-across, 0.75 * far, "right"), (-across, 0, "right")]
        found += [(across, -0.75 * far, "left"), (-across, -0.75 * far, "right")]
    return found


def contains(outer: Bbox, inner: Bbox) -> bool:
    """Whether a box lies within another."""
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)


def crosses(segments: NDArray[np.float64], box: Bbox, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which of (n, 4) segments x0, y0, x1, y1 pass a box or less than `margin` pixels from it (Liang and Barsky)."""
    begin, along = segments[:, :2], segments[:, 2:] - segments[:, :2]
    low = np.array([box.x0, box.y0]) - margin
    high = np.array([box.x1, box.y1]) + margin
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - begin) / along, (high - begin) / along
    beside = (along == 0) & ((begin < low) | (begin > high))
    enter = np.where(along == 0, -np.inf, np.minimum(one, other)).max(axis=1, initial=0.0)
    leave = np.where(along == 0, np.inf, np.maximum(one, other)).min(axis=1, initial=1.0)
    found: NDArray[np.bool_] = (enter <= leave) & ~beside.any(axis=1)
    return found


def _overlap(boxes: NDArray[np.float64], box: Bbox, margin: float) -> NDArray[np.bool_]:
    across = (boxes[:, 0] < box.x1 + margin) & (box.x0 - margin < boxes[:, 2])
    found: NDArray[np.bool_] = across & (boxes[:, 1] < box.y1 + margin) & (box.y0 - margin < boxes[:, 3])
    return found


def _points(line: Line2D) -> NDArray[np.float64]:
    data = np.array(line.get_xydata(), dtype=float).reshape(-1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(line.get_transform().transform(data), dtype=float)


def _joints(line: Line2D) -> NDArray[np.float64]:
    """The segments of a curve; of a curve without a line, none. A step has those of its steps."""
    points = _points(line)
    if line.get_linestyle() in ("None", "none", "") or len(points) < 2:
        return np.empty((0, 4))
    if line.get_drawstyle() == "steps-post":
        corners = np.column_stack([points[1:, 0], points[:-1, 1]])
        points = np.insert(points, np.arange(1, len(points)), corners, axis=0)
    return _known(np.column_stack([points[:-1], points[1:]]))


def _markers(figure: Figure, line: Line2D) -> NDArray[np.float64]:
    if line.get_marker() in ("None", "none", "", None, " "):
        return np.empty((0, 4))
    half = (line.get_markersize() + line.get_markeredgewidth()) / 2 * figure.dpi / 72
    points = _points(line)
    return _known(np.column_stack([points - half, points + half]))


def _bars(axis: Axes) -> list[NDArray[np.float64]]:
    """The segments of intervals."""
    found = []
    for bars in axis.collections:
        if isinstance(bars, LineCollection):
            ends = [bars.get_transform().transform(np.asarray(one)) for one in bars.get_segments()]
            found += [_known(np.column_stack([one[:-1], one[1:]])) for one in ends]
    return found


def _arrows(axis: Axes) -> NDArray[np.float64]:
    arrows: list[Any] = [text for text in axis.texts if text.get_gid() == ARROW and text.get_visible()]
    ends = [(*arrow.xy, *arrow.xyann) for arrow in arrows]
    return axis.transData.transform(np.array(ends, dtype=float).reshape(-1, 2)).reshape(-1, 4)


def _known(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.isfinite(rows).all(axis=1)]
