"""`vbench kernels`: the operators by themselves. A skin over `kernel_check`, `_compile`, `_bench` and `_tune`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="The operators by themselves: list, check, compile, bench, tune.")
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)

Op = Annotated[str | None, typer.Option(help="gla, wkv, wkv6, mlstm, retention, mingru ... [default: all]")]
FormName = Annotated[str | None, typer.Option(help="fused, chunkwise, scan, reference ... [default: all that can run]")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_(device: Device = "auto", as_json: AsJson = False) -> None:
    """List operators and forms: mode, devices, dtypes, whether each can run here, what it is the default for."""
    from vbench import host, kernel_check

    where = host.resolve(device)
    found = kernel_check.rows(where)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        out.print(kernel_check.to_rich(found, where))


@app.command()
def check(
    op: Op = None,
    form: FormName = None,
    device: Device = "auto",
    tokens: Annotated[
        int | None, typer.Option(min=2, max=4096, help="Tokens of a trial. [default: 133; 70 where interpreted]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Hold every form that can run to the recurrence in float64, gradients too; exit code 1 if one fails.

    Without a GPU, Triton's kernels are interpreted on the CPU.
    """
    from vbench import host, kernel_check, verify
    from vbench.launch import Launcher

    where, ops = host.resolve(device), kernel_check.parse_ops(op)
    forms = kernel_check.parse_forms(form, ops)
    interpreted = kernel_check.interpret(where)
    with Launcher() as launcher, err.status("checking"):
        verdicts = kernel_check.check(ops, forms, launcher, device=where, tokens=tokens, seed=seed)
    failed = [line for verdict in verdicts for line in verdict.failed]
    if as_json:
        typer.echo(json.dumps([check.to_json() for verdict in verdicts for check in verdict.checks], indent=1))
    else:
        out.print(verify.to_rich(verdicts))
        if interpreted and kernel_check.has_triton(verdicts):
            out.print("Triton's kernels were interpreted on the CPU: their arithmetic is tried, not their speed.")
    for line in failed:
        err.print(line, markup=False)
    if failed:
        raise typer.Exit(1)
