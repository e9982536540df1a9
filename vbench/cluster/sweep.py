"""A sweep in shards: what `drive` sends, and what a job of it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vbench import host
from vbench.cluster import folder as files
from vbench.cluster.folder import Plan
from vbench.cluster.merge import Merged, merge_held, unreadable
from vbench.cluster.shards import Shard
from vbench.errors import SchemaError
from vbench.plan import Case
from vbench.results.store import FILE, TURNS, current, read, read_turns
from vbench.sweeps.loop import REFINED, refined


class LeftOutWarning(UserWarning):
    """The records of a shard cannot be read and were not joined with the others."""


@dataclass(slots=True)
class Sweep:
    """The shards of a plan; sizes about crossovers become further ones, which `weigh` gives."""

    folder: Path
    plan: Plan
    weigh: Callable[[Sequence[Case]], list[Shard]]
    kind: str = "sweep"
    lines: tuple[str, ...] = (FILE, TURNS)
    code: str = field(default_factory=host.code_digest)

    @property
    def rows(self) -> list[int]:
        """Launches and blocks of turns of each shard."""
        return [shard.rows for shard in self.plan.shards]

    def failures(self, attempt: Path) -> bool:
        """Whether an attempt has launches or turns that `--retry` measures again."""
        ended = {*(record.status for record in read(attempt)), *(block.status for block in read_turns(attempt))}
        return not ended <= {"ok", "unsupported"}

    def join(self) -> Merged:
        """As `join`."""
        return join(self.folder, self.plan)

    def grow(self) -> str | None:
        """Add the cells about crossovers that are not sharp, and keep the plan."""
        added = _added(self.folder, self.plan)
        if not added:
            return None
        self.plan = self.plan.grown(self.weigh(added))
        files.write_plan(self.folder, self.plan)
        return f"{len(added)} cells are added about crossovers"


def join(folder: Path, plan: Plan) -> Merged:
    """Join what the shards of a plan have measured so far in the folder, which the caller holds.

    A shard whose records cannot be read is left out, with a LeftOutWarning.
    """
    newest = [files.attempts(folder, number)[-1:] for number in range(len(plan.shards))]
    runs = [attempt for found in newest for attempt in found if (attempt / FILE).is_file()]
    try:
        return merge_held(runs, folder)
    except SchemaError:
        whole = [run for run in runs if (why := unreadable(run)) is None or warnings.warn(why, LeftOutWarning, 2)]
        return merge_held(whole, folder)


def _added(folder: Path, plan: Plan) -> list[Case]:
    """The cells to add about crossovers that are not sharp."""
    if not plan.refine or plan.refined >= REFINED:
        return []
    records = read(folder)
    valid = {next(iter(own.values())).conditions for own in current(records).values()}
    return refined(plan.cases, records, read_turns(folder), valid)
