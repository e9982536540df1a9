"""How curves look everywhere: colour and marker of a family, line of a mode, words for flagged and ended curves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

from vbench.models.registry import MODELS

# The colours of Okabe and Ito and of Tol, which colour-blind readers can tell apart.
FAMILIES = {
    "vig": ("#D55E00", "o"),
    "vrwkv": ("#56B4E9", "v"),
    "vil": ("#E69F00", "P"),
    "vir": ("#882255", "X"),
    "vision_gru": ("#000000", "d"),
    "deit": ("#0072B2", "s"),
    "swin": ("#009E73", "^"),
    "timm": ("#CC79A7", "D"),
    "vim": ("#999933", "*"),
    "vmamba": ("#117733", "p"),
    "mlla": ("#888888", "<"),
    "external": ("#332288", "h"),  # a user's own models
}
SPARE = (("#44AA99", "<"), ("#661100", ">"), ("#DDCC77", "8"))  # of families that have no row above, in turn


def looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every family: those of `FAMILIES`, and the spare ones for other families, in their order."""
    others = [family for family in dict.fromkeys(families) if family not in FAMILIES]
    return FAMILIES | dict(zip(others, cycle(SPARE), strict=False))


_LOOKS = looks(row.family for row in MODELS.values())
COLOURS = {family: colour for family, (colour, _) in _LOOKS.items()}
MARKERS = {family: marker for family, (_, marker) in _LOOKS.items()}
SHADES = (1.0, 0.65, 0.4)  # of the models of a family, in the order of their names
RING = ("s", "^", "P", "o", "<", "X", "v", "D", ">", "*")  # markers of a family's further models, from its own one on
TURNS = ((0, 2, 1), (1, 0, 2), (2, 0, 1))  # shades of models with one marker, the most different ones first
NEAR = {"p": "o", "h": "o", "8": "o", "d": "D", "x": "X"}  # markers that look like one of the ring, small as they are
MODE_LINES = {"parallel": ("-", ":"), "recurrent": ("--", "-.")}  # for the first and the second setting of a model
BRANDS = {  # added to the label of a flagged curve
    "modes_differ": "(MODES DIFFER)",
    "nonfinite": "(NOT FINITE)",
    "output_differs": "(WRONG OUTPUT)",
    "impossible": "(IMPOSSIBLE)",
    "caveat": "(not the paper's)",
}
ENDINGS = {"oom": "out of memory", "timeout": "time-out", "error": "error"}
DARK = "#1f1f1e"  # behind the page's figures in dark mode
LEAST_CONTRAST = 3.0  # of a curve against what is behind it, as WCAG 2.1 asks of graphics
SYMBOLS = {  # plotly's names of matplotlib's markers
    "o": "circle",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "d": "diamond-tall",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "*": "star",
    "h": "hexagon",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "8": "octagon",
    "x": "x-thin",
}
DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
SHAPES = {  # SVG paths of markers in the legend, around (20, 7)
    "circle": "M16 7a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "M16 3h8v8h-8z",
    "triangle-up": "M20 2l5 9h-10z",
    "triangle-down": "M20 12l5-9h-10z",
    "diamond": "M20 2l5 5l-5 5l-5-5z",
    "triangle-left": "M15 7l9-5v10z",
    "triangle-right": "M25 7l-9-5v10z",
    "star": "M20 1.5l1.4 4h4.1l-3.3 2.5l1.3 4l-3.5-2.5l-3.5 2.5l1.3-4l-3.3-2.5h4.1z",
    "hexagon": "M20 2l4.3 2.5v5l-4.3 2.5l-4.3-2.5v-5z",
    "pentagon": "M20 2l4.8 3.5l-1.8 5.6h-6l-1.8-5.6z",
    "octagon": "M18.2 2.5h3.6l2.7 2.7v3.6l-2.7 2.7h-3.6l-2.7-2.7v-3.6z",
    "diamond-tall": "M20 1l3.5 6l-3.5 6l-3.5-6z",
    "cross": "M18.5 2h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    "x": "M16 5l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",
    "x-thin": "M16 4l1-1l3 3l3-3l1 1l-3 3l3 3l-1 1l-3-3l-3 3l-1-1l3-3z",
}
STROKES = {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "7 3 2 3"}


def member(family: str, rank: int) -> tuple[str, str]:
    """Colour and marker of a model, by its place among those of its family; 30 of a family look different.

    The first has its family's own. Shades alone are too weak: on paper some of them are nearly equal.
    """
    own, turn, place = MARKERS.get(family, "x"), rank // len(RING), rank % len(RING)
    marker = RING[(RING.index(NEAR.get(own, own)) + place) % len(RING)] if place else own
    shade = TURNS[place % len(SHADES)][turn % len(SHADES)]
    return tint(COLOURS.get(family, "#000000"), SHADES[shade]), marker


def tint(colour: str, shade: float) -> str:
    """A colour "#RRGGBB" mixed with white; `shade` is the share of the colour."""
    return "#" + "".join(f"{round(255 - shade * (255 - part)):02X}" for part in _parts(colour))


def on_dark(colour: str) -> str:
    """A colour "#RRGGBB", mixed with as much white as it needs to be seen on `DARK`."""
    for white in range(0, 100, 5):
        mixed = "#" + "".join(f"{round(part + (255 - part) * white / 100):02X}" for part in _parts(colour))
        if contrast(mixed, DARK) >= LEAST_CONTRAST:
            break
    return mixed


def contrast(one: str, other: str) -> float:
    """The ratio of contrast of two colours, from 1 to 21, as WCAG 2.1 defines it."""
    low, high = sorted(_luminance(colour) + 0.05 for colour in (one, other))
    return high / low


def _luminance(colour: str) -> float:
    shares = (part / 255 for part in _parts(colour))
    linear = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _parts(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
