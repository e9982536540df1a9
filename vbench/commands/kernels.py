"""The commands `vbench kernels ...`: they call `vbench.operators`, which tests and times single operators."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vbench import devices
from vbench.commands.axes import Device
from vbench.commands.completion import FORMS
from vbench.commands.console import AsJson, err, exit_if_failed, out, print_aside, print_json, print_written
from vbench.commands.parameters import COMMA
from vbench.kernels.registry import OPS

app = typer.Typer(no_args_is_help=True, help="Single operators: list, check, compile, bench, tune.")

Op = Annotated[str | None, typer.Option(help=f"{', '.join(OPS)}.", show_default="all"), COMMA]
FormName = Annotated[str | None, typer.Option(help=f"{', '.join(FORMS)}.", show_default="all that can run"), COMMA]


@app.command("list")
def list_(device: Device = "auto", as_json: AsJson = False) -> None:
    """List operators and forms: mode, devices, dtypes, whether a form can run here, and where it is the default."""
    from vbench.operators import check as kernel_check
    from vbench.reports import operators

    where = devices.resolve(device)
    found = kernel_check.rows(where)
    if as_json:
        print_json(found)
    else:
        out.print(operators.forms_to_rich(found, where))


@app.command()
def check(
    op: Op = None,
    form: FormName = None,
    device: Device = "auto",
    tokens: Annotated[
        int | None,
        typer.Option(
            min=2, max=4096, help="Tokens of each trial.", show_default="133; interpreted: 40, or 20 token by token"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.")] = 0,
    remember: Annotated[
        bool,
        typer.Option(
            "--remember", help="Take over what was found under the same code, versions and device, as a sweep."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every form that can run with the recurrence in float64, gradients included; exit code 1 if one fails.

    Without a GPU, Triton kernels run in Triton's interpreter on the CPU.
    """
    from vbench.jobs.launch import Launcher
    from vbench.operators import check as kernel_check
    from vbench.reports import checks

    where, ops = devices.resolve(device), kernel_check.parse_ops(op)
    forms = kernel_check.parse_forms(form, ops)
    interpreted = kernel_check.interpret(where)
    with Launcher() as launcher, err.status("checking"):
        runner = kernel_check.remembering(launcher, where) if remember else launcher
        verdicts = kernel_check.check(ops, forms, runner, device=where, tokens=tokens, seed=seed)
    failed = [line for verdict in verdicts for line in verdict.failed]
    if as_json:
        print_json([check.to_json() for verdict in verdicts for check in verdict.checks])
    else:
        out.print(checks.to_rich(verdicts))
        if interpreted and kernel_check.has_triton(verdicts):
            out.print("Triton kernels were interpreted on the CPU: this checks their results, not their speed.")
    exit_if_failed(failed)


@app.command("compile")
def compile_(
    op: Op = None,
    arch: Annotated[str, typer.Option(help="GPU architectures: 80 is A100, 90 H100, 100 B200."), COMMA] = "80,90,100",
    update: Annotated[bool, typer.Option("--update", help="Rewrite the committed table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compile every Triton kernel ahead of time, without a GPU; exit code 1 if one spills registers or grows."""
    from dataclasses import asdict

    from vbench.errors import CompileError
    from vbench.jobs.launch import Launcher
    from vbench.operators import check as kernel_check
    from vbench.operators import compile as compiling
    from vbench.reports import operators

    ops, archs = kernel_check.parse_ops(op), compiling.parse_archs(arch)
    os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled
    with Launcher() as launcher, err.status("compiling"):
        try:
            rows = compiling.run(ops, archs, launcher)
        except CompileError as error:
            err.print(str(error))
            raise typer.Exit(1) from None
    file, triton = compiling.table_file(), compiling.triton_version()
    before = compiling.read(file)
    known = sorted({row.triton for row in before})
    failed, told = compiling.over_limits(rows), []
    if update:
        compiling.write(file, compiling.merge(before, rows, ops, archs))
        told.append(f"written: {file.name}, {len(rows)} rows, with Triton {triton}")
    elif not {row.triton for row in rows} <= set(known):
        told.append(
            f"the table has rows by Triton {', '.join(known)}; this is {triton}, so only the limits were checked"
        )
    else:
        failed += compiling.grown(rows, {row.key: row for row in before})
        failed += compiling.stale(rows, before, ops, archs)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        out.print(operators.resources_to_rich(rows))
    print_aside(told)
    exit_if_failed(failed)


@app.command()
def bench(
    op: Op = None,
    form: FormName = None,
    n: Annotated[
        str | None, typer.Option("--n", help="Tokens, as in 196,4096.", show_default="196 to 65536; CPU: 16384"), COMMA
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Images in a call, as in 1,8.", show_default="1,8,64; CPU: 1"), COMMA
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16.", show_default="bfloat16; CPU: float32")
    ] = None,
    device: Device = "auto",
    backend: Annotated[
        str | None, typer.Option(help="eager, cudagraph.", show_default="both; CPU: eager"), COMMA
    ] = None,
    l2: Annotated[str | None, typer.Option(help="Caches: warm, cold.", show_default="both; CPU: warm"), COMMA] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="OPERATOR=module:function, timed beside our forms; may be repeated. "
            "Your module must be installed or be in the current folder."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds of samples for each call and setting.")
    ] = None,
    limit_s: Annotated[
        float | None, typer.Option("--limit-s", min=0.001, help="Skip a call that would take more seconds than this.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for kernels.jsonl.")] = Path("vbench-run"),
    as_json: AsJson = False,
) -> None:
    """Time every form in one run beside its floor and its peers; exit code 1 if the output of a form is wrong."""
    from vbench.jobs.launch import Launcher
    from vbench.operators import bench as timing
    from vbench.operators import check as kernel_check
    from vbench.operators import peers as kernel_peers
    from vbench.reports import operators
    from vbench.results import operators as records
    from vbench.results.text import print_whole

    ops = kernel_check.parse_ops(op)
    plan = timing.parse(
        ops=ops,
        forms=kernel_check.parse_forms(form, ops),
        device=devices.resolve(device),
        tokens=n,
        batch=batch,
        dtype=dtype,
        backend=backend,
        l2=l2,
        seconds=seconds,
        limit_s=limit_s,
        threads=threads,
        peers=kernel_peers.parse_peers(peer or []),
    )
    records.append(folder, [])
    rows = []
    with Launcher() as launcher, err.status("timing") as status:
        for found in timing.run(plan, launcher, status.update):
            file = records.append(folder, found)
            rows += found
    if as_json:
        print_json(rows)
    else:
        print_whole(operators.to_rich(rows), out)
        for line in [*operators.targets(rows), *operators.findings(rows), *operators.remarks(rows)]:
            out.print(line)
    print_written([file])
    if any(row["status"] in ("failed", "error") and not row["peer"] for row in rows):
        raise typer.Exit(1)


@app.command()
def tune(
    file: Annotated[Path, typer.Option("--out", "-o", help="File for the rows; move them into tuning.toml.")],
    op: Op = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "bfloat16",
) -> None:
    """Time the configurations of every fused form on a GPU, and write the fastest ones as rows of tuning.toml."""
    from vbench import host, jobs
    from vbench.errors import UsageError
    from vbench.files import write_text
    from vbench.jobs.launch import Launcher
    from vbench.operators import check as kernel_check
    from vbench.operators import tune as kernel_tune
    from vbench.plan import PLAIN, parse_dtypes

    where = devices.resolve(device)
    ops = kernel_tune.check(kernel_check.parse_ops(op), where)
    if len(dtypes := parse_dtypes(dtype, PLAIN)) > 1:
        raise UsageError("--dtype: the table holds for all dtypes; give one dtype to measure it in")
    with Launcher() as launcher, err.status("tuning"):
        outcome = kernel_tune.run(ops, where, dtypes[0], launcher)
        gpu = launcher.run(*jobs.probe(where), kernel_tune.LIMIT_S).parts["gpu"]
    about = host.fingerprint(where, gpu)
    source = f"{about['device_name']}, commit {(about['commit'] or about['source'])[:12]}"
    found = kernel_tune.rows(outcome.timings, about["device_name"], source)
    text = kernel_tune.to_toml(found)
    write_text(file, text)
    typer.echo(text)
    err.print(f"written: {file}, {len(found)} rows from {len(outcome.timings)} timings")
    print_aside(outcome.unfit)
    exit_if_failed(outcome.failed)
