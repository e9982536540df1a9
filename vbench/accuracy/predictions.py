"""Files of predictions: one of each shard while an evaluation runs, then one of all. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vbench.files import write_whole
from vbench.results import accuracy

KEY = b"vbench"  # of what a file says of itself
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("label", pa.int16()),
        *[(f"top{place}", pa.int16()) for place in range(1, 6)],
        ("correct1", pa.bool_()),
        ("correct5", pa.bool_()),
        ("why", pa.string()),
        ("odd", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a shard's file says of itself, beside its rows."""

    eval_id: str
    conditions: str
    shard: int
    seconds: dict[str, float]  # wall_s, loader_s, model_s
    workers: int
    batch: int


def of_shard(folder: Path, shard: int) -> Path:
    """The file of a shard in the folder of its evaluation."""
    return folder / f"{shard:06d}.parquet"


def parts(folder: Path, eval_id: str) -> Path:
    """The folder of an evaluation's shards."""
    return folder / accuracy.FOLDER / f"{eval_id}.shards"


def write(
    folder: Path,
    facts: Facts,
    images: Sequence[str],
    answers: Sequence[Sequence[int]],
    top: np.ndarray[Any, np.dtype[np.int16]],
    unread: Mapping[int, str],
    odd: Sequence[str],
) -> None:
    """Write a shard's file, whole or not at all.

    Args:
        answers: of each image, the classes that are right.
        top: (images, 5), the predicted classes, the best first; -1 for none.
        unread: why an image, by its row, counts as wrong whatever the model says.
        odd: of each image, what is unusual in its file.

    Raises: OSError.
    """
    right = [np.isin(best, own) for best, own in zip(top, answers, strict=True)]
    names = [image.encode("utf-8", "replace").decode("utf-8") for image in images]
    columns = {
        "image": names,
        "label": [own[0] for own in answers],
        **{f"top{place + 1}": top[:, place] for place in range(5)},
        "correct1": [bool(one[0]) for one in right],
        "correct5": [bool(one.any()) for one in right],
        "why": [unread.get(row, "") for row in range(len(names))],
        "odd": list(odd),
    }
    table = pa.table(columns, schema=SCHEMA.with_metadata({KEY: json.dumps(asdict(facts)).encode()}))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(of_shard(folder, facts.shard), lambda path: pq.write_table(table, path, compression="zstd"))


def read(file: Path) -> tuple[Facts, pa.Table] | None:
    """A shard's file; None if there is none that can be read, so that the shard is evaluated again."""
    try:
        table = pq.read_table(file)
        facts = Facts(**json.loads((table.schema.metadata or {})[KEY]))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        return None
    return (facts, table) if table.schema.remove_metadata() == SCHEMA else None


def counts(table: pa.Table) -> dict[str, Any]:
    """The counts of a shard, as `results.accuracy.Shard` has them."""
    images, whys = table["image"].to_pylist(), table["why"].to_pylist()
    odd = [word for word in table["odd"].to_pylist() if word]
    return {
        "images": table.num_rows,
        "correct1": sum(table["correct1"].to_pylist()),
        "correct5": sum(table["correct5"].to_pylist()),
        "unread": [[image, why] for image, why in zip(images, whys, strict=True) if why],
        "odd": {word: odd.count(word) for word in sorted(set(odd))},
    }


def join(folder: Path, eval_id: str, shards: int) -> None:
    """Make one file of those of the shards, and remove these. Raises: OSError; KeyError if a shard's file is gone."""
    held = [read(of_shard(parts(folder, eval_id), shard)) for shard in range(shards)]
    if missing := [shard for shard, one in enumerate(held) if one is None]:
        raise KeyError(missing[0])
    tables = [one[1].replace_schema_metadata(None) for one in held if one is not None]
    whole = pa.concat_tables(tables)
    write_whole(accuracy.predictions(folder, eval_id), lambda path: pq.write_table(whole, path, compression="zstd"))
    for file in parts(folder, eval_id).glob("*.parquet"):
        file.unlink(missing_ok=True)
    parts(folder, eval_id).rmdir()
