"""The shapes of retention; `reference.retention` says what each tensor is."""

from vbench.kernels.shapes import Shapes

SHAPES = Shapes(
    inputs={"q": "B H N D", "k": "B H N D", "v": "B H N E", "g": "H"},
    output="B H N E",
    state="B H D E",
)
