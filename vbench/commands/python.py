"""The calls of Python: `sweep`, `read`, `compare`, `merge` and `pick` of `vbench`, the commands of these names.

What is wrong is a UsageError of one line, which names keywords where a command names options.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from vbench.errors import UsageError
from vbench.options import check_numbers
from vbench.plan import CELLS
from vbench.results.outcome import THRESHOLD

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from vbench.cluster.merge import Merged

    Model: TypeAlias = str | Callable[..., torch.nn.Module]
    Size: TypeAlias = int | str | tuple[int, int]
    Words: TypeAlias = str | Sequence[str]
    Dtype: TypeAlias = str | torch.dtype

OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")


def sweep(
    models: Model | Sequence[Model] | None = None,
    res: int | str | Sequence[Size] | None = None,
    *,
    suite: str | Path | None = None,
    modes: Words | None = None,
    batch: int | str | Sequence[int | str] | None = None,
    dtype: Dtype | Sequence[Dtype] | None = None,
    phase: Words | None = None,
    backend: Words | None = None,
    layout: Words | None = None,
    attention: Words | None = None,
    reparam: Words | None = None,
    form: Words | None = None,
    device: str = "auto",
    rigor: str | None = None,
    threads: int = 1,
    tf32: bool = False,
    seconds: float | None = None,
    seed: int = 0,
    pairs: str | None = None,
    refine: str | None = None,
    budget: str | None = None,
    cells: int = CELLS,
    timeout: float = 300.0,
    out: str | Path = "vbench-run",
    fresh: bool = False,
    retry: bool = False,
    on: str | None = None,
    partition: str | None = None,
    gres: str | None = None,
    time: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    exclusive: bool | None = None,
    array_size: int | None = None,
    resubmit: int | None = None,
    detach: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every cell of a plan, each in a process of its own, as `vbench sweep` does. The same call again resumes.

    Every keyword is the option of that name; what has several values is a list, or a text with commas.

    Args:
        models: names, patterns, "timm/NAME", "module:callable" of your own; or that callable or class itself, if it
            stands at the top of a module that can be imported.
        res: sides in px, as 224 or [224, 512]; texts as "224:2048" or "512x1024"; in a list (height, width) too.
        cells: the most cells that the plan may have.
        out: the folder of the records.
        on: "slurm", or "local:2" for two shards at once on this machine. What follows is asked of Slurm or says how
            shards are sent; None leaves it to the command's default.
        progress: whether a line for each launch goes to stderr.

    Returns: the frame of all records in `out`, one row a cell, as `read(out)`; those so far, if jobs still run. A shard
        that could not be measured is a warning. See docs/reference/columns.md.

    Raises: UsageError if a value is not allowed; OutputError, SchemaError for a folder that cannot be used. Nothing was
        measured then.
    """
    from vbench import devices
    from vbench.commands import axes, cluster
    from vbench.commands.console import Terminal
    from vbench.commands.progress import Progress
    from vbench.commands.reports import table_of
    from vbench.commands.sweep import how_of, protocol_of, settings_of
    from vbench.jobs.launch import Launcher
    from vbench.results import store
    from vbench.sweeps import loop

    begin, folder = monotonic(), Path(out)
    with _as_keywords():
        numbers = {"threads": threads, "timeout": timeout, "seconds": seconds, "seed": seed, "cells": cells}
        if wrong := [name for name, value in numbers.items() if not isinstance(value, int | float | None)]:
            raise UsageError(f"{wrong[0]}: {numbers[wrong[0]]!r} is not a number")
        check_numbers(numbers)
        given = {
            "models": None if models is None else ",".join(map(_model, _several(models))),
            "res": None if res is None else ",".join(_sizes(res)),
            **{"modes": _text(modes), "batch": _text(batch), "dtype": _text(dtype), "phase": _text(phase)},
            **{"backend": _text(backend), "layout": _text(layout), "attention": _text(attention)},
            **{"reparam": _text(reparam), "form": _text(form)},
        }
        asked = {axis: text for axis, text in given.items() if text is not None}
        named = None if suite is None else str(suite)
        how = how_of(named, rigor=rigor, seconds=seconds, pairs=pairs, refine=refine, budget=budget)
        slurm = (partition, gres, time, account, qos, constraint, exclusive)
        where = cluster.parse(on, slurm, array_size=array_size, resubmit=resubmit, detach=detach, budget=how.budget)
        resolved = where.device(device) if where else devices.resolve(device)
        cases = axes.cells(asked, named, resolved, most=cells)
        protocol = protocol_of(resolved, how.rigor, threads, tf32, how.seconds, seed)
        settings = settings_of(cases, folder, how, timeout, fresh, retry, begin)
        store.check(folder)
        console = Terminal(stderr=True, quiet=not progress, soft_wrap=True, force_terminal=False, force_jupyter=False)
        if where:
            with cluster.Watching(console) as watch:
                outcome = cluster.measure(cases, settings, protocol, where, watch)
            for number, why in outcome.failed.items():
                warnings.warn(f"shard {number} is not measured in full: {why}", stacklevel=2)
            return table_of([folder])
        with Launcher() as launcher:
            gpu = loop.probe(cases, resolved, launcher)
            with Progress(console, settings.deadline) as shown:
                loop.run(cases, settings, protocol, launcher, shown, gpu=gpu)
    return read(folder)


def read(*runs: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """The frame of one or several runs, the `out` folders of sweeps: one row a cell, as in docs/reference/columns.md.

    Raises: UsageError for a folder without records; SchemaError for records that this version cannot read.
    """
    from vbench.commands.reports import frame_of

    folders = _folders(runs)
    if not folders:
        raise UsageError("name a run, the folder of a sweep, as in vbench.read('vbench-run')")
    with _as_keywords():
        return frame_of(folders)


def merge(*runs: str | Path | Iterable[str | Path], out: str | Path, keep: str | None = None) -> Merged:
    """Join runs in the folder `out`, as `vbench merge RUN... -o OUT` does: the records, turns, accuracies with
    predictions, and run.json of each.

    Args:
        keep: "newest": where runs disagree about a launch, the newest counts. None: that is a UsageError.

    Returns: `folder`, how many launches (`records`), blocks of turns (`turns`) and shards of images (`accuracies`) it
        has now, and how many are `new`.

    Raises: UsageError for a folder without records, and for runs that disagree; OutputError, SchemaError for a folder
        that cannot be used. Nothing was written then.
    """
    from vbench.cluster.merge import merge as joined

    with _as_keywords():
        return joined(_folders(runs), Path(out), keep)


def _folders(runs: Iterable[str | Path | Iterable[str | Path]]) -> list[Path]:
    return [Path(one) for run in runs for one in ([run] if isinstance(run, str | Path) else run)]


def compare(
    a: str | Path, b: str | Path, *, threshold: float = THRESHOLD, allow_mismatch: bool = False
) -> pd.DataFrame:
    """Compare two stored runs cell by cell, as `vbench compare A B` does. Measures nothing.

    Args:
        a: the folder of the earlier run.
        b: the folder of the later run.
        threshold: the smallest change that matters, as a share.
        allow_mismatch: compare runs of different machines.

    Returns: one row a finding, with the fields of `vbench.results.outcome.Finding`: cell, what, verdict, values, ratio
        and its interval. `attrs` holds `exit_code` of the command, `invalid` (why nothing is decided, or None) and
        `facts`.

    Raises: UsageError for a folder without records, or runs that do not compare.
    """
    import pandas as pd

    from vbench.results import compare as comparing
    from vbench.results.outcome import Finding

    with _as_keywords():
        runs = comparing.load(Path(a)), comparing.load(Path(b))
        found = comparing.compare(*runs, threshold=threshold, allow_mismatch=allow_mismatch)
    kinds = {field.name: "Float64" if "float" in str(field.type) else "string" for field in fields(Finding)}
    table = pd.DataFrame([asdict(one) for one in found.findings], columns=list(kinds)).astype(kinds)
    table.attrs |= {"exit_code": found.exit_code(), "invalid": found.invalid, "facts": found.facts}
    return table


def pick(
    *runs: str | Path,
    latency_ms: float | None = None,
    throughput: float | None = None,
    memory_gb: float | None = None,
    energy_j: float | None = None,
    cost: float | None = None,
    emissions_g: float | None = None,
    price: str | None = None,
    carbon_intensity: str | float | None = None,
    res: str | None = None,
    metric: str = "top1",
    data_rows: Sequence[str | Path] = (),
    data: str | None = None,
    labels: str | None = None,
) -> pd.DataFrame:
    """The most accurate cells that meet a budget, as `vbench pick` finds them in stored runs. Measures nothing.

    Args:
        runs: the folders of sweeps.
        latency_ms, throughput, memory_gb, energy_j: the limits: ms, images/s, 10^9 bytes, J/image; one limit at least.
        cost, emissions_g: limits of 10^6 images, in the currency of `price` and in g of CO2.
        price: what an hour of the machine costs, as "2.5 EUR/h"; `cost` needs it.
        carbon_intensity: g of CO2 a kWh of the grid; `emissions_g` needs it.
        res: only these sizes in px, as "224:1024".
        metric: "top1" or "top5".
        data_rows: more folders with accuracies of `vbench eval`.
        data, labels: the data set and the map of labels, if there are several.

    Returns: one row for each cell with an accuracy and all costs, the most accurate first. `role` says what a cell is
        to the answer ("best", "not told apart", ...), `meets` whether it meets the budget: yes, open, no. Costs and
        accuracy have `_lo` and `_hi`, missing where no interval is known. `attrs["answers"]` has the answer in words,
        for each device.

    Raises: UsageError for a limit that is not positive, none at all, or a folder without records.
    """
    from vbench.commands.pick import picks
    from vbench.reports.pick import frame

    limits = {"latency_ms": latency_ms, "throughput": throughput, "memory_gb": memory_gb, "energy_j": energy_j}
    limits |= {"cost": cost, "emissions_g": emissions_g}
    given = price, None if carbon_intensity is None else str(carbon_intensity)
    folders = [Path(run) for run in runs]
    if not folders:
        raise UsageError("name a run, the folder of a sweep, as in vbench.pick('vbench-run', latency_ms=20)")
    with _as_keywords():
        return frame(picks(folders, limits, res, metric, [Path(one) for one in data_rows], data, labels, given))


@contextmanager
def _as_keywords() -> Iterator[None]:
    """Let errors within name keywords: "--base-python: ..." is "base_python: ..."."""
    try:
        yield
    except UsageError as error:
        raise type(error)(OPTION.sub(lambda match: match[1].replace("-", "_"), str(error))) from None


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | type) else [value]


def _text(value: Any) -> str | None:
    """Words, numbers and dtypes as a comma list; None stays None."""
    return None if value is None else ",".join(str(one) for one in _several(value))


def _sizes(res: Any) -> Iterator[str]:
    if isinstance(res, tuple) and len(res) == 2:
        low, high = res
        raise UsageError(f"res: {res} may mean two things; write [{low}, {high}] for two sizes, '{low}x{high}' for one")
    for size in _several(res):
        yield "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _model(model: object) -> str:
    """The name by which another process finds a model. Raises: UsageError if it cannot."""
    if isinstance(model, str):
        return model
    module, name = (str(getattr(model, key, "")) for key in ("__module__", "__qualname__"))
    if module == "__main__" and name:
        raise UsageError(
            f"models: {name} stands in this notebook or script, which the processes that measure do not run; put it "
            f"into a file, as my_net.py, and give 'my_net:{name}'"
        )
    if not name.isidentifier() or getattr(sys.modules.get(module), name, None) is not model:
        raise UsageError(
            f"models: no other process can find this {type(model).__name__}; give a name, or a function or class "
            "that stands at the top of a module"
        )
    return f"{module}:{name}"
