"""Accuracies that papers print. Never measured by us; `published/SOURCES.md` says how to read them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# A printed number is preferred to one read off a curve, the plain variant to a special one.
_PREFERENCE = {"readme": 0, "table": 1, "figure-digitised": 2}

# How sources mark the ordinary recipe, or the same weights tested at another size.
_PLAIN = (
    "evaluated only",
    "300 ep",
    "IN-1K",
    "800+20 ep",
    "400+20 ep",
    "400+5 ep",
    "long-sequence fine-tune, stride 8",
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """ImageNet-1K top-1 in percent of a model trained at `train_res` px and tested at `eval_res` px."""

    model: str
    train_res: int
    eval_res: int
    top1: float
    source: str
    locator: str
    how: str


@cache
def accuracies() -> dict[tuple[str, int], Accuracy]:
    """The one figure we show for each (model, eval_res) trained at 224 px.

    Of several, the model's own paper's comes first: the first row of the best kind in the file.
    """
    best: dict[tuple[str, int], tuple[tuple[bool, int], Accuracy]] = {}
    text = (files("vbench.results") / "published" / "accuracy.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        if row["how"] not in _PREFERENCE or row["train_res"] != "224" or not row["top1"]:
            continue
        if row["variant"] and not row["variant"].startswith(_PLAIN):
            continue
        found = Accuracy(
            row["model"],
            224,
            int(row["eval_res"]),
            float(row["top1"]),
            row["source"],
            row["locator"],
            row["how"],
        )
        rank = (not _own(row), _PREFERENCE[row["how"]])
        key = (found.model, found.eval_res)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, found)
    return {key: accuracy for key, (_, accuracy) in best.items()}


_OWN = {
    "vig": "2405.18425",
    "vrwkv": "2403.02308",
    "vrwkv6": "2403.02308",
    "vil": "2406.04303",
    "vil2": "2406.04303",
    "vision_gru": "2412.18178",
    "deit": "2012.12877",
    "swin": "2103.14030",
}


def _own(row: dict[str, str]) -> bool:
    """Whether the source is the paper that introduced the model."""
    return _OWN.get(row["family"], "\0") in row["source"]
