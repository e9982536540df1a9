"""The loop over evaluations: what is done already, a child process for the rest, and a record for each shard."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from vbench import host, jobs
from vbench.accuracy import plan, predictions
from vbench.accuracy.plan import Asked
from vbench.errors import OutputError, UsageError, first_line
from vbench.files import writing
from vbench.jobs.launch import Ending, Runner
from vbench.results import accuracy
from vbench.results.accuracy import Shard
from vbench.results.text import tame
from vbench.sweeps import loop

SURVEY_S = 3600.0  # for listing images and fetching weights
SLICE_S = 60.0  # a child ends after the shard in which it has worked so long
READING = ("timm", "torchvision", "pillow")  # packages that may change a pixel
LOCK = ".accuracy-lock"


@dataclass(frozen=True, slots=True)
class Survey:
    """What `job.survey` found."""

    images: dict[str, Any]
    preprocessing: dict[str, dict[str, Any]]
    weights: dict[str, dict[str, Any]]

    def bounds(self, size: int) -> list[tuple[int, int]]:
        """The (begin, end) of each shard: `size` images, or a part of a data set that is read in parts."""
        if not self.images["parts"]:
            return plan.shards(self.images["count"], size)
        ends = [sum(self.images["parts"][: number + 1]) for number in range(len(self.images["parts"]))]
        whole = zip([0, *ends], ends, strict=False)
        return [(begin, end) for begin, end in whole if begin < end]


@dataclass(frozen=True, slots=True)
class Settings:
    """How evaluations run. `timeout_s` is for a shard, after `slice_s` seconds of others."""

    folder: Path
    data: str  # as `plan.absolute` gives it
    device: str
    batch: int
    shard: int  # images
    workers: int
    threads: int
    timeout_s: float
    slice_s: float = SLICE_S


class Observer(Protocol):
    """What is told about a run."""

    def begins(self, asked: Asked, done: int, images: int, parts: Path, shard: int) -> None:
        """An evaluation begins, of which `done` images are done. In `parts` appear files, of `shard` images each."""

    def told(self, asked: Asked, shards: Sequence[Shard], images: int) -> None:
        """These shards of an evaluation of `images` images are done, in this run or before."""

    def failed(self, asked: Asked, shard: Shard) -> None:
        """An evaluation ended before it was whole."""


def probe(device: str, launcher: Runner) -> dict[str, Any] | None:
    """What torch says of the device, None on the CPU. Raises: DeviceError, as `loop.probe`."""
    return loop.probe([], device, launcher)


def survey(about: Mapping[str, Any], listing: Path, launcher: Runner) -> Survey:
    """Look at images, labels and weights. Raises: UsageError, which says what is wrong with them."""
    ending = launcher.run(*jobs.survey_images(about, listing), SURVEY_S)
    if ending.status != "ok":
        raise UsageError(f"--data: {about['data']} could not be looked at: {ending.reason}")
    return Survey(**{key: ending.parts[key] for key in ("images", "preprocessing", "weights")})


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Within, no other evaluation writes to this folder. Raises: OutputError if one does, or it cannot be written."""
    with writing(folder):
        lock = (folder / LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"another evaluation is writing {folder}; wait for it, or use another folder") from None
        yield


def run(
    evaluations: Sequence[Asked],
    found: Survey,
    listing: Path,
    settings: Settings,
    launcher: Runner,
    observer: Observer,
    *,
    gpu: dict[str, Any] | None = None,
    only: Sequence[tuple[int, int]] | None = None,
) -> list[Shard]:
    """Do every shard of every evaluation that is not done. Run it again to resume.

    Args:
        only: of each evaluation, the (begin, end) of the shards to do; None for all.

    Returns: the shards at which evaluations failed.

    Raises: OutputError, SchemaError.
    """
    about = host.fingerprint(settings.device, gpu, sorted({asked.model for asked in evaluations}))
    failed = []
    with only_one(settings.folder):
        for place, asked in enumerate(evaluations):
            one = _Evaluation(asked, found, listing, settings, about, only[place] if only else None)
            if (failure := one.run(launcher, observer)) is not None:
                observer.failed(asked, failure)
                failed.append(failure)
    return failed


def room() -> str:
    """A digest of the code of this room: what reads and counts."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class _Evaluation:
    """One evaluation: its shards on the disk, and those that are left."""

    def __init__(
        self,
        asked: Asked,
        found: Survey,
        listing: Path,
        settings: Settings,
        about: dict[str, Any],
        only: tuple[int, int] | None,
    ) -> None:
        self._asked, self._settings, self._about, self._listing = asked, settings, about, listing
        self._bounds, self._images = found.bounds(settings.shard), int(found.images["count"])
        self._own = range(*(only or (0, len(self._bounds))))
        self._weights = found.weights[asked.model]
        self._note = str(found.preprocessing[asked.model]["note"])
        self._id = asked.eval_id(found.images["digest"])
        protocol = {
            "batch": settings.batch,
            "shard": settings.shard,
            "threads": settings.threads,
            "weights": self._weights["sha256"],
        }
        versions = {package: version(package) for package in READING}
        self._conditions = host.conditions(about, {**protocol, "versions": versions, "code": room()})
        self._parts = predictions.parts(settings.folder, self._id)

    def run(self, launcher: Runner, observer: Observer) -> Shard | None:
        """Do what is left; the shard at which it failed, None if all is done."""
        done = self._done()
        observer.begins(self._asked, self._count(done), self._images, self._parts, self._bounds[0][1])
        if done:
            observer.told(self._asked, list(done.values()), self._images)
        while left := [number for number in self._own if number not in done]:
            before = len(done)
            try:
                ending = self._child(left, launcher)
            finally:
                done |= self._gathered(done)
            if len(done) == before:
                return self._failure(left[0], ending)
            observer.told(self._asked, list(done.values()), self._images)
        if len(done) == len(self._bounds):
            self._join()
        return None

    def _done(self) -> dict[int, Shard]:
        """The shards with a record and, until all are joined, a file of predictions."""
        found = accuracy.done(accuracy.read(self._settings.folder), self._id, self._conditions)
        found = {number: shard for number, shard in found.items() if shard.shards == len(self._bounds)}
        if len(found) < len(self._bounds) or not accuracy.predictions(self._settings.folder, self._id).is_file():
            found = {n: shard for n, shard in found.items() if predictions.of_shard(self._parts, n).is_file()}
        return found | self._gathered(found)

    def _child(self, left: Sequence[int], launcher: Runner) -> Ending:
        settings = self._settings
        place = {
            "eval_id": self._id,
            "conditions": self._conditions,
            "listing": str(self._listing),
            "folder": str(self._parts),
            "weights": self._weights["path"],
            **{key: getattr(settings, key) for key in ("data", "device", "batch", "workers", "threads", "slice_s")},
        }
        shards = [(number, *self._bounds[number]) for number in left]
        try:
            return launcher.run(
                *jobs.evaluate(self._asked.to_json(), place, shards), settings.slice_s + settings.timeout_s
            )
        except UsageError as error:  # of this model, or of its weights; others may do
            return Ending("error", first_line(error))

    def _gathered(self, known: Mapping[int, Shard]) -> dict[int, Shard]:
        """Records of the files that children have left, written down."""
        found = {}
        for number in range(len(self._bounds)):
            file = predictions.of_shard(self._parts, number)
            held = predictions.read(file) if number not in known and file.is_file() else None
            if held is not None and self._fits(number, *held):
                facts, table = held
                own = predictions.counts(table)
                found[number] = self._shard(
                    number, "ok", None, **facts.seconds, **own, workers=facts.workers, batch=facts.batch
                )
        accuracy.append(self._settings.folder, found.values())
        return found

    def _fits(self, number: int, facts: predictions.Facts, table: Any) -> bool:
        begin, end = self._bounds[number]
        own = (facts.eval_id, facts.conditions, facts.shard) == (self._id, self._conditions, number)
        return own and table.num_rows == end - begin

    def _failure(self, number: int, ending: Ending) -> Shard:
        status, reason = ending.status, tame(ending.reason or "it left no predictions")
        failure = self._shard(number, "error" if status == "ok" else status, reason.encode("utf-8", "replace").decode())
        accuracy.append(self._settings.folder, [failure])
        return failure

    def _shard(self, number: int, status: str, reason: str | None, **found: Any) -> Shard:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        asked, conditions, many = self._asked.to_json(), self._conditions, len(self._bounds)
        return Shard(
            self._id, conditions, asked, number, many, status, reason, self._about, now, note=self._note, **found
        )

    def _join(self) -> None:
        folder = self._settings.folder
        if self._parts.is_dir():
            with writing(folder / accuracy.FOLDER):
                predictions.join(folder, self._id, len(self._bounds))

    def _count(self, done: Mapping[int, Shard]) -> int:
        return sum(shard.images for shard in done.values())
