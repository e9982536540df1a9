"""How things look everywhere: a family's colour and marker, a mode's line, what flagged and ended curves are called."""

from __future__ import annotations

# Okabe and Ito's colours and one of Tol's: colour-blind eyes tell them apart.
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
    "external": ("#332288", "h"),  # models of a user's own
}
COLOURS = {family: colour for family, (colour, _) in FAMILIES.items()}
MARKERS = {family: marker for family, (_, marker) in FAMILIES.items()}
SHADES = (1.0, 0.65, 0.4)  # of a family's models, in the order of their names
MODE_LINES = {"parallel": ("-", ":"), "recurrent": ("--", "-.")}  # of a model's first and of its other settings
BRANDS = {"modes_differ": "(MODES DIFFER)", "caveat": "(not the paper's)"}  # what a flagged curve is called
ENDINGS = {"oom": "out of memory", "timeout": "time-out", "error": "error"}
