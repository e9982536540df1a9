"""Names of curves: beside their ends in the order of these, or in a legend above the panels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from vbench.reports.figures import marks
from vbench.reports.figures.marks import Name
from vbench.reports.figures.places import LATER, Place, Side, Taken, em, extent, letters, settle
from vbench.reports.figures.style import MUTED, named

MOST = 8  # names beside the curves of a panel; of more nobody finds the right one
SHARE = 0.45  # the largest share of a panel's width for names
LEADER = 0.6  # line heights; a name farther from its curve's end gets a line to it
FAR = 4.0  # line heights; a name farther from its curve's end is not found
ROOM = 0.7  # share of the font size between a curve's end and its name
AWAY = 2.0  # the same where lines lead to names
SIZES = "Image side (px)"  # the axis that panels share
BELOW = (0.0, 0.6, 1.2, 1.8, 2.5, 3.3)  # of a name before other curves: how far from its end it is tried, in font sizes


def name_curves(figure: Figure, names: Sequence[Name], keys: Mapping[str, Artist] | None = None) -> None:
    """Write each name beside the end of its curve, or all of them in a legend, if those of one panel find no room.

    Names at the right end of a panel stand below each other in the order of the curves' ends. No name covers a curve,
    a marker or another text. Panels with the same axis of sizes keep equal limits.

    Args:
        keys: more entries of a legend, which then is always drawn.
    """
    legend(figure, keys or {})
    panels = {name.axis: [other for other in names if other.axis is name.axis] for name in names}
    limits = {axis: axis.get_xlim() for axis in panels}
    texts = {name: _text(name) for name in names}
    beside = all(len(own) <= MOST for own in panels.values()) and _make_room(figure, panels, texts)
    if not (beside and all(_spread(figure, axis, own, texts) for axis, own in panels.items())):
        for text in [text for axis in panels for text in axis.texts if text.get_gid() in ("name", "leader")]:
            text.remove()
        for axis, (low, high) in limits.items():
            axis.set_xlim(low, high)
        for old in list(figure.legends):
            old.remove()
        ended = {name.ended for name in names if name.ended}
        cross = Line2D([], [], linestyle="none", marker="x", color=MUTED, markersize=5, markeredgewidth=1.5)
        legend(figure, {**entries(names), **(keys or {}), **dict.fromkeys(sorted(ended), cross)})


def entries(names: Iterable[Name]) -> dict[str, Artist]:
    """The entries of a legend. A name that others say more exactly ("vig_t" beside "vig_t recurrent") has none."""
    handles: dict[str, Artist] = {name.text: name.handle for name in reversed(list(names))}
    kept = [text for text in handles if not any(other.startswith(f"{text} ") for other in handles)]
    return {text: handles[text] for text in reversed(kept)}


def legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Add a legend above the panels, make the figure higher for it, and lay out the panels again."""
    if handles:
        settle(figure)
        texts = [named(text) for text in handles]
        for columns in range(min(6, len(texts)), 0, -1):
            look = {"ncols": columns, "handlelength": 2.6, "columnspacing": 1.4, "handletextpad": 0.6}
            made = figure.legend(list(handles.values()), texts, loc="outside upper center", borderpad=0.2, **look)
            box = made.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
            if columns == 1 or box.width <= figure.bbox.width:
                break
            made.remove()
        figure.set_figheight(figure.get_figheight() + box.height / figure.dpi + em(0.4) / 72)
    settle(figure)


def _text(name: Name) -> Annotation:
    look = {"color": name.colour, "path_effects": marks.halo(), "annotation_clip": False, "gid": "name", "zorder": 6}
    text = marks.note(
        name.axis, f"{name.text}: {name.ended}" if name.ended else name.text, (name.x, name.y), (0, 0), **look
    )
    text.set_horizontalalignment("left")
    return text


def _make_room(figure: Figure, panels: Mapping[Axes, Sequence[Name]], texts: Mapping[Name, Annotation]) -> bool:
    """Widen the x axes until every name ends within its panel. Returns False if names need too much of a panel."""
    shared: dict[str | int, list[Axes]] = {}
    for axis in figure.axes:
        label = axis.get_xlabel()
        shared.setdefault(label if label.startswith(SIZES) else id(axis), []).append(axis)
    for axes in shared.values():
        widest = [_needed(figure, axis, panels.get(axis, ()), texts) for axis in axes]
        if None in widest:
            return False
        scale = axes[0].xaxis.get_transform()
        left = scale.transform(np.array(axes[0].get_xlim(), dtype=float))[0]
        low, high = scale.inverted().transform(np.array([left, max(end for end in widest if end is not None)]))
        for axis in axes:
            axis.set_xlim(float(low), float(high))
    return True


def _needed(figure: Figure, axis: Axes, names: Sequence[Name], texts: Mapping[Name, Annotation]) -> float | None:
    """The right limit, on the axis' scale, at which all names at the right end fit; None if it is too far."""
    scale, panel = axis.xaxis.get_transform(), axis.get_window_extent()
    left, needed = scale.transform(np.array(axis.get_xlim(), dtype=float))
    last = max((name.x for name in names), default=0.0)
    away = _away(figure, names, texts)
    for name in names:
        box = extent(figure, texts[name])
        share = (box.width + (away + em(0.2)) * figure.dpi / 72) / panel.width
        if share > SHARE:
            return None
        if name.x == last:
            x = float(scale.transform(np.array([name.x], dtype=float))[0])
            needed = max(needed, (x - share * left) / (1 - share))
    return float(needed)


def _away(figure: Figure, names: Sequence[Name], texts: Mapping[Name, Annotation]) -> float:
    """How far from the right end names stand, in points: farther if lines lead to them."""
    column = _column(names)
    if len(column) < 2:
        return em(ROOM)
    centres, _ = _heights(figure, column, texts)
    wanted = np.array([_end(name)[1] for name in column])
    high = letters(extent(figure, texts[column[0]])).height
    return em(AWAY) if (np.abs(centres - wanted) > LEADER * high).any() else em(ROOM)


def _column(names: Sequence[Name]) -> list[Name]:
    """The names at the right end of a panel, from below."""
    last = max((name.x for name in names), default=0.0)
    return sorted((name for name in names if name.x == last), key=lambda name: _end(name)[1])


def _end(name: Name) -> tuple[float, float]:
    x, y = name.axis.transData.transform((name.x, name.y))
    return float(x), float(y)


def _heights(figure: Figure, column: Sequence[Name], texts: Mapping[Name, Annotation]) -> tuple[list[float], bool]:
    """The heights of names of a column in px, in order and apart, as near to the ends as can be; and whether they fit.

    Neighbours that would overlap form a block about the mean of their ends (isotonic regression).
    """
    panel = column[0].axis.get_window_extent()
    tall = max(extent(figure, texts[name]).height for name in column)
    blocks: list[list[float]] = []  # of each: the sum of wanted heights of its lowest name, how many it has
    for number, name in enumerate(column):
        blocks.append([_end(name)[1] - number * tall, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    base = [total / count for total, count in blocks for _ in range(int(count))]
    low, high = panel.y0 + tall / 2, panel.y1 - tall / 2 - (len(column) - 1) * tall
    found = [min(max(one, low), max(low, high)) + number * tall for number, one in enumerate(base)]
    return found, high >= low


def _spread(figure: Figure, axis: Axes, names: Sequence[Name], texts: Mapping[Name, Annotation]) -> bool:
    """Write the names of one panel. Returns False if they do not fit; the caller then removes the texts."""
    point = figure.dpi / 72
    column = _column(names)
    later = [text for text in axis.texts if text.get_gid() in LATER]
    taken = Taken(figure, axis, without=[*later, *(texts[name] for name in names)])
    heights, fit = _heights(figure, column, texts)
    away = _away(figure, names, texts)
    line = letters(extent(figure, texts[column[0]])).height
    for name, height in zip(column, heights, strict=True):
        shift = height - _end(name)[1]
        texts[name].set_position((away, shift / point))
        box = letters(extent(figure, texts[name]))
        if not fit or abs(shift) > FAR * line or not taken.free(box):
            return False
        if away > em(ROOM):
            _lead(name, (away, shift / point))
    taken.texts += [letters(extent(figure, texts[name])) for name in column]
    return all(_beside(figure, taken, name, texts[name]) for name in names if name not in column)


def _beside(figure: Figure, taken: Taken, name: Name, text: Annotation) -> bool:
    """Write the name of a curve that ends early where it covers nothing. Returns False if it has no place."""
    sides: tuple[tuple[float, Side], ...] = ((em(ROOM), "left"), (-em(ROOM), "right"), (0.0, "center"))
    places: list[Place] = [
        (x, sign * em(far), side) for far in BELOW for sign in (1, -1) for x, side in sides if far > 0.6 or x
    ]
    for x, y, side in places:
        text.set_position((x, y))
        text.set_horizontalalignment(side)
        box = letters(extent(figure, text))
        if not (taken.inside(box) and taken.free(box)):
            continue
        far, to = abs(y) > em(1.2), (x, y - float(np.sign(y)) * em(0.5))
        at, point = _end(name), figure.dpi / 72
        if far and taken.on_way(at, (at[0] + to[0] * point, at[1] + to[1] * point)):
            continue
        taken.texts.append(box)
        if far:
            _lead(name, to)
        return True
    return False


def _lead(name: Name, to: tuple[float, float]) -> None:
    """Draw a line from a curve's end to its name."""
    arrow = {"arrowstyle": "-", "color": name.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1}
    look = {"arrowprops": arrow, "annotation_clip": False, "gid": "leader"}
    marks.note(name.axis, "", (name.x, name.y), to, **look)
