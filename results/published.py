"""Accuracies and costs that papers print. vbench measures none of them; see `published/SOURCES.md`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# The order of preference: printed numbers before those read off a curve.
_PREFERENCE = {"readme": 0, "table": 1, "figure-digitised": 2}

# How variants begin that are the ordinary recipe, or the same weights tested at another size.
_PLAIN = (
    "evaluated only",
    "300 ep",
    "IN-1K",
    "800+20 ep",
    "400+20 ep",
    "400+5 ep",
    "long-sequence fine-tune",
    *("vanilla (v0)", "s1l8", "s1l20", "s2l5", "s2l15"),  # VMamba's designs, each a model of its own
    "ViL authors reimplementation, 800",
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """ImageNet-1K top-1 in percent of a model trained at `train_res` px and tested at `eval_res` px.

    `error` is half a unit of its last printed digit, and what reading it off a curve adds; of other errors the source
    says nothing.
    """

    model: str
    train_res: int
    eval_res: int
    top1: float
    source: str
    locator: str
    how: str
    error: float  # points


def table(name: str) -> csv.DictReader[str]:
    return csv.DictReader((files("vbench.results") / "published" / f"{name}.csv").read_text("utf-8").splitlines())


@cache
def accuracies() -> dict[tuple[str, int], Accuracy]:
    """The accuracy to show for each (model, eval_res), of models trained at 224 px.

    Of several rows, those of the model's own paper come first, then the best kind, then the first in the file.
    """
    best: dict[tuple[str, int], tuple[tuple[bool, int], Accuracy]] = {}
    for row in table("accuracy"):
        if row["how"] not in _PREFERENCE or row["train_res"] != "224" or not row["top1"]:
            continue
        if row["variant"] and not row["variant"].startswith(_PLAIN):
            continue
        where = (row["source"], row["locator"], row["how"])
        found = Accuracy(row["model"], 224, int(row["eval_res"]), float(row["top1"]), *where, _error(row))
        rank = (not _own(row), _PREFERENCE[row["how"]])
        key = (found.model, found.eval_res)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, found)
    return {key: accuracy for key, (_, accuracy) in best.items()}


def _error(row: dict[str, str]) -> float:
    """What the digits of a row leave open, and what its locator says of reading it off a curve, in points."""
    digits = 0.5 * 10.0 ** -len(row["top1"].partition(".")[2])
    read_off = re.search(r"±\s*([\d.]+\d)", row["locator"]) if row["how"] == "figure-digitised" else None
    return digits + (float(read_off[1]) if read_off else 0.0)


def accuracies_of(model: str) -> dict[int, Accuracy]:
    """The accuracies of one model by `eval_res`, small sizes first."""
    return {size: found for (name, size), found in sorted(accuracies().items()) if name == model}


_OWN = {
    "vig": "2405.18425",
    "vrwkv": "2403.02308",
    "vrwkv6": "2403.02308",
    "vil": "2406.04303",
    "vil2": "2406.04303",
    "vim": "2401.09417",
    "vmamba": "2401.10166",
    "vision_gru": "2412.18178",
    "mlla": "2405.16605",
    "deit": "2012.12877",
    "deit3": "2406.04303",
    "swin": "2103.14030",
}


def _own(row: dict[str, str]) -> bool:
    """Whether the source is the paper that introduced the model."""
    return _OWN.get(row["family"], "\0") in row["source"]


@dataclass(frozen=True, slots=True)
class Cost:
    """A size or cost that the model's own authors print. `text` is the number as printed."""

    model: str
    quantity: str  # params_m, in millions; flops_g, in giga multiply-accumulates
    res: int  # px
    text: str
    source: str
    locator: str


@cache
def costs() -> dict[tuple[str, str], Cost]:
    """For each (model, quantity) the first number in the model's own source. Parameters are at 224 px."""
    found: dict[tuple[str, str], Cost] = {}

    def add(row: dict[str, str], quantity: str, res: str, text: str, own: bool) -> None:
        if own and text and (row["model"], quantity) not in found:
            cost = Cost(row["model"], quantity, int(res or 224), text, row["source"], row["locator"])
            found[row["model"], quantity] = cost

    for row in table("accuracy"):
        if row["how"] != "log":  # training logs are at another resolution
            add(row, "params_m", row["eval_res"], row["params_m"], _own(row))
    for row in table("efficiency"):
        if row["metric"] in ("flops_g", "params_m"):
            own = any(row["model"].startswith(family) and paper in row["source"] for family, paper in _OWN.items())
            add(row, row["metric"], row["res"], row["value"], own)
    return found


@dataclass(frozen=True, slots=True)
class Printed:
    """One row of `published/efficiency.csv`. A field is empty or None if the source does not say."""

    model: str
    res: int | None  # px
    batch: str
    dtype: str
    metric: str  # flops_g, in giga multiply-accumulates; latency_ms; peak_memory_gb ...
    value: float
    source: str
    locator: str
    how: str


@cache
def efficiency() -> tuple[Printed, ...]:
    """All efficiency numbers that papers and repositories print, in the order of the file."""
    keys = ("model", "batch", "dtype", "metric", "source", "locator", "how")
    return tuple(
        Printed(res=int(row["res"]) if row["res"] else None, value=float(row["value"]), **{k: row[k] for k in keys})
        for row in table("efficiency")
    )


def memory() -> list[dict[str, str]]:
    """Published peaks of memory on GPUs whose conditions are stated or inferred: the rows of `memory.csv`."""
    return list(table("memory"))
