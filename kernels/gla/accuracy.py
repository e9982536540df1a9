"""Prints how the error of each form grows with N; the table of README.md."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from vbench.kernels.registry import OPS, operator


def main() -> None:
    """Relative L2 error in float32 and bfloat16 against the float64 recurrence, as a Markdown table."""
    print("| N | form | float32 | bfloat16 inputs |\n| --- | --- | --- | --- |")  # noqa: T201
    for N in (196, 1024, 4096, 16384):
        generator = torch.Generator().manual_seed(N)

        def draw(*size: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        inputs = [draw(1, 3, N, 32), draw(1, 3, N, 32), draw(1, 3, N, 64)]
        inputs.append(F.logsigmoid(draw(2, 1, 3, N, 32)) / 16)
        for form in OPS["gla"]:
            errors = []
            for dtype in (torch.float32, torch.bfloat16):
                rounded = [x.to(dtype) for x in inputs]
                wanted, _ = operator("gla", "reference")(*(x.double() for x in rounded), direction="both")
                found, _ = operator("gla", form)(*rounded, direction="both")
                errors.append(float((found.double() - wanted).norm() / wanted.norm()))
            print(f"| {N} | {form} | {errors[0]:.1e} | {errors[1]:.1e} |")  # noqa: T201


if __name__ == "__main__":
    with torch.inference_mode():
        main()
