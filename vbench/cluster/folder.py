"""What the command and its jobs write and read: FOLDER/shards.

    shards/plan.json        the cells, the protocol, and which shard has which cells
    shards/jobs.json        the scheduler's job of each shard
    shards/003/2/           the second attempt at shard 3: an ordinary folder of a sweep, and state.json
    shards/log/             what jobs print

Only one process writes a file. An attempt begins with a copy of what the last one has, under a name of its own, so no
lock is needed, and a job that is believed dead and still runs on another node disturbs nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vbench.cluster.merge import RUN_FILE
from vbench.cluster.shards import Shard
from vbench.errors import OutputError, SchemaError, UsageError
from vbench.files import write_text
from vbench.plan import Case, Protocol
from vbench.results.store import FILE, TURNS, Store

SHARDS, LOG = "shards", "log"
PLAN, JOBS, STATE = "plan.json", "jobs.json", "state.json"
SWEPT: tuple[str, ...] = (FILE, TURNS, RUN_FILE)  # what an attempt at a sweep has for the next one
COMPLETE, STOPPED, REFUSED, FAILED = "complete", "stopped", "refused", "failed"  # how a shard ends


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep in shards. `asked` are the ids of the cells that were asked for; shards may hold cells added since."""

    protocol: Protocol
    pairs: str
    refine: bool
    asked: tuple[str, ...]
    shards: tuple[Shard, ...]
    refined: int = 0  # how often sizes were added

    @property
    def cases(self) -> list[Case]:
        return [case for shard in self.shards for case in shard.cases]

    def grown(self, shards: Sequence[Shard]) -> Plan:
        """The plan with shards of cells that were added about crossovers."""
        return replace(self, shards=(*self.shards, *shards), refined=self.refined + 1)


@dataclass(frozen=True, slots=True)
class State:
    """What an attempt says of itself; `left` launches and blocks are still to come, None before that is known."""

    job: str
    code: str  # digest of the code and the versions
    timeout_s: float
    left: int | None = None
    ended: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Which job measures a shard: of which scheduler, and its name for it."""

    on: str
    id: str


@dataclass(slots=True)
class Counted:
    """How many lines a file had up to a byte, so that it need not be read again."""

    at: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def lines(self, path: Path) -> int:
        """The whole lines of a file that only grows; 0 if there is none."""
        offset, count = self.at.get(path, (0, 0))
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while block := file.read(2**20):
                    offset, count = offset + len(block), count + block.count(b"\n")
        except OSError:
            return count
        self.at[path] = offset, count
        return count


def own(folder: Path, number: int) -> Path:
    """The folder of a shard's attempts."""
    return folder / SHARDS / f"{number:03d}"


def attempts(folder: Path, number: int) -> list[Path]:
    """The attempts at a shard, the newest last."""
    try:
        found = [path for path in own(folder, number).iterdir() if path.name.isdecimal()]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name))


def begin(folder: Path, number: int, state: State, kept: Sequence[str] = SWEPT) -> Path:
    """Make the folder of the next attempt, with the files and folders `kept` of the last one. It appears whole.

    Raises: OutputError.
    """
    home = own(folder, number)
    try:
        home.mkdir(parents=True, exist_ok=True)
        while True:
            former = attempts(folder, number)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=home))
            for name in kept if former else ():
                if (former[-1] / name).is_dir():
                    shutil.copytree(former[-1] / name, part / name, ignore=shutil.ignore_patterns(".*"))
                elif (former[-1] / name).is_file():
                    shutil.copyfile(former[-1] / name, part / name)
            part.chmod(0o755)
            write_state(part, state)
            target = home / str(int(former[-1].name) + 1 if former else 1)
            try:
                part.rename(target)
            except OSError:  # another attempt took the name
                shutil.rmtree(part, ignore_errors=True)
                if not target.exists():
                    raise
            else:
                return target
    except OSError as error:
        raise OutputError(f"{home} cannot be written: {error.strerror}") from None


def write_state(attempt: Path, state: State) -> None:
    """Raises: OutputError."""
    write_text(attempt / STATE, json.dumps(asdict(state), indent=1) + "\n")


def state(folder: Path, number: int) -> State | None:
    """What the newest attempt at a shard says; None if there is none, or if it cannot be read."""
    newest = attempts(folder, number)[-1:]
    try:
        return State(**json.loads((newest[0] / STATE).read_text())) if newest else None
    except (OSError, ValueError, TypeError):
        return None


def agree(folder: Path, made: Plan, found: Plan | None) -> Plan:
    """The plan of a folder: the one that it has, or this one, which is kept then.

    Raises: UsageError if it has another one; OutputError.
    """
    if found is None:
        write_plan(folder, made)
        return made
    gone, new = set(found.asked) - set(made.asked), set(made.asked) - set(found.asked)
    differs = [f"cells ({len(gone)} are not asked for now, {len(new)} are new)"] if gone or new else []
    differs += [name for name in ("protocol", "pairs", "refine") if getattr(found, name) != getattr(made, name)]
    if differs:
        raise UsageError(
            f"{folder} holds shards of a sweep with other {', '.join(differs)}. Take another folder and join both with "
            "'vbench merge', or start over with --fresh"
        )
    return found


def write_plan(folder: Path, plan: Plan) -> None:
    """Raises: OutputError."""
    shards = [{**asdict(one), "cases": [asdict(case) for case in one.cases]} for one in plan.shards]
    text = json.dumps({"schema": 1, **asdict(replace(plan, shards=())), "shards": shards}, indent=1)
    write_text(folder / SHARDS / PLAN, text + "\n")


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder, None if it has none. Raises: SchemaError for one that cannot be understood."""
    path = folder / SHARDS / PLAN
    try:
        values = json.loads(path.read_text())
        shards = tuple(
            Shard(tuple(Case(**case) for case in one["cases"]), float(one["seconds"]), int(one["rows"]))
            for one in values["shards"]
        )
        protocol, asked = Protocol(**values["protocol"]), tuple(map(str, values["asked"]))
        return Plan(protocol, str(values["pairs"]), bool(values["refine"]), asked, shards, int(values["refined"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SchemaError(f"{path} cannot be read ({type(error).__name__}); start over with --fresh") from None


def read_jobs(folder: Path) -> dict[int, Job]:
    """The last job of each shard that has one."""
    try:
        values = json.loads((folder / SHARDS / JOBS).read_text())
        return {int(number): Job(**job) for number, job in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_jobs(folder: Path, jobs: dict[int, Job]) -> None:
    """Raises: OutputError."""
    values: dict[str, Any] = {str(number): asdict(job) for number, job in sorted(jobs.items())}
    write_text(folder / SHARDS / JOBS, json.dumps(values, indent=1) + "\n")


def start_over(folder: Path) -> None:
    """Put the shards and the records of a folder aside, under other names. Raises: OutputError."""
    with Store(folder, fresh=True):
        pass
    shards, former = folder / SHARDS, folder / f"{SHARDS}.previous"
    if shards.exists():
        shutil.rmtree(former, ignore_errors=True)
        try:
            os.replace(shards, former)  # noqa: PTH105
        except OSError as error:
            raise OutputError(f"{shards} cannot be moved: {error.strerror}") from None
