"""What makes a figure hard to read, found from the extents of its renderer: each fault in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from vbench.reports.figures import places
from vbench.reports.figures.style import MM

LEAST_PT = 6.0
LEAST_APART = 15.0  # of two colours in CIELAB; 2.3 is what an eye just notices on large areas
TOUCH = 1.0  # px by which two boxes may meet: their borders are not their letters'


class Word(NamedTuple):
    """A text that is seen, and its letters in px. `panel` is set for one that stands in a panel."""

    text: str
    box: Bbox
    artist: Text
    panel: Axes | None


def faults(figure: Figure) -> list[str]:
    """Every overlap of text with text, marker, curve of another model, and axis; and text that leaves the sheet."""
    figure.draw_without_rendering()
    words = list(_words(figure))
    found = [f"'{one.text}' is on '{other.text}'" for one, other in combinations(words, 2) if _meet(one.box, other.box)]
    sheet = figure.bbox
    found += [
        f"'{word.text}' leaves the sheet"
        for word in words
        if word.box.x0 < sheet.x0 - TOUCH
        or word.box.y0 < sheet.y0 - TOUCH
        or word.box.x1 > sheet.x1 + TOUCH
        or word.box.y1 > sheet.y1 + TOUCH
    ]
    for word in words:
        if word.panel is not None:
            found += [f"'{word.text}' is on {what}" for what in _covered(figure, word, word.panel)]
    return found


def small(figure: Figure, width_mm: float) -> list[str]:
    """Texts below `LEAST_PT` when the figure is printed at this width."""
    shown = width_mm / (figure.get_figwidth() * MM)
    sizes = {word.text: word.artist.get_fontsize() * shown for word in _words(figure)}
    return [f"'{text}' is printed at {size:.1f} pt" for text, size in sizes.items() if size < LEAST_PT]


def alike(curves: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Curves, as (name, colour, marker, line), of which two look the same in print: equal but for a shade."""
    return [
        f"'{name}' looks like '{other}'"
        for (name, colour, *shape), (other, others, *same) in combinations(curves, 2)
        if shape == same and np.linalg.norm(_lab(colour) - _lab(others)) < LEAST_APART
    ]


def keys(figure: Figure) -> list[tuple[str, str, str, str]]:
    """The curves in a figure's legends, as `alike` takes them."""
    return [
        (text.get_text(), str(line.get_color()), str(line.get_marker()), str(line.get_linestyle()))
        for legend in figure.legends
        for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(line, Line2D)
    ]


def _lab(colour: str) -> np.ndarray:
    """A colour in CIELAB, where the distance of two is how different they look."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = (np.cbrt(c) if c > 0.008856 else 7.787 * c + 16 / 116 for c in xyz / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _words(figure: Figure) -> Iterator[Word]:
    panels = [axis for top in figure.axes for axis in (top, *top.child_axes)]
    seen: dict[Text, Axes | None] = {}
    for axis in panels:
        seen |= dict.fromkeys((axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label))  # type: ignore[attr-defined]
        seen |= dict.fromkeys([*_ticks(axis, "x"), *_ticks(axis, "y")])
        seen |= dict.fromkeys(axis.texts, axis)
        if (own := axis.get_legend()) is not None:
            seen |= dict.fromkeys(own.get_texts())
    for legend in figure.legends:
        seen |= dict.fromkeys(legend.get_texts())
    for text, panel in seen.items():
        if text.get_visible() and text.get_text().strip():
            box = places.extent(figure, text)
            yield Word(text.get_text(), box if text.get_rotation() else places.letters(box), text, panel)


def _ticks(axis: Axes, which: str) -> Iterator[Text]:
    """The labels of the ticks that lie within the limits."""
    along = axis.xaxis if which == "x" else axis.yaxis
    low, high = sorted(axis.get_xlim() if which == "x" else axis.get_ylim())
    for tick in along.get_major_ticks():
        if tick.label1.get_visible() and low <= tick.get_loc() <= high:
            yield tick.label1


def _meet(one: Bbox, other: Bbox) -> bool:
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    down = min(one.y1, other.y1) - max(one.y0, other.y0)
    return across > TOUCH and down > TOUCH


def _covered(figure: Figure, word: Word, axis: Axes) -> Iterator[str]:
    """What a text in a panel covers: an axis, a marker, or a curve that is not its own."""
    panel = axis.get_window_extent()
    if word.box.x0 < panel.x0 - TOUCH or word.box.y0 < panel.y0 - TOUCH:
        yield "an axis"
    if word.box.x1 > panel.x1 + TOUCH or word.box.y1 > panel.y1 + TOUCH:
        yield "the border of its panel"
    for line in axis.get_lines():
        if not line.get_visible():
            continue
        name = str(line.get_label())
        if any(_meet(word.box, marker) for marker in _markers(figure, line)):
            yield f"a marker of {name}"
        elif line.get_linestyle() not in ("None", "none") and places.crosses(_segments(line), word.box, -TOUCH).any():
            yield f"the curve {name}"


def _points(line: Line2D) -> np.ndarray:
    """The corners of a line in px; a step has those of its steps."""
    x, y = np.array(line.get_xydata(), dtype=float).reshape(-1, 2).T
    if line.get_drawstyle() in STEP_LOOKUP_MAP:
        x, y = STEP_LOOKUP_MAP[line.get_drawstyle()](x, y)
    return np.asarray(line.get_transform().transform(np.column_stack([x, y])))


def _markers(figure: Figure, line: Line2D) -> list[Bbox]:
    if str(line.get_marker()) in ("None", "none", "", " "):
        return []
    half = line.get_markersize() / 2 * figure.dpi / 72
    return [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in _points(line)]


def _segments(line: Line2D) -> np.ndarray:
    points = _points(line)
    return np.column_stack([points[:-1], points[1:]]) if len(points) > 1 else np.empty((0, 4))
