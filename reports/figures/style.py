"""Three looks of a figure, the size of a sheet, and how a sheet is saved so that equal input gives equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

COLUMN_IN = 3.3  # a column of a paper, 8.4 cm; a page has two
GAP_IN = 0.1
MUTED = "#707070"
RATIO = "#CC3311"  # arrows; Tol's red
PUBLISHED = (  # what a caption says of hollow accuracies
    "Accuracy (hollow) is what papers print, of models trained at 224 px, tested at each size; none was measured here."
)
DIM = 0.22  # luminance below which a colour is lost on a dark ground

PAPER: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7.5,  # "small", the least that is used, is 6.2 pt
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

# Without dates, so that the same records give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose. A series is named "vig_t", or "vig_t recurrent" for a mode of it."""

    at: tuple[int, ...] = (512, 1024, 2048)  # px: where ratios are drawn
    baseline: str | None = None  # over which series; None: an attention model, DeiT-T if it is there
    subject: str | None = None  # of which; None: the fastest recurrent backbone
    costs: tuple[str, ...] | None = None  # keys of `measures.MEASURES`, for figures that take several


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure, and what its caption must say of it."""

    figure: Figure
    notes: tuple[str, ...] = ()


class NotDrawnError(Exception):
    """The records do not hold what a figure shows; the message says what is missing."""


def sheet(columns: float, height_in: float) -> Figure:
    """An empty figure of so many columns' width; `height_in` as in the paper's style, larger in larger ones."""
    scale = mpl.rcParams["figure.figsize"][0] / COLUMN_IN
    return Figure(figsize=(scale * (columns * COLUMN_IN + (columns - 1) * GAP_IN), scale * height_in))


def ground() -> str:
    """The colour behind the curves."""
    return str(mpl.rcParams["axes.facecolor"])


def ink(colour: str) -> str:
    """The colour, lightened where it would be lost on a dark ground."""
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
    """Write in the format of the suffix, of `FORMATS`; under the style that the figure was drawn in."""
    figure.savefig(path, metadata=_METADATA[path.suffix])
