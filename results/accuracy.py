"""Accuracies that vbench measured: `vbench eval` writes them into a run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
