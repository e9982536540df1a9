"""Marks on curves: ratios between them, walls where they end, ticks at sizes, and insets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from vbench.reports.figures.places import ARROW, Place, Side, Taken, around, contains, em, place
from vbench.reports.figures.style import MUTED, RATIO, WIN, ground, ink, named

LEAST = 11.0  # points; a shorter arrow is two heads without a line, and is left out
BESIDE: tuple[Place, ...] = tuple(  # places of an arrow's text, in shares of the font size
    place for y in (0.0, 0.9, -0.9, 1.8, -1.8, 2.7, -2.7) for place in ((0.4, y, "left"), (-0.4, y, "right"))
)
INSET = 0.3  # share of a panel's sides
CLIPPED = "clipped"  # a gid
ALIKE = [f"{hundredths / 100:.2f}×" for hundredths in range(90, 110)]  # texts of ratios of about 1


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a curve, for its end. `handle` is the curve for a legend; `ended` says how the curve ended early."""

    axis: Axes
    x: float
    y: float
    text: str
    colour: str
    handle: Line2D
    ended: str = ""


def halo() -> list[Any]:
    """A rim in the colour of the background. It keeps text readable on lines."""
    return [withStroke(linewidth=1.8, foreground=ground())]


def curve(axis: Axes, x: Any, y: Any, text: str, colour: str, line: str, **look: Any) -> Name:
    """Draw a curve and return its name. `colour` is the colour on a light background."""
    (handle,) = axis.plot(x, y, line, color=ink(colour), **look)
    return Name(axis, float(x[-1]), float(y[-1]), text, ink(colour), handle)


def note(axis: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any) -> Annotation:
    """Write small text `offset` points from a place, with labels for models. `look` has options of matplotlib.

    It takes no part in the layout: it stands where the panel has room.
    """
    usual: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": "small"}
    found = axis.annotate(named(text), at, xytext=offset, **{**usual, **look})
    found.set_in_layout(False)
    return found


def times(value: float) -> str:
    """A ratio for an arrow: "13.6×"; with two digits where one would hide which side of 1 it is on."""
    return f"{value:.2f}×" if value < 1.1 else f"{value:.1f}×"


def points(difference: float) -> str:
    """A difference in accuracy for an arrow: "20.7 points"."""
    return f"{difference:.1f} points"


def ratio(axis: Axes, x: float, ends: tuple[float, float], text: str, *, won: bool = True) -> None:
    """Draw a vertical arrow with two heads between two values at `x`, and its text; `place_ratios` moves the text.

    Args:
        won: whether it speaks for the subject; if not, arrow and text look different.
    """
    low, high = sorted(ends)
    look = {"color": ink(WIN if won else RATIO), "linestyle": "-" if won else (0, (2, 1.5)), "linewidth": 0.9}
    arrow = axis.annotate(
        "",
        xy=(x, high),
        xytext=(x, low),
        arrowprops={"arrowstyle": "<->", "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0, **look},
        gid=ARROW,
    )
    arrow.set_in_layout(False)
    middle = (low * high) ** 0.5 if axis.get_yscale() == "log" else (low + high) / 2
    style = {"fontweight": "bold"} if won else {"fontstyle": "italic", "color": look["color"]}
    note(axis, text, (x, middle), (em(0.4), 0), path_effects=halo(), gid="ratio", zorder=5, **style)


def place_ratios(figure: Figure, axes: Sequence[Axes]) -> None:
    """Remove arrows without a length, and move the text of each ratio to a free place near it.

    With an arrow goes a text of about 1, and with a text without a free place its arrow: the caption has every ratio.
    Call it after `settle`.
    """
    for axis in axes:
        for arrow in [text for text in axis.texts if text.get_gid() == ARROW]:
            ends = axis.transData.transform([arrow.xy, arrow.xyann])  # type: ignore[attr-defined]
            if abs(ends[0][1] - ends[1][1]) < LEAST * figure.dpi / 72:
                arrow.remove()
                for text in _of_arrow(axis, arrow):
                    if text.get_text() in ALIKE:
                        text.remove()
        texts = [text for text in axis.texts if text.get_gid() == "ratio"]
        taken = Taken(figure, axis, without=texts)
        for text in texts:
            assert isinstance(text, Annotation)
            places = [(em(x), em(y), side) for x, y, side in BESIDE] + around((1.2, 1.8, 2.6, 3.4))
            if not place(figure, taken, text, places):
                text.remove()
                for arrow in _of_arrow(axis, text, ARROW):
                    arrow.remove()


def _of_arrow(axis: Axes, one: Text, gid: str = "ratio") -> list[Text]:
    """The texts of an arrow, or its arrow."""
    x = one.xy[0]  # type: ignore[attr-defined]
    return [other for other in axis.texts if other.get_gid() == gid and other.xy[0] == x]  # type: ignore[attr-defined]


def wall(axis: Axes, x: float, text: str, colour: str) -> None:
    """Draw a wall at the size where a curve ends, with a text that `place_walls` moves. An empty text is not drawn."""
    axis.axvline(x, color=colour, linewidth=2.2, alpha=0.35, zorder=1)
    if text:
        look = {"rotation": 90, "color": colour, "path_effects": halo(), "gid": "wall", "zorder": 6}
        note(axis, text, (x, 0), (0, 0), annotation_clip=False, **look)


def place_walls(figure: Figure, axes: Sequence[Axes]) -> None:
    """Move the text of each wall to a free place beside it, at whatever height. Call it after `settle`."""
    for axis in axes:
        texts = [text for text in axis.texts if text.get_gid() == "wall"]
        taken = Taken(figure, axis, without=texts)
        high = axis.get_window_extent().height * 72 / figure.dpi
        for text in texts:
            assert isinstance(text, Annotation)
            text.xycoords = ("data", "axes fraction")
            heights = [high - 2 - share * em(1.0) for share in range(int(high / em(1.0)))]
            text.set_verticalalignment("top")
            sides: tuple[Place, ...] = ((em(0.45), 0, "left"), (-em(0.45), 0, "right"))
            places: list[Place] = [(x, y, side) for x, _, side in sides for y in heights]
            if not place(figure, taken, text, places):
                text.set_rotation(0)
                text.set_text(text.get_text().replace(": ", ":\n", 1))
                if not place(figure, taken, text, places):
                    text.remove()


def thin_ticks(figure: Figure, axes: Sequence[Axes], sides: dict[float, str]) -> None:
    """Put ticks at the measured sizes, and name as many as have room in every panel, round sizes first."""
    first = [min(sides), max(sides)] if sides else []
    order = [*first, *(side for side in (1024.0, 512.0, 2048.0, 256.0) if side in sides), *sorted(sides)]
    apart = 2.0 * figure.dpi / 72
    kept: list[float] = []

    def room(axis: Axes, side: float) -> tuple[float, float]:
        labels = axis.xaxis.get_ticklabels()
        size = float(labels[0].get_fontsize()) if labels else 0.0
        x = axis.transData.transform((side, axis.get_ylim()[1]))[0]
        half = len(sides[side]) * 0.33 * size * figure.dpi / 72 + apart
        return x - half, x + half

    for side in dict.fromkeys(order):
        free = True
        for axis in axes:
            low, high = room(axis, side)
            free &= all(high < room(axis, other)[0] or low > room(axis, other)[1] for other in kept)
        if free:
            kept.append(side)
    for axis in axes:
        axis.set_xticks(sorted(kept), [sides[side] for side in sorted(kept)])
        axis.set_xticks([side for side in sides if side not in kept], minor=True)


def zoom(figure: Figure, axis: Axes, box: tuple[float, float, float, float]) -> Axes | None:
    """An empty inset to magnify (x0, x1, y0, y1), where the panel has no curve or text.

    None if there is no room, or if the inset would not be larger than what it shows. Call it when everything else is
    drawn.
    """
    panel = axis.get_window_extent()
    taken = Taken(figure, axis)
    source = Bbox(axis.transData.transform([(box[0], box[2]), (box[1], box[3])]))
    if not contains(panel, source) or source.width > INSET / 2 * panel.width:
        return None
    for x, y in ((0.12, 0.62), (0.67, 0.62), (0.62, 0.13), (0.12, 0.13), (0.34, 0.62), (0.4, 0.13)):
        ground_ = Bbox.from_bounds(
            panel.x0 + (x - 0.11) * panel.width,
            panel.y0 + (y - 0.1) * panel.height,
            0.42 * panel.width,
            0.47 * panel.height,
        )
        if taken.free(ground_, 0) and not ground_.overlaps(source):
            inset = axis.inset_axes((x, y, INSET, INSET))
            inset.set_in_layout(False)
            return inset
    return None


def frame_inset(axis: Axes, inset: Axes, box: tuple[float, float, float, float], words: str) -> None:
    """Make an inset show (x0, x1, y0, y1), write above it what it shows, and frame its source in the panel.

    No line joins both: it would cross curves.
    """
    inset.set_xlim(box[0], box[1])
    inset.set_ylim(box[2], box[3])
    inset.tick_params(length=2, pad=1.5)
    inset.set_title(words, fontsize="small", pad=2, color=MUTED)
    for spine in inset.spines.values():
        spine.set_visible(True)
    shown: Any = axis.indicate_inset_zoom(inset, edgecolor="#888888", linewidth=0.6)
    for line in shown[1] if isinstance(shown, tuple) else shown.connectors:  # matplotlib 3.9 gives (frame, connectors)
        line.set_visible(False)


def clipped(axis: Axes, words: str, colour: str, *, above: bool) -> None:
    """Write in a panel that values lie beyond its upper or lower end; `place_clipped` moves the text there."""
    note(
        axis,
        f"{'↑' if above else '↓'} {words}",
        (0.5, 0.5),
        (0, 0),
        color=colour,
        xycoords="axes fraction",
        gid=CLIPPED,
    )


def place_clipped(figure: Figure, axes: Sequence[Axes]) -> None:
    """Move what `clipped` wrote to free places at that end of its panel. Call it after `settle`."""
    for axis in axes:
        own = [text for text in axis.texts if text.get_gid() == CLIPPED]
        panel, point = axis.get_window_extent(), 72 / figure.dpi
        taken = Taken(figure, axis, without=own)
        wide, high = panel.width * point / 2, panel.height * point / 2
        for text in own:
            assert isinstance(text, Annotation)
            up = 1 if text.get_text().startswith("↑") else -1
            across: list[tuple[float, Side]] = [(-0.97 * wide, "left"), (0.97 * wide, "right"), (0.0, "center")]
            heights = [up * (high - em(0.8 + row)) for row in range(6)]
            if not place(figure, taken, text, [(x, y, side) for y in heights for x, side in across]):
                text.remove()


def place_values(figure: Figure, axes: Sequence[Axes]) -> int:
    """Move the value of each point to a free place about it; remove one that has none. Call it after `settle`.

    Returns: how many were removed.
    """
    removed = 0
    for axis in axes:
        own = [text for text in axis.texts if text.get_gid() == "value"]
        taken = Taken(figure, axis, without=own)
        for text in own:
            assert isinstance(text, Annotation)
            x, y = text.xyann
            near: list[Place] = [(x, y, "center"), *sorted(around((1.0, 1.5, 2.2)), key=lambda at: at[1] * y < 0)]
            if not place(figure, taken, text, near):
                text.remove()
                removed += 1
    return removed


def size(axis: Axes, text: str, at: tuple[float, float], colour: str) -> None:
    """Write the size of an image beside its point, in its colour; `place_sizes` moves it."""
    note(axis, text, at, (0, 6), ha="center", color=ink(colour), gid="size")


def place_sizes(figure: Figure, axes: Sequence[Axes]) -> bool:
    """Move the size of each point to a free place about it; if one has none, remove all of them.

    Points of the same size that lie on each other share one.

    Returns: whether they stay.
    """
    every = [text for axis in axes for text in axis.texts if text.get_gid() == "size"]
    for axis in axes:
        own = [text for text in every if text.axes is axis]
        taken = Taken(figure, axis, without=own)
        there: list[tuple[str, Any]] = []
        for text in own:
            assert isinstance(text, Annotation)
            at = axis.transData.transform(text.xy)
            if any(words == text.get_text() and abs(other - at).max() < em(0.6) for words, other in there):
                text.remove()
                every.remove(text)
            elif not place(figure, taken, text, around((1.0, 1.4, 1.8))):
                for other in every:
                    other.remove()
                return False
            there.append((text.get_text(), at))
    return True
