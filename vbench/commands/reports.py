"""The commands that read records: `report`, `figures`, `tables`, `claims`, `fit`. They never import torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.commands.console import AsJson, err, out, print_aside, print_json, print_written, written
from vbench.commands.parameters import COMMA
from vbench.errors import OutputError, UsageError
from vbench.files import is_file
from vbench.options import shown
from vbench.reports import labels as naming
from vbench.reports.figures.table import FIGURES

if TYPE_CHECKING:
    import pandas as pd

    from vbench.reports.figures.style import Look
    from vbench.results.rates import Rates

app = typer.Typer()

RUNS = "One or more folders of runs: what --out of a sweep named."

Price = Annotated[
    str | None,
    typer.Option(
        help="What an hour of the machine costs, as 2.5/h, '$2.5/h' or '2.5 EUR/h': adds the cost of 10^6 images."
    ),
]
CarbonIntensity = Annotated[
    str | None,
    typer.Option(
        metavar="G_PER_KWH", help="Grams of CO2 for a kWh of your grid, as in 400: adds what 10^6 images emit."
    ),
]
Width = Annotated[
    str | None,
    typer.Option(
        metavar="WIDTH",
        help="Width of figures: column (84 mm), full (170 mm, two columns), or mm. Default: what each figure needs.",
    ),
]
Font = Annotated[str, typer.Option(metavar="FONT", help="Letters of figures: sans, serif.")]
Labelling = Annotated[str | None, typer.Option("--labels", metavar="MODEL=NAME,...", help=naming.HELP), COMMA]


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help=RUNS)],
    page: Annotated[Path | None, typer.Option("--out", "-o", help="Write one .html page of all runs instead.")] = None,
    price: Price = None,
    carbon_intensity: CarbonIntensity = None,
    witnesses: Annotated[
        bool, typer.Option("--witnesses", help="If nobody published figures of the same device, say so.")
    ] = False,
    width: Width = None,
    font: Font = "sans",
    labels: Labelling = None,
    as_json: AsJson = False,
) -> None:
    """Write the tables and figures of one run again from its records, or one page of several runs. Measures nothing."""
    from vbench.commands import eval as evaluating
    from vbench.reports import accuracy
    from vbench.results import rates

    asked = rates.parse(price, carbon_intensity)
    if page is not None:
        if (width, font) != (None, "sans"):
            raise UsageError("--width and --font are of the figure of one run: leave out -o FILE.html")
        write_page(folders, page, as_json, asked, witnesses=witnesses, labels=labels)
        return
    if len(folders) > 1:
        raise UsageError(f"{len(folders)} runs make one page: give -o FILE.html, or report one RUN at a time")
    with_accuracy = accuracy.has_any(folders[0])
    alone = with_accuracy and not (folders[0] / "records.jsonl").is_file()
    evaluated = [row.model for row in accuracy.rows(folders)] if with_accuracy else []
    names = naming.parse(labels, evaluated) if alone else naming.Labels()
    if not alone:
        from vbench.reports.figures.style import parse_look

        look = parse_look(width=width, font=font)
        table = frame_of(folders)
        names = naming.parse(labels, [*table["model"], *evaluated])
        look = replace(look, labels=names)
        write(folders[0], rates.priced(table, asked), as_json, witnesses=witnesses, look=look)
    if with_accuracy:
        evaluating.show(folders[0], as_json=as_json and alone, quiet=as_json and not alone, labels=names)


@app.command()
def figures(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME|all] RUN...", help=f"all, or some of {', '.join(FIGURES)}; then {RUNS[0].lower()}{RUNS[1:]}"
        ),
    ],
    style: Annotated[str, typer.Option(help="paper, slides, dark.")] = "paper",
    width: Width = None,
    font: Font = "sans",
    labels: Labelling = None,
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
    as_json: AsJson = False,
) -> None:
    """Draw figures from records, each with its caption. Measures nothing."""
    from vbench.reports.figures import draw
    from vbench.results.accuracy import measured

    names, runs = draw.parse_words(words)
    looks = {"baseline": baseline, "subject": subject, "cost": cost, "width": width}
    asked = draw.parse(names, style=style, font=font, formats=formats, at=at, **looks, accuracy=measured(runs))
    table = draw.of_dtype(frame_of(runs) if runs else table_of(runs), dtype)
    files, missing = draw.write(draw.labelled(asked, table, labels), table, folder)
    print_aside(missing)
    if as_json:
        print_json(_figures_to_json(asked.names, files, missing))
    else:
        out.print(written(files))


def _figures_to_json(names: Sequence[str], files: Sequence[Path], missing: Sequence[str]) -> list[dict[str, object]]:
    """One dict a figure that was asked for: its files, or why it was not drawn."""
    reasons = dict(line.split(" is not drawn: ", 1) for line in missing)
    return [
        {
            "figure": name,
            "files": [str(file) for file in files if file.stem == name.replace(":", "-")],
            "reason": reasons.get(name),
        }
        for name in names
    ]


@app.command("tables")
def publish(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help=RUNS)],
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
    width: Annotated[
        str, typer.Option(help="What LaTeX tables fit: column (\\columnwidth) or full (\\textwidth).")
    ] = "full",
    label_of: Labelling = None,
    as_json: AsJson = False,
) -> None:
    """Make tables for a paper in Markdown, LaTeX (booktabs) or CSV, with intervals, best values and footnotes."""
    from vbench.reports import grid, labels, paper_tables

    if as_json and (formats or folder):
        raise UsageError("--json prints the tables; leave out --format and -o")
    chosen = paper_tables.parse_formats(formats or ("md,tex,csv" if folder else "md"))
    if folder is None and len(chosen) > 1:
        raise UsageError(
            f"--format: only one format can be printed; name one of {', '.join(chosen)}, or give -o FOLDER"
        )
    room = paper_tables.parse_width(width)
    table = frame_of(folders)
    names = labels.parse(label_of, table["model"])
    made, lacking = paper_tables.make(table, what, at, labels.Labels() if as_json else names)
    if as_json:
        print_json([{"table": name, **one} for name, grids in made.items() for one in map(grid.to_json, grids)])
    elif folder is None:
        typer.echo(paper_tables.render(made, chosen[0], room), nl=False)
    else:
        print_written(paper_tables.write(made, chosen, folder, room))
    print_aside(lacking)


def frame_of(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders. Raises: UsageError for a folder without records."""
    for folder in folders:
        if not is_file(folder / "records.jsonl"):
            raise UsageError(f"{shown(folder)} has no records.jsonl; give the --out folder of a sweep")
    table = table_of(folders)
    if table.empty and not table.attrs.get("damaged"):
        raise UsageError(f"{', '.join(map(shown, folders))}: no cell was recorded yet; sweep into it, then ask again")
    return table


def table_of(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders. A folder may have none."""
    from vbench.reports.runs import table_of_folders

    return table_of_folders(folders)


def write(
    folder: Path,
    table: pd.DataFrame,
    as_json: bool,
    *,
    question: str | None = None,
    witnesses: bool = False,
    look: Look | None = None,
) -> int:
    """Write the files of a sweep beside its records and print the table, then the answers that it gives.

    If the files cannot be written, it says so instead.

    Args:
        question: what the sweep was to answer.
        witnesses: say so if nobody published a figure to set beside these.
        look: of the figure, with the labels of models; None: the usual one.

    Returns: the number of cells that ended in an error, or whose work is not counted in full.
    """
    from vbench.reports import closing, tables
    from vbench.reports import witnesses as others
    from vbench.reports.write import cleaned, write_all

    told, labels = tables.below(table), look.labels if look else None
    try:
        with err.status("writing tables, drawing the figure"):
            files, unwritten = write_all(table, folder, told, look) if len(table) else [], []
    except OutputError as error:
        files, unwritten = [], [f"not written: {error}"]
    if as_json:
        clean = cleaned(table)
        typer.echo(clean.assign(flags=clean["flags"].str.split()).to_json(orient="records", indent=1))
    else:
        tables.show(table, out, told, labels)
        others.show(table, out, labels, asked=witnesses)
    if unwritten:
        print_aside(unwritten)
    elif files:
        print_written(files)
    print_aside(tables.uncounted(table) if as_json else [])  # without --json they are under the table
    for line in [] if as_json else closing.lines(table, folder, question, labels):
        out.print(line)
    failed = set(table.index[table["status"] == "error"])
    return len(failed | set(tables.without_count(table).index))


def write_page(
    folders: Sequence[Path],
    file: Path,
    as_json: bool,
    asked: Rates,
    *,
    witnesses: bool = False,
    labels: str | None = None,
) -> None:
    """Write the page of these runs, with the columns of these rates, and print its answers.

    Args:
        witnesses: say so on the page if nobody published a figure to set beside these.
        labels: what --labels gave.
    """
    from vbench.files import write_text
    from vbench.reports import html
    from vbench.reports.runs import runs_of, table_of
    from vbench.reports.series import few
    from vbench.results import rates
    from vbench.results.accuracy import measured
    from vbench.results.answers import answers

    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise UsageError(f"-o {file}: give the name of a page, as in -o report.html")
    runs = runs_of(folders)
    table, accuracy = rates.priced(table_of(runs), asked), measured(folders)
    names = naming.parse(labels, table["model"])
    found = answers(few(table)[0], accuracy)
    write_text(file, html.page(runs, table, found, accuracy, witnesses=witnesses, labels=names))
    if as_json:
        print_json([asdict(answer) for answer in found])
    for answer in () if as_json else found:
        out.print(names.within(answer.text))
    print_written([file])


@app.command(name="claims")
def claims_(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN...", help="--out folders of sweeps. Without one, claims are judged by counts and predictions."
        ),
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
    from vbench.reports import exponents as growth
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
        out.print(growth.to_rich(exponents))
        out.print(f"The verdict takes an exponent within {scaling.TOLERANCE:g} of 1 as linear, of 2 as quadratic.")
    for line in [*(reading for each in pairs for reading in each["reading"]), *unfair]:
        out.print(line)
