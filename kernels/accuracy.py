"""How the error of an operator's forms grows with N: the table in each README.md here.

python -P -m vbench.kernels.accuracy gla                        prints it
python -P -m vbench.kernels.accuracy gla kernels/gla/README.md  writes it there
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from vbench.kernels.registry import OPS, forms, operator, trials, truth
from vbench.kernels.trials import Trial, cast, relative

TOKENS = (196, 1024, 4096, 16384)
DTYPES = (torch.float32, torch.bfloat16)
ALL_PAIRS = ("quadratic", "suffix")  # forms whose work is quadratic in N; they are tried on fewer tokens
BLOCK = re.compile(r"(?<=<!-- accuracy -->\n).*?(?=<!-- /accuracy -->)", re.DOTALL)


def trial(op: str) -> Trial:
    """The operator's first trial in both directions; its first trial if none has both."""
    return next((each for each in trials(op) if each.direction == "both"), trials(op)[0])


def farthest(op: str, form: str) -> int:
    """The largest number of tokens that a form is tried on."""
    if form not in ALL_PAIRS:
        return TOKENS[-1]
    return TOKENS[2] if truth(op) in ALL_PAIRS else TOKENS[1]


def errors(op: str, tokens: int) -> dict[str, tuple[float, ...]]:
    """Relative L2 error of the output, by form that runs on a CPU: one for each type in DTYPES.

    The inputs are first rounded to the type. The exact output is that of the form `truth`, in float64.
    """
    exact = operator(op, truth(op))
    drawn = trial(op).draw(tokens, torch.Generator().manual_seed(tokens))
    names = [form for form in forms(op) if "cpu" in OPS[op][form].devices and tokens <= farthest(op, form)]
    found: dict[str, list[float]] = {form: [] for form in names}
    for dtype in DTYPES:
        inputs = cast(drawn, dtype)
        wanted, _ = trial(op).run(exact, cast(inputs, torch.float64))
        for form in names:
            found[form].append(relative(trial(op).run(operator(op, form), inputs)[0], wanted))
    return {form: tuple(each) for form, each in found.items()}


def table(op: str) -> str:
    """A Markdown table of `errors`, one row a size and form."""
    lines = ["| N | form | float32 | bfloat16 inputs |", "| --- | --- | --- | --- |"]
    for tokens in TOKENS:
        if tokens <= farthest(op, truth(op)):
            lines += [
                f"| {tokens} | `{form}` | {' | '.join(f'{error:.1e}' for error in found)} |"
                for form, found in errors(op, tokens).items()
            ]
    return "\n".join(lines) + "\n"


def fill(text: str, found: str) -> str:
    """The text with the table between its markers; raises ValueError if it has no markers."""
    if not BLOCK.search(text):
        raise ValueError("no <!-- accuracy --> ... <!-- /accuracy --> in the text")
    return BLOCK.sub(lambda _: found, text)


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(prog="vbench.kernels.accuracy", description="Errors of an operator's forms.")
    parser.add_argument("op", choices=OPS)
    parser.add_argument("readme", nargs="?", type=Path)
    asked = parser.parse_args()
    with torch.inference_mode():
        found = table(asked.op)
    if asked.readme is None:
        print(found, end="")  # noqa: T201
    else:
        asked.readme.write_text(fill(asked.readme.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
