"""How curves look everywhere: colour and marker of a family, line of a mode, words for flagged and ended curves."""

from __future__ import annotations

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
COLOURS = {family: colour for family, (colour, _) in FAMILIES.items()}
MARKERS = {family: marker for family, (_, marker) in FAMILIES.items()}
SHADES = (1.0, 0.65, 0.4)  # of the models of a family, in the order of their names
MODE_LINES = {"parallel": ("-", ":"), "recurrent": ("--", "-.")}  # for the first and the second setting of a model
BRANDS = {"modes_differ": "(MODES DIFFER)", "caveat": "(not the paper's)"}  # added to the label of a flagged curve
ENDINGS = {"oom": "out of memory", "timeout": "time-out", "error": "error"}
