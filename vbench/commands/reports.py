"""The commands that read records: `report`, `figures`, `tables`, `claims`, `fit`. They never import torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.commands.console import AsJson, err, out, print_aside, print_json, print_written
from vbench.commands.repeated import COMMA
from vbench.errors import OutputError, UsageError
from vbench.files import is_file
from vbench.options import shown
from vbench.reports.figures.table import FIGURES

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer()


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with records.jsonl.")],
    page: Annotated[Path | None, typer.Option("--out", "-o", help="Write one .html page of all runs instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the table and figures of one run again from its records, or one page of several runs. Measures nothing."""
    if page is not None:
        write_page(folders, page, as_json)
        return
    if len(folders) > 1:
        raise UsageError(f"{len(folders)} runs make one page: give -o FILE.html, or report one RUN at a time")
    write(folders[0], frame_of(folders), as_json)


@app.command()
def figures(
    words: Annotated[
        list[str], typer.Argument(metavar="[NAME|all] RUN...", help=f"{', '.join(FIGURES)}; and folders.")
    ],
    style: Annotated[str, typer.Option(help="paper, slides, dark.")] = "paper",
    formats: Annotated[str, typer.Option("--format", help="Some of png, pdf, svg."), COMMA] = "png,pdf",
    dtype: Annotated[str | None, typer.Option(help="Only rows of these dtypes."), COMMA] = None,
    at: Annotated[str, typer.Option(help="Sizes in px at which ratios are drawn."), COMMA] = "512,1024,2048",
    baseline: Annotated[
        str | None, typer.Option(help="The model in the numerator of ratios. Default: an attention model.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="The model in the denominator, vig_t or 'vig_t recurrent'. Default: the fastest.")
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="Costs for accuracy-cost and crossover, as in macs,latency_ms."), COMMA
    ] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for figures and their captions.")] = Path(
        "figures"
    ),
) -> None:
    """Draw figures from records, each with its caption. Measures nothing."""
    from vbench.reports.figures import draw

    names, runs = draw.parse_words(words)
    asked = draw.parse(names, style=style, formats=formats, at=at, baseline=baseline, subject=subject, cost=cost)
    files, missing = draw.write(asked, draw.of_dtype(frame_of(runs), dtype), folder)
    print_aside(missing)
    out.print(f"written: {', '.join(map(str, files))}")


@app.command("tables")
def publish(
    folders: Annotated[list[Path], typer.Argument(help="Folders with records.jsonl.", metavar="RUN")],
    what: Annotated[
        str,
        typer.Option(
            help="all, or some of resolution, full, modes, batch, training, work, scaling, pairs, crossovers."
        ),
        COMMA,
    ] = "all",
    formats: Annotated[
        str | None, typer.Option("--format", help="Some of md, tex, csv. Default: md; with --out all three."), COMMA
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Sizes, as --res of a sweep. Default: all, but at most four in the table resolution."),
        COMMA,
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for one file per table. Default: print one format.")
    ] = None,
) -> None:
    """Make tables for a paper in Markdown, LaTeX (booktabs) or CSV, with intervals, best values and footnotes."""
    from vbench.reports import paper_tables

    chosen = paper_tables.parse_formats(formats or ("md,tex,csv" if folder else "md"))
    if folder is None and len(chosen) > 1:
        raise UsageError(
            f"--format: only one format can be printed; name one of {', '.join(chosen)}, or give -o FOLDER"
        )
    made, lacking = paper_tables.make(frame_of(folders), what, at)
    if folder is None:
        typer.echo(paper_tables.render(made, chosen[0]), nl=False)
    else:
        print_written(paper_tables.write(made, chosen, folder))
    print_aside(lacking)


def frame_of(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders. Raises: UsageError for a folder without records."""
    for folder in folders:
        if not is_file(folder / "records.jsonl"):
            raise UsageError(f"{shown(folder)} has no records.jsonl; give the --out folder of a sweep")
    return table_of(folders)


def table_of(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders. A folder may have none."""
    from vbench.results.frame import of_folders

    return of_folders(folders)


def write(folder: Path, table: pd.DataFrame, as_json: bool) -> int:
    """Write the files of a sweep beside its records and print the table. If they cannot be written, say so instead.

    Returns: the number of cells that ended in an error, or whose work is not counted in full.
    """
    from vbench.reports import tables
    from vbench.reports.write import cleaned, write_all

    try:
        files, unwritten = write_all(table, folder) if len(table) else [], []
    except OutputError as error:
        files, unwritten = [], [f"not written: {error}"]
    if as_json:
        typer.echo(cleaned(table).to_json(orient="records", indent=1))
    else:
        tables.show(table, out)
    if unwritten:
        print_aside(unwritten)
    else:
        print_written(files)
    print_aside(tables.uncounted(table) if as_json else [])  # without --json they are under the table
    failed = set(table.index[table["status"] == "error"])
    return len(failed | set(tables.without_count(table).index))


def write_page(folders: Sequence[Path], file: Path, as_json: bool) -> None:
    """Write the page of these runs, and print its answers."""
    from vbench.files import write_text
    from vbench.reports import html
    from vbench.reports.series import few
    from vbench.results.answers import answers

    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise UsageError(f"-o {file}: give the name of a page, as in -o report.html")
    runs = html.runs_of(folders)
    table = html.table_of(runs)
    found = answers(few(table)[0])
    write_text(file, html.page(runs, table, found))
    if as_json:
        print_json([asdict(answer) for answer in found])
    for answer in () if as_json else found:
        out.print(answer.text)
    print_written([file])


@app.command(name="claims")
def claims_(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="--out folders of sweeps. Without one, claims are judged by counts and predictions."),
    ] = None,
    shape: Annotated[str, typer.Option("--format", help="One of text, md, csv.")] = "text",
    as_json: AsJson = False,
) -> None:
    """Say which efficiency claims of the papers hold, against what, and which records prove it."""
    from vbench.flops.fit import asking, of_claims
    from vbench.reports import claims
    from vbench.verify.stamps import of_models

    if shape not in (shapes := ("text", "md", "csv")):
        raise UsageError(f"--format: '{shape}' is not one of {', '.join(shapes)}")
    with asking() as ask, of_models() as verify, err.status("predicting memory, comparing modes"):
        found = claims.judged(runs or [], of_claims(ask), verify)
    if as_json:
        typer.echo(claims.to_json(found))
    elif shape == "text":
        claims.show(found, out)
    else:
        typer.echo(claims.to_markdown(found) if shape == "md" else claims.to_csv(found), nl=False)


@app.command()
def fit(
    folder: Annotated[Path, typer.Argument(help="A folder with records.jsonl.")],
    cost: Annotated[
        str | None, typer.Option(help="latency_ms, macs_executed, ms_per_image, activation_bytes ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit how costs grow with the image size, find where one model becomes cheaper, and warn where settings differ."""
    from vbench.reports import tables
    from vbench.results import lint, scaling

    table = frame_of([folder])
    costs = (cost,) if cost else scaling.FITTED
    exponents, pairs = scaling.exponents(table, costs), [scaling.crossovers(table, each) for each in costs]
    unfair = lint.unfair(table)
    if as_json:
        found = {
            "exponents": json.loads(exponents.to_json(orient="records", double_precision=6)),
            "crossovers": [row for each in pairs for row in json.loads(each.to_json(orient="records"))],
            "unfair": unfair,
        }
        print_json(found)
        return
    if exponents.empty:
        out.print("No model has two sizes with a cost; nothing can be fitted.")
    else:
        out.print(tables.exponents_to_rich(exponents))
        out.print(f"The verdict takes an exponent within {scaling.TOLERANCE:g} of 1 as linear, of 2 as quadratic.")
    for line in [*(reading for each in pairs for reading in each["reading"]), *unfair]:
        out.print(line)
