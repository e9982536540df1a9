"""The commands that set one revision, or one run, against another, and say by their exit code if it became worse."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vbench import devices
from vbench import plan as planning
from vbench.commands.axes import (
    Asked,
    Attention,
    Backend,
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
from vbench.commands.console import AsJson, err, out
from vbench.errors import UsageError
from vbench.results.outcome import NOTHING, THRESHOLD
from vbench.suites.rules import load_rules

if TYPE_CHECKING:
    from vbench.results.outcome import Outcome

app = typer.Typer()

ONCE = {**planning.USUAL, "batch": "1"}  # a gate times single calls

TIMED = "With --ab alone"
OneBatch = Annotated[
    str | None,
    typer.Option(
        "--batch",
        help="Of a training step; a forward pass is timed at 1.",
        show_default=ONCE["batch"],
        rich_help_panel=TIMED,
    ),
]
Threshold = Annotated[float, typer.Option(help="The smallest change that matters, as a share of base.")]
OwnThreshold = Annotated[
    float | None,
    typer.Option(
        help="The smallest change that matters, as a share of base.",
        show_default="what the file says, or 0.03",
        rich_help_panel=TIMED,
    ),
]
Rigor = Annotated[
    str,
    typer.Option(help="Blocks a pass: quick 4, default 6, paper 12 and longer launches.", rich_help_panel=TIMED),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if anything is ambiguous, gone or not measured.")]
Python = Annotated[
    str | None,
    typer.Option(help="The python of an environment in which this side is installed.", rich_help_panel=TIMED),
]


@app.command()
def gate(
    context: typer.Context,
    counters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hold what is counted to this baseline; needs no device.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make that baseline, for the cells of the axes or else those of the file.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--ab", metavar="REV", help="Time the working tree against this git revision, in turn."),
    ] = None,
    models: Models = None,
    res: Res = None,
    modes: Modes = None,
    batch: OneBatch = None,
    dtype: Dtype = None,
    phase: Phase = None,
    backend: Backend = None,
    layout: Layout = None,
    attention: Attention = None,
    form: Form = None,
    suite: SuiteName = None,
    device: Device = "auto",
    rigor: Rigor = "default",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.", rich_help_panel=TIMED)] = 1,
    seed: Annotated[
        int, typer.Option(help="Of the order of measuring, the noise and the weights.", rich_help_panel=TIMED)
    ] = 0,
    threshold: OwnThreshold = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a launch is a time-out.", rich_help_panel=TIMED)
    ] = 300.0,
    base_python: Python = None,
    head_python: Python = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Have pip install each side into an environment of its own.", rich_help_panel=TIMED
        ),
    ] = False,
    strict: Strict = False,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for records and reports.")] = Path("vbench-gate"),
    as_json: AsJson = False,
) -> None:
    """Say whether a change made a model slower, larger or wrong: by what is counted (--counters), or timed (--ab).

    Exit codes: 0 no; 1 yes; 2 usage; 3 it could not be told; 4 with --strict, something is undecided; 5 its modes are
    not one function.
    """
    refuse(context)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = Asked(models, res, modes, batch, dtype, phase, backend, layout, attention, form)
    if counters is not None:
        _finish(_counted(counters, asked, suite, device, write=write), folder, strict=strict, as_json=as_json)

    from vbench.gate import ab, blocks, revisions, sides

    rules = load_rules(suite, threshold)
    cases = cells(asked, suite, devices.resolve(device), usual={**ONCE, **rules.axes})
    named, design = ab.models_of(cases), blocks.design(rigor, threads, seed)
    pythons = revisions.Pythons(base_python, head_python)
    try:
        with (
            TemporaryDirectory(prefix="vbench-caches-") as caches,
            revisions.sides(str(revision), named, pythons=pythons, install=install) as (base, head),
        ):
            opened = partial(sides.opened, base, head, named, Path(caches))
            tell = partial(err.print, markup=False)
            found = ab.Session(cases, design, rules, opened, tell, folder, timeout).run(base.label, head.label)
    except KeyboardInterrupt:
        err.print("interrupted before anything was measured")
        raise typer.Exit(NOTHING) from None
    _finish(found, folder, strict=strict, as_json=as_json)


def refuse(context: typer.Context) -> None:
    """Raise UsageError for options of `gate` that do not go together."""
    sources = {option: context.get_parameter_source(str(option.name)) for option in context.command.params}
    given = {str(option.name): option for option, source in sources.items() if source and source.name == "COMMANDLINE"}
    if "write" in given and "counters" not in given:
        raise UsageError("--write makes a baseline of counters; give --counters FILE too")
    if ("counters" in given) == ("revision" in given):
        raise UsageError("give one of --counters FILE and --ab REV, as in --ab main")
    if "counters" not in given:
        return
    timed = [
        option.opts[0]
        for name, option in given.items()
        if getattr(option, "rich_help_panel", None) == TIMED or name in ("phase", "backend")
    ]
    if timed:
        raise UsageError(
            f"{', '.join(timed)}: --counters counts one forward pass of one image, eager; leave out, or take --ab REV"
        )


def _counted(file: Path, asked: Asked, suite: str | None, device: str, *, write: bool) -> Outcome:
    """The counters' gate; on whose default forms is meant, --device auto is the CPU."""
    from vbench.gate import counters as counting
    from vbench.jobs.launch import Launcher

    where = counting.parse_device("cpu" if device == "auto" else device)
    chosen = cells(asked, suite, where) if asked.given or suite else None
    with Launcher() as launcher, err.status("counting"):
        return counting.gate(file, launcher, cases=chosen, write=write)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="A", help="The --out folder of a sweep: what it was.")],
    head: Annotated[Path, typer.Argument(metavar="B", help="Another's: what it is.")],
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Compare runs of different machines all the same.")
    ] = False,
    threshold: Threshold = THRESHOLD,
    strict: Strict = False,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for reports.")] = None,
) -> None:
    """Compare two stored runs cell by cell: ratios with intervals, new, gone and broken cells. Nothing is measured."""
    from vbench.results import compare as comparing

    found = comparing.compare(
        comparing.load(base), comparing.load(head), threshold=threshold, allow_mismatch=allow_mismatch
    )
    _finish(found, folder, strict=strict, as_json=as_json)


@app.command()
def history(
    runs: Annotated[Path, typer.Argument(metavar="DIR", help="Holds runs: --out folders of sweeps, at any depth.")],
    what: Annotated[
        str,
        typer.Option(help="latency_ms, peak_memory_bytes, energy_j_per_image, params, macs, macs_executed."),
    ] = "latency_ms",
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a chart and a page as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each cell cost from run to run, and where its level changed. Nothing is measured, nothing is judged."""
    from vbench.reports import history as reporting
    from vbench.results import history as reading

    found = reading.history(reading.load(runs), what)
    files = reporting.write(found, what, folder) if folder else []
    if as_json:
        typer.echo(json.dumps(reporting.to_json(found, what), indent=1))
    else:
        reporting.show(found, what, out)
    if files:
        err.print(f"written: {', '.join(map(str, files))}", markup=False)


def _finish(found: Outcome, folder: Path | None, *, strict: bool, as_json: bool) -> NoReturn:
    """Print an outcome, write its files if there is a folder for them, and exit with what it means."""
    from vbench.reports import gate as reporting

    files = reporting.write_outputs(found, folder, strict=strict) if folder else []
    if as_json:
        typer.echo(reporting.to_json(found, strict=strict), nl=False)
    else:
        reporting.show(found, out, strict=strict)
    if files:
        err.print(f"written: {', '.join(map(str, files))}", markup=False)
    raise typer.Exit(found.exit_code(strict=strict))
