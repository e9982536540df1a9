"""The shapes of the selective scan; `reference.selective_scan` says what each tensor is.

B batch, G groups, N tokens, C channels of a group, S states of a channel. W counts the walks of a call: one for
"forward" and "reverse", then it is left out; 2 for "both"; 4 for "cross". U is 2 for "both" and left out otherwise.
"""

from vbench.kernels.shapes import Shapes

SHAPES = Shapes(
    inputs={
        "u": "U B G N C",
        "delta": "W B G N C",
        "A": "W G C S",
        "B": "W B G N S",
        "C": "W B G N S",
        "D": "W G C",
        "delta_bias": "W G C",
    },
    optional={"z": "B G N C"},
    output="B G N C",
    state="W B G C S",
    option="direction",
    choices=("forward", "reverse", "both", "cross"),
    walks={"W": {"both": 2, "cross": 4}, "U": {"both": 2}},
)
