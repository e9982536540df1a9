"""The shapes of WKV6; `reference.wkv6` says what each tensor is."""

from vbench.kernels.shapes import Shapes

SHAPES = Shapes(
    inputs={"r": "B H N D", "k": "B H N D", "v": "B H N E", "g": "B H N D", "u": "H D"},
    output="B H N E",
    state="W B H D E",
    option="direction",
    choices=("forward", "reverse", "both"),
)
