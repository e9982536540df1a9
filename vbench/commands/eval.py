"""The command `eval`: measured accuracy."""

from __future__ import annotations

import os
import signal
import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from vbench import devices
from vbench import plan as planning
from vbench.accuracy import plan as asking
from vbench.accuracy.plan import Asked
from vbench.commands import axes, cluster
from vbench.commands.console import AsJson, err, print_aside
from vbench.commands.parameters import COMMA
from vbench.errors import UsageError
from vbench.options import choices
from vbench.reports import labels as naming

app = typer.Typer()

Data = Annotated[
    str,
    typer.Option(help="Images: a folder with a folder for each class, a .tar of one, hfds:NAME or wds:FOLDER."),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        help="Weights: auto (the published ones), random, or MODEL=FILE for each model, where FILE is a path, a URL, "
        "or hf-hub:ORG/REPO/FILE."
    ),
    COMMA,
]
Labels = Annotated[
    str,
    typer.Option(
        help="From the names of classes to outputs: auto, imagenet (synsets), v2 (0 to 999), real (ReaL), or a FILE "
        "with the name of a class a line."
    ),
]
CropPct = Annotated[
    float | None,
    typer.Option(help="The share of the resized image that is cut out.", show_default="the model's own, as tested"),
]
CropMode = Annotated[str | None, typer.Option(help=f"{', '.join(asking.CROP_MODES)}.", show_default="the model's own")]
Interpolation = Annotated[
    str | None, typer.Option(help=f"{', '.join(asking.INTERPOLATIONS)}.", show_default="the model's own")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only so many images, of every class its share.", show_default="all")
]
Dtype = Annotated[str, typer.Option(help=f"{', '.join(asking.TYPES)}.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of the model.", show_default="all cores; with --on slurm 8, local:K a share"),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that read images.", show_default="cores, 8 at most")]
Strict = Annotated[bool, typer.Option("--strict", help="Decode every image before the start; stop if one cannot be.")]


@app.command("eval")
def evaluate(
    models: axes.Models = None,
    res: axes.Res = "224",
    data: Data = "",
    checkpoint: Checkpoint = "auto",
    labels: Labels = "auto",
    split: Annotated[str, typer.Option(help="A folder in --data, or a split of a data set.")] = "validation",
    crop_pct: CropPct = None,
    crop_mode: CropMode = None,
    interpolation: Interpolation = None,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample, and of random weights.")] = 0,
    dtype: Dtype = "float32",
    batch: Annotated[int, typer.Option(min=1, max=65536, help="Images a call.")] = 64,
    workers: Workers = None,
    threads: Threads = None,
    device: axes.Device = "auto",
    strict: Strict = False,
    shard: Annotated[int, typer.Option(min=1, help="Images of a shard; an interruption loses one at most.")] = 256,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a shard is stopped.")] = 1800.0,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for records and predictions.")] = Path(
        "vbench-run"
    ),
    as_json: AsJson = False,
    on: cluster.On = None,
    partition: cluster.Partition = None,
    gres: cluster.Gres = None,
    time: cluster.Time = None,
    account: cluster.Account = None,
    qos: cluster.Qos = None,
    constraint: cluster.Constraint = None,
    exclusive: cluster.Exclusive = None,
    array_size: cluster.ArraySize = None,
    resubmit: cluster.Resubmit = None,
    detach: cluster.Detach = False,
) -> None:
    """Measure top-1 and top-5 of models on images, at every size. Run the same command again to resume."""
    from vbench.accuracy import images
    from vbench.accuracy import run as evaluating
    from vbench.commands import eval_cluster
    from vbench.commands.eval_progress import Progress
    from vbench.jobs.launch import Launcher
    from vbench.results import accuracy, store

    slurm = (partition, gres, time, account, qos, constraint, exclusive)
    shared = cluster.parse(on, slurm, array_size=array_size, resubmit=resubmit, detach=detach, budget=None)
    names, sizes, dtypes = _axes(models, res, data, dtype)
    images.check(data)  # before weights are fetched
    where = shared.device(device) if shared else devices.resolve(device)
    sources = asking.parse_checkpoints(checkpoint, names)
    own_crop = asking.parse_crop(crop_pct)
    own_mode = crop_mode and choices(crop_mode, "--crop-mode", asking.CROP_MODES)[0]
    own_filter = interpolation and choices(interpolation, "--interpolation", asking.INTERPOLATIONS)[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = cores if shared is None else shared.cores(cores)
    settings = evaluating.Settings(
        folder.absolute(),
        asking.absolute(data),
        where,
        batch,
        shard,
        workers or min(8, cores),
        threads or cores,
        timeout,
    )
    store.check(folder)  # whether it can be written
    accuracy.read(folder)
    about: dict[str, Any] = {
        "data": asking.absolute(data),
        "split": split,
        "labels": asking.absolute(labels),
        "limit": limit,
        "seed": seed,
        "strict": strict,
    }
    about |= {
        "workers": settings.workers,
        "checkpoints": {name: asking.absolute(source) for name, source in sources.items()},
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted, failed = False, []
    with Launcher() as launcher, tempfile.TemporaryDirectory(prefix="vbench-") as held:
        listing = Path(held) / "images.parquet"
        gpu = None if shared else evaluating.probe(where, launcher)
        with err.status("looking at images, labels and weights"):
            found = evaluating.survey(about, listing, launcher)
        print_aside(found.images["notes"])
        evaluations = []
        for (height, width), kind, name in product(sizes, dtypes, names):
            rules = found.preprocessing[name]
            evaluations.append(
                Asked(
                    model=name,
                    height=height,
                    width=width,
                    dtype=kind,
                    dataset=asking.shown(data),
                    split=split,
                    labels=found.images["labels"],
                    classes=found.images["classes"],
                    crop_pct=own_crop or rules["crop_pct"],
                    crop_mode=own_mode or rules["crop_mode"],
                    interpolation=own_filter or rules["interpolation"],
                    mean=tuple(rules["mean"]),
                    std=tuple(rules["std"]),
                    checkpoint=found.weights[name]["checkpoint"],
                    limit=limit,
                    seed=seed,
                )
            )
        if shared:
            code, told = eval_cluster.evaluate(evaluations, found, listing, settings, shared)
            if told:
                show(folder, as_json=as_json)
            raise typer.Exit(code)
        try:
            with Progress(err) as progress:
                failed = evaluating.run(evaluations, found, listing, settings, launcher, progress, gpu=gpu)
        except KeyboardInterrupt:
            interrupted = True
            err.print("interrupted; the shards so far are kept. Run the same command again to resume")
    show(folder, as_json=as_json)
    raise typer.Exit(130 if interrupted else 1 if failed else 0)


def show(folder: Path, *, as_json: bool, quiet: bool = False, labels: naming.Labels | None = None) -> None:
    """Write `accuracy.csv` into a folder and print its table, or JSON; nothing if `quiet`.

    `labels`: the names of models in the table.
    """
    from vbench.commands.console import out, print_json, print_written
    from vbench.reports import accuracy

    rows = accuracy.rows([folder])
    written = accuracy.write(rows, folder)
    if as_json:
        print_json(accuracy.to_json(rows))
    elif not quiet:
        accuracy.show(rows, out, labels)
    print_aside(accuracy.unfinished([folder]))
    print_written(written)


def _axes(
    models: str | None, res: str | None, data: str, dtype: str
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...], tuple[planning.Dtype, ...]]:
    """Models, sizes and dtypes. Raises: UsageError."""
    if not models or not data:
        raise UsageError("give --models and --data, as in --models vig_t,deit_t --res 224:1024 --data imagenet/val")
    names, sizes = planning.parse_models(models), planning.parse_sizes(res or "224")
    asking.check_sizes(names, sizes)
    return names, sizes, planning.parse_dtypes(dtype, asking.TYPES)
