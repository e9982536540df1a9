"""`--on` of sweep and eval: its options and its progress; and what `vbench sweep --on` prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from vbench import devices
from vbench.commands import reports
from vbench.commands.console import err
from vbench.errors import UsageError
from vbench.options import seconds as in_seconds
from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    from vbench.cluster.drive import Outcome, Scheduler, Tally
    from vbench.sweeps.loop import Settings

PANEL = "Cluster"
SIZE = 8  # shards of a job array
OF_NODE = 8  # cores of a node that evaluations use, where nothing is said
AGAIN = 2  # how often a shard is sent again

On = Annotated[
    str | None,
    typer.Option(
        help="Where shards run: slurm (a job array), or local:K (K at once on this machine, each with its "
        "own cores and its own GPU). The folder must be on a disk that all nodes share.",
        show_default="this process",
        rich_help_panel=PANEL,
    ),
]
Partition = Annotated[str | None, typer.Option(help="Slurm's partition.", rich_help_panel=PANEL)]
Gres = Annotated[
    str | None, typer.Option(help="What a shard needs of a node, like gpu:1 or gpu:a100:1.", rich_help_panel=PANEL)
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="Time limit of a job, like 90m or 2h. A shard that takes longer goes on in another job.",
        show_default="the cluster's",
        rich_help_panel=PANEL,
    ),
]
Account = Annotated[str | None, typer.Option(help="Slurm's account.", rich_help_panel=PANEL)]
Qos = Annotated[str | None, typer.Option(help="Slurm's quality of service.", rich_help_panel=PANEL)]
Constraint = Annotated[str | None, typer.Option(help="Features that a node must have.", rich_help_panel=PANEL)]
Exclusive = Annotated[
    bool | None,
    typer.Option(
        "--exclusive/--no-exclusive",
        help="Ask for whole nodes, or share them; the rows of a shared node say so.",
        show_default="exclusive",
        rich_help_panel=PANEL,
    ),
]
ArraySize = Annotated[
    int | None,
    typer.Option(min=1, help="Shards, at most.", show_default=f"{SIZE}; K of local:K", rich_help_panel=PANEL),
]
Resubmit = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How often a shard that did not end well is sent again.",
        show_default=str(AGAIN),
        rich_help_panel=PANEL,
    ),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach", help="End when the jobs are sent. The same command attaches to them again.", rich_help_panel=PANEL
    ),
]
Asked = tuple[str | None, str | None, str | None, str | None, str | None, str | None, bool | None]
OF_SLURM = ("--partition", "--gres", "--time", "--account", "--qos", "--constraint", "--exclusive")


@dataclass(frozen=True, slots=True)
class Where:
    """Where shards run: on Slurm, or in so many slots of this machine."""

    slots: int | None  # None: Slurm
    asked: Asked
    size: int
    again: int
    detach: bool

    def cores(self, here: int) -> int:
        """How many cores a shard is taken to have, where this machine has `here`."""
        return OF_NODE if self.slots is None else max(1, here // self.slots)

    def device(self, device: str) -> str:
        """Torch's name of the device of a cell. A node of a cluster has other devices than this machine.

        Raises: DeviceError.
        """
        if self.slots is not None:
            return devices.resolve(device)
        if device.strip().lower() == "auto":
            return "cuda:0" if "gpu" in (self.asked[1] or "") else "cpu"
        return devices.named(device)


def parse(
    on: str | None, asked: Asked, *, array_size: int | None, resubmit: int | None, detach: bool, budget: str | None
) -> Where | None:
    """Where a sweep runs; None for this process. Raises: UsageError."""
    given = [option for option, value in zip(OF_SLURM, asked, strict=True) if value is not None]
    if on is None:
        others = (("--array-size", array_size), ("--resubmit", resubmit), ("--detach", detach or None))
        if given := given + [option for option, value in others if value is not None]:
            raise UsageError(f"{given[0]} goes with --on slurm{'' if given[0] in OF_SLURM else ' or --on local:K'}")
        return None
    found = re.fullmatch(r"slurm|local:([1-9]\d{0,3})", on.strip().lower())
    if found is None:
        raise UsageError(f"--on: '{on}' is not slurm or local:K, as in local:2")
    slots = None if found[1] is None else int(found[1])
    if slots is not None and given:
        raise UsageError(f"{given[0]} is for a scheduler; leave it out with --on {on}")
    if slots is not None and detach:
        raise UsageError(f"--detach: the shards of --on {on} end with this command; leave it out, or take --on slurm")
    if budget is not None:
        raise UsageError("--budget: a scheduler decides when jobs begin, so --on keeps none; leave one of both out")
    size = array_size or (SIZE if slots is None else slots)
    return Where(slots, asked, size, AGAIN if resubmit is None else resubmit, detach)


def sweep(cases: list[Case], settings: Settings, protocol: Protocol, where: Where, as_json: bool) -> int:
    """Measure in shards, report, and return the exit code. Raises: UsageError."""
    try:
        with Watching(err) as watch:
            outcome = measure(cases, settings, protocol, where, watch)
    except KeyboardInterrupt:
        reports.write(settings.folder, reports.table_of([settings.folder]), as_json)
        return 130
    if where.detach and outcome.going_on:
        err.print(
            f"sent: {' '.join(outcome.going_on)}. Run the same command, without --detach, to attach", markup=False
        )
        return 0
    failed = reports.write(settings.folder, reports.table_of([settings.folder]), as_json)
    for number, why in outcome.failed.items():
        err.print(f"shard {number} is not measured in full: {why}", markup=False)
    return 1 if failed or outcome.failed else 0


def measure(cases: list[Case], settings: Settings, protocol: Protocol, where: Where, watch: Watching) -> Outcome:
    """Measure in shards. Raises: UsageError; KeyboardInterrupt when what there is so far is joined."""
    from vbench.cluster import drive, folder, shards
    from vbench.cluster import sweep as sweeping
    from vbench.cluster.merge import held
    from vbench.jobs.launch import Launcher
    from vbench.results.store import FILE

    place = settings.folder
    started = scheduler(where, place, settings.device, protocol.threads)
    refine = settings.refine
    terms = drive.Terms(settings.timeout_s, settings.retry, where.again, where.detach)

    def weigh(some: Sequence[Case]) -> list[shards.Shard]:
        with Launcher() as launcher:
            return shards.parted(some, settings.pairs, protocol, launcher, where.size)

    with held(place):
        if settings.fresh or started.name != "slurm":
            refuse_running(place)
        if settings.fresh:
            folder.start_over(place)
        found = folder.read_plan(place)
        if found is None and (place / FILE).is_file() and (place / FILE).stat().st_size:
            raise UsageError(
                f"{place} has records of a sweep without --on; take another folder and join both with 'vbench merge'"
            )
        asked = tuple(case.id for case in cases)
        plan = folder.Plan(protocol, settings.pairs, refine, asked, found.shards if found else ())
        if found is None:
            watch.says("sharing out the cells")
            plan = folder.Plan(protocol, settings.pairs, refine, asked, tuple(weigh(cases)))
        plan = folder.agree(place, plan, found)
        try:
            return drive.run(sweeping.Sweep(place, plan, weigh), started, terms, watch)
        except KeyboardInterrupt:
            sweeping.join(place, folder.read_plan(place) or plan)
            raise


def scheduler(where: Where, folder: Path, device: str, threads: int) -> Scheduler:
    """Who starts the shards of a folder, each with so many threads. Raises: UsageError."""
    from vbench.cluster import local, slurm

    if where.slots is not None:
        return local.Local(local.slots(where.slots, device, threads))
    partition, gres, time, account, qos, constraint, exclusive = where.asked
    time_s = None if time is None else in_seconds(time, "--time")
    asked = slurm.Asked(partition, gres, time_s, account, qos, constraint, exclusive is not False)
    return slurm.Slurm(folder, asked, threads)


def refuse_running(place: Path) -> None:
    """Refuse a folder whose jobs are in Slurm's queue. Raises: UsageError."""
    from vbench.cluster import folder
    from vbench.cluster.slurm import Slurm

    names = [job.id for job in folder.read_jobs(place).values() if job.on == "slurm"]
    if running := " ".join(Slurm.alive_there(names)) if names else "":
        raise UsageError(
            f"jobs of {place} are in Slurm's queue: {running}; attach to them with --on slurm, or end them with "
            f"'scancel {running}'"
        )


class Watching:
    """Shows where a sweep in shards stands; a context manager. Without a terminal it prints a line at each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._last = ""

    def __enter__(self) -> Watching:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stands(self, tally: Tally) -> None:
        """Show rows and shards."""
        said = told(tally)
        self._bar.update(self._task, description=said, completed=tally.rows, total=max(tally.of, tally.rows))
        line = f"[{tally.rows}/{tally.of}] {said}"
        if not self._console.is_terminal and line != self._last:
            self._console.print(line, markup=False)
        self._last = line

    def says(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False)


def told(tally: Tally) -> str:
    """The shards in words: "8 shards: 3 measured, 2 running, 3 waiting (Priority)"."""
    waits = sum(tally.waiting.values())
    why = ", ".join(reason for reason in tally.waiting if reason)
    parts = [(tally.measured, "measured"), (tally.running, "running"), (waits, f"waiting{f' ({why})' if why else ''}")]
    parts.append((tally.failed, "failed"))
    return f"{tally.shards} shards: {', '.join(f'{count} {what}' for count, what in parts if count) or 'none begun'}"
