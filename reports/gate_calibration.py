"""How often the timing gate is wrong, and what it catches, from real sessions and from many simulated ones.

python -P -m vbench.reports.gate_calibration DIR docs/gate.md   DIR/sessions.jsonl.gz -> DIR/power.* and the page

A simulated session follows the rules of the gate on one cell: one pass of blocks, a second pass if the verdict is
ambiguous, and a repetition with fresh sides if the cell is flagged. Its blocks are drawn from recorded ones: unchanged
for equal code, scaled to a level of noise for the power.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vbench.files import write_text, write_whole
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results.judge import TimedCell, block, judge
from vbench.results.statistics import CONFIDENCE

BLOCKS = 6  # of each kind in a pass, as at default rigor
LEVELS = (0.005, 0.01, 0.02, 0.04)  # the standard deviation of a block's log ratio
SLOWDOWNS = (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15)
SLOTS = (-0.05, 0.05)  # extra cost of the inner places of a block, as a log
SESSIONS = 400  # simulated sessions at each point
EQUAL = 4000  # simulated sessions of equal code
VERDICTS = ("SLOW", "FAST", "SAME", "AMBIGUOUS", "INVALID")

Floats = NDArray[np.float64]
Draw = Callable[[str, int], list[float]]  # ("head" or "twin", count) -> the log ratios of so many blocks


def read(folder: Path) -> list[dict[str, Any]]:
    """The real sessions of a folder. Raises: FileNotFoundError."""
    with gzip.open(folder / "sessions.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def logs(session: dict[str, Any], kind: str) -> list[float]:
    """The log ratio of `kind` ("head" or "twin") over base in every block of the first cell."""
    found = []
    for one in next(iter(session["measured"].values())):
        if kind in (one["outer"], one["inner"]):
            ratio = block(one["outer_ms"], one["inner_ms"])
            found.append(ratio if one["outer"] == "base" else -ratio)
    return found


def slot_costs(session: dict[str, Any]) -> list[float]:
    """The extra cost of the inner place over the outer one in each block of base and twin, as a log."""
    blocks = [one for one in next(iter(session["measured"].values())) if "twin" in (one["outer"], one["inner"])]
    return [block(one["outer_ms"], one["inner_ms"]) for one in blocks]


def simulate(first: Draw, fresh: Draw) -> str:
    """The verdict of one session on one cell, or INVALID. `fresh` draws the blocks of the repetition."""
    verdicts = []
    for draw in (first, fresh):
        head, twin = draw("head", BLOCKS), draw("twin", BLOCKS)
        found = judge([TimedCell(head, twin)])[0]
        if found and found.verdict == "AMBIGUOUS":
            head, twin = head + draw("head", BLOCKS), twin + draw("twin", BLOCKS)
            found = judge([TimedCell(head, twin)])[0]
        equal = judge([TimedCell(twin, [])])[0]
        if found is None or equal is None or equal.verdict in ("SLOW", "FAST"):
            return "INVALID"
        verdicts.append(found.verdict)
        if found.verdict not in ("SLOW", "FAST"):
            break
    return verdicts[0] if len(set(verdicts)) == 1 else "AMBIGUOUS"


def equal_code(sessions: Sequence[dict[str, Any]], count: int, seed: int = 0) -> Counter[str]:
    """Verdicts of simulated sessions of equal code. Each draws blocks of a real session, its repetition of another."""
    random = np.random.default_rng(seed)
    pools = [
        {kind: logs(session, kind) for kind in ("head", "twin")} for session in sessions if not session["slowdown"]
    ]

    def drawer() -> Draw:
        pool = pools[random.integers(len(pools))]
        return lambda kind, number: random.choice(pool[kind], number).tolist()

    return Counter(simulate(drawer(), drawer()) for _ in range(count))


def residuals(sessions: Sequence[dict[str, Any]]) -> Floats:
    """Each recorded block's deviation from the mean of its session and kind, in standard deviations."""
    found = []
    for session in sessions:
        for kind in ("head", "twin"):
            series = np.asarray(logs(session, kind))
            spread = series.std(ddof=1) if len(series) > 2 else 0.0
            if spread:
                found += ((series - series.mean()) / spread * (len(series) / (len(series) - 1)) ** 0.5).tolist()
    return np.asarray(found)


def power(sessions: Sequence[dict[str, Any]], *, count: int = SESSIONS, seed: int = 0) -> pd.DataFrame:
    """The share of each of `VERDICTS` among simulated sessions, by `noise`, `slowdown` and `slot`."""
    shapes = residuals(sessions)
    points = [(level, slowdown, 0.0) for level in LEVELS for slowdown in SLOWDOWNS]
    points += [(0.01, slowdown, slot) for slot in SLOTS for slowdown in (0.0, 0.05)]
    rows = []
    for level, slowdown, slot in points:
        random = np.random.default_rng([seed, *(int(1e4 * abs(x)) for x in (level, slowdown, slot))])
        draw = _drawer(random, shapes, level, slowdown, slot)
        verdicts = Counter(simulate(draw, draw) for _ in range(count))
        shares = {name: verdicts[name] / count for name in VERDICTS}
        rows.append({"noise": level, "slowdown": slowdown, "slot": slot, "sessions": count, **shares})
    return pd.DataFrame(rows)


def _drawer(random: np.random.Generator, shapes: Floats, level: float, slowdown: float, slot: float) -> Draw:
    """Draws blocks with this noise, this slowdown of head and this extra cost of inner places."""

    def draw(kind: str, number: int) -> list[float]:
        noise = level * random.choice(shapes, number)
        places = slot * np.resize([1, -1], number)  # ABBA, BAAB, ABBA ...
        return (noise + places + (log(1 + slowdown) if kind == "head" else 0.0)).tolist()  # type: ignore[no-any-return]

    return draw


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(hits, of).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def real(sessions: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The real sessions by `slowdown`: number, verdicts, the measured slowdown, and noise."""
    rows = []
    for slowdown in sorted({session["slowdown"] for session in sessions}):
        own = [session for session in sessions if session["slowdown"] == slowdown]
        verdicts = Counter(
            "INVALID" if session["invalid"] else verdict for session in own for verdict in session["verdicts"].values()
        )
        spreads = [float(np.std(logs(session, "twin"), ddof=1)) for session in own]
        rows.append(
            {
                "slowdown": slowdown,
                "sessions": len(own),
                **{name: verdicts[name] for name in VERDICTS},
                "measured": float(np.exp(np.mean([np.mean(logs(session, "head")) for session in own])) - 1),
                "noise": median(spreads),
                "noise_lo": min(spreads),
                "noise_hi": max(spreads),
                "minutes": sum(session["wall_s"] for session in own) / 60,
            }
        )
    return pd.DataFrame(rows)


def draw(curves: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> None:
    """Draw power.png and power.pdf: the share of sessions that call a slowdown SLOW, one line for each noise."""
    from vbench.reports.figures import style

    with style.looking("paper"):
        sheet = style.sheet(1.5, 2.7)
        sheet.set_layout_engine("constrained")
        axis = sheet.subplots()
        for level, colour, marker in zip(LEVELS, ("#0072B2", "#009E73", "#E69F00", "#D55E00"), "os^D", strict=True):
            own = curves[(curves["noise"] == level) & (curves["slot"] == 0)]
            axis.plot(100 * own["slowdown"], 100 * own["SLOW"], color=colour, marker=marker, label=f"{level:.1%}")
        for row in measured.to_dict("records"):
            low, high = interval(row["SLOW"], row["sessions"])
            share = row["SLOW"] / row["sessions"]
            bars = [[100 * (share - low)], [100 * (high - share)]]
            look: dict[str, Any] = {"color": "#000000", "marker": "x", "capsize": 2, "linestyle": "none"}
            label = "real sessions, 95 %" if row["slowdown"] == 0 else None
            axis.errorbar([100 * row["slowdown"]], [100 * share], bars, label=label, **look)
        axis.set_xlabel("injected slowdown (%)")
        axis.set_ylabel("sessions that call it SLOW (%)")
        axis.set_ylim(-4, 104)
        axis.legend(title="noise of a block", loc="lower right")
        for suffix in ("png", "pdf"):
            write_whole(folder / f"power.{suffix}", lambda path: style.save(sheet, path))


def markdown(sessions: Sequence[dict[str, Any]], curves: pd.DataFrame, equal: Counter[str]) -> str:
    """The text of the page between its markers."""
    about, (cell,) = sessions[0], {cell for session in sessions for cell in session["verdicts"]}
    heads = ("injected", "measured", "sessions", "SLOW", "FAST", "SAME", "ambiguous", "invalid", "noise of a block")
    rows = []
    for row in real(sessions).to_dict("records"):
        counts = [str(row[name]) for name in ("sessions", *VERDICTS)]
        noise = f"{row['noise']:.1%} ({row['noise_lo']:.1%} to {row['noise_hi']:.1%})"
        rows.append([f"{row['slowdown']:.0%}", f"{row['measured']:+.1%}", *counts, noise])
    total = sum(equal.values())
    wrong = equal["SLOW"] + equal["FAST"]
    low, high = interval(wrong, total)
    level = curves[(curves["noise"] == 0.01) & (curves["slot"] == 0)]
    at = {row["slowdown"]: row for row in level.to_dict("records")}
    places = curves[curves["slot"] != 0]
    slot = float(np.mean([cost for session in sessions for cost in slot_costs(session)]))
    still, slowed = places[places["slowdown"] == 0], places[places["slowdown"] > 0]
    wrongly = float((still["SLOW"] + still["FAST"]).max())
    lines = [
        f"Real sessions at default rigor of {cell}; {about['device_name']}, torch {about['versions']['torch']}.",
        "Head was a copy of base, with a busy-wait of that share of its latency in its operator:",
        "",
        *pipes(heads, rows),
        "",
        f"Of {total} simulated sessions of equal code, drawn from the recorded blocks, {wrong} called the cell SLOW or",
        f"FAST ({wrong / total:.2%}; 95 % interval {low:.2%} to {high:.2%}), {equal['INVALID'] / total:.1%} were",
        f"invalid, and {equal['AMBIGUOUS'] / total:.1%} ambiguous.",
        "",
        f"With the recorded noise scaled to 1 % a block, {at[0.05]['SLOW']:.1%} of {SESSIONS} sessions caught a",
        f"slowdown of 5 %, and {at[0.0]['SLOW'] + at[0.0]['FAST']:.1%} called equal code SLOW or FAST. Where the inner",
        f"places of a block cost {SLOTS[1]:.0%} more or less than the outer ones, {wrongly:.1%} at most called equal",
        "code SLOW or FAST: there is no bias. Such an effect is counted as scatter, though, and a slowdown of 5 % was",
        f"then caught by {slowed['SLOW'].min():.1%} and AMBIGUOUS in the rest. In the real sessions the inner",
        "places cost",
        f"{slot:+.2%}.",
    ]
    return "\n".join(lines)


def main(folder: Path, page: Path) -> None:
    """Write the files beside the sessions, and fill the page."""
    sessions = read(folder)
    curves = power(sessions)
    write_text(folder / "power.csv", curves.to_csv(index=False))
    draw(curves, real(sessions), folder)
    said = markdown(sessions, curves, equal_code(sessions, EQUAL))
    write_text(page, filled(page.read_text(encoding="utf-8"), "calibration", said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
