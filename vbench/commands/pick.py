"""`vbench pick` and `vbench accuracy`: which model to take, and whether two differ. From records alone; no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vbench.commands.console import AsJson, err, out, print_json, print_written
from vbench.commands.parameters import COMMA
from vbench.commands.reports import CarbonIntensity, Price, frame_of
from vbench.errors import UsageError

if TYPE_CHECKING:
    from vbench.results.accuracy import MeasuredAccuracy
    from vbench.results.known import Accuracies
    from vbench.results.mcnemar import Metric
    from vbench.results.pick import Pick

app = typer.Typer()

MetricName = Annotated[str, typer.Option(help="top1 or top5. Papers print top1 alone.")]
Data = Annotated[str | None, typer.Option(help="The data set of the measured accuracies, if there are several.")]
Labels = Annotated[str | None, typer.Option(help="Their map of labels, if there are several.")]


@app.command()
def pick(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders with records.jsonl.")],
    latency_ms: Annotated[float | None, typer.Option(help="Most time of a call at batch 1.")] = None,
    throughput: Annotated[float | None, typer.Option(help="Fewest images a second.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Most peak memory, in units of 10^9 bytes.")] = None,
    energy_j: Annotated[float | None, typer.Option(help="Most energy of an image, in J.")] = None,
    cost: Annotated[float | None, typer.Option(help="Most cost of 10^6 images, in the currency of --price.")] = None,
    emissions_g: Annotated[float | None, typer.Option(help="Most CO2 of 10^6 images, in g; needs the grid.")] = None,
    price: Price = None,
    carbon_intensity: CarbonIntensity = None,
    res: Annotated[
        str | None, typer.Option(help="Only these sizes, as 224:1024 (all between) or 512,512x1024."), COMMA
    ] = None,
    metric: MetricName = "top1",
    data_rows: Annotated[
        list[Path] | None, typer.Option(help="More folders with accuracies of 'vbench eval'; repeatable.")
    ] = None,
    data: Data = None,
    labels: Labels = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the figure, its caption and the table (md, csv, json)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pick the most accurate model, size, batch, dtype and mode that meets a budget. Measures nothing.

    Accuracies that 'vbench eval' measured come before those that papers print. Exit code 1: nothing meets the budget.
    """
    limits = {"latency_ms": latency_ms, "throughput": throughput, "memory_gb": memory_gb, "energy_j": energy_j}
    limits |= {"cost": cost, "emissions_g": emissions_g}
    answers = picks(runs, limits, res, metric, data_rows or [], data, labels, (price, carbon_intensity))
    files = write(answers, folder) if folder else []
    if as_json:
        from vbench.reports.pick import to_json

        print_json(to_json(answers))
    else:
        from vbench.reports.pick import show

        show(answers, out)
    if files:
        print_written(files)
    if not all(found.best for found in answers):
        raise typer.Exit(1)


def picks(
    runs: Sequence[Path],
    limits: dict[str, float | None],
    res: str | None,
    metric: str,
    data_rows: Sequence[Path],
    data: str | None,
    labels: str | None,
    given: tuple[str | None, str | None],
) -> list[Pick]:
    """The answer of each device; `given` are a price and the carbon intensity of a grid. Raises: UsageError."""
    from vbench.results import pick as picking
    from vbench.results import rates

    budget, asked = picking.parse(limits), rates.parse(*given)
    picking.check_rates(budget, asked)
    within = picking.parse_sizes(res) if res is not None else lambda height, width: True
    name = metric_of(metric)
    known = accuracies([*runs, *data_rows], name, data, labels)
    return picking.pick(rates.priced(frame_of(runs), asked), budget, known, within)


def accuracies(
    folders: Sequence[Path], metric: Metric, data: str | None = None, labels: str | None = None
) -> Accuracies:
    """What is known of models by these folders, and by papers. Raises: UsageError."""
    from vbench.results.known import Accuracies, of_one_set, usable

    rows = measured_in(folders)
    kept = usable(rows)
    if len(kept) < len(rows):
        err.print(f"{len(rows) - len(kept)} accuracies of random weights are left out", markup=False)
    return Accuracies(of_one_set(kept, data, labels), metric)


def measured_in(folders: Sequence[Path]) -> list[MeasuredAccuracy]:
    """The accuracies that were measured into these folders. Raises: UsageError for a folder that is not there."""
    from vbench.results.accuracy import measured

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; give the --out folder of a sweep or of 'vbench eval'")
    return measured(list(dict.fromkeys(folders)))


def metric_of(text: str) -> Metric:
    """Raises: UsageError for a word that is no metric."""
    from vbench.options import choices
    from vbench.results.mcnemar import METRICS

    found = choices(text, "--metric", METRICS)
    if len(found) > 1:
        raise UsageError(f"--metric: '{text}' is two metrics; give one")
    return found[0]


def write(answers: Sequence[Pick], folder: Path) -> list[Path]:
    """Write figure, caption and table of each device into a folder. Raises: OutputError."""
    import json

    from vbench.files import write_text, writing
    from vbench.reports import pick as tables
    from vbench.reports.figures import draw
    from vbench.reports.figures.pick import pareto
    from vbench.reports.figures.style import NotDrawnError, looking

    files = [folder / f"pick.{suffix}" for suffix in ("md", "csv", "json")]
    texts = [tables.to_markdown(answers), tables.to_csv(answers), json.dumps(tables.to_json(answers), indent=1)]
    with writing(folder), looking("paper"):
        for file, text in zip(files, texts, strict=True):
            write_text(file, text)
        for found in answers:
            stem = (
                "pick" if len(answers) == 1 else f"pick-{re.sub(r'[^a-z0-9]+', '-', found.device.lower()).strip('-')}"
            )
            try:
                drawn = pareto(found)
            except NotDrawnError as why:
                err.print(f"no figure of {found.device}: {why}", markup=False)
                continue
            files += draw.write_files(drawn, draw.wrapped(drawn.notes), folder / stem, ("png", "pdf"))
    return files


@app.command()
def accuracy(
    models: Annotated[str, typer.Argument(metavar="MODEL,MODEL", help="Two models that 'vbench eval' measured.")],
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The --out folders of 'vbench eval'.")],
    metric: MetricName = "top1",
    data: Data = None,
    labels: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Say which of two models is right more often on the same images, size by size (McNemar's exact test)."""
    from vbench.options import items
    from vbench.reports import mcnemar as tables
    from vbench.results import mcnemar
    from vbench.results.known import of_one_set

    names = items(models, "MODEL,MODEL", "vig_t,deit_t")
    if len(names) != 2:
        raise UsageError(f"'{models}' is not two models; write them like vig_t,deit_t")
    rows = [row for row in measured_in(folders) if row.model in names or not data]
    found = mcnemar.compare(of_one_set(rows, data, labels), names[0], names[1], metric_of(metric))
    if as_json:
        print_json([_jsonable(asdict(one)) for one in found])
    else:
        tables.show(found, out)


def _jsonable(found: dict[str, Any]) -> dict[str, Any]:
    """A dict without paths and tuples."""
    return {
        key: _jsonable(value) if isinstance(value, dict) else str(value) if isinstance(value, Path) else value
        for key, value in found.items()
    }
