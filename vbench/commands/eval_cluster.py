"""`vbench eval --on`: evaluations in shards."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vbench.accuracy.plan import Asked
from vbench.commands import cluster
from vbench.commands.cluster import Where
from vbench.commands.console import err
from vbench.files import write_whole, writing

if TYPE_CHECKING:
    from vbench.accuracy.run import Settings, Survey


def evaluate(
    evaluations: Sequence[Asked], found: Survey, listing: Path, settings: Settings, where: Where
) -> tuple[int, bool]:
    """Evaluate in shards and join them in the run.

    Returns: the exit code, and whether there is something to report.

    Raises: UsageError if the run has other shards, or the scheduler refuses; OutputError.
    """
    from vbench.accuracy.run import only_one
    from vbench.cluster import drive, evaluation
    from vbench.cluster.folder import SHARDS
    from vbench.results import accuracy

    run = settings.folder
    scheduler = cluster.scheduler(where, evaluation.home(run), settings.device, settings.threads)
    terms = drive.Terms(settings.timeout_s, retry=True, again=where.again, detach=where.detach)
    with only_one(run), cluster.Watching(err) as watch:
        if scheduler.name != "slurm":
            cluster.refuse_running(evaluation.home(run))
        plan = evaluation.read_plan(run)
        if plan is None:
            parts = evaluation.parted(evaluations, found, settings.shard, where.size)
            plan = evaluation.Plan(tuple(evaluations), found, evaluation.settings_of(settings), parts)
            target = evaluation.home(run) / SHARDS / evaluation.LISTING
            with writing(target.parent):
                write_whole(target, lambda part: shutil.copyfile(listing, part))
            evaluation.write_plan(run, plan)
        else:
            evaluation.agree(run, evaluations, found, settings, plan)
        try:
            outcome = drive.run(evaluation.Evaluations(run, plan), scheduler, terms, watch)
        except KeyboardInterrupt:
            evaluation.join(run, plan)
            return 130, True
    if where.detach and outcome.going_on:
        err.print(
            f"sent: {' '.join(outcome.going_on)}. Run the same command, without --detach, to attach", markup=False
        )
        return 0, False
    for number, why in outcome.failed.items():
        err.print(f"shard {number} is not evaluated in full: {why}", markup=False)
    for line in evaluation.apart(run, plan):
        err.print(line, markup=False)
    whole = accuracy.complete(accuracy.read(run))
    return (0 if all(eval_id in whole for eval_id in plan.ids) else 1), True
