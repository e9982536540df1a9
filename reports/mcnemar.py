"""Two models on the same images, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from vbench.results.mcnemar import Paired
from vbench.results.text import bare_table, print_whole, px, tame

HEADER = (
    "size (px)",
    "images",
    "{a} (%)",
    "{b} (%)",
    "difference",
    "95 % interval",
    "{a} alone",
    "{b} alone",
    "p",
    "verdict",
)


def show(found: Sequence[Paired], console: Console) -> None:
    """Print a row a comparison; `p` is adjusted over all of them (Holm). Then what is to be known of them."""
    a, b = found[0].a, found[0].b
    heads = [head.format(a=a.model, b=b.model) for head in HEADER]
    table = bare_table(heads, heads[:-1])
    for one in found:
        mine, theirs = one.accuracies
        table.add_row(
            px(one.a.height, one.a.width),
            f"{one.images:,}",
            f"{mine:.2f}",
            f"{theirs:.2f}",
            f"{one.difference:+.2f}",
            f"{one.lo:+.2f} to {one.hi:+.2f}",
            str(one.only_a),
            str(one.only_b),
            f"{one.p_all:.2g}",
            one.verdict,
        )
    together = ", adjusted over the sizes by Holm" if len(found) > 1 else ""
    metric = {"top1": "top-1", "top5": "top-5"}[found[0].metric]
    notes = dict.fromkeys(note for one in found for note in one.notes)
    print_whole(
        table,
        console,
        [
            f"{metric} on {tame(a.dataset)}, labels {tame(a.labels)}.",
            f"Difference: in points, with Tango's interval; p: McNemar's exact test{together}.",
            f"Weights: {a.model} {tame(a.checkpoint)}, {b.model} {tame(b.checkpoint)}.",
            *(f"{tame(note)}." for note in notes),
        ],
    )
