"""How things look everywhere: a family's colour and marker, a mode's line, what flagged and ended curves are called."""

from __future__ import annotations

# Okabe and Ito's colours and one of Tol's: told apart by colour-blind eyes. A family keeps its own everywhere.
COLOURS = {
    "vig": "#D55E00",
    "vrwkv": "#56B4E9",
    "vil": "#E69F00",
    "vir": "#882255",
    "vision_gru": "#000000",
    "deit": "#0072B2",
    "swin": "#009E73",
    "timm": "#CC79A7",
    "vim": "#999933",
    "external": "#332288",  # models of a user's own
}
MARKERS = {
    "vig": "o",
    "vrwkv": "v",
    "vil": "P",
    "vir": "X",
    "vision_gru": "d",
    "deit": "s",
    "swin": "^",
    "timm": "D",
    "vim": "*",
    "external": "h",
}
SHADES = (1.0, 0.65, 0.4)  # of a family's models, in the order of their names
MODE_LINES = {"parallel": ("-", ":"), "recurrent": ("--", "-.")}  # of a model's first and of its other settings
BRANDS = {"modes_differ": "(MODES DIFFER)", "caveat": "(not the paper's)"}  # what a flagged curve is called
ENDINGS = {"oom": "out of memory", "timeout": "time-out", "error": "error"}
