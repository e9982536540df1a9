"""Accuracies that vbench measured: `vbench eval` writes them into a run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from vbench.errors import SchemaError


@dataclass(frozen=True, slots=True)
class MeasuredAccuracy:
    """Top-1 and top-5 in percent of a model on a set of images at one size, with their 95 % Wilson intervals."""

    model: str
    height: int
    width: int
    images: int
    top1: float
    top1_lo: float
    top1_hi: float
    top5: float
    top5_lo: float
    top5_hi: float
    dataset: str  # as it was given to --data
    labels: str  # the map of labels that was used
    crop_pct: float
    crop_mode: str
    interpolation: str
    dtype: str
    checkpoint: str  # file name or hub id; "random" for random weights
    eval_id: str  # a digest of everything above that was asked for, and of the images' names
    predictions: Path  # a Parquet file: image (str), label (int16), top1 to top5 (int16); a row an image


FILE = "accuracy.jsonl"


def measured(folders: Sequence[Path]) -> list[MeasuredAccuracy]:
    """The accuracies that were measured into these folders, in order; of one `eval_id` the last counts.

    A folder may have none. Raises: SchemaError for a line that is no accuracy.
    """
    found: dict[str, MeasuredAccuracy] = {}
    for file in (folder / FILE for folder in folders):
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                kept = {field.name: values[field.name] for field in fields(MeasuredAccuracy)}
                row = MeasuredAccuracy(**{**kept, "predictions": file.parent / kept["predictions"]})
            except (ValueError, KeyError, TypeError) as error:
                raise SchemaError(f"{file}, line {number}: no accuracy of 'vbench eval' ({error})") from None
            found.pop(row.eval_id, None)
            found[row.eval_id] = row
    return list(found.values())
