"""The shapes of minGRU; `reference.mingru` says what each tensor is.

One direction a call: in VisionGRU each direction has projections of its own, so there is nothing to share.
"""

from vbench.kernels.shapes import Shapes

SHAPES = Shapes(
    inputs={"a": "B N C", "b": "B N C"},
    output="B N C",
    state="B C",
    option="direction",
    choices=("forward", "reverse"),
)
