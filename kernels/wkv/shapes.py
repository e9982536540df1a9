"""The shapes of Bi-WKV; `reference.wkv` says what each tensor is.

The reading "kernel" takes no state: the released kernel divides a whole sequence into 32 segments.
"""

from typing import Literal

from vbench.kernels.shapes import Shapes

Reading = Literal["paper", "kernel"]

SHAPES = Shapes(
    inputs={"k": "B N C", "v": "B N C", "w": "C", "u": "C"},
    output="B N C",
    state="2 3 B C",
    option="reading",
    choices=("paper", "kernel"),
    stateless=("kernel",),
)
