"""The commands `verify`, `flops` and `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vbench import devices
from vbench import plan as planning
from vbench.commands.axes import DTYPES, Device, Res
from vbench.commands.console import AsJson, err, exit_if_failed, out, print_aside, print_json
from vbench.commands.parameters import COMMA
from vbench.errors import UsageError
from vbench.options import choices
from vbench.results.text import print_whole

if TYPE_CHECKING:
    from vbench.flops.modules import Timing

app = typer.Typer()


@app.command()
def verify(
    models: Annotated[str, typer.Option(help="Names or patterns: vig_t,vrwkv*,all."), COMMA] = "all",
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="Compare the models in this type too: bfloat16, float16, amp-bf16, amp-fp16.")
    ] = "float32",
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint of the one model: a file, a URL, or hf-hub:ORG/REPO/FILE.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs and weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Prove that a model's modes and forms compute the same function; exit code 5 if they do not."""
    from vbench import verify as verifying
    from vbench.jobs.launch import Launcher
    from vbench.models import MODELS
    from vbench.reports import checks

    names = tuple(MODELS) if models.lower() == "all" else planning.parse_models(models)  # including those with a caveat
    if weights and len(names) != 1:
        raise UsageError(
            f"--weights: one file belongs to one model, and --models names {len(names)}: {', '.join(names)}"
        )
    where, verdicts, types = devices.resolve(device), [], planning.parse_dtypes(dtype)
    if len(types) > 1:
        raise UsageError(f"--dtype: one at a time, not {', '.join(types)}")
    with Launcher() as launcher:
        subjects = verifying.subjects(names)
        for subject in reversed(subjects) if weights else subjects:  # a bad file of weights then fails first
            with err.status(f"verifying {subject}"):
                own = weights if subject in names else None
                verdicts.append(
                    verifying.verify(subject, launcher, device=where, seed=seed, weights=own, dtype=types[0])
                )
    print_aside(note for verdict in verdicts for note in verdict.notes)
    failed = [line for verdict in verdicts for line in verdict.failed]
    if as_json:
        print_json([check.to_json() for verdict in verdicts for check in verdict.checks])
    else:
        out.print(checks.to_rich(verdicts))
    exit_if_failed(failed, 5)


@app.command()
def flops(
    model: Annotated[str, typer.Argument(help="A model's name, or timm/NAME.")],
    res: Res = None,
    mode: Annotated[str | None, typer.Option(help="parallel or recurrent.", show_default="parallel")] = None,
    form: Annotated[
        str | None, typer.Option(help="A form of the operator.", show_default="the default of the mode")
    ] = None,
    dtype: Annotated[str, typer.Option(help=DTYPES)] = "float32",
    reparam: Annotated[
        str, typer.Option(help="Whether to count the form in which a re-parameterised model is deployed: no, yes.")
    ] = "no",
    by_module: Annotated[bool, typer.Option("--by-module", help="Show the work of each module.")] = False,
    depth: Annotated[
        int, typer.Option(min=1, max=100, help="With --by-module: how many levels of modules have rows.")
    ] = 2,
    time: Annotated[
        bool, typer.Option("--time", help="With --by-module: measure the time of each module, beside its work.")
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="With --time: images in a call.", show_default="1")] = None,
    device: Annotated[str | None, typer.Option(help=f"With --time: {devices.NAMES}.", show_default="auto")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="With --time: CPU threads.", show_default="1")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="With --time: seconds of calls for each size.", show_default="5")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the counter does not know an operation.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: a line for each size, or for each module with --by-module.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count the work of one image: MACs, FLOPs and bytes, by two counters and by a formula. 1 MAC is 2 FLOPs.

    With --by-module --time every module's time is measured beside its work.
    """
    from vbench.flops import count as counting
    from vbench.flops import modules as timing
    from vbench.jobs.launch import Launcher
    from vbench.reports import modules, work

    if res is None:
        raise UsageError("give --res, as in --res 224,512")
    if as_csv and as_json:
        raise UsageError("give --csv or --json, not both")
    models, modes = planning.parse_models(model, "MODEL"), planning.parse_modes(mode, "--mode") if mode else (None,)
    dtypes, reparams = planning.parse_dtypes(dtype), choices(reparam, "--reparam", planning.REPARAMS)
    if max(map(len, (models, modes, dtypes, reparams))) > 1:
        raise UsageError("flops counts one MODEL in one --mode, --dtype and --reparam; call it again for another")
    asked = _timing(by_module, time, batch=batch, device=device, seconds=seconds, threads=threads)
    cases = counting.cases(
        models[0],
        planning.parse_sizes(res),
        mode=modes[0],
        form=form,
        dtype=dtypes[0],
        reparam=reparams[0],
        device=devices.resolve(device or "auto") if asked else "cpu",
    )
    found, failed = [], []
    with Launcher() as launcher, err.status(f"counting {model}") as status:
        for case in cases:
            try:
                one = counting.run(case, launcher, depth=depth if by_module else None)
            except UsageError as error:  # another size may be counted
                failed.append(str(error))
                continue
            if asked:
                status.update(f"timing {case}")
                one = timing.run(case, one, launcher, asked, depth)
                failed += [one["time_reason"]] if one["time_reason"] else []
            found.append(one)
    if not found:
        raise UsageError("; ".join(failed))
    if as_json:
        print_json([work.to_json(one) for one in found])
    elif as_csv:
        typer.echo(work.to_csv(found), nl=False)
    else:
        print_whole(work.to_rich(found), out)
        modules.show(found, out)
    unknown = work.unknown_line(found)
    print_aside([*work.notes(found), *work.second_lines(found), *([unknown] if unknown else []), *failed])
    if failed or (unknown and strict):
        raise typer.Exit(1)


def _timing(by_module: bool, time: bool, *, device: str | None, **how: Any) -> Timing | None:
    """How modules are timed; None if they are not. Raises: UsageError for options that would say nothing."""
    from vbench.flops.modules import Timing

    if time and not by_module:
        raise UsageError("--time measures modules: give --by-module too")
    given = {name: value for name, value in how.items() if value is not None}
    if (unused := [f"--{name}" for name in given] + ["--device"] * bool(device)) and not time:
        raise UsageError(f"{', '.join(unused)}: nothing is measured without --by-module --time")
    return Timing(**given) if time else None


@app.command()
def doctor(
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Check software and settings only; measure nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine: software, timer, noise, and what would disturb a measurement. Takes half a minute."""
    from vbench.doctor import examine as examining
    from vbench.reports import checks

    where = devices.resolve(device)
    with err.status("looking") as status:
        findings = examining.examine(where, quick=quick, tell=status.update)
    if as_json:
        print_json([finding.__dict__ for finding in findings])
    else:
        out.print(checks.findings_to_rich(findings))
