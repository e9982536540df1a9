"""The commands `sweep`, `plan`, `maxres` and `maxbatch`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vbench import devices
from vbench import plan as planning
from vbench.commands import axes, cluster
from vbench.commands import reports as cli_reports
from vbench.commands.console import AsJson, err, out, print_json
from vbench.errors import UsageError
from vbench.options import NUMBERS, choices, shown
from vbench.options import seconds as in_seconds

if TYPE_CHECKING:
    from vbench.sweeps.loop import Settings

REPORTING_S = 8.0  # of a budget, for tables and figures

app = typer.Typer()

Rigor = Annotated[
    str | None,
    typer.Option(
        help="quick (one launch of each cell), default (eight), paper (sixteen longer ones).", show_default="default"
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Which cells take turns, so that their ratio is sharp: auto (each recurrent model, in its modes, with the "
        "attention model that is nearest in parameters), none, or a model to compare all others with.",
        show_default="auto",
    ),
]
Refine = Annotated[
    str | None,
    typer.Option(
        help="auto: add sizes near each crossover in time, until it is known within 10%. none: add none. With --rigor "
        "quick none are added.",
        show_default="auto",
    ),
]
BudgetOf = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="A time in which the sweep ends, like 90s, 10m or 1h30m. It is spent where intervals are widest.",
        show_default="as long as it takes",
    ),
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="On CUDA, round float32 products to TF32.")]
Seed = Annotated[int, typer.Option(help="Seed of the cells' order, the input noise and the weights.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the model.")]
Seconds = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="Shortest time that one launch samples latency, in seconds.", show_default="the rigor's"
    ),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds after which a launch is stopped and recorded as timeout.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for records, tables and figures.")]
Model = Annotated[str, typer.Argument(help="A model's name, or timm/NAME.")]
Mode = Annotated[str, typer.Option(help="parallel or recurrent.")]
OneDtype = Annotated[str, typer.Option("--dtype", help=axes.DTYPES)]
OnePhase = Annotated[str, typer.Option("--phase", help="infer (a forward pass) or train (a training step).")]
Memory = Annotated[
    float | None,
    typer.Option(help="Memory budget of the call in GiB, weights included.", show_default="90 % of what is free"),
]
ProbeTimeout = Annotated[float, typer.Option(min=1, help="Seconds after which a try is stopped.")]


@app.command()
@axes.taking()
def sweep(
    asked: axes.Asked,
    suite: axes.SuiteName = None,
    device: axes.Device = "auto",
    rigor: Rigor = None,
    threads: Threads = 1,
    tf32: Tf32 = False,
    seconds: Seconds = None,
    seed: Seed = 0,
    pairs: Pairs = None,
    refine: Refine = None,
    budget: BudgetOf = None,
    cells: axes.Most = planning.CELLS,
    timeout: Timeout = 300.0,
    folder: Out = Path("vbench-run"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; keep the old records under another name.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Measure again the cells that did not end ok.")] = False,
    as_json: AsJson = False,
    on: cluster.On = None,
    partition: cluster.Partition = None,
    gres: cluster.Gres = None,
    time: cluster.Time = None,
    account: cluster.Account = None,
    qos: cluster.Qos = None,
    constraint: cluster.Constraint = None,
    exclusive: cluster.Exclusive = None,
    array_size: cluster.ArraySize = None,
    resubmit: cluster.Resubmit = None,
    detach: cluster.Detach = False,
) -> None:
    """Measure every cell of a plan. Run the same command again to resume."""
    from vbench.commands.progress import Progress
    from vbench.jobs.launch import Launcher
    from vbench.results import store
    from vbench.sweeps import loop as sweeping

    begin, how = monotonic(), how_of(suite, rigor=rigor, seconds=seconds, pairs=pairs, refine=refine, budget=budget)
    slurm = (partition, gres, time, account, qos, constraint, exclusive)
    where = cluster.parse(on, slurm, array_size=array_size, resubmit=resubmit, detach=detach, budget=how.budget)
    cases = axes.cells(asked, suite, where.device(device) if where else devices.resolve(device), most=cells)
    protocol = protocol_of(cases[0].device, how.rigor, threads, tf32, how.seconds, seed)
    settings = settings_of(cases, folder, how, timeout, fresh, retry, begin)
    store.check(folder)
    if where:
        raise typer.Exit(cluster.sweep(cases, settings, protocol, where, as_json))
    interrupted = False
    with Launcher() as launcher:
        gpu = sweeping.probe(cases, settings.device, launcher)
        try:
            with Progress(err, settings.deadline) as progress:
                sweeping.run(cases, settings, protocol, launcher, progress, gpu=gpu)
        except KeyboardInterrupt:
            interrupted = True
            err.print("interrupted; the records so far are kept. Run the same command again to resume")
    failed = cli_reports.write(folder, cli_reports.table_of([folder]), as_json, question=how.question)
    raise typer.Exit(130 if interrupted else 1 if failed else 0)


@app.command()
@axes.taking()
def plan(
    asked: axes.Asked,
    suite: axes.SuiteName = None,
    device: axes.Device = "auto",
    rigor: Rigor = None,
    threads: Threads = 1,
    tf32: Tf32 = False,
    seconds: Seconds = None,
    seed: Seed = 0,
    pairs: Pairs = None,
    budget: BudgetOf = None,
    cells: axes.Most = planning.CELLS,
    as_json: AsJson = False,
) -> None:
    """Show what a sweep would measure, with an estimate of its time and memory."""
    from vbench.flops import estimate
    from vbench.jobs.launch import Launcher
    from vbench.reports import work
    from vbench.sweeps import companies
    from vbench.sweeps import loop as sweeping
    from vbench.sweeps.rehearse import rehearse

    cases = axes.cells(asked, suite, devices.resolve(device), most=cells)
    how = how_of(suite, rigor=rigor, seconds=seconds, pairs=pairs, budget=budget)
    protocol = protocol_of(cases[0].device, how.rigor, threads, tf32, how.seconds, seed)
    together = companies.companies(cases, companies.parse_pairs(how.pairs, cases))
    allowed_s = None if how.budget is None else in_seconds(how.budget, "--budget")
    with Launcher() as launcher, err.status("estimating"):
        memo = sweeping.memo_of(cases, cases[0].device, launcher)
        estimates, waited_s = estimate.run(cases, protocol, launcher, memo)
        tasks = sweeping.tasks(cases, launcher, memo)
    verifying, counting = (sum(t.seconds for t in tasks if t.verb == verb) for verb in ("verifying", "counting"))
    known = {case: guess for case, guess in zip(cases, estimates, strict=True) if isinstance(guess, estimate.Estimate)}
    before_s = waited_s + verifying + counting + estimate.REPORTING_S
    found = rehearse(known, together, protocol, None if allowed_s is None else allowed_s - before_s)
    rows = [
        estimate.row(case, guess, found.seconds[case], found.launches[case])
        for case, guess in zip(cases, estimates, strict=True)
    ]
    if as_json:
        print_json(rows)
        return
    out.print(work.estimates_to_rich(rows))
    starting = waited_s + sum(found.launches.values()) * estimate.LAUNCH_OVERHEAD_S
    measuring = found.spent_s - found.turns_s - (starting - waited_s)
    parts = estimate.Parts(measuring, found.turns_s, verifying, counting, starting)
    for line in work.not_estimated(rows):
        out.print(line)
    out.print(work.whole(rows, found.blocks, parts, cases[0].device))
    for line in found.wishes:
        out.print(f"in {how.budget}: {line}")


@app.command()
def maxres(
    model: Model,
    batch: Annotated[int, typer.Option(min=1, help="Images in the call.")] = 1,
    limit: Annotated[int, typer.Option(help="The largest side to try, in px.")] = 8192,
    mode: Mode = "parallel",
    dtype: OneDtype = "float32",
    phase: OnePhase = "infer",
    memory: Memory = None,
    device: axes.Device = "auto",
    threads: Threads = 1,
    timeout: ProbeTimeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find the largest square image that fits in memory. Each try runs in its own process."""
    _limit("px", model, (None, batch), limit, mode, dtype, phase, memory, device, threads, timeout, as_json)


@app.command()
def maxbatch(
    model: Model,
    res: Annotated[str, typer.Option(help="Pixels: 224, or 512x1024 (height x width).")] = "224",
    limit: Annotated[int, typer.Option(help="The largest batch to try.")] = 65536,
    mode: Mode = "parallel",
    dtype: OneDtype = "float32",
    phase: OnePhase = "infer",
    memory: Memory = None,
    device: axes.Device = "auto",
    threads: Threads = 1,
    timeout: ProbeTimeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find the largest batch that fits in memory. Each try runs in its own process."""
    _limit("images", model, (res, None), limit, mode, dtype, phase, memory, device, threads, timeout, as_json)


@dataclass(frozen=True, slots=True)
class How:
    """How a sweep measures: its options, or what its suite says in their place; and the question of the suite."""

    rigor: str = "default"
    seconds: float | None = None
    pairs: str = "auto"
    refine: str = "auto"
    budget: str | None = None
    question: str | None = None


def how_of(suite: str | None, **given: Any) -> How:
    """How a sweep measures: as the options say that were given, else as the suite says, else as usual.

    Raises: UsageError, as `load`, and for a suite whose `seconds` are none.
    """
    from vbench.suites.load import load

    asked = {name: value for name, value in given.items() if value is not None}
    if suite is None:
        return How(**asked)
    of = load(suite)
    own: dict[str, Any] = {**of.how}
    if "seconds" in own:
        own["seconds"] = _seconds(own["seconds"], f"--suite {suite}: seconds")
    return How(**{**own, **asked}, question=of.question)


def _seconds(text: str, where: str) -> float:
    """ "0.5" -> 0.5. Raises: UsageError, after `where`."""
    low, high = NUMBERS["seconds"]
    with suppress(ValueError):
        if low <= (found := float(text)) <= high:
            return found
    raise UsageError(f"{where}: '{shown(text)}' is not between {low:g} and {high:,}; write it like 0.5")


def protocol_of(
    device: str, rigor: str, threads: int, tf32: bool, seconds: float | None, seed: int
) -> planning.Protocol:
    """The protocol of a rigor with the options applied. `seconds` also scales other times, and limits warm-up."""
    base = planning.parse_rigor(rigor)
    if tf32 and not devices.kind_of(device).tf32:
        raise UsageError(f"--tf32: rounds products of an NVIDIA GPU, not those of {device}; leave the option out")
    protocol = replace(base, threads=threads, tf32=tf32, seed=seed)
    if seconds is None:
        return protocol
    scale = seconds / base.sample_s
    longest, turns_s, warmup_s = base.sample_max_s * scale, base.turns_s * scale, min(base.warmup_s, seconds)
    return replace(protocol, sample_s=seconds, sample_max_s=longest, turns_s=turns_s, warmup_s=warmup_s)


def settings_of(
    cases: list[planning.Case],
    folder: Path,
    how: How,
    timeout: float,
    fresh: bool,
    retry: bool,
    begin: float,
) -> Settings:
    """How a sweep of these cells runs, by its options; `begin` is a time of `monotonic`. Raises: UsageError."""
    from vbench.sweeps import companies
    from vbench.sweeps.loop import Settings

    several = planning.parse_rigor(how.rigor).launches > 1
    return Settings(
        folder,
        cases[0].device,
        timeout,
        fresh,
        retry,
        pairs=companies.parse_pairs(how.pairs, cases),
        refine=choices(how.refine, "--refine", ("auto", "none"))[0] == "auto" and several,
        deadline=None if how.budget is None else begin + max(0.0, in_seconds(how.budget, "--budget") - REPORTING_S),
    )


def _limit(
    axis: Literal["px", "images"],
    model: str,
    fixed: tuple[str | None, int | None],
    limit: int,
    mode: str,
    dtype: str,
    phase: str,
    memory: float | None,
    device: str,
    threads: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Search, print and exit. `fixed` is the other axis: (res, None) or (None, batch)."""
    from vbench.jobs.launch import Launcher
    from vbench.reports import limits as probes
    from vbench.sweeps import limits

    res, batch = fixed
    task = limits.task(
        axis,
        model,
        res=res,
        batch=batch,
        mode=mode,
        dtype=dtype,
        phase=phase,
        memory_gib=memory,
        device=devices.resolve(device),
        limit=limit,
        timeout_s=timeout,
        threads=threads,
    )
    with Launcher() as launcher, err.status("searching"):
        found = limits.find(task, launcher)
    if as_json:
        print_json(found.to_json())
    else:
        out.print(probes.to_rich(found))
        out.print(limits.sentence(found) + ".")
    raise typer.Exit(0 if found.known else 1)
