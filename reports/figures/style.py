"""How figures look: style, width, font and labels; and how a sheet is saved: equal input gives equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from vbench.errors import UsageError
from vbench.options import shown
from vbench.reports.labels import Labels
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.text import visible

COLUMN_IN = 3.3  # inches, 8.4 cm: the width of a paper's column; a page has two columns
GAP_IN = 0.1
MM = 25.4  # of an inch
WIDTHS = {"column": COLUMN_IN * MM, "full": (2 * COLUMN_IN + GAP_IN) * MM}  # mm
NARROWEST, WIDEST = 60, 400  # mm; text of 6 pt fills a narrower sheet
PANEL_IN = 2.1  # the least width of a panel; panels that have no room beside each other stand below each other
STACKED_IN = 2.1  # the height of a panel below another
MUTED = "#707070"
RATIO = "#CC3311"  # limits, picks, and arrows of a ratio that is a loss; Tol's red
WIN = "#333333"  # arrows of a ratio that is a win
PUBLISHED = (  # the caption's words for hollow accuracies
    "Accuracy (hollow) is what papers print, of models trained at 224 px, tested at each size; none was measured here."
)
PUBLISHED_BESIDE = (  # the same beside measured ones; with the data sets
    "Accuracy: hollow is what papers print, of models trained at 224 px, tested on ImageNet-1K at each size; filled "
    "is what was measured on {}, with 95 % Wilson intervals."
)
CONTRAST = 3.0  # of curves and their names to the ground, the least that WCAG 2 allows for what is drawn

PAPER: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7.5,  # "small", the smallest size used, is 6.2 pt
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.8,
    "hatch.linewidth": 0.5,
    "figure.figsize": (COLUMN_IN, 2.5),
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a "$" in a record is a "$"
    "pdf.fonttype": 42,
    "svg.hashsalt": "vbench",
}
SLIDES: dict[str, Any] = {
    **PAPER,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.linewidth": 1.0,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "figure.figsize": (1.55 * COLUMN_IN, 1.55 * 2.5),
}
DARK: dict[str, Any] = {
    **SLIDES,
    "text.color": "#EEEEEE",
    "axes.labelcolor": "#EEEEEE",
    "axes.edgecolor": "#BBBBBB",
    "axes.facecolor": "#16181D",
    "figure.facecolor": "#16181D",
    "savefig.facecolor": "#16181D",
    "xtick.color": "#CCCCCC",
    "ytick.color": "#CCCCCC",
    "grid.color": "#33373F",
}
STYLES = {"paper": PAPER, "slides": SLIDES, "dark": DARK}
SERIF = 1.12  # its letters are smaller
FONTS: dict[str, list[str]] = {"sans": ["DejaVu Sans"], "serif": ["STIXGeneral", "DejaVu Serif"]}  # matplotlib has both
FORMATS = ("png", "pdf", "svg")

# No dates: the same records give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


@dataclass(frozen=True, slots=True)
class Look:
    """How figures look, whatever they show."""

    style: str = "paper"  # a key of `STYLES`
    width_mm: float | None = None  # of the sheet; None: each figure's own
    font: str = "sans"  # a key of `FONTS`
    labels: Labels = Labels()  # noqa: RUF009  # frozen


_LOOK: ContextVar[Look] = ContextVar("look", default=Look())  # noqa: B039  # frozen


@contextmanager
def looking(look: Look | str = "paper") -> Iterator[None]:
    """A context in which figures have this look, or this style. The user's matplotlibrc is ignored."""
    look = Look(look) if isinstance(look, str) else look
    style = STYLES[look.style]
    if look.font == "serif":
        sizes = ("font.size", "axes.titlesize", "axes.labelsize")
        style = {**style, **{name: SERIF * style[name] for name in sizes}}
    token = _LOOK.set(look)
    try:
        with mpl.rc_context():
            mpl.rcdefaults()
            cast(dict[str, Any], mpl.rcParams).update({**style, "font.family": FONTS[look.font]})
            yield
    finally:
        _LOOK.reset(token)


def parse_look(style: str = "paper", width: str | None = None, font: str = "sans") -> Look:
    """The look that --style, --width and --font describe. Raises: UsageError."""
    for option, given, known in (("--style", style, STYLES), ("--font", font, FONTS)):
        if given not in known:
            raise UsageError(f"{option} '{shown(given)}' is not known; take one of {', '.join(known)}")
    return Look(style, parse_width(width), font)


def parse_width(text: str | None) -> float | None:
    """The width of a sheet in mm, from "column", "full" or a number. Raises: UsageError."""
    if text is None or text in WIDTHS:
        return WIDTHS[text] if text else None
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not NARROWEST <= found <= WIDEST:
        named = ", ".join(f"{name} ({mm:.0f} mm)" for name, mm in WIDTHS.items())
        raise UsageError(f"--width '{shown(text)}': take {named}, or mm from {NARROWEST} to {WIDEST}, as in --width 80")
    return found


def named(text: str) -> str:
    """A text with the labels of the current look in the place of models' names."""
    return _LOOK.get().labels.within(text)


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose. A series is named "vig_t", or "vig_t recurrent" for one mode."""

    at: tuple[int, ...] = (512, 1024, 2048)  # px: where ratios are drawn
    baseline: str | None = None  # numerator of ratios; None: an attention model, if possible DeiT-T
    subject: str | None = None  # denominator of ratios; None: the fastest recurrent backbone
    accuracy: tuple[MeasuredAccuracy, ...] = ()  # what was measured; drawn beside what is published
    costs: tuple[str, ...] | None = None  # keys of `measures.MEASURES`, for figures that take several


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure, and the notes for its caption. The notes have models' names, whatever the labels."""

    figure: Figure
    notes: tuple[str, ...] = ()


class NotDrawnError(Exception):
    """The records lack what a figure shows; the message says what."""


def sheet(columns: float, height_in: float) -> Figure:
    """An empty figure of the look's width, else `columns` wide.

    `height_in` is the height in the paper style; larger styles scale it.
    """
    scale, asked = _scale(), _LOOK.get().width_mm
    width = scale * (columns * COLUMN_IN + (columns - 1) * GAP_IN) if asked is None else asked / MM
    return Figure(figsize=(width, scale * height_in))


def across(count: int, most: int) -> int:
    """How many of `count` panels stand beside each other: `most`, if the width has room for so many."""
    return max(1, min(most, count, int(sheet(min(2, most), 1).get_figwidth() / _scale() / PANEL_IN)))


def panels(
    count: int, height_in: float, most: int = 2, stacked_in: float = STACKED_IN, **more: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `most` in a row where the width has room for so many, and its panels.

    Args:
        height_in: of a row of `most` panels, in the paper style; a row of fewer is at most `stacked_in` high.
        more: for `Figure.subplots`.
    """
    columns = across(count, most)
    rows = -(-count // columns)
    figure = sheet(min(2, most), rows * (height_in if columns == min(most, count) else min(height_in, stacked_in)))
    found = list(figure.subplots(rows, columns, squeeze=False, **more).flatten())
    for spare in found[count:]:
        spare.remove()
    return figure, found[:count]


def _scale() -> float:
    return float(mpl.rcParams["figure.figsize"][0]) / COLUMN_IN


def ground() -> str:
    """The colour of the background."""
    return str(mpl.rcParams["axes.facecolor"])


def ink(colour: str) -> str:
    """The colour, made darker on a light background, or lighter on a dark one, until it can be seen (`CONTRAST`)."""
    below = _luminance(ground())
    end = 0.0 if below > 0.5 else 1.0
    while contrast(colour, below) < CONTRAST:
        red, green, blue = (channel + 0.1 * (end - channel) for channel in to_rgb(colour))
        colour = to_hex((red, green, blue))
    return colour


def contrast(colour: str, ground_luminance: float) -> float:
    """The contrast of a colour to a ground: 1 to 21, as WCAG 2 computes it."""
    low, high = sorted((_luminance(colour), ground_luminance))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the suffix, one of `FORMATS`; as `rendered`."""
    path.write_bytes(rendered(figure, path.suffix[1:]))


def rendered(figure: Figure, suffix: str) -> bytes:
    """A file of the figure in one of `FORMATS`. Call it in the style of the drawing. Its texts are made visible."""
    for text in figure.findobj(Text):
        if (shown := visible(text.get_text())) != text.get_text():
            text.set_text(shown)
    found = BytesIO()
    figure.savefig(found, format=suffix, metadata=_METADATA[suffix])
    return found.getvalue()
