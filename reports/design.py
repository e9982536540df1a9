"""How many launches of how many seconds: the interval that a cell would have, from launches of many equal sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from vbench.files import write_whole
from vbench.reports.grid import pipes
from vbench.results.moderation import Prior
from vbench.results.statistics import CONFIDENCE, intervals, run_prior
from vbench.results.store import Record

LAUNCHES = (2, 3, 5, 8, 12, 20)
SECONDS = (0.25, 0.5, 1.0, 2.0, 3.0)  # of sampling in a launch
SWEEPS = 40  # that are drawn for each design
RESAMPLED = 200  # draws of the noise within launches, for each interval

Cells = dict[str, list[list[float]]]  # case_id -> the samples of each launch, ms


def pooled(runs: Sequence[Sequence[Record]]) -> Cells:
    """The launches of each cell in all these sweeps, without their order."""
    found: Cells = {}
    for record in (record for run in runs for record in run):
        if record.latency and record.latency["samples_ms"]:
            found.setdefault(record.case_id, []).append(record.latency["samples_ms"])
    return found


def first_seconds(samples: Sequence[float], seconds: float) -> list[float]:
    """The first samples of a launch that fit into so many seconds; one at least. Samples in ms."""
    return list(samples[: max(1, int(np.searchsorted(np.cumsum(samples), 1e3 * seconds, side="right")))])


def design(runs: Sequence[Sequence[Record]], seed: int = 0) -> pd.DataFrame:
    """One row for each number of launches and seconds a launch: the interval of a cell, and how often it is right.

    Each design is tried in `SWEEPS` sweeps, whose launches are drawn from the pool of their cell without putting back
    and cut to so many seconds. The intervals are those of a sweep, moderated over its cells; but these launches share
    no minutes. Left out are designs of more launches than half of the pool has, and of more seconds than the launches
    were sampled for.

    Columns: `launches`; `seconds`; `sampling_s`, their product; `half_width`, the median over cells and sweeps as a
    share; `covered`, the share of intervals that hold the median of the cell's whole pool.
    """
    cells = pooled(runs)
    if not cells:
        return pd.DataFrame(columns=["launches", "seconds", "sampling_s", "half_width", "covered"])
    truths = {case: median(median(launch) for launch in launches) for case, launches in cells.items()}
    most = min(len(launches) for launches in cells.values()) // 2
    longest = median(sum(launch) / 1e3 for launches in cells.values() for launch in launches)
    random = np.random.default_rng(seed)
    rows = []
    for seconds in [one for one in SECONDS if one <= 1.05 * longest]:
        cut = {case: [first_seconds(one, seconds) for one in launches] for case, launches in cells.items()}
        for count in [one for one in LAUNCHES if one <= most]:
            drawn: list[list[list[float]]] = []
            priors: list[Prior | None] = []
            for _ in range(SWEEPS):
                sweep = [
                    [launches[at] for at in random.choice(len(launches), count, replace=False)]
                    for launches in cut.values()
                ]
                drawn += sweep
                priors += [run_prior(sweep)] * len(sweep)
            found = intervals(drawn, priors, shared=0.0, draws=RESAMPLED)
            widths = [float(np.sqrt(one.hi / one.lo)) - 1 for one in found]
            held = [one.lo <= truth <= one.hi for one, truth in zip(found, SWEEPS * [*truths.values()], strict=True)]
            rows.append(
                {
                    "launches": count,
                    "seconds": seconds,
                    "sampling_s": count * seconds,
                    "half_width": float(np.median(widths)),
                    "covered": float(np.mean(held)),
                }
            )
    return pd.DataFrame(rows)


def markdown(found: pd.DataFrame) -> str:
    """The half-width and the coverage of each design, launches down and seconds across."""
    if found.empty:
        return "There are too few launches to draw from."
    seconds = sorted(found["seconds"].unique())
    heads = ["launches", *(f"{one:g} s each" for one in seconds)]
    rows = []
    for count, own in found.groupby("launches"):
        at = own.set_index("seconds")
        rows.append([str(count), *(f"±{at.half_width[s]:.1%}, {at.covered[s]:.0%}" for s in seconds)])
    return "\n".join(pipes(heads, rows, heads))


def draw(found: pd.DataFrame, file: Path) -> None:
    """Draw the half-width over the seconds of sampling a cell, one line for each number of launches.

    Raises: OutputError if the file cannot be written.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from vbench.reports.figures import style
    from vbench.reports.figures.style import looking

    colours = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
    with looking("paper"):
        sheet = style.sheet(1.5, 2.7)
        sheet.set_layout_engine("constrained")
        axis = sheet.subplots()
        for (count, own), colour, marker in zip(found.groupby("launches"), colours, "os^Dv*", strict=False):
            axis.plot(own["sampling_s"], 100 * own["half_width"], color=colour, marker=marker, label=str(count))
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        for along, ticks in (
            (axis.xaxis, (0.5, 1, 2, 5, 10, 20, 60)),
            (axis.yaxis, (1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)),
        ):
            along.set_major_locator(FixedLocator(list(ticks)))
            along.set_minor_locator(NullLocator())
            along.set_major_formatter(plain)
        axis.set_xlabel("sampling a cell (s): launches × seconds in each")
        axis.set_ylabel(f"half-width of the {CONFIDENCE:.0%} interval (%)")
        axis.legend(title="launches", loc="upper right")
        write_whole(file, lambda path: style.save(sheet, path))
