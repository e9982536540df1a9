"""The jobs of an evaluation: `survey` looks at images, labels and weights, `evaluate` predicts shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from timm.data import create_transform
from timm.data.loader import PrefetchLoader
from torch import Tensor, nn

from vbench.accuracy.images import Data, open_data
from vbench.accuracy.labels import label_map
from vbench.accuracy.loading import Batches
from vbench.accuracy.plan import AUTO, RANDOM, Asked
from vbench.accuracy.predictions import Facts, write
from vbench.accuracy.sample import stratified
from vbench.errors import CheckpointError, UnsupportedError, UsageError
from vbench.models import MODELS, baselines, create, evaluation, external, load_published, spec
from vbench.models.checkpoint import fetch
from vbench.models.checkpoint.words import listed, shown
from vbench.models.naming import TIMM
from vbench.results.text import tame

CHUNK = 2**22  # bytes of a file that are hashed at once
LOOKED_AT = 16  # images; if none of these can be read, nothing is begun


def survey(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"data", "split", "labels", "limit", "seed", "strict", "workers", "checkpoints", "listing"} -> "images",
    "preprocessing" of each model, and "weights" of each.

    The images of the sample are written to the file "listing". "checkpoints" has a source for each model. With "strict"
    every image of the sample is decoded.

    Raises: UsageError, which says what is wrong with data, labels or weights.
    """
    for name in argument["checkpoints"]:
        _check_name(name)
    yield "preprocessing", {name: _rules(name) for name in argument["checkpoints"]}
    yield "weights", {name: _weights(name, source) for name, source in argument["checkpoints"].items()}
    data = open_data(argument["data"], argument["split"])
    listing = data.listing()
    held = label_map(argument["labels"], list(dict.fromkeys(listing.classes)), listing.images)
    answers = [held.answers(image, own) for image, own in zip(listing.images, listing.classes, strict=True)]
    counted = [place for place, own in enumerate(answers) if own]
    chosen = stratified([answers[place][0] for place in counted], argument["limit"], argument["seed"])
    places = [counted[place] for place in chosen]
    _check(data, places, listing.images, argument["workers"], strict=argument["strict"])
    images = [listing.images[place] for place in places]
    parts = np.zeros(len(listing.images), np.int32)
    for number, (begin, end) in enumerate(listing.bounds):
        parts[begin:end] = number
    own = [list(answers[place]) for place in places]
    table = {"place": places, "image": images, "answers": own, "part": parts[places]}
    pq.write_table(pa.table(table), argument["listing"])
    lines = (f"{image}\t{','.join(map(str, right))}" for image, right in zip(images, own, strict=True))
    yield (
        "images",
        {
            "count": len(places),
            "of": len(counted),
            "digest": hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16],
            "labels": held.name,
            "classes": held.outputs,
            "parts": [int((parts[places] == number).sum()) for number in range(len(listing.bounds))],
            "notes": _notes(held.empty, held.outputs, len(listing.images) - len(counted)),
        },
    )


def _notes(empty: Sequence[str], outputs: int, unlabelled: int) -> list[str]:
    said = [f"{len(empty)} of {outputs} classes have no image: {listed(empty)}"] if empty else []
    return said + ([f"{unlabelled} images have no answer in ReaL and do not count"] if unlabelled else [])


def _check_name(name: str) -> None:
    """Raise UnknownModelError unless timm has the model, or the user's module is there."""
    if external.is_external(name):
        external.load(name)
    elif name not in MODELS:
        baselines.check_name(name.removeprefix(TIMM))


def _rules(name: str) -> dict[str, Any]:
    found = evaluation.preprocessing(name)
    own = {key: getattr(found, key) for key in ("crop_pct", "crop_mode", "interpolation", "source")}
    return {**own, "mean": list(found.mean), "std": list(found.std), "note": evaluation.size_rule(name)}


def _weights(name: str, source: str) -> dict[str, Any]:
    """{"checkpoint", "path", "sha256"}: the name for records, and where the weights lie on this machine."""
    if source == RANDOM:
        return {"checkpoint": RANDOM, "path": None, "sha256": None}
    wanted = evaluation.published(name) if source == AUTO else source
    try:
        path = fetch.local(_one_file(name, wanted))
        digest = _digest(path)
    except OSError as error:
        raise CheckpointError(f"{name}: {shown(wanted)}: {error.strerror}") from None
    except CheckpointError as error:
        reason = f"{name}: {shown(wanted)}: {error}"
        if source != AUTO:
            raise CheckpointError(reason) from None
        raise CheckpointError(f"{reason}; download it elsewhere and give --checkpoint {name}=FILE") from None
    remote = wanted.startswith(fetch.HUB) or fetch.is_url(wanted)
    return {"checkpoint": shown(wanted) if remote else path.name, "path": str(path), "sha256": digest}


def _one_file(name: str, source: str) -> str:
    """A source in which a repository of several models has the file of this one."""
    if not source.startswith(fetch.HUB) or source.count("/") != 1 or "@" in source:
        return source
    from huggingface_hub import list_repo_files

    try:
        found = evaluation.own_file(name, list_repo_files(source.removeprefix(fetch.HUB)))
    except Exception:  # `fetch.local` says what is wrong
        return source
    return source if found is None else f"{source}/{found}"


def _digest(path: Path) -> str:
    """A digest of a file, or of all files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as held:
                while chunk := held.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


def _check(data: Data, places: Sequence[int], names: Sequence[str], workers: int, *, strict: bool) -> None:
    """Raise UsageError if, of the first images, none can be read; with `strict`, if one of all cannot."""
    looked = places if strict else places[:LOOKED_AT]
    batches = Batches(data, looked, lambda _: torch.zeros(3, 1, 1, dtype=torch.uint8), (1, 1), 256, workers)
    for _ in batches:
        pass
    unread = {names[place]: tame(why) for place, why in sorted(batches.seen.unread.items())}
    if strict and unread:
        named = [f"{name} ({why})" for name, why in unread.items()]
        raise UsageError(f"--strict: {len(unread)} of {len(looked)} images cannot be read: {listed(named)}")
    if len(unread) == len(looked) > 0:
        name, why = next(iter(unread.items()))
        raise UsageError(f"--data: none of the first {len(looked)} images can be read, as {name}: {why}")


def evaluate(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"asked", "eval_id", "conditions", "listing", "shards", "folder", "weights", "data", "device", "batch",
    "workers", "threads", "slice_s"} -> "notes" of loading the weights.

    "shards" are [number, begin, end] of the listing; each leaves a file of predictions in "folder" when it is done. The
    job ends after the shard in which "slice_s" seconds have passed.

    Raises: UsageError if the images are no longer those of the listing; CheckpointError; UnsupportedError.
    """
    from vbench.devices import open_device

    begin, asked = monotonic(), Asked.from_json(argument["asked"])
    device = open_device(argument["device"])
    torch.set_num_threads(argument["threads"])
    device.select(tf32=False)
    model, notes = _model(asked, argument["weights"], torch.device(device.name))
    yield "notes", notes
    data = open_data(argument["data"], asked.split)
    table = pq.read_table(argument["listing"]).to_pydict()
    _check_same(data, table["place"], table["image"])
    batch, workers = argument["batch"], argument["workers"]
    for number, first, end in argument["shards"]:
        places = table["place"][first:end]
        rows = {place: row for row, place in enumerate(places)}
        transform = create_transform(
            (3, asked.height, asked.width),
            interpolation=asked.interpolation,
            mean=asked.mean,
            std=asked.std,
            crop_pct=asked.crop_pct,
            crop_mode=asked.crop_mode,
            use_prefetcher=True,  # uint8; the loader below normalises on the device
        )
        batches = Batches(data, places, transform, (asked.height, asked.width), batch, workers)
        started = perf_counter()
        top, model_s = _predict(model, batches, rows, asked, torch.device(device.name))
        seconds = {"wall_s": perf_counter() - started, "loader_s": batches.seen.seconds, "model_s": model_s}
        seen = batches.seen
        unread = {rows[place]: tame(why)[:200] for place, why in seen.unread.items()}
        for infinite in np.flatnonzero(top[:, 0] == NOT_FINITE):
            unread.setdefault(int(infinite), "the model's output is not finite")
        for row in unread:
            top[row] = -1
        facts = Facts(argument["eval_id"], argument["conditions"], number, seconds, batches.workers, batch)
        odd = [seen.odd.get(place, "") for place in places]
        names, right = table["image"][first:end], table["answers"][first:end]
        write(Path(argument["folder"]), facts, names, right, top, unread, odd)
        if monotonic() - begin > argument["slice_s"]:
            return


NOT_FINITE = -2  # in place of a class


def _model(asked: Asked, weights: str | None, device: torch.device) -> tuple[nn.Module, list[str]]:
    """The model of an evaluation on a device, with its weights, ready to be called; and what loading them said."""
    from vbench.meters.autocast import UnderAutocast
    from vbench.meters.build import cast

    torch.manual_seed(asked.seed)
    row = spec(asked.model)
    options: dict[str, Any] = {} if row.external or asked.classes == 1000 else {"num_classes": asked.classes}
    with device:
        model = create(asked.model, (asked.height, asked.width), **options)
    notes: tuple[str, ...] = ()
    if weights is not None:
        try:
            notes = load_published(model, weights).notes
        except CheckpointError as error:
            why = str(error).replace(shown(weights), asked.checkpoint)  # a record holds no path of this machine
            raise CheckpointError(
                f"{asked.model}: {why}; --labels {asked.labels} has {asked.classes} classes"
            ) from None
    model = cast(model, getattr(torch, asked.weights_dtype)).to(device)
    if asked.autocast:
        model = UnderAutocast(model, device.type, getattr(torch, asked.autocast))
    return model.eval(), list(notes)


def _check_same(data: Data, places: Sequence[int], images: Sequence[str]) -> None:
    """Raise UsageError if the data no longer has the images that the survey saw."""
    now = data.listing().images
    if any(place >= len(now) or now[place] != image for place, image in zip(places, images, strict=True)):
        raise UsageError("--data: the images have changed since this run began; start it again")


@torch.inference_mode()
def _predict(
    model: nn.Module, batches: Batches, rows: dict[int, int], asked: Asked, device: torch.device
) -> tuple[np.ndarray[Any, np.dtype[np.int16]], float]:
    """The five best classes of each image (images, 5), -1 where there are fewer; and the seconds of the model."""
    top = np.full((len(rows), 5), -1, np.int16)
    dtype, model_s = getattr(torch, asked.weights_dtype), 0.0
    with closing(iter(batches)) as source:
        loader = PrefetchLoader(_Held(source, len(batches)), asked.mean, asked.std, device=device, img_dtype=dtype)
        for images, places in loader:
            begin = perf_counter()
            found = _best(model(images), asked)
            model_s += perf_counter() - begin
            top[[rows[int(place)] for place in places], : found.shape[1]] = found
    return top, model_s


class _Held:
    """An iterator as the loader that timm's `PrefetchLoader` goes around."""

    def __init__(self, source: Iterator[tuple[Tensor, Tensor]], length: int) -> None:
        self._source, self._length = source, length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._source

    def __len__(self) -> int:
        return self._length


def _best(output: Any, asked: Asked) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The classes of the five largest logits of each image, the largest first; `NOT_FINITE` where one is no number."""
    logits = getattr(output, "logits", output)
    logits = logits[0] if isinstance(logits, tuple | list) else logits
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UnsupportedError(f"{asked.model} returns no logits (images, classes)")
    if logits.shape[1] != asked.classes:
        raise UnsupportedError(
            f"{asked.model} has {logits.shape[1]} outputs, and --labels {asked.labels} has {asked.classes} classes"
        )
    logits = logits.float()
    found = logits.topk(min(5, asked.classes)).indices
    found[~logits.isfinite().all(1)] = NOT_FINITE
    return found.cpu().numpy().astype(np.int16)
