"""The table of measured accuracies, for a terminal and as accuracy.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from vbench.files import write_text
from vbench.reports.labels import Labels
from vbench.results import accuracy
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.text import bare_table, print_whole, px, tame

FILE = "accuracy.csv"
NUMBERS = ("size (px)", "images", "top-1", "top-5", "images/s")
HEADER = ("model", *NUMBERS[:2], "top-1", "95 % interval", "top-5", "crop", "filter", "dtype", "weights", *NUMBERS[4:])
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute


def rows(folders: Sequence[Path]) -> list[MeasuredAccuracy]:
    """The accuracies of these folders, by size and model. Raises: SchemaError, OutputError."""
    return sorted(accuracy.measured(folders), key=lambda row: (row.height * row.width, row.model, row.dtype))


def has_any(folder: Path) -> bool:
    """Whether a folder has records of accuracy."""
    return (folder / accuracy.FILE).is_file()


def to_json(found: Sequence[MeasuredAccuracy]) -> list[dict[str, Any]]:
    """Rows for JSON; `predictions` is the name of the file under the run's folder."""
    return [{**asdict(row), "predictions": _under(row.predictions)} for row in found]


def _under(file: Path) -> str:
    return f"{accuracy.FOLDER}/{file.name}"


def write(found: Sequence[MeasuredAccuracy], folder: Path) -> list[Path]:
    """Write accuracy.csv into a folder if there are rows. Raises: OutputError."""
    if not found:
        return []
    text = io.StringIO()
    lines = csv.DictWriter(text, [one.name for one in fields(MeasuredAccuracy)], lineterminator="\n")
    lines.writeheader()
    for row in to_json(found):
        lines.writerow({key: _harmless(value) for key, value in row.items()})
    write_text(folder / FILE, text.getvalue())
    return [folder / FILE]


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    line = tame(value)
    return f"'{line}" if line.startswith(FORMULA) else line


def show(found: Sequence[MeasuredAccuracy], console: Console, labels: Labels | None = None) -> None:
    """Print the table, with these labels of models; below it what needs words."""
    labels = labels or Labels()
    if not found:
        console.print("No evaluation is whole.")
        return
    table = bare_table(HEADER, NUMBERS)
    for row in found:
        speed = "–" if row.images_per_s is None else f"{row.images_per_s:.3g}"
        table.add_row(
            *(labels(tame(row.model)), px(row.height, row.width), f"{row.images:,}"),
            *(f"{row.top1:.2f}", f"{row.top1_lo:.2f} to {row.top1_hi:.2f}", f"{row.top5:.2f}"),
            *(f"{row.crop_pct:g} {row.crop_mode}", row.interpolation, row.dtype, tame(row.checkpoint), speed),
        )
    print_whole(table, console, map(labels.within, below(found)))


def below(found: Sequence[MeasuredAccuracy]) -> list[str]:
    """What the numbers are of, and what makes them doubtful, a line each."""
    of = dict.fromkeys(f"on {tame(row.dataset)}, labels {tame(row.labels)}{_sample(row)}" for row in found)
    lines = [*of]
    for row in found:
        name = f"{tame(row.model)} at {px(row.height, row.width)} px"
        if row.unread:
            lines.append(f"{name}: {row.unread} images could not be read and count as wrong; `why` in the predictions")
        if row.bound == "loader":
            lines.append(
                f"{name}: bound by the loader, which gives {row.loader_images_per_s:.3g} images/s; the model takes "
                f"{row.model_images_per_s:.3g}"
            )
    notes = dict.fromkeys(f"{tame(row.model)}: {tame(row.note)}" for row in found if row.note)
    return [*lines, *notes]


def _sample(row: MeasuredAccuracy) -> str:
    return "" if row.limit is None else f", a sample of {row.images:,} in which every class has its share"


def unfinished(folders: Sequence[Path]) -> list[str]:
    """A line for each evaluation that is not whole: how far it is, and why it ended."""
    lines = []
    for shards in accuracy.pending(shard for folder in folders for shard in accuracy.read(folder)).values():
        first, done = shards[0], sum(shard.status == "ok" for shard in shards)
        why = next((f": {shard.status}, {tame(shard.reason)}" for shard in shards if shard.status != "ok"), "")
        size = px(first.asked["height"], first.asked["width"])
        lines.append(f"{tame(first.asked['model'])} {size}: {done} of {first.shards} shards{why}")
    return lines
