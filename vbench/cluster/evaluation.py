"""Evaluations in shards: what `drive` sends, and what a job of it runs.

All lies in FOLDER/accuracy/shards, beside the shards of a sweep. A shard has a part of the images of evaluations: a
piece is a range of the shards of images of one evaluation. The machine that sends looks at images and weights once;
jobs read its list of images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vbench import host
from vbench.accuracy import run as evaluating
from vbench.accuracy.plan import Asked
from vbench.accuracy.run import Settings, Survey
from vbench.cluster.accuracies import Accuracies
from vbench.cluster.folder import PLAN, SHARDS
from vbench.cluster.lines import NEWEST
from vbench.cluster.merge import Merged
from vbench.cluster.shard import Errand, Telling
from vbench.errors import SchemaError, UsageError
from vbench.files import write_text
from vbench.jobs.launch import Launcher
from vbench.results import accuracy
from vbench.results.accuracy import Shard

LISTING = "images.parquet"
KEPT: tuple[str, ...] = (accuracy.FILE, accuracy.FOLDER)  # of an attempt, for the next one


@dataclass(frozen=True, slots=True)
class Piece:
    """Shards `begin` to `end` of the images of one evaluation."""

    evaluation: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Evaluations, what was found of their images and weights, how they run, and the pieces of each shard."""

    evaluations: tuple[Asked, ...]
    found: Survey
    settings: dict[str, Any]  # of `Settings`, without what a job sets itself
    shards: tuple[tuple[Piece, ...], ...]

    @property
    def ids(self) -> list[str]:
        """The `eval_id` of each evaluation."""
        return [asked.eval_id(self.found.images["digest"]) for asked in self.evaluations]


def home(folder: Path) -> Path:
    """The folder that has the shards of the evaluations of a run."""
    return folder / accuracy.FOLDER


def settings_of(settings: Settings) -> dict[str, Any]:
    """What of the settings all jobs have in common."""
    names = ("data", "device", "batch", "shard", "workers", "threads")
    return {name: getattr(settings, name) for name in names}


def parted(evaluations: Sequence[Asked], found: Survey, size: int, count: int) -> tuple[tuple[Piece, ...], ...]:
    """At most `count` shards of about equal pixels, each of neighbouring shards of images (of `size` images)."""
    bounds = found.bounds(size)
    one = [(end - begin) for begin, end in bounds]
    weights = [images * asked.height * asked.width for asked in evaluations for images in one]
    made: list[list[Piece]] = []
    total, before, last = sum(weights), 0, -1
    for place, weight in enumerate(weights):
        number = min(count - 1, (2 * before + weight) * count // (2 * total))  # by the middle of what it weighs
        before += weight
        evaluation, shard = divmod(place, len(bounds))
        if number != last:
            made.append([])
        last = number
        own = made[-1]
        if own and own[-1].evaluation == evaluation:
            own[-1] = replace(own[-1], end=shard + 1)
        else:
            own.append(Piece(evaluation, shard, shard + 1))
    return tuple(map(tuple, made))


def write_plan(folder: Path, plan: Plan) -> None:
    """Raises: OutputError."""
    values = {
        "schema": 1,
        "evaluations": [asked.to_json() for asked in plan.evaluations],
        "found": asdict(plan.found),
        "settings": plan.settings,
        "shards": [[asdict(piece) for piece in shard] for shard in plan.shards],
    }
    write_text(home(folder) / SHARDS / PLAN, json.dumps(values, indent=1) + "\n")


def read_plan(folder: Path) -> Plan | None:
    """The plan of a run, None if it has none. Raises: SchemaError for one that cannot be understood."""
    path = home(folder) / SHARDS / PLAN
    try:
        values = json.loads(path.read_text())
        shards = tuple(tuple(Piece(**piece) for piece in shard) for shard in values["shards"])
        evaluations = tuple(map(Asked.from_json, values["evaluations"]))
        return Plan(evaluations, Survey(**values["found"]), dict(values["settings"]), shards)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SchemaError(f"{path} cannot be read ({type(error).__name__}); remove {path.parent}") from None


def agree(folder: Path, evaluations: Sequence[Asked], found: Survey, settings: Settings, plan: Plan) -> None:
    """Raises: UsageError unless the plan of a run is what is asked for now."""
    differs = []
    if tuple(evaluations) != plan.evaluations:
        differs.append("models, sizes or preprocessing")
    if found.images["digest"] != plan.found.images["digest"]:
        differs.append("images")
    own, former = ({name: one["sha256"] for name, one in some.weights.items()} for some in (found, plan.found))
    if own != former:
        differs.append("weights")
    differs += [f"--{name}" for name, value in settings_of(settings).items() if plan.settings.get(name) != value]
    if differs:
        raise UsageError(
            f"{folder} holds shards of evaluations with other {', '.join(differs)}. Take another folder and join both "
            f"with 'vbench merge', or remove {home(folder) / SHARDS}"
        )


def digest() -> str:
    """A digest of the code that evaluates."""
    return f"{host.code_digest()}-{evaluating.room()}"


@dataclass(slots=True)
class Evaluations:
    """The work of a plan, for `drive`. The caller holds the run (`accuracy.run.only_one`)."""

    run: Path
    plan: Plan
    kind: str = "eval"
    lines: tuple[str, ...] = (accuracy.FILE,)
    code: str = field(default_factory=digest)

    @property
    def folder(self) -> Path:
        """That has the shards."""
        return home(self.run)

    @property
    def rows(self) -> list[int]:
        """Shards of images of each shard."""
        return [sum(piece.end - piece.begin for piece in shard) for shard in self.plan.shards]

    def failures(self, attempt: Path) -> bool:
        """Whether an attempt ended at a shard of images."""
        newest = {(one.eval_id, one.conditions, one.shard): one.status for one in accuracy.read(attempt)}
        return any(status != "ok" for status in newest.values())

    def join(self) -> Merged:
        """As `join`."""
        return join(self.run, self.plan)

    def grow(self) -> str | None:
        """Nothing follows from an evaluation."""
        return None


def join(run: Path, plan: Plan) -> Merged:
    """Join what the shards of a plan have so far in the run, which the caller holds.

    Raises: OutputError, SchemaError.
    """
    from vbench.cluster.folder import attempts

    newest = [attempts(home(run), number)[-1:] for number in range(len(plan.shards))]
    parts = [attempt for found in newest for attempt in found if (attempt / accuracy.FILE).is_file()]
    found = Accuracies(parts, run, NEWEST)
    return Merged(run, 0, 0, found.new, found.write() if found.files else 0)


def apart(run: Path, plan: Plan) -> list[str]:
    """A line for each evaluation of which all images are done, but under conditions that do not add up."""
    said = []
    shards = accuracy.read(run)
    whole = accuracy.complete(shards)
    for asked, eval_id in zip(plan.evaluations, plan.ids, strict=True):
        own = [one for one in shards if one.eval_id == eval_id and one.status == "ok"]
        if eval_id not in whole and own and len({one.shard for one in own}) == own[0].shards:
            where = sorted({str(one.host.get("device_name") or one.host.get("cpu")) for one in own})
            said.append(
                f"{asked}: its images were evaluated on machines or versions that differ ({', '.join(where)}) and are "
                "not added up; take another folder and machines of one kind (--constraint)"
            )
    return said


class Part:
    """The pieces of one shard, in its job. Raises: SchemaError if the run has no plan."""

    kept: tuple[str, ...] = KEPT

    def __init__(self, errand: Errand) -> None:
        self._errand, self.code = errand, digest()
        plan = read_plan(Path(errand.folder).parent)
        if plan is None:
            raise SchemaError(f"{Path(errand.folder) / SHARDS} has no {PLAN}")
        self._plan = plan

    def run(self, attempt: Path, launcher: Launcher, tell: Telling) -> None:
        """As `vbench eval`. Raises: UsageError if this machine does not see the weights."""
        plan, pieces = self._plan, self._plan.shards[self._errand.number]
        evaluations = [plan.evaluations[piece.evaluation] for piece in pieces]
        for asked in evaluations:
            path = plan.found.weights[asked.model]["path"]
            if path is not None and not Path(path).is_file():
                raise UsageError(
                    f"{asked.model}: its job does not see the weights, {Path(path).name}; put them on a disk "
                    "that every node shares, and give --checkpoint"
                )
        settings = Settings(attempt, timeout_s=self._errand.timeout_s, **plan.settings)
        gpu = evaluating.probe(settings.device, launcher)
        listing = Path(self._errand.folder) / SHARDS / LISTING
        evaluating.run(
            evaluations,
            plan.found,
            listing,
            settings,
            launcher,
            _Watch(tell),
            gpu=gpu,
            only=[(piece.begin, piece.end) for piece in pieces],
        )


class _Watch:
    """A line a child into the job's log."""

    def __init__(self, told: Telling) -> None:
        self._told = told

    def begins(self, asked: Asked, done: int, images: int, parts: Path, shard: int) -> None:
        self._told.tell(f"{asked}: begins")

    def told(self, asked: Asked, shards: Sequence[Shard], images: int) -> None:
        self._told.tell(f"{asked}: {sum(shard.images for shard in shards)} of {images} images")

    def failed(self, asked: Asked, shard: Shard) -> None:
        self._told.tell(f"{asked}: {shard.status} at shard {shard.shard}: {shard.reason}")
