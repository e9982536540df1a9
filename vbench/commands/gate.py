"""The commands that compare two revisions or two runs. Their exit code says whether something became worse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vbench import devices
from vbench import plan as planning
from vbench.commands import axes
from vbench.commands.console import AsJson, err, out, print_aside, print_json, print_written
from vbench.commands.parameters import COMMA
from vbench.errors import OutputError, UsageError
from vbench.results.outcome import NOTHING, THRESHOLD
from vbench.suites.rules import load_rules

if TYPE_CHECKING:
    from vbench.results.outcome import Outcome

app = typer.Typer()

ONCE = {**planning.USUAL, "batch": "1"}  # a gate times single calls

TIMED = "Only with --ab"
OneBatch = Annotated[
    str | None,
    typer.Option(
        "--batch",
        help="Batch of a training step. A forward pass is always timed at batch 1.",
        show_default=ONCE["batch"],
        rich_help_panel=TIMED,
    ),
    COMMA,
]
Threshold = Annotated[float, typer.Option(help="The smallest change that matters, as a share: 0.03 is 3%.")]
OwnThreshold = Annotated[
    float | None,
    typer.Option(
        help="The smallest change that matters, as a share: 0.03 is 3%.",
        show_default="the suite's, or 0.03",
        rich_help_panel=TIMED,
    ),
]
Rigor = Annotated[
    str,
    typer.Option(help="Blocks in a pass: quick 4, default 6, paper 12 with longer launches.", rich_help_panel=TIMED),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if a cell is ambiguous, gone or not measured.")]
Python = Annotated[
    str | None,
    typer.Option(help="The Python of an environment in which this side is installed.", rich_help_panel=TIMED),
]


@app.command()
@axes.taking()
def gate(
    context: typer.Context,
    counters: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare counted work with this baseline; needs no device.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Write the baseline FILE, for the cells of the axes, else for the cells of the file."
        ),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--ab", metavar="REV", help="Time the working tree and this git revision in turn."),
    ] = None,
    asked: axes.Asked = axes.NONE,
    batch: OneBatch = None,
    suite: axes.SuiteName = None,
    device: axes.Device = "auto",
    rigor: Rigor = "default",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.", rich_help_panel=TIMED)] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the measuring order, the noise and the weights.", rich_help_panel=TIMED)
    ] = 0,
    threshold: OwnThreshold = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds after which a launch is stopped and recorded as timeout.", rich_help_panel=TIMED
        ),
    ] = 300.0,
    base_python: Python = None,
    head_python: Python = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Install each side by pip into an environment of its own.", rich_help_panel=TIMED
        ),
    ] = False,
    strict: Strict = False,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for records and reports.")] = Path("vbench-gate"),
    as_json: AsJson = False,
) -> None:
    """Check whether a change made a model slower, larger or wrong, by counted work (--counters) or by timing (--ab).

    Exit codes: 0 no regression; 1 regression; 2 usage; 3 no verdict; 4 undecided, with --strict; 5 the modes of a
    model do not compute the same function.
    """
    refuse(context)
    if counters is not None:
        _finish(_counted(counters, asked, suite, device, write=write), folder, strict=strict, as_json=as_json)

    from vbench.gate import ab, blocks, revisions
    from vbench.jobs import scratch

    rules = load_rules(suite, threshold)
    of_file = {axis: f"pyproject.toml: [tool.vbench.gate] {axis}" for axis in rules.axes if axis not in asked}
    usual = {**ONCE, **rules.axes}
    cases = axes.cells(asked, suite, devices.resolve(device), usual=usual, written=of_file)
    named, design = ab.models_of(cases), blocks.design(rigor, threads, seed)
    try:
        with (
            scratch.folder("caches") as caches,
            revisions.prepared(str(revision), named, base_python, head_python, install=install) as (base, head),
        ):
            runners = partial(revisions.runners, base, head, named, caches)
            found = ab.Session(cases, design, rules, runners, err.print, folder, timeout).run(base.label, head.label)
    except KeyboardInterrupt:
        err.print("interrupted before anything was measured")
        raise typer.Exit(NOTHING) from None
    _finish(found, folder, strict=strict, as_json=as_json)


def refuse(context: typer.Context) -> None:
    """Check that the options of `gate` go together. Raises: UsageError."""
    sources = {option: context.get_parameter_source(str(option.name)) for option in context.command.params}
    given = {str(option.name): option for option, source in sources.items() if source and source.name == "COMMANDLINE"}
    if "write" in given and "counters" not in given:
        raise UsageError("--write writes a baseline of counters; give --counters FILE too")
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
            f"{', '.join(timed)}: --counters counts one eager forward pass of one image; omit this, or use --ab REV"
        )


def _counted(file: Path, asked: axes.Asked, suite: str | None, device: str, *, write: bool) -> Outcome:
    """The outcome of the counters gate. Here --device auto is the CPU; the device only chooses the default forms."""
    from vbench.gate import counters as counting
    from vbench.jobs.launch import Launcher

    where = counting.parse_device("cpu" if device == "auto" else device)
    chosen = axes.cells(asked, suite, where) if asked or suite else None
    with Launcher() as launcher, err.status("counting"):
        return counting.gate(file, launcher, cases=chosen, write=write)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="A", help="The --out folder of the earlier sweep.")],
    head: Annotated[Path, typer.Argument(metavar="B", help="The --out folder of the later sweep.")],
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Compare runs even if their machines differ.")
    ] = False,
    threshold: Threshold = THRESHOLD,
    strict: Strict = False,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the files of the report.")] = None,
) -> None:
    """Compare two stored runs cell by cell: ratios with intervals, and new, gone and broken cells. Measures nothing."""
    from vbench.results import compare as comparing

    found = comparing.compare(
        comparing.load(base), comparing.load(head), threshold=threshold, allow_mismatch=allow_mismatch
    )
    _finish(found, folder, strict=strict, as_json=as_json)


@app.command()
def history(
    runs: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with runs (--out folders of sweeps) at any depth.")
    ],
    what: Annotated[
        str,
        typer.Option(help="latency_ms, peak_memory_bytes, energy_j_per_image, params, macs, macs_executed."),
    ] = "latency_ms",
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a chart and a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the cost of each cell from run to run, and where its level changed. Measures and judges nothing."""
    from vbench.reports import history as reporting
    from vbench.results import history as reading

    found = reading.history(reading.load(runs), what)
    files = reporting.write(found, what, folder) if folder else []
    if as_json:
        print_json(reporting.to_json(found, what))
    else:
        reporting.show(found, what, out)
    if files:
        print_written(files)


def _finish(found: Outcome, folder: Path | None, *, strict: bool, as_json: bool) -> NoReturn:
    """Print an outcome, write its files if a folder is given, and exit with its code."""
    from vbench.reports import gate as reporting
    from vbench.reports.gate_files import write_outputs

    try:
        files, unwritten = write_outputs(found, folder, strict=strict) if folder else [], None
    except OutputError as error:  # the comparison may have taken an hour: it is shown all the same
        files, unwritten = [], error
    if as_json:
        typer.echo(reporting.to_json(found, strict=strict), nl=False)
    else:
        reporting.show(found, out, strict=strict)
    if files:
        print_written(files)
    if unwritten:
        print_aside([f"not written: {unwritten}"])
    raise typer.Exit(2 if unwritten else found.exit_code(strict=strict))
