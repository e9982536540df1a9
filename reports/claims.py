"""Which claims of the papers hold: for a terminal, as Markdown, as CSV, and the generated page docs/claims.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from vbench.errors import UsageError
from vbench.files import is_file
from vbench.reports.grid import csv_text, escaped, pipes
from vbench.results.accuracy import FILE as ACCURACY
from vbench.results.accuracy import measured
from vbench.results.claim_accuracy import MATCH
from vbench.results.claim_equivalence import Verify
from vbench.results.claim_equivalence import judged as by_verification
from vbench.results.claim_judgement import FAILS, HOLDS, OPEN, TOLERANCE, UNFUSED, UNKNOWN, VERDICTS, Judgement
from vbench.results.claim_pairs import BATCHES, SCALED
from vbench.results.claim_predictions import Predict
from vbench.results.claim_predictions import judged as by_prediction
from vbench.results.claim_verdicts import LINEAR, judge
from vbench.results.claims import Claim, claims
from vbench.results.frame import of_folders
from vbench.results.operators import FILE as OPERATORS
from vbench.results.operators import read as read_operators
from vbench.results.published import efficiency
from vbench.results.store import FILE as RECORDS
from vbench.results.text import bare_table, print_whole, tame, tamed

HEADER = ("claim", "of", "claimed", "as the paper has it", "fair", "verdict")
STYLES = {HOLDS: "green", UNFUSED: "yellow", FAILS: "red", OPEN: "cyan", UNKNOWN: "dim"}
QUANTITIES = {
    "macs": "MACs",
    "params": "parameters",
    "operator_speed": "speed",
    "equivalence": "modes",
}  # other quantities keep their names

TRAINING = (
    "Claims on a training step, judged by records of `--phase train` on a GPU. Papers time forward and backward; ours "
    "is a whole step with AdamW's update. Autocast decides, as the papers train; the reason names the other dtypes. "
    "A value below 1× says that the authors print a slower model; it holds if ours is at least as fast beside the "
    "baseline."
)

PAGE = f"""# Which claims hold?

`make claims` makes this page from the committed records; no number is typed by hand. `vbench claims RUN…` judges your
own records, and `vbench sweep --suite claims --device cuda -o RUN` measures exactly what the claims need. The claims,
each with its source, are data: `results/published/claims.toml`.

Every value is an advantage: the cost of the baseline divided by the cost of the model ("90 % saved" is 10×). So more
is better. For a claim of linear growth the value is an exponent in tokens. Each claim is computed twice, with our
default forms in parallel mode:

- *As the paper has it*: MACs as the paper counts them; memory and speed against attention that is not fused.
- *Fair*: all work counted; memory and speed against fused attention.

A value reaches a claim if the low end of its 95 % interval is at least the claim minus {TOLERANCE:.0%}, the precision
of two printed digits ("90 % saved" is anything from 9.5 to 10.5 times less). It misses the claim if the high end is
below that. Between the two the claim is open, and the verdict names the interval. A value above the claim holds.

| verdict | when |
| --- | --- |
| {HOLDS} | the fair value reaches it |
| {UNFUSED} | memory or speed reaches it against unfused attention, and misses it against fused |
| {FAILS} | both values miss it; for MACs, the fair count misses it, whatever the paper's own count says |
| {OPEN} | the interval that should decide lies on both sides, or is not known |
| {UNKNOWN} | no such model, no record, no GPU, no printed number |

What has no interval:

- MACs, parameters and checks are counted. They are exact, and decide.
- The allocator of a GPU counts bytes. Such a peak is exact at the batch at which it was measured, and decides. For
  another batch it is computed from batch 1: weights once, everything else once for each image. That ratio is taken as
  known within ±{SCALED:.0%}.
- Any other measured value without an interval decides nothing: too few launches, or a CPU's memory.

A claim without a number, "lower" or "faster", holds if the whole interval is above 1; so does growth of an advantage.
ViR's claim is read as "the advantage grows from 224 to 2048 px". Linear growth holds if the exponent, with its whole
interval, is at most {LINEAR:.3g}; it is judged on any device. An exponent of MACs is exact: its bounds are the least
and the greatest over spans of a factor of 4, and all must be as small. Two modes are one function if all checks of
`vbench verify` pass: by the stamps of records, or by the verification that `vbench claims` runs once and remembers.

The papers claim memory and speed for GPUs, mostly without naming the GPU. On a CPU the page shows the ratio and gives
no verdict; on a GPU it gives a verdict for that GPU. If several dtypes were measured, half precision decides, because
the fastest fused attention exists only there; the reason names the others. Memory is a peak at batch 1, or at the batch
that the paper states or implies.

Speed is images/s of both at one batch: the batch that the paper states, if both were measured at it; otherwise the
largest that both were measured at and that gives an interval. At the largest batches that fit (`--batch max`) the two
may differ. Two knees of different size are never divided: then the times of a call at batch 1 are compared, and the
reason says so. `{BATCHES}` gives equal batches; the suite has them.

If the baseline has an operator of ours too, there is no attention to be fused, and both columns have one value. Figures
that others measured on a named GPU decide no claim; [reports](reports.md#figures-of-others) set ours beside them.

Accuracy is judged on any device, by what `vbench eval` measured of both models on the same images. The value is the
difference in points of top-1, with its paired interval. It must reach the printed difference, less what its digits
leave open. A model that "matches" another must be at most {MATCH:g} points below it: no paper says how near is equal,
so this is our reading. Without such records the reason quotes what papers print, and there is no verdict.

Without a GPU's record, a claim on memory is judged by a *prediction*: a simulation of PyTorch's allocator on CUDA, in
half precision, at the batch that the paper states or implies. [Memory without a GPU](memory.md) says how it works and
how near it comes to published figures. Such a verdict is marked *(predicted)*; a record of a GPU replaces it.
"""


def judged(folders: Sequence[Path], predict: Predict | None = None, verify: Verify | None = None) -> list[Judgement]:
    """A verdict on every claim, from the records of these folders, which may be none.

    Args:
        predict: predicts the memory of a CUDA card, for claims that no record of a GPU decides; None leaves them.
        verify: compares the modes of a model, for claims that no record decides; None leaves them.

    Raises: UsageError for a folder without records; SchemaError for records that this version cannot read.
    """
    for folder in folders:
        if not any(is_file(folder / name) for name in (RECORDS, OPERATORS, ACCURACY)):
            raise UsageError(f"{folder} has no {RECORDS}; give the --out folder of a sweep, or none")
    table, accuracy = of_folders(folders), measured(folders)
    operators = [row for folder in folders for row in read_operators(folder)]
    found = [judge(claim, table, operators, accuracy) for claim in claims()]
    found = found if predict is None else [by_prediction(one, predict) for one in found]
    return found if verify is None else [by_verification(one, verify) for one in found]


def to_json(found: Sequence[Judgement]) -> str:
    """A list of objects: the fields of the claim, our verdict with its values, and the ids of the records behind it."""
    rows = [{**asdict(one.claim), "ratio": one.claim.ratio, **_ours(one)} for one in found]
    return json.dumps(tamed(rows), indent=1, ensure_ascii=False)


def _ours(one: Judgement) -> dict[str, Any]:
    as_paper, fair = (value and asdict(value) for value in (one.stated, one.fair))
    said = {"verdict": one.verdict, "undecided": one.undecided, "predicted": one.predicted, "reason": one.reason}
    return {**said, "as_paper": as_paper, "fair": fair, "case_ids": list(one.case_ids)}


def show(found: Sequence[Judgement], console: Console) -> None:
    """Print the tables, that of training apart, then a line for each claim: reason and records. No text is cut."""
    for title, own in zip(("", "Training"), _phases(found), strict=True):
        if not own:
            continue
        table = bare_table(HEADER, title=title or None)
        for one in own:
            *cells, verdict = _row(one)
            table.add_row(*cells, Text(verdict, style=STYLES[one.verdict]))
        print_whole(table, console)
        console.print()
    for line in both(found):
        console.print(Text(tame(line)), soft_wrap=True)
    for one in found:
        console.print(Text(tame(f"{one.claim.id} ({one.claim.printed}): {one.reason}{_proof(one)}")), soft_wrap=True)
    console.print(summary(found))


def summary(found: Sequence[Judgement]) -> str:
    """How many claims have each verdict."""
    counts = {verdict: [one.predicted for one in found if one.verdict == verdict] for verdict in VERDICTS}
    words = [
        f"{verdict}: {len(each)}" + (f" ({sum(each)} predicted)" if any(each) and verdict != UNKNOWN else "")
        for verdict, each in counts.items()
    ]
    return f"{len(found)} claims. {'; '.join(words)}."


def to_csv(found: Sequence[Judgement]) -> str:
    """One row for each claim under `HEADER`, with the reason and the ids of the records."""
    return csv_text([[*HEADER, "why", "records"], *([*_row(one), one.reason, " ".join(one.case_ids)] for one in found)])


def to_markdown(found: Sequence[Judgement]) -> str:
    """The table; then for each claim its source, its conditions, the reason for the verdict, and the records."""
    infer, train = _phases(found)
    lines = [*_pipes(infer), "", summary(found)]
    if train:
        lines += [
            "",
            "## Training",
            "",
            TRAINING,
            "",
            *_pipes(train),
            "",
            *(f"- {escaped(line)}" for line in both(found)),
        ]
    for paper in dict.fromkeys(one.claim.paper for one in found):
        own = [one for one in found if one.claim.paper == paper]
        sources = "; ".join(dict.fromkeys(one.claim.source for one in own))
        lines += ["", f"## {escaped(paper)}", "", f"From {escaped(sources)}.", "", *map(_item, own)]
    return "\n".join(lines) + "\n"


def _pipes(found: Sequence[Judgement]) -> list[str]:
    return pipes(HEADER, [[escaped(text) for text in _row(one)] for one in found])


def _phases(found: Sequence[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """The claims on inference and counts, and those on training."""
    train = [one for one in found if one.claim.phase == "train"]
    return [one for one in found if one not in train], train


def both(found: Sequence[Judgement]) -> list[str]:
    """What a claim on training stands beside: the same two models at the same size in inference, theirs and ours."""
    infer, train = _phases(found)
    lines = []
    for one in train:
        claim = one.claim
        key = (claim.subject, claim.baseline, claim.res, claim.quantity)
        for other in infer:
            if (other.claim.subject, other.claim.baseline, other.claim.res, other.claim.quantity) != key:
                continue
            theirs, ours = zip(*((_claimed(each.claim), _fair(each)) for each in (other, one)), strict=True)
            lines.append(
                f"{claim.subject} against {claim.baseline} at {claim.res} px: the authors infer at {theirs[0]} and "
                f"train at {theirs[1]} the speed of the baseline; ours: {ours[0]} and {ours[1]}"
            )
    return lines


def _fair(one: Judgement) -> str:
    return "not measured here" if one.fair is None else str(one.fair)


def implied(claim: Claim) -> str:
    """What a share of memory that is saved implies of the baseline, by what the same source prints of the subject.

    Empty for any other claim, or if the source prints no memory of the subject at that size.
    """
    if claim.quantity != "memory" or claim.unit != "% saved" or claim.ratio is None:
        return ""
    rows = [row for row in efficiency() if (row.model, row.res, row.source) == (claim.subject, claim.res, claim.source)]
    own = next((row.value for row in rows if row.metric == "peak_memory_gb"), None)
    if own is None:
        return ""
    return (
        f"With the {own:g} GB that its figure prints of {claim.subject}, this implies {own * claim.ratio:.1f} GB of "
        f"{claim.baseline}"
    )


def _item(one: Judgement) -> str:
    claim = one.claim
    conditions = [
        f"{name}: {', '.join(listed)}"
        for name, listed in (("stated", claim.stated), ("missing", claim.missing), ("inferred", claim.inferred))
        if listed
    ]
    told = [
        f"{claim.printed} ({claim.says}; {claim.seen}: {claim.locator})",
        "; ".join(conditions),
        claim.notes.rstrip("."),
        implied(claim),
        f"{one.label}: {one.reason}{_proof(one)}",
    ]
    first, *rest = [escaped(text) for text in told if text]
    return f"- **{claim.id}**: {first}. " + ". ".join(text[0].upper() + text[1:] for text in rest) + "."


def _row(one: Judgement) -> tuple[str, ...]:
    sides = ["–" if value is None else str(value) for value in (one.stated, one.fair)]
    return (one.claim.id, _of(one.claim), _claimed(one.claim), *sides, one.label)


def _of(claim: Claim) -> str:
    against = f" against {claim.baseline}" if claim.baseline else ""
    growth = "growth of " if claim.unit == "linear" else "training " if claim.phase == "train" else ""
    sizes = f"{claim.res_from} to {claim.res}" if claim.res_from else str(claim.res)
    where = "" if claim.unit == "linear" else f" at {sizes} px"
    return f"{growth}{QUANTITIES.get(claim.quantity, claim.quantity)} of {claim.subject}{against}{where}"


def _claimed(claim: Claim) -> str:
    if claim.ratio is not None:
        return f"{claim.ratio:.3g}×"
    if claim.unit == "points":
        return f"+{(claim.value or 0) - (claim.baseline_value or 0):.3g} points"
    return {"none": "no number", "any": "> 1×"}.get(claim.unit, claim.unit)


def _proof(one: Judgement) -> str:
    return f" [records: {', '.join(one.case_ids)}]" if one.case_ids else ""


def page(folders: Sequence[Path]) -> str:
    """The whole of docs/claims.md."""
    from vbench.flops.fit import asking, of_claims
    from vbench.verify.stamps import of_models

    with asking() as ask, of_models() as verify:
        return f"{PAGE}\n{to_markdown(judged(folders, of_claims(ask), verify))}"


if __name__ == "__main__":
    *runs, target = map(Path, sys.argv[1:])
    target.write_text(page(runs), encoding="utf-8")
