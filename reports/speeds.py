"""The FLOP/s of each family beside DeiT's at one size, from the records of one run, and where slow ones lose time.

python -P -m vbench.reports.speeds --profile FOLDER   times the modules of what is slow by its records: modules.json
python -P -m vbench.reports.speeds FOLDER PAGE        writes the table into a page

A model counts in its faster mode. FLOPs are those that the algorithm needs, 1 MAC is 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vbench.files import write_text
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results.frame import of_folders
from vbench.results.text import px

BESIDE, ENOUGH = "deit_t", 0.7  # of its FLOP/s; below, it is said where the time goes
MODULES, DEPTH, SAID = "modules.json", 3, 3
RECORDS = "records.jsonl"
HEADS = ("model", "mode", "GMACs", "latency (ms)", "95 % interval", "GFLOP/s", "× deit_t")
NOTHING = "Nothing is recorded yet; `make speeds` does it."
Modules = Mapping[str, Sequence[Mapping[str, Any]]]  # by model


def fastest(table: pd.DataFrame) -> pd.DataFrame:
    """The faster mode of each model, with `gflops_per_s` and `beside`, the ratio to DeiT's. The fastest is first.

    Raises: ValueError without a time of DeiT's.
    """
    timed = table[(table["status"] == "ok") & table["latency_ms"].notna()].copy()
    timed["gflops_per_s"] = 2 * timed["macs"] / timed["latency_ms"] / 1e6
    timed = timed.sort_values("gflops_per_s", ascending=False).drop_duplicates("model")
    deit = timed.loc[timed["model"] == BESIDE, "gflops_per_s"]
    if deit.empty:
        raise ValueError(f"there is no time of {BESIDE} in these records")
    timed["beside"] = timed["gflops_per_s"] / deit.iloc[0]
    return timed


def _each(rows: pd.DataFrame) -> list[Any]:
    """The rows, whose attributes are the columns."""
    return list(rows.itertuples())


def markdown(table: pd.DataFrame, modules: Modules) -> str:
    """The table, the conditions, and a line for each model that is slow."""
    rows = fastest(table)
    cells = [
        [
            row.model,
            ":".join(filter(None, (row.mode, row.form if isinstance(row.form, str) else ""))),
            f"{row.macs / 1e9:.2f}",
            f"{row.latency_ms:,.1f}",
            f"{row.latency_ms_lo:,.1f}–{row.latency_ms_hi:,.1f}",
            f"{row.gflops_per_s:.1f}",
            f"{row.beside:.2f}",
        ]
        for row in _each(rows)
    ]
    one = rows.iloc[0]
    about = (
        f"{px(int(one['height']), int(one['width']))} px, {one['dtype']}, batch 1, {one['threads']} thread(s) of "
        f"{one['device_name']}, torch {one['torch']}, commit {str(one['commit'])[:12]}."
    )
    deit = float(rows.loc[rows["model"] == BESIDE, "gflops_per_s"].iloc[0])
    slow = [lost(row.model, row.mode, modules.get(row.model, ()), deit) for row in _each(rows[rows["beside"] < ENOUGH])]
    said = "\n".join(slow) or f"No family is below {ENOUGH:.0%} of DeiT's FLOP/s."
    return "\n".join([*pipes(HEADS, cells, right=HEADS[2:]), "", about, "", said])


def lost(model: str, mode: str, modules: Sequence[Mapping[str, Any]], gflops_per_s: float) -> str:
    """Where a model's time goes beyond what its multiplications would take at that rate, the most first."""
    if not modules:
        return f"- {model}: the time of its modules is not recorded."
    times, works = (sum(row[name] or 0 for row in modules) for name in ("own_ms", "macs_executed"))
    spare = [(row["own_ms"] - 2 * row["macs_executed"] / gflops_per_s / 1e6, row) for row in modules if row["own_ms"]]
    most = sorted((each for each in spare if each[0] > 0), key=lambda each: -each[0])[:SAID]
    parts = [
        f"`{row['module']}` {row['own_ms'] / times:.0%} of the time for {row['macs_executed'] / works:.0%} of the MACs"
        for _, row in most
    ]
    return f"- {model} {mode}: {'; '.join(parts)}."


def profiled(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The modules of each slow model, with their work and the time that is measured now."""
    from vbench.flops import count, modules
    from vbench.jobs.launch import Launcher

    found: dict[str, list[dict[str, Any]]] = {}
    with Launcher() as launcher:
        for row in _each(fastest(table).query(f"beside < {ENOUGH}")):
            form = row.form if isinstance(row.form, str) else None
            (case,) = count.cases(row.model, ((row.height, row.width),), mode=row.mode, form=form, dtype="float32")
            counted = count.run(case, launcher, depth=DEPTH)
            timed = modules.run(case, counted, launcher, modules.Timing(seconds=1.0, threads=int(row.threads)), DEPTH)
            if timed["time_reason"]:
                sys.stderr.write(f"{timed['time_reason']}\n")
                continue
            kept = ("module", "calls", "own_ms", "macs_executed")
            found[row.model] = [{name: each[name] for name in kept} for each in timed["modules"]]
    return found


def read(folder: Path) -> tuple[pd.DataFrame, Modules]:
    """What a folder has recorded."""
    file = folder / MODULES
    return of_folders([folder]), json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def section(folder: Path) -> str:
    """What the page shows of a folder, which need not exist."""
    return markdown(*read(folder)) if (folder / RECORDS).exists() else NOTHING


if __name__ == "__main__":
    if sys.argv[1] == "--profile":
        place = Path(sys.argv[2])
        write_text(place / MODULES, json.dumps(profiled(of_folders([place])), indent=1) + "\n")
    else:
        page = Path(sys.argv[2])
        write_text(page, filled(page.read_text(encoding="utf-8"), "speeds", section(Path(sys.argv[1]))))
