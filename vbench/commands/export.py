"""The command `export`: whether models can be deployed, and the files with which they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench import plan as planning
from vbench.commands.console import AsJson, err, out, print_aside, print_json
from vbench.commands.parameters import COMMA
from vbench.errors import UsageError
from vbench.exports import verdict
from vbench.options import choices
from vbench.results.text import print_whole

app = typer.Typer()


@app.command()
def export(
    models: Annotated[str, typer.Argument(help="Names, patterns, timm/NAME, or module:callable of your own.")],
    to: Annotated[str, typer.Option(help=f"What to export to: {', '.join(verdict.TARGETS)}."), COMMA] = "onnx",
    mode: Annotated[
        str,
        typer.Option(
            help="parallel, recurrent, or both: parallel,recurrent. One may name the operator's form: "
            "recurrent:reference."
        ),
        COMMA,
    ] = "parallel",
    res: Annotated[str, typer.Option(help="Pixels, one size: 224, or 512x1024 (height x width).")] = "224",
    batch: Annotated[int, typer.Option(help="Images in a call.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint of the one model: a file, a URL, or hf-hub:ORG/REPO/FILE.")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Let the file take images of any height and width.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Run the file on another image, and compare it with the model in eager mode."),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for one model, in one mode, and all its files.")] = 600.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file; or a folder, for files named by model, mode and size.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Export models for runtimes, or say which operator stops that; exit code 1 if one does not export."""
    from vbench.jobs.launch import Launcher
    from vbench.reports import exports as rendering

    targets = choices(to, "--to", verdict.TARGETS)
    dtypes, sizes = planning.parse_dtypes(dtype, planning.PLAIN), planning.parse_sizes(res)
    if max(len(dtypes), len(sizes)) > 1:
        raise UsageError("export takes one --res and one --dtype; call it again for another")
    words, _, form = mode.partition(":")
    cases = verdict.cases(
        planning.parse_models(models, "MODELS"),
        sizes[0],
        modes=planning.parse_modes(words, "--mode"),
        form=form or None,
        batch=batch,
        dtype=dtypes[0],
    )
    if weights and len({case.model for case in cases}) > 1:
        raise UsageError("--weights: one file belongs to one model")
    places = [_files(case, targets, output, alone=len(cases) == 1) for case in cases]
    rows = []
    with Launcher() as launcher:
        for case, files in zip(cases, places, strict=True):
            with err.status(f"exporting {case} to {', '.join(targets)}"):
                rows += verdict.run(
                    case, files, launcher, check=check, dynamic=dynamic, weights=weights, timeout_s=timeout
                )
    if as_json:
        print_json(rows)
    else:
        print_whole(rendering.to_rich(rows), out)
        print_aside(rendering.remarks(rows))
    if any(row["exports"] != "yes" for row in rows):
        raise typer.Exit(1)


def _files(
    case: planning.Case, targets: tuple[verdict.Target, ...], output: Path, *, alone: bool
) -> dict[verdict.Target, Path]:
    """The file of each target. Raises: UsageError if one file is named for several."""
    output = Path.cwd() / output
    if output.is_file() and output.suffix not in (".pt2", ".onnx"):
        raise UsageError(f"--output: '{output.name}' is there already, and is no folder")
    if output.suffix in (".pt2", ".onnx"):
        if len(targets) > 1 or not alone:
            raise UsageError(f"--output: '{output.name}' is one file, and several are asked for; name a folder")
        if output.suffix != (end := Path(f"model{verdict.ENDS[targets[0]]}").suffix):
            raise UsageError(f"--output: '{output.name}' is to hold {targets[0]}, whose files end in {end}")
        return {targets[0]: output}
    return {target: output / verdict.file_name(case, target) for target in targets}
