"""Records of `vbench eval` as it would write them, without a model: which images are right is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vbench.results import accuracy
from vbench.results.accuracy import MeasuredAccuracy, Shard

Right = Sequence[bool] | np.ndarray[Any, Any]


def write(folder: Path, right: Mapping[tuple[str, int], Right], **asked: Any) -> list[MeasuredAccuracy]:
    """Append evaluations by (model, size): whether each image is right. In the top five are all but every tenth."""
    for (model, size), first in right.items():
        count = len(first)
        correct1 = np.asarray(first, dtype=bool)
        correct5 = correct1 | (np.arange(count) % 10 != 0)
        about = {"dataset": "a test set", "labels": "imagenet", "crop_pct": 0.875, "crop_mode": "center"}
        about |= {"interpolation": "bicubic", "dtype": "float32", "checkpoint": f"{model}.pth", "classes": 1000}
        about |= {"model": model, "height": size, "width": size, **asked}
        key = f"{model}-{size}-{'-'.join(map(str, asked.values()))}".replace("/", "-")
        file = accuracy.predictions(folder, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        label = np.arange(count, dtype=np.int16) % 1000
        ranks = {
            f"top{k}": np.where(correct1 if k == 1 else False, label, label + k).astype(np.int16) for k in range(1, 6)
        }
        names = [f"{place:05d}.png" for place in range(count)]
        table = pd.DataFrame({"image": names, "label": label, **ranks, "correct1": correct1, "correct5": correct5})
        table.to_parquet(file, index=False)
        counts = {"images": count, "correct1": int(correct1.sum()), "correct5": int(correct5.sum())}
        seconds = {"wall_s": 1.0, "loader_s": 0.5, "model_s": 0.5}
        host = {"device": "cpu", "device_name": "a test CPU"}
        when = "2026-01-01T00:00:00+00:00"
        shard = Shard(key, "c0ffee", about, 0, 1, "ok", None, host, when, **counts, **seconds)
        accuracy.append(folder, [shard])
    return accuracy.measured([folder])


def like(reference: Right, gained: int, lost: int) -> np.ndarray[Any, Any]:
    """The same images right, but for `gained` wrong ones that are right now and `lost` right ones that are wrong."""
    found = np.array(reference, dtype=bool)
    wrong, right = np.flatnonzero(~found), np.flatnonzero(found)
    found[wrong[:gained]] = True
    found[right[:lost]] = False
    return found


def first(count: int, of: int) -> np.ndarray[Any, Any]:
    """The first `count` of so many images are right."""
    return np.arange(of) < count
