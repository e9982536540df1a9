"""Accuracies that vbench measured: `vbench eval` writes them into a run's folder.

`accuracy.jsonl` has a line a shard, which is a part of the images of one evaluation. When all shards of an evaluation
are there, `accuracy/EVAL_ID.parquet` has a row an image.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vbench.errors import OutputError, SchemaError
from vbench.results.lines import DamagedLineWarning

SCHEMA = 1
FILE = "accuracy.jsonl"
FOLDER = "accuracy"  # of predictions
LEVEL = 0.95
MOST = 2**53  # a count that is larger is no count
STATUSES = ("ok", "oom", "unsupported", "error", "timeout")


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
    unread: int = 0  # images that could not be read; they count as wrong
    limit: int | None = None  # of a sample: the images that were asked for
    images_per_s: float | None = None  # of the whole run
    loader_images_per_s: float | None = None  # that the input pipeline could give
    model_images_per_s: float | None = None  # that the model could take
    bound: str | None = None  # "loader" or "model": which of the two is slower
    note: str = ""  # what the model does at sizes other than that of its training


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the images of one evaluation. The fields are the keys of a line.

    `asked` is what was asked for: the fields of `accuracy.plan.Asked`. `conditions` is a digest of device, versions,
    code, weights and batch. Shards of one result have both `eval_id` and `conditions` in common. The seconds of a shard
    that did not end ok are 0, and so are its counts.
    """

    eval_id: str
    conditions: str
    asked: dict[str, Any]
    shard: int  # from 0
    shards: int
    status: str
    reason: str | None
    host: dict[str, Any]
    started_at: str  # ISO 8601, UTC
    images: int = 0
    correct1: int = 0
    correct5: int = 0
    unread: list[list[str]] = field(default_factory=list)  # [image, why] of those that count as wrong
    odd: dict[str, int] = field(default_factory=dict)  # how many images are of an unusual kind
    wall_s: float = 0.0
    loader_s: float = 0.0  # of one thread, for all images
    model_s: float = 0.0
    workers: int = 1  # threads that read
    batch: int = 1
    note: str = ""
    schema: int = SCHEMA


_COUNTS = ("shard", "shards", "images", "correct1", "correct5", "workers", "batch")
_SECONDS = ("wall_s", "loader_s", "model_s")
_TEXTS = ("eval_id", "conditions", "status", "started_at", "note")
_ASKED = {
    **dict.fromkeys(("model", "dtype", "dataset", "labels", "crop_mode", "interpolation", "checkpoint"), str),
    **dict.fromkeys(("height", "width", "classes"), int),
    "crop_pct": float,
}


def read(folder: Path) -> list[Shard]:
    """All shards of a folder, in the order of writing; empty if it has none. Each line is checked once.

    An incomplete last line is left out with a DamagedLineWarning.

    Raises: SchemaError, which names the line; OutputError if the file cannot be read.
    """
    return read_file(folder / FILE)


def read_file(path: Path) -> list[Shard]:
    """As `read`, of a file under any name."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                warnings.warn(f"{path}: the last line is incomplete and was dropped", DamagedLineWarning, stacklevel=2)
                break
            raise SchemaError(f"{path}: line {number} is damaged; repair or remove it, or use another folder") from None
        found.append(_checked(values, f"{path}: line {number}"))
    return found


def _checked(values: Any, where: str) -> Shard:
    """A line as a shard. Raises: SchemaError, which names the line and the field."""
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        schema = values.get("schema") if isinstance(values, dict) else None
        raise SchemaError(f"{where} has schema {schema!r}; this vbench reads {SCHEMA}. Use another folder")
    known = {one.name: one for one in fields(Shard)}
    for name, one in known.items():
        needed = one.default is MISSING and one.default_factory is MISSING
        if needed and name not in values:
            raise SchemaError(f"{where} lacks {name}; it is not a record of vbench")
    shard = Shard(**{key: value for key, value in values.items() if key in known})
    wrong = [name for name in _COUNTS if not _is_count(getattr(shard, name))]
    wrong += [name for name in _SECONDS if not _is_seconds(getattr(shard, name))]
    wrong += [name for name in _TEXTS if not isinstance(getattr(shard, name), str)]
    wrong += [f"asked.{name}" for name, kind in _ASKED.items() if not _is(_of(shard.asked, name), kind)]
    wrong += [] if shard.reason is None or isinstance(shard.reason, str) else ["reason"]
    wrong += [] if isinstance(shard.host, dict) else ["host"]
    wrong += [] if _are_pairs(shard.unread) else ["unread"]
    wrong += [] if isinstance(shard.odd, dict) and all(map(_is_count, shard.odd.values())) else ["odd"]
    if not wrong:
        wrong += [] if shard.status in STATUSES else ["status"]
        wrong += [] if shard.shard < shard.shards else ["shard"]
        wrong += [] if shard.correct1 <= shard.correct5 <= shard.images else ["correct1"]
    if wrong:
        raise SchemaError(f"{where}: {', '.join(wrong)} cannot be; repair or remove the line, or use another folder")
    return shard


def _of(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, dict) else None


def _is(value: Any, kind: type) -> bool:
    if kind is int:
        return _is_count(value)
    return _is_seconds(value) if kind is float else isinstance(value, kind)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 2 and all(isinstance(word, str) for word in one) for one in value
    )


def append(folder: Path, shards: Iterable[Shard]) -> None:
    """Add lines, each on the disk before the next. An incomplete last line of a killed run is cut off.

    Raises: OutputError if the file cannot be written, or the folder is gone.
    """
    path = folder / FILE
    try:
        with path.open("ab+") as file:
            file.seek(0)
            held = file.read()
            if held and not held.endswith(b"\n"):
                last = held.rpartition(b"\n")[2]
                if _is_json(last):
                    file.write(b"\n")
                else:
                    file.truncate(len(held) - len(last))
            for shard in shards:
                file.write(json.dumps(asdict(shard)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def complete(shards: Iterable[Shard]) -> dict[str, list[Shard]]:
    """By `eval_id`, the shards of every evaluation of which all ended ok, in order. The newest conditions count."""
    return {key: sorted(own.values(), key=_number) for key, own in _current(shards).items() if _is_whole(own)}


def pending(shards: Iterable[Shard]) -> dict[str, list[Shard]]:
    """By `eval_id`, the shards that are there of every evaluation that is not whole."""
    return {key: sorted(own.values(), key=_number) for key, own in _current(shards).items() if not _is_whole(own)}


def done(shards: Iterable[Shard], eval_id: str, conditions: str) -> dict[int, Shard]:
    """The shards of an evaluation that ended ok under these conditions, by number."""
    return {s.shard: s for s in shards if (s.eval_id, s.conditions, s.status) == (eval_id, conditions, "ok")}


def _number(shard: Shard) -> int:
    return shard.shard


def _current(shards: Iterable[Shard]) -> dict[str, dict[int, Shard]]:
    """eval_id -> shard -> the newest line, of those under the conditions of the newest line of the evaluation.

    Lines under several conditions may lie between each other, as those of joined runs do.
    """
    groups: dict[tuple[str, str, int], dict[int, Shard]] = {}
    newest: dict[str, dict[int, Shard]] = {}
    for shard in shards:
        own = groups.setdefault((shard.eval_id, shard.conditions, shard.shards), {})
        own[shard.shard] = shard
        newest[shard.eval_id] = own
    return newest


def _is_whole(own: dict[int, Shard]) -> bool:
    first = next(iter(own.values()))
    return len(own) == first.shards and all(shard.status == "ok" for shard in own.values())


def predictions(folder: Path, eval_id: str) -> Path:
    """The file of an evaluation's predictions.

    Its columns are `image` (text), `label` and `top1` to `top5` (int16), `correct1` and `correct5` (bool), and `why`
    (text: why the image could not be read; empty if it could). A `top` is -1 where there is no prediction. With labels
    that allow several answers (ReaL), `label` is the first of these; `correct1` and `correct5` go by all.
    """
    return folder / FOLDER / f"{eval_id}.parquet"


def measured(folders: Sequence[Path]) -> list[MeasuredAccuracy]:
    """The accuracies of every evaluation that is whole, in the order of their first shards.

    Shards of one evaluation may lie in several folders; of two folders with all of it the last one counts.

    Raises: as `read`.
    """
    shards = [(folder, shard) for folder in folders for shard in read(folder)]
    where = {shard.eval_id: folder for folder, shard in shards}
    whole = complete(shard for _, shard in shards)
    return [_joined(own, predictions(where[key], key)) for key, own in whole.items()]


def wilson(correct: int, images: int) -> tuple[float, float, float]:
    """The share in percent, and the bounds of its 95 % interval by Wilson. Without an image: (nan, 0, 100)."""
    from scipy.stats import binomtest

    if not images:
        return math.nan, 0.0, 100.0
    found = binomtest(correct, images).proportion_ci(LEVEL, method="wilson")
    return 100 * correct / images, 100 * float(found.low), 100 * float(found.high)


def _joined(shards: Sequence[Shard], file: Path) -> MeasuredAccuracy:
    asked, images = shards[0].asked, sum(shard.images for shard in shards)
    top1 = wilson(sum(shard.correct1 for shard in shards), images)
    top5 = wilson(sum(shard.correct5 for shard in shards), images)
    own: dict[str, Any] = {key: asked[key] for key in ("model", "height", "width", "dataset", "labels", "crop_pct")}
    own |= {key: asked[key] for key in ("crop_mode", "interpolation", "dtype", "checkpoint")}
    own |= dict(zip(("top1", "top1_lo", "top1_hi"), top1, strict=True))
    own |= dict(zip(("top5", "top5_lo", "top5_hi"), top5, strict=True))
    own |= speeds(shards)
    return MeasuredAccuracy(
        images=images,
        eval_id=shards[0].eval_id,
        predictions=file,
        unread=sum(len(shard.unread) for shard in shards),
        limit=_of(asked, "limit") if _is_count(_of(asked, "limit")) else None,
        note=shards[0].note,
        **own,
    )


def speeds(shards: Iterable[Shard]) -> dict[str, Any]:
    """Images in a second of the whole, of the input pipeline and of the model, and which of the two is slower."""
    held = [shard for shard in shards if shard.wall_s and shard.loader_s and shard.model_s]
    images = sum(shard.images for shard in held)
    if not images:
        return {}
    loader = images / sum(shard.loader_s / max(1, shard.workers) for shard in held)
    model = images / sum(shard.model_s for shard in held)
    return {
        "images_per_s": images / sum(shard.wall_s for shard in held),
        "loader_images_per_s": loader,
        "model_images_per_s": model,
        "bound": "loader" if loader < model else "model",
    }
