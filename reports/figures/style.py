"""The three styles of figures, the size of a sheet, and how a sheet is saved: equal input gives equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from vbench.results.text import visible

COLUMN_IN = 3.3  # inches, the width of a paper's column; a page has two columns
GAP_IN = 0.1
MUTED = "#707070"
RATIO = "#CC3311"  # arrows; Tol's red
PUBLISHED = (  # the caption's words for hollow accuracies
    "Accuracy (hollow) is what papers print, of models trained at 224 px, tested at each size; none was measured here."
)
DIM = 0.22  # luminance; a darker colour is not visible on a dark ground

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
FORMATS = ("png", "pdf", "svg")

# No dates: the same records give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose. A series is named "vig_t", or "vig_t recurrent" for one mode."""

    at: tuple[int, ...] = (512, 1024, 2048)  # px: where ratios are drawn
    baseline: str | None = None  # numerator of ratios; None: an attention model, if possible DeiT-T
    subject: str | None = None  # denominator of ratios; None: the fastest recurrent backbone
    costs: tuple[str, ...] | None = None  # keys of `measures.MEASURES`, for figures that take several


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure, and the notes for its caption."""

    figure: Figure
    notes: tuple[str, ...] = ()


class NotDrawnError(Exception):
    """The records lack what a figure shows; the message says what."""


def sheet(columns: float, height_in: float) -> Figure:
    """An empty figure, `columns` wide. `height_in` is the height in the paper style; larger styles scale it."""
    scale = mpl.rcParams["figure.figsize"][0] / COLUMN_IN
    return Figure(figsize=(scale * (columns * COLUMN_IN + (columns - 1) * GAP_IN), scale * height_in))


def ground() -> str:
    """The colour of the background."""
    return str(mpl.rcParams["axes.facecolor"])


def ink(colour: str) -> str:
    """The colour, made lighter if it would be invisible on a dark background."""
    if _luminance(ground()) > 0.5:
        return colour
    while _luminance(colour) < DIM:
        red, green, blue = (channel + 0.1 * (1 - channel) for channel in to_rgb(colour))
        colour = to_hex((red, green, blue))
    return colour


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the suffix, one of `FORMATS`. Call it in the style of the drawing.

    Its texts are made visible.
    """
    for text in figure.findobj(Text):
        if (shown := visible(text.get_text())) != text.get_text():
            text.set_text(shown)
    figure.savefig(path, metadata=_METADATA[path.suffix])
