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
    "external": ("#332288", "h"),  # a user's own models
}
SPARE = (("#44AA99", "<"), ("#661100", ">"), ("#DDCC77", "p"))  # of families that have no row above, in turn


def looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every family: those of `FAMILIES`, and the spare ones for other families, in their order."""
    others = [family for family in dict.fromkeys(families) if family not in FAMILIES]
    return FAMILIES | dict(zip(others, cycle(SPARE), strict=False))


_LOOKS = looks(row.family for row in MODELS.values())
COLOURS = {family: colour for family, (colour, _) in _LOOKS.items()}
MARKERS = {family: marker for family, (_, marker) in _LOOKS.items()}
SHADES = (1.0, 0.65, 0.4)  # of the models of a family, in the order of their names
MODE_LINES = {"parallel": ("-", ":"), "recurrent": ("--", "-.")}  # for the first and the second setting of a model
BRANDS = {  # added to the label of a flagged curve
    "modes_differ": "(MODES DIFFER)",
    "nonfinite": "(NOT FINITE)",
    "output_differs": "(WRONG OUTPUT)",
    "impossible": "(IMPOSSIBLE)",
    "caveat": "(not the paper's)",
}
ENDINGS = {"oom": "out of memory", "timeout": "time-out", "error": "error"}
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
    "x": "x-thin",
}
DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
