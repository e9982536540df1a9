"""Whether the measurements on this machine can be trusted: many equal sweeps, and timm's benchmark beside ours.

python -P -m vbench.reports.calibration timm BENCHMARK.py DIR   measures both in turn and writes DIR/timm.json
python -P -m vbench.reports.calibration DIR docs/measuring.md   fills the page from DIR/aa-*/ and DIR/timm.json, and
                                                                draws static/design.png beside it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vbench.doctor import twins
from vbench.reports import design
from vbench.reports.grid import pipes
from vbench.reports.tables import figure
from vbench.reports.write import filled
from vbench.results.compare import compare, run_of
from vbench.results.frame import frame
from vbench.results.statistics import SHARED, Interval, interval, median_factor
from vbench.results.store import Record, read

TURNS = 10
COMPARED = "deit_tiny_patch16_224"
SIDE = 224


def coverage(runs: Sequence[Sequence[Record]]) -> pd.DataFrame:
    """One row for each cell of equal sweeps: how often their intervals contain the pooled median.

    Columns: `model`, `height`, `width`; `pooled_ms`, the median of the medians of all launches; `covered`, the number
    of `sweeps` whose interval contains it. As shares of `pooled_ms`: `half_width`, the median half-width of the
    intervals; `launch_spread`, the standard deviation of launches within a sweep; `sweep_spread`, that of sweeps.
    """
    tables = [frame(list(run)) for run in runs]
    cells = pd.concat(tables, keys=range(len(tables)), names=["sweep"]).reset_index("sweep")
    launches = pd.DataFrame(
        [
            {"case_id": record.case_id, "sweep": sweep, "ms": median(record.latency["samples_ms"])}
            for sweep, run in enumerate(runs)
            for record in run
            if record.latency
        ]
    )
    rows = []
    for case_id, cell in cells[cells["status"] == "ok"].groupby("case_id", sort=False):
        own = launches[launches["case_id"] == case_id]
        pooled = float(own["ms"].median())
        held = (cell["latency_ms_lo"] <= pooled) & (pooled <= cell["latency_ms_hi"])
        rows.append(
            {
                **{key: cell[key].iloc[0] for key in ("model", "height", "width")},
                "pooled_ms": pooled,
                "covered": int(held.sum()),
                "sweeps": len(cell),
                "half_width": float(((cell["latency_ms_hi"] - cell["latency_ms_lo"]) / 2).median()) / pooled,
                "launch_spread": float(own.groupby("sweep")["ms"].std().pow(2).mean() ** 0.5) / pooled,
                "sweep_spread": float(cell["latency_ms"].std()) / pooled,
            }
        )
    return pd.DataFrame(rows)


def coverage_markdown(found: pd.DataFrame) -> str:
    """The table of `coverage`, and its total."""
    heads = ("cell", "pooled median (ms)", "intervals that hold it", "half-width", "scatter of launches", "of sweeps")
    rows = []
    for row in found.to_dict("records"):
        first = [f"{row['model']} {row['height']}", figure(row["pooled_ms"]), f"{row['covered']} of {row['sweeps']}"]
        scatter = [f"{row['launch_spread']:.1%}", f"{row['sweep_spread']:.1%}"]
        rows.append([*first, f"±{row['half_width']:.1%}", *scatter])
    covered, all_of = int(found["covered"].sum()), int(found["sweeps"].sum())
    share = f"{covered} of {all_of} stated 95 % intervals hold their cell's pooled median: {covered / all_of:.1%}."
    return "\n".join([*pipes(heads, rows), "", f"In all {share}"])


def shared(runs: Sequence[Sequence[Record]]) -> list[float]:
    """For each cell of equal sweeps, the variance that the launches of a sweep share, over that of a launch.

    It is what the medians of sweeps scatter more than independent launches would let them (`statistics.SHARED`).
    """
    cells: dict[str, list[NDArray[np.float64]]] = {}
    for run in runs:
        own: dict[str, list[float]] = {}
        for record in run:
            if record.latency:
                own.setdefault(record.case_id, []).append(median(record.latency["samples_ms"]))
        for case, medians in own.items():
            if len(medians) > 1:
                cells.setdefault(case, []).append(np.log(medians))
    found = []
    for sweeps in cells.values():
        own_variance = float(np.median([np.var(logs, ddof=1) for logs in sweeps]))
        expected = float(np.mean([median_factor(len(logs)) / len(logs) for logs in sweeps]))
        between = float(np.var([np.median(logs) for logs in sweeps], ddof=1))
        found.append(between / own_variance - expected)
    return found


def shared_markdown(runs: Sequence[Sequence[Record]]) -> str:
    """What launches of a sweep share, beside what intervals take it to be."""
    if len(found := sorted(shared(runs))) < 1 or len(runs) < 2:
        return "One sweep does not show what its launches share."
    return (
        f"What all launches of a sweep share has {median(found):.2f} times the variance of a launch (the median of the "
        f"cells; {found[0]:.2f} to {found[-1]:.2f}). Intervals take it to be {SHARED:g}."
    )


def constants_markdown(runs: Sequence[Sequence[Record]], cells: pd.DataFrame) -> str:
    """What ended warm-up and sampling in these sweeps, and what would make intervals narrower.

    Args:
        cells: their `coverage`.
    """
    launches = [record for run in runs for record in run if record.latency]
    found = [record.latency for record in launches if record.latency]
    warm = sum((record.warmup or {}).get("converged") is True for record in launches)
    precise = sum(latency["precise"] for latency in found)
    settled = sum("settled" in latency["stop"] for latency in found)
    within = median(latency["precision"] for latency in found)
    between = float((cells["launch_spread"] ** 2).mean() ** 0.5)
    gain = "more launches, not longer ones," if between > within else "longer launches"
    return (
        f"Of {len(found)} launches {warm} were warm when sampling began. Sampling ended in {precise} as the "
        f"interval was as narrow as wanted, in {settled} as it no longer shrank, else by time. Within a launch the "
        f"median was known to ±{within:.1%}; launches scattered by {between:.1%}: here {gain} would narrow "
        "a row's interval."
    )


def against_timm(benchmark: Path, folder: Path) -> None:
    """Measure one model by vbench and by timm's benchmark script in turn, on one thread. Write `folder`/timm.json.

    Args:
        benchmark: `benchmark.py` of timm's repository.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []

    def run(*words: str, cwd: str) -> None:
        subprocess.run([sys.executable, *words], check=True, env=environment, stdout=subprocess.DEVNULL, cwd=cwd)

    for turn in range(TURNS):
        with tempfile.TemporaryDirectory() as place:
            options = ["--models", f"timm/{COMPARED}", "--res", str(SIDE), "--modes", "parallel", "--batch", "1"]
            run("-P", "-m", "vbench", "sweep", *options, "--seed", str(turn), "-o", place, cwd=".")
            ours += [asdict(record) for record in read(Path(place))]
            options = ["--model", COMPARED, "--bench", "inference", "-b", "1", "--device", "cpu", "--no-retry"]
            found = Path(place) / "timm.json"
            run(str(benchmark), *options, "--results-file", str(found), "--results-format", "json", cwd=place)
            said = json.loads(found.read_text())
            theirs += said if isinstance(said, list) else [said]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timm.json").write_text(json.dumps({"vbench": ours, "timm": theirs}) + "\n")


def compared(folder: Path) -> tuple[Interval, Interval]:
    """The latencies by vbench and by timm, in ms: medians over all launches, with their intervals."""
    said = json.loads((folder / "timm.json").read_text())
    ours = interval([record["latency"]["samples_ms"] for record in said["vbench"]])
    theirs = interval([[run["infer_step_time"]] for run in said["timm"]])
    return ours, theirs


def compared_markdown(folder: Path) -> str:
    """The comparison as a table, and whether the intervals overlap."""
    said = json.loads((folder / "timm.json").read_text())
    ours, theirs = compared(folder)
    samples = round(median(len(record["latency"]["samples_ms"]) for record in said["vbench"]))
    each = {"vbench": f"{samples} calls, their median", "timm": "40 calls, their mean"}
    rows = [
        (tool, figure(of.median), f"{figure(of.lo)}–{figure(of.hi)}", str(len(said[key])), each[key])
        for key, tool, of in (("vbench", "vbench sweep", ours), ("timm", "timm benchmark.py", theirs))
    ]
    lines = pipes(("tool", "latency (ms)", "95 % interval", "processes", "samples in each"), rows)
    meet = "meet" if ours.lo <= theirs.hi and theirs.lo <= ours.hi else "do not meet"
    differ = f"They differ by {theirs.median / ours.median - 1:+.1%}; the intervals {meet}."
    return "\n".join([*lines, "", differ])


def overhead(folder: Path) -> str:
    """The overhead of sweeps, from `run.json`: of the equal sweeps, and of the README's sweep on the same machine."""
    runs = [run for file in sorted(folder.glob("aa-*/run.json")) for run in json.loads(file.read_text())["runs"]]
    each = [run["overhead_s_per_cell"] for run in runs]
    (long,) = json.loads((folder.parent.parent / folder.name / "run.json").read_text())["runs"]
    share = {key: f"{long[key] / long['wall_s']:.0%}" for key in ("measured_s", "warmup_s", "turns_s", "overhead_s")}
    cells, few = f"{long['cells']} cells", f"{runs[0]['cells']} cells each"
    return (
        f"In the README's sweep of {cells}, nothing remembered, overhead was {long['overhead_s_per_cell']:.2f} s a "
        f"cell: {share['measured_s']} of the time went into measured passes, {share['warmup_s']} into their warm-up, "
        f"{share['turns_s']} into turns, {share['overhead_s']} into the rest. In the {len(runs)} sweeps above, {few}, "
        f"it was {median(each):.2f} s a cell, since so few share the one import of torch and timm."
    )


def compared_in_turn(runs: Sequence[Sequence[Record]]) -> Counter[str]:
    """How often `compare` gives each verdict on latency, if each of these equal sweeps is compared with the next."""
    stored = [run_of(run, f"sweep {number}") for number, run in enumerate(runs)]
    pairs = [compare(base, head) for base, head in pairwise(stored)]
    return Counter(finding.verdict for pair in pairs for finding in pair.findings if finding.what == "latency_ms")


def compared_in_turn_markdown(runs: Sequence[Sequence[Record]]) -> str:
    """The verdicts of `compared_in_turn` in a sentence."""
    found = compared_in_turn(runs)
    wrong = found["SLOW"] + found["FAST"]
    return (
        f"`vbench compare` of each sweep with the next, {len(runs) - 1} pairs with {found.total()} cells: it calls "
        f"{wrong} SLOW or FAST, {found['SAME']} SAME, and {found['AMBIGUOUS']} AMBIGUOUS."
    )


def knees(runs: Sequence[Sequence[Record]]) -> pd.DataFrame:
    """One row for each cell whose batch a policy chose: how the choice repeats from sweep to sweep.

    Columns: `model`, `height`, `batch` (the median), `within`, the number of `sweeps` whose batch is within a factor
    of 2 of it, and `spread`, the standard deviation of images/s over their median.
    """
    tables = pd.concat([frame(list(run)) for run in runs])
    tables = tables[(tables["batch_policy"] != "fixed") & tables["throughput_img_s"].notna()]
    rows = []
    for _, cell in tables.groupby("case_id", sort=False):
        batches, speeds = cell["batch"].astype(float), cell["throughput_img_s"].astype(float)
        middle = float(batches.median())
        rows.append(
            {
                "model": cell["model"].iloc[0],
                "height": cell["height"].iloc[0],
                "batch": middle,
                "within": int(((batches <= 2 * middle) & (batches >= middle / 2)).sum()),
                "sweeps": len(cell),
                "spread": float(speeds.std() / speeds.median()),
            }
        )
    return pd.DataFrame(rows, columns=["model", "height", "batch", "within", "sweeps", "spread"])


def knees_markdown(runs: Sequence[Sequence[Record]]) -> str:
    """The table of `knees`, and its total."""
    found = knees(runs)
    if found.empty:
        return "These sweeps ask for one batch, so they do not show how the knee repeats."
    rows = [
        [
            f"{row['model']} {row['height']}",
            f"{row['batch']:g}",
            f"{row['within']} of {row['sweeps']}",
            f"{row['spread']:.1%}",
        ]
        for row in found.to_dict("records")
    ]
    within, all_of = int(found["within"].sum()), int(found["sweeps"].sum())
    lines = pipes(("cell", "median batch", "within a factor of 2", "scatter of images/s"), rows)
    return "\n".join([*lines, "", f"In all {within} of {all_of} searches are: {within / all_of:.0%}."])


def twins_markdown(file: Path) -> str:
    """What sessions of turns between a cell and itself came to."""
    if not file.is_file():
        return "No session is recorded yet; `make twins` records them."
    found = [twins.ratio_of(blocks) for blocks in twins.read(file)]
    known = [(ratio, ratio.lo, ratio.hi) for ratio in found if ratio.lo is not None and ratio.hi is not None]
    held = sum(lo <= 1 <= hi for _, lo, hi in known)
    off = max(abs(ratio.value - 1) for ratio in found)
    widths = [ratio.half_width for ratio, _, _ in known]
    return (
        f"{len(found)} sessions of a cell against itself, {median(ratio.blocks for ratio in found):.0f} blocks each "
        f"(the median): the 95 % interval holds 1 in {held} of {len(known)}. Its half-width is "
        f"±{median(widths):.1%} (the median); the ratio farthest from 1 is off by {off:.1%}."
    )


def runs_of(folder: Path) -> list[list[Record]]:
    """The records of the equal sweeps in a folder, in their order."""
    return [read(run) for run in sorted(folder.glob("aa-*"))]


def fill(text: str, folder: Path, designs: pd.DataFrame) -> str:
    """The page with new text between its markers; `designs` is from `design.design`.

    Raises: ValueError if a marker is missing.
    """
    runs = runs_of(folder)
    cells = coverage(runs)
    text = filled(
        text,
        "coverage",
        f"{coverage_markdown(cells)}\n\n{shared_markdown(runs)}\n\n{constants_markdown(runs, cells)}",
    )
    text = filled(text, "design", design.markdown(designs))
    text = filled(text, "repeats", f"{compared_in_turn_markdown(runs)}\n\n{knees_markdown(runs)}")
    text = filled(text, "twins", twins_markdown(folder / "twins.jsonl"))
    text = filled(text, "timm", compared_markdown(folder))
    return filled(text, "overhead", overhead(folder))


if __name__ == "__main__":
    if sys.argv[1] == "timm":
        against_timm(Path(sys.argv[2]).resolve(), Path(sys.argv[3]))
    else:
        page = Path(sys.argv[2])
        tried = design.design(runs_of(Path(sys.argv[1])))
        page.write_text(fill(page.read_text(encoding="utf-8"), Path(sys.argv[1]), tried), encoding="utf-8")
        design.draw(tried, page.parent / "static" / "design.png")
