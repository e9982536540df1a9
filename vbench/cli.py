"""The command line: parse, call one library function, render. Results on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

import vbench
from vbench import cli_gate, cli_kernels, cli_reports
from vbench import plan as planning
from vbench.cli_axes import (
    Asked,
    Attention,
    Backend,
    Batch,
    Device,
    Dtype,
    Form,
    Layout,
    Models,
    Modes,
    Phase,
    Res,
    SuiteName,
    cells,
)
from vbench.errors import UsageError, VbenchError

app = typer.Typer(
    help="Is a recurrent vision backbone really cheaper than attention at high resolution? Measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_kernels.app, name="kernels")
app.add_typer(cli_gate.app)
app.add_typer(cli_reports.app)
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

Rigor = Annotated[str, typer.Option(help="quick (one launch a cell), default (three), paper (five, long).")]
Tf32 = Annotated[bool, typer.Option("--tf32", help="On CUDA, round float32 products to TF32.")]
Seed = Annotated[int, typer.Option(help="Of the order of the cells, the noise and the weights.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the model.")]
Seconds = Annotated[
    float | None, typer.Option(min=0.01, help="Least sampling time of a launch's latency.", show_default="the rigor's")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds after which a launch is a time-out.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for records, tables and figures.")]
Model = Annotated[str, typer.Argument(help="A model's name, or timm/NAME.")]
Mode = Annotated[str, typer.Option(help="parallel or recurrent.")]
OneDtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16.")]
OnePhase = Annotated[str, typer.Option("--phase", help="infer, a forward pass; or train, a whole training step.")]
Memory = Annotated[
    float | None,
    typer.Option(help="GiB that the call may take, weights included.", show_default="90 % of what is free"),
]
ProbeTimeout = Annotated[float, typer.Option(min=1, help="Seconds after which a size is given up.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["VBENCH_DEBUG"] = "1"
    if version:
        out.print(vbench.__version__)
        raise typer.Exit


@app.command()
def sweep(
    models: Models = None,
    res: Res = None,
    modes: Modes = None,
    batch: Batch = None,
    dtype: Dtype = None,
    phase: Phase = None,
    backend: Backend = None,
    layout: Layout = None,
    attention: Attention = None,
    form: Form = None,
    suite: SuiteName = None,
    device: Device = "auto",
    rigor: Rigor = "default",
    threads: Threads = 1,
    tf32: Tf32 = False,
    seconds: Seconds = None,
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    folder: Out = Path("vbench-run"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old records are set aside.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Measure again what did not end ok.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every cell of a plan. The same command again goes on where it ended."""
    from vbench import host
    from vbench import sweep as sweeping
    from vbench.launch import Launcher
    from vbench.progress import Progress

    asked = Asked(models, res, modes, batch, dtype, phase, backend, layout, attention, form)
    cases = cells(asked, suite, host.resolve(device))
    protocol = _protocol(cases[0].device, rigor, threads, tf32, seconds, seed)
    settings = sweeping.Settings(folder, cases[0].device, timeout, fresh, retry)
    _check_folder(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted = False
    with Launcher() as launcher:
        gpu = sweeping.probe(cases, settings.device, launcher)
        try:
            with Progress(err) as progress:
                sweeping.run(cases, settings, protocol, launcher, progress, gpu=gpu)
        except KeyboardInterrupt:
            interrupted = True
            err.print("interrupted; what was measured is kept, and the same command goes on from there")
    failed = cli_reports.write(folder, cli_reports.table_of([folder]), as_json)
    if interrupted:
        raise typer.Exit(130)
    raise typer.Exit(1 if failed else 0)


@app.command()
def plan(
    models: Models = None,
    res: Res = None,
    modes: Modes = None,
    batch: Batch = None,
    dtype: Dtype = None,
    phase: Phase = None,
    backend: Backend = None,
    layout: Layout = None,
    attention: Attention = None,
    form: Form = None,
    suite: SuiteName = None,
    device: Device = "auto",
    rigor: Rigor = "default",
    threads: Threads = 1,
    tf32: Tf32 = False,
    seconds: Seconds = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a sweep would measure, with an estimate of its time and memory."""
    from vbench import estimate, host
    from vbench.launch import Launcher

    asked = Asked(models, res, modes, batch, dtype, phase, backend, layout, attention, form)
    cases = cells(asked, suite, host.resolve(device))
    protocol = _protocol(cases[0].device, rigor, threads, tf32, seconds, seed)
    with Launcher() as launcher, err.status("estimating"):
        estimates = estimate.run(cases, protocol, launcher)
    rows = [estimate.row(case, guess) for case, guess in zip(cases, estimates, strict=True)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    out.print(estimate.to_rich(rows))
    total = sum(row["seconds"] or 0 for row in rows)
    out.print(f"{len(rows)} cells, roughly {total / 60:.1f} minutes on {cases[0].device}; all figures are estimates.")


@app.command()
def maxres(
    model: Model,
    batch: Annotated[int, typer.Option(min=1, help="Images in the call.")] = 1,
    limit: Annotated[int, typer.Option(help="The largest side to try, in px.")] = 8192,
    mode: Mode = "parallel",
    dtype: OneDtype = "float32",
    phase: OnePhase = "infer",
    memory: Memory = None,
    device: Device = "auto",
    threads: Threads = 1,
    timeout: ProbeTimeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find the largest square image that fits in memory, each size tried in a process of its own."""
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
    device: Device = "auto",
    threads: Threads = 1,
    timeout: ProbeTimeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find the largest batch that fits in memory, each size tried in a process of its own."""
    _limit("images", model, (res, None), limit, mode, dtype, phase, memory, device, threads, timeout, as_json)


@app.command()
def verify(
    models: Annotated[str, typer.Option(help="Names or patterns: vig_t,vrwkv*,all.")] = "all",
    device: Device = "auto",
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint of the one model: a file, a URL, or hf-hub:ORG/REPO/FILE.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random inputs and weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Prove that the modes and forms that are timed are one function; exit code 5 if they are not."""
    from vbench import host
    from vbench import verify as verifying
    from vbench.launch import Launcher
    from vbench.models import MODELS

    names = tuple(MODELS) if models == "all" else planning.parse_models(models)  # those with a caveat too
    if weights and len(names) != 1:
        raise UsageError(f"--weights belong to one model; --models names {len(names)}: {', '.join(names)}")
    where, verdicts = host.resolve(device), []
    with Launcher() as launcher:
        subjects = verifying.subjects(names)
        for subject in reversed(subjects) if weights else subjects:  # a bad file is said first
            with err.status(f"verifying {subject}"):
                own = weights if subject in names else None
                verdicts.append(verifying.verify(subject, launcher, device=where, seed=seed, weights=own))
    failed = [line for verdict in verdicts for line in verdict.failed]
    if as_json:
        typer.echo(json.dumps([check.to_json() for verdict in verdicts for check in verdict.checks], indent=1))
    else:
        out.print(verifying.to_rich(verdicts))
    for line in failed:
        err.print(line, markup=False)
    if failed:
        raise typer.Exit(5)


@app.command()
def flops(
    model: Annotated[str, typer.Argument(help="A name of the table, or timm/NAME.")],
    res: Res = None,
    mode: Annotated[str | None, typer.Option(help="parallel or recurrent.", show_default="parallel")] = None,
    form: Annotated[str | None, typer.Option(help="A form of the operator.", show_default="the mode's")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    by_module: Annotated[bool, typer.Option("--by-module", help="Show where the work is.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if an operation is not known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a size.")] = False,
) -> None:
    """Count one image's work: MACs, FLOPs, bytes, by two counters and by hand. 1 MAC is 2 FLOPs."""
    from vbench import flops as counting
    from vbench.launch import Launcher

    if res is None:
        raise UsageError("give --res, as in --res 224,512")
    modes, dtypes = planning.parse_modes(mode) if mode else (None,), planning.parse_dtypes(dtype)
    if len(modes) > 1 or len(dtypes) > 1:
        raise UsageError("flops counts one --mode in one --dtype; call it again for another")
    cases = counting.cases(model, planning.parse_sizes(res), mode=modes[0], form=form, dtype=dtypes[0])
    with Launcher() as launcher, err.status(f"counting {model}"):
        found = [counting.run(case, launcher, by_module=by_module) for case in cases]
    if as_json:
        for work in found:
            typer.echo(json.dumps(work))
    else:
        out.print(counting.to_rich(found))
        for work in found if by_module else []:
            out.print()
            out.print(counting.modules_to_rich(work))
    unknown = counting.unknown_line(found)
    if unknown:
        err.print(unknown, markup=False)
    if unknown and strict:
        raise typer.Exit(1)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models: family, parameters, operator, modes, published accuracy, source."""
    from vbench.reports import models as listing

    if as_json:
        typer.echo(json.dumps(listing.rows(), indent=1))
        return
    out.print(listing.to_rich())
    out.print(
        "All run in parallel mode. Recurrent: what walks the tokens in that mode, the network or its operator alone."
    )
    out.print("Any other of timm's models is timm/NAME. Top-1: ImageNet-1K at 224 px as published, not measured.")
    for line in listing.caveats():
        out.print(line)


@app.command()
def suites(
    name: Annotated[
        str | None, typer.Argument(help="A suite, or a .toml file; all that come along if none is named.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the suites: what each answers, how long it takes, how many cells it has; or one of them with its axes."""
    from vbench.suites import listing

    found = listing.rows() if name is None else [listing.row(name)]
    if as_json:
        typer.echo(json.dumps(found if name is None else found[0], indent=1))
        return
    out.print(listing.to_rich(found))
    for axes in found[0]["sets"] if name else []:
        out.print("; ".join(f"{key} = {value}" for key, value in axes.items()), markup=False)


@app.command()
def fit(
    folder: Annotated[Path, typer.Argument(help="A folder with records.jsonl.")],
    cost: Annotated[
        str | None, typer.Option(help="latency_ms, macs_executed, ms_per_image, activation_bytes ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how costs grow with the image, who is cheaper from where, and in what settings rows differ."""
    from vbench.results import lint, scaling

    table = cli_reports.frame_of([folder])
    costs = (cost,) if cost else scaling.FITTED
    exponents, pairs = scaling.exponents(table, costs), [scaling.crossovers(table, each) for each in costs]
    unfair = lint.unfair(table)
    if as_json:
        found = {
            "exponents": json.loads(exponents.to_json(orient="records", double_precision=6)),
            "crossovers": [row for each in pairs for row in json.loads(each.to_json(orient="records"))],
            "unfair": unfair,
        }
        typer.echo(json.dumps(found, indent=1))
        return
    if exponents.empty:
        out.print("No model has two sizes with a cost; nothing can be fitted.")
    else:
        out.print(scaling.to_rich(exponents))
        out.print(f"The verdict takes an exponent within {scaling.TOLERANCE:g} of 1 as linear, of 2 as quadratic.")
    for line in [*(reading for each in pairs for reading in each["reading"]), *unfair]:
        out.print(line, markup=False)


@app.command()
def doctor(
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Only look; measure nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at this machine, try its timer and its scatter, and say what stands in the way; half a minute."""
    from vbench import doctor as examining
    from vbench import host

    where = host.resolve(device)
    with err.status("looking") as status:
        findings = examining.examine(where, quick=quick, tell=status.update)
    if as_json:
        typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        out.print(examining.to_rich(findings))


def _protocol(device: str, rigor: str, threads: int, tf32: bool, seconds: float | None, seed: int) -> planning.Protocol:
    """The rigor's protocol with what was asked for; a sampling time brings its ceiling and the warm-up along."""
    base = planning.parse_rigor(rigor)
    if tf32 and device == "cpu":
        raise UsageError("--tf32: the CPU has no TF32; leave it out, or take --device cuda")
    protocol = replace(base, threads=threads, tf32=tf32, seed=seed)
    if seconds is None:
        return protocol
    longest = base.sample_max_s * seconds / base.sample_s
    return replace(protocol, sample_s=seconds, sample_max_s=longest, warmup_s=min(base.warmup_s, seconds))


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
    """Search and print; `fixed` is what the other axis stands at: (--res, None) or (None, --batch)."""
    from vbench import host, limits
    from vbench.launch import Launcher

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
        device=host.resolve(device),
        limit=limit,
        timeout_s=timeout,
        threads=threads,
    )
    with Launcher() as launcher, err.status("searching"):
        found = limits.find(task, launcher)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        out.print(limits.to_rich(found))
        out.print(limits.sentence(found) + ".", markup=False)
    raise typer.Exit(0 if found.found else 1)


def _check_folder(folder: Path) -> None:
    """Refuse, before anything runs, a folder that cannot be written or whose records cannot be read."""
    from vbench.results import store

    store.check(folder)


def main() -> None:
    """The program: errors that are the user's to mend get one line and exit code 2."""
    warnings.showwarning = _warn  # type: ignore[assignment]  # it needs the message alone
    try:
        app()
    except VbenchError as error:
        if os.environ.get("VBENCH_DEBUG"):
            raise
        err.print(f"vbench: {error}", markup=False)
        sys.exit(2)


def _warn(message: Warning | str, *_: Any) -> None:
    err.print(f"vbench: {message}", markup=False)
