"""Parameters and work of every variant beside the published numbers: the generated page docs/zoo.md."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

from vbench.kernels.registry import default_form
from vbench.models.registry import MODELS, spec
from vbench.results.published import Cost, costs

ENOUGH = 0.02  # a larger deviation needs a reason

# Why a number differs by more than 2 %, by pattern of names and quantity. A test compares this list with the table.
REASONS: dict[tuple[str, str], str] = {
    ("vig_t", "flops_g"): "read off a figure that follows a trace of the released code; the trace sees neither most "
    "of the scan nor the MLP's second matrix, both inside fused functions",
    ("vil_splus", "params_m"): "the released code builds this many; 26 is its number of blocks",
    ("vil2_[sb]", "flops_g"): "theirs is the causal half of the quadratic form, at 224 px less work than the "
    "recurrence (196 tokens, states of 192 or 384 columns); ours is the recurrence",
    ("vmamba_*", "flops_g"): "theirs counts nine operations a state of the scan and five an element of a norm; ours "
    "two multiply-accumulates a state, and none for norms",
    ("mlla_t", "params_m"): "the released code builds this many",
    ("deit_t", "params_m"): "printed in whole millions, rounded down",
}

HEADER = """# Models beside the published numbers

`make zoo` makes this page; numbers are counted, none is typed by hand. Parameters are those of the model at 224 px
with 1000 classes. GMACs are 10⁹ multiply-accumulates of one image; papers call them GFLOPs. Ours are what the
algorithm needs, recurrences and attention included, at the size of the published number, or at 224 px. A published
number agrees if ours rounds to it; the last column explains each deviation.

| model | params (M) | published | GMACs | at px | published | deviation and its reason |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


def page() -> str:
    """The whole page. It counts every model on the meta device, which takes a minute or two."""
    return HEADER + "".join(row(name) for name in MODELS) + sources()


def row(name: str) -> str:
    """One line of the table, newline included."""
    params, work = costs().get((name, "params_m")), costs().get((name, "flops_g"))
    res = work.res if work else 224
    gmacs = macs(name, res) / 1e9
    millions = (spec(name).params or 0) / 1e6
    said = [*deviation(name, "params_m", millions, params), *deviation(name, "flops_g", gmacs, work)]
    printed = [cost.text if cost else "" for cost in (params, work)]
    cells = (name, f"{millions:.3f}", printed[0], f"{gmacs:.4g}", str(res), printed[1], "; ".join(said))
    return "| " + " | ".join(cells) + " |\n"


def macs(name: str, res: int) -> int:
    """The MACs that the algorithm needs for one image of res × res px."""
    from vbench.flops.count import count
    from vbench.plan import Case

    row = spec(name)
    form = default_form(row.operator, "parallel") if row.operator else None
    return int(count(Case(name, res, res, "parallel", form, 1, "float32", "cpu"))["macs"])


def deviation(name: str, quantity: str, ours: float, published: Cost | None) -> list[str]:
    """By how much ours differs from the published number, and why; empty if it agrees."""
    if published is None:
        return []
    decimals = len(published.text.partition(".")[2])
    off = ours / float(published.text) - 1
    if f"{ours:.{decimals}f}" == published.text or abs(off) <= ENOUGH:
        return []
    return [f"{'params' if quantity == 'params_m' else 'GMACs'} {off:+.1%}: {reason(name, quantity)}"]


def reason(name: str, quantity: str) -> str:
    """Why a number deviates. Raises: KeyError if `REASONS` does not say."""
    for (pattern, of), why in REASONS.items():
        if of == quantity and fnmatchcase(name, pattern):
            return why
    raise KeyError(f"{name}: say in REASONS why {quantity} deviates")


def sources() -> str:
    used = {(cost.source, cost.locator): None for (name, _), cost in costs().items() if name in MODELS}
    return "\nPublished figures are from:\n\n" + "".join(f"- {source}: {locator}\n" for source, locator in used)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
