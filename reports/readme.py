"""The small table and the findings of the README, and the page of all results, from committed records.

`python -P -m vbench.reports.readme DIR README.md docs/results.md` fills both pages between their markers. What was
measured on a GPU comes from the folders beside DIR that `make gpu` has made; the first minute is of `make minute`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from vbench.devices import on_host
from vbench.reports import closing, pairs, tables
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results.answers import Answer, answers
from vbench.results.frame import of_folders
from vbench.results.scaling import COSTS
from vbench.results.store import read
from vbench.suites.load import load

WIDTH = 110
SIDES = (224, 512, 1024, 2048)  # px; the rows of the small table
SHOWN = ("model", "mode", "size (px)", "GMACs", "latency (ms)", "95 % interval", "peak memory (MiB)", "flags")

GPU_SIDES = (224, 1024, 2048)  # px; the rows of the table of a GPU
ON_A_GPU = ("model", "mode", "size (px)", "status", "latency (ms)", "95 % interval", "peak memory (MiB)", "flags")
NOTHING_ON_A_GPU = "Nothing has been measured on a GPU yet; `make gpu` does it."
MINUTE = "minute"  # the suite of the first minute, and the folder of its records beside the others
NO_MINUTE = "Not recorded yet; `make minute` does it."
STEPS = "steps.json"  # how `make gpu` went


def printed(table: pd.DataFrame) -> str:
    """What `vbench sweep` prints, as a fenced block."""
    text = StringIO()
    tables.show(table, Console(file=text, width=WIDTH, highlight=False))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def small(table: pd.DataFrame) -> str:
    """The sizes and columns that the README shows, in Markdown, with their caption and notes."""
    few = table[(table["height"] == table["width"]) & table["height"].isin(SIDES)]
    places = [tables.header(few).index(name) for name in SHOWN]
    rows = [[row[place] for place in places] for row in tables.rows(few)]
    return "\n\n".join(["\n".join(pipes(SHOWN, rows, tables.NUMBERS)), tables.caption(few), *tables.notes(few)])


def findings(table: pd.DataFrame) -> str:
    """All answers in words, each computed from the rows that it names."""
    return _items(answers(table))


def headline(table: pd.DataFrame) -> str:
    """What the README shows: ratios that were measured in turns, as a table; the ratios, and the answers about time."""
    time = COSTS["latency_ms"]
    said = _items([one for one in answers(table) if one.kind == "ratio" or time in one.text])
    return "\n\n".join(filter(None, [pairs.beside(table, SIDES), said]))


def minute(folder: Path) -> str:
    """The last lines of the recorded first minute, its time, its machine and its figure; or that there is none."""
    if not (folder / "records.jsonl").is_file():
        return NO_MINUTE
    table = of_folders([folder])
    place = Path(folder.parent.name, folder.name)
    said = closing.lines(table, place, load(MINUTE).question)
    runs = json.loads((folder / "run.json").read_text(encoding="utf-8"))["runs"]
    took = f"measured for {sum(run['wall_s'] for run in runs):.0f} s on {table['device_name'].iloc[0]}"
    figure = f"![Work, peak memory, latency and accuracy at two sizes]({place / closing.PICTURE})"
    return "\n".join(["```text", *said, "```", "", f"{took[0].upper()}{took[1:]}.", "", figure])


def spent(folder: Path) -> str:
    """How long the sweep took, as a line of the findings."""
    runs = json.loads((folder / "run.json").read_text(encoding="utf-8"))["runs"]
    cells = len({record.case_id for record in read(folder) if record.status != "unsupported"})
    turns = (
        f" and {sum(run['blocks'] for run in runs)} blocks of turns" if any(run.get("blocks") for run in runs) else ""
    )
    return f"- The sweep of {cells} cells{turns} took {sum(run['wall_s'] for run in runs) / 60:.1f} minutes."


def on_gpus(results: Path) -> str:
    """What `make gpu` has measured, from each folder of `results` that it has made; or that nothing was."""
    found = []
    for folder in sorted(file.parent for file in results.glob(f"*/{STEPS}")):
        records = read(folder)
        if records and not on_host(str(records[0].case["device"])):
            head = f"By `make gpu`, in [`{results.name}/{folder.name}/`]({results.name}/{folder.name})."
            parts = [head, on_a_gpu(of_folders([folder])), unfinished(folder / STEPS)]
            found.append("\n\n".join(part for part in parts if part))
    return "\n\n".join(found) or NOTHING_ON_A_GPU


def on_a_gpu(table: pd.DataFrame) -> str:
    """Inference at three sizes under the one setting that has the most rows, in Markdown, with caption and notes."""
    few = table[(table["phase"] == "infer") & (table["mode"] == "parallel") & (table["height"] == table["width"])]
    few = few[few["height"].isin(GPU_SIDES) & (few["status"] != "unsupported")]
    few = few[few["attention"].isna() | few["attention"].isin(["fused", "unfused"])]  # as torch chooses
    settings = Counter(zip(few["dtype"], few["backend"], strict=True))
    if not settings:
        return ""
    ((dtype, backend), _), *_ = settings.most_common(1)
    few = few[(few["dtype"] == dtype) & (few["backend"] == backend)]
    places = [tables.header(few).index(name) for name in ON_A_GPU]
    rows = [[row[place] for place in places] for row in tables.rows(few)]
    kernels = ", ".join(sorted(few["attention_kernel"].dropna().unique()))
    how = f" Kernel of fused attention: {kernels}." if kernels else ""
    below = [tables.caption(few) + how, *tables.notes(few)]
    return "\n\n".join(["\n".join(pipes(ON_A_GPU, rows, tables.NUMBERS)), *below])


def unfinished(file: Path) -> str:
    """The steps of `make gpu` that have not ended ok, by the last run that had them; empty if all have."""
    last: dict[str, str] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            for step in run["steps"]:
                if step["outcome"] != "left out" or last.get(step["name"]) != "ok":
                    last[step["name"]] = step["outcome"]
    rest = [f"{name} ({outcome})" for name, outcome in last.items() if outcome != "ok"]
    return f"Steps of `make gpu` that did not end well, or were left out: {', '.join(rest)}." if rest else ""


def fill(text: str, folder: Path) -> str:
    """The README with new text between its markers, from the records of a folder and of the GPUs' folders beside it.

    Raises: ValueError if a marker is missing.
    """
    table = of_folders([folder])
    text = filled(filled(text, "table", small(table)), "gpu", on_gpus(folder.parent))
    text = filled(text, "minute", minute(folder.parent / MINUTE))
    return filled(text, "findings", f"{headline(table)}\n{spent(folder)}")


def fill_results(text: str, folder: Path) -> str:
    """The page of all results with new text between its markers. Raises: ValueError if a marker is missing."""
    table = of_folders([folder])
    text = filled(text, "table", printed(table))
    return filled(text, "findings", f"{findings(table)}\n{spent(folder)}")


def _items(found: Sequence[Answer]) -> str:
    return "\n".join(f"- {answer.text}" for answer in found)


if __name__ == "__main__":
    folder, first, second = map(Path, sys.argv[1:])
    first.write_text(fill(first.read_text(encoding="utf-8"), folder), encoding="utf-8")
    second.write_text(fill_results(second.read_text(encoding="utf-8"), folder), encoding="utf-8")
