"""The shapes of gated linear attention; `reference.gla` says what each tensor is."""

from vbench.kernels.shapes import Shapes

SHAPES = Shapes(
    inputs={"q": "B H N D", "k": "B H N D", "v": "B H N E", "g": "W B H N D"},
    output="B H N E",
    state="W B H D E",
    option="direction",
    choices=("forward", "reverse", "both"),
)
