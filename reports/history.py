"""Runs over time: a table, JSON, a Markdown page, and a chart with one panel for each series."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from rich.console import Console

from vbench.files import write_text, writing
from vbench.reports import grid
from vbench.reports.appearance import COLOURS
from vbench.reports.figures import draw, marks
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import MUTED, RATIO, Drawn, ink, looking, sheet
from vbench.reports.grid import ABSENT, Block, Column, Grid, TableCell
from vbench.reports.tables import figure as digits
from vbench.results.changes import ALARM
from vbench.results.history import Point, Series, Step
from vbench.results.text import bare_table, print_whole, tame

PANELS = 12  # on a sheet, at most
TICKS = 9  # commits named on an axis, at most
HASH = 7  # characters of a commit
SPAN = 0.10  # an axis spans at least this share of its middle value, so that noise looks small
HEAD = ("cell", "machine", "runs", "first", "last", "last / first", "scatter", "changes of level")
NUMBERS = HEAD[2:7]
HOW = (
    "Scatter: standard deviation of a run about its level. Levels: Bayesian Blocks on the log of the cost; a series "
    f"without any change shows one with a chance of {ALARM:.0%}. They are only shown; no gate uses them."
)


def rows(found: Sequence[Series], what: str) -> list[tuple[str, ...]]:
    """One row of text for each series, under `HEAD`."""
    unit = MEASURES[what].unit
    return [
        (
            one.cell,
            one.machine,
            str(len(one.points)),
            _figure(one, 0, unit),
            _figure(one, -1, unit),
            str(one.last_over_first) if one.last_over_first else ABSENT,
            ABSENT if one.noise is None else f"{one.noise:.1%}",
            "; ".join(map(in_words, one.steps)) or one.note or "none",
        )
        for one in found
    ]


def _figure(one: Series, place: int, unit: float) -> str:
    return digits(one.measured[place].value, unit) if one.measured else ABSENT


def in_words(step: Step) -> str:
    """A change of level in words: "0123456 → 89abcde: +5.1 % (torch 2.11.0 → 2.12.0)"."""
    beside = f" ({', '.join(step.beside)})" if step.beside else ""
    return f"{short(step.before)} → {short(step.after)}: {step.ratio - 1:+.1%}{beside}"


def short(commit: str | None) -> str:
    """The first characters of a commit, with a star if the working tree had more changes."""
    if commit is None:
        return "unknown"
    return commit.removesuffix("-dirty")[:HASH] + "*" * commit.endswith("-dirty")


def remarks(found: Sequence[Series]) -> list[str]:
    """The remarks on the rows: how levels are found, which values are of no level, and which are missing."""
    lines = [HOW]
    for one in found:
        off = [short(one.points[at].commit) for at in one.alone]
        if off:
            lines.append(f"{one.cell}: single values that are of no level: {', '.join(off)}")
        for why in dict.fromkeys(point.why for point in one.points if point.why):
            runs = [short(point.commit) for point in one.points if point.why == why]
            lines.append(f"{one.cell}: no value at {', '.join(runs)}: {why}")
    if any(point.commit and point.commit.endswith("-dirty") for one in found for point in one.points):
        lines.append("*: the working tree had changes that the commit lacks")
    return [tame(line) for line in lines]


def show(found: Sequence[Series], what: str, console: Console) -> None:
    """Print the table and its remarks."""
    table = bare_table(HEAD, NUMBERS, title=MEASURES[what].label)
    for row in rows(found, what):
        table.add_row(*row)
    print_whole(table, console, remarks(found))


def to_json(found: Sequence[Series], what: str) -> list[dict[str, Any]]:
    """Each series with its points and changes; values in the unit of the column."""
    return [
        {
            "what": what,
            "machine": one.machine,
            "cell": one.cell,
            "points": [_point(point) for point in one.points],
            "changes": [asdict(step) for step in one.steps],
            "alone": list(one.alone),
            "noise": one.noise,
            "last_over_first": one.last_over_first and one.last_over_first.value,
            "note": one.note,
        }
        for one in found
    ]


def _point(point: Point) -> dict[str, Any]:
    run = {"run": point.run.folder, "started_at": point.run.started_at, "commit": point.commit}
    return {**run, **{name: getattr(point, name) for name in ("value", "lo", "hi", "basis", "why")}}


def to_markdown(found: Sequence[Series], what: str) -> str:
    """The table as a Markdown page. Text of records is escaped."""
    columns = tuple(Column(name, number=name in NUMBERS) for name in HEAD)
    body = tuple(tuple(TableCell(text) for text in row) for row in rows(found, what))
    caption = f"{MEASURES[what].label}; runs in order of time."
    return grid.to_markdown([Grid("History", columns, (Block(body),), caption, tuple(remarks(found)))])


def write(found: Sequence[Series], what: str, folder: Path) -> list[Path]:
    """Write history.md, the chart as history.png and .pdf, and its caption .txt. Equal runs give equal bytes.

    Raises: OutputError if the folder cannot be written.
    """
    with looking("paper"):
        drawn = chart(found, what)
        with writing(folder):
            files = draw.write_files(drawn, caption(found, drawn, what), folder / "history", ("png", "pdf"))
    write_text(folder / "history.md", to_markdown(found, what))
    return [folder / "history.md", *files]


def caption(found: Sequence[Series], drawn: Drawn, what: str) -> str:
    """The caption of the chart."""
    lines = [f"history: How has {MEASURES[what].title.lower()} changed from run to run?", *drawn.notes, *remarks(found)]
    return "\n".join(textwrap.fill(tame(line), draw.WIDTH, break_on_hyphens=False) for line in lines) + "\n"


def chart(found: Sequence[Series], what: str) -> Drawn:
    """The chart in the current style: one panel for each series; of more than `PANELS`, those that changed most."""
    shown = _chosen([one for one in found if one.measured])
    columns = min(2, max(1, len(shown)))
    lines = max(1, ceil(len(shown) / columns))
    sketch = sheet(columns, 2.0 * lines + 0.1)
    sketch.set_layout_engine("constrained")
    if not shown:
        sketch.text(0.5, 0.5, "no run has a value", ha="center", color=MUTED)
        return Drawn(sketch, ("No run has a value.",))
    panels = sketch.subplots(lines, columns, squeeze=False).flatten()
    for axis, one in zip(panels, shown, strict=False):
        _panel(axis, one, what, several=len({one.machine for one in found}) > 1)
    for axis in panels[len(shown) :]:
        axis.remove()
    _heads(sketch)
    notes = [
        "Points: runs in order of time, named by commit; bars: their 95 % intervals, or the range of few samples. "
        "Hollow: a single value of no level. Crosses at the bottom: no value. Grey: levels; red: where they change.",
        f"Runs from {_date(shown, 0)} to {_date(shown, -1)}.",
    ]
    if len(shown) < len(found):
        kept = {id(one) for one in shown}
        left = [one.cell for one in found if id(one) not in kept]
        notes.append(f"Not drawn ({len(left)} of {len(found)}): {', '.join(left)}.")
    return Drawn(sketch, tuple(notes))


def _chosen(found: Sequence[Series]) -> list[Series]:
    """At most `PANELS` series: those whose level changed most, then those with most runs. The order is kept."""

    def most(one: Series) -> tuple[float, int]:
        return max((abs(step.ratio - 1) for step in one.steps), default=0.0), len(one.measured)

    kept = {id(one) for one in sorted(found, key=most, reverse=True)[:PANELS]}
    return [one for one in found if id(one) in kept]


def _date(found: Sequence[Series], place: int) -> str:
    return sorted(point.run.started_at for one in found for point in one.points)[place][:10]


def _panel(axis: Axes, one: Series, what: str, *, several: bool) -> None:
    measure = MEASURES[what]
    colour = ink(COLOURS.get(one.family, "#000000"))
    values = [(n, point.value / measure.unit) for n, point in enumerate(one.points) if point.value is not None]
    for n, point in enumerate(one.points):
        if point.lo is not None and point.hi is not None:
            axis.vlines(n, point.lo / measure.unit, point.hi / measure.unit, color=colour, alpha=0.45, linewidth=0.9)
    for n, value in values:
        face = "none" if n in one.alone else colour
        axis.plot(n, value, "o", color=colour, markerfacecolor=face, markersize=3, zorder=3)
    for start, stop, level in one.levels():
        ends = (start - 0.4, stop + 0.4)
        axis.plot(ends, [level / measure.unit] * 2, "-", color=MUTED, linewidth=1.0, zorder=2)
    _scale(axis, one, measure.unit)
    for n, point in enumerate(one.points):
        if point.value is None:
            axis.plot(n, 0.03, "x", transform=axis.get_xaxis_transform(), color=MUTED, markersize=4)
    for step in one.steps:
        axis.axvline(step.at - 0.5, color=ink(RATIO), linewidth=0.9, zorder=1)
        look: dict[str, Any] = {"va": "top", "ha": "left" if step.at < len(one.points) / 2 else "right"}
        look |= {"color": ink(RATIO), "fontsize": "small", "path_effects": marks.halo(), "gid": "change"}
        text = axis.text(step.at - 0.5, 0.98, f" {step.ratio - 1:+.1%} ", transform=axis.get_xaxis_transform(), **look)
        text.set_in_layout(False)
    title = one.cell + (f"\n{one.machine}" if several else "")
    axis.set_title("\n".join(textwrap.fill(tame(line), 52) for line in title.splitlines()))
    axis.set_ylabel(measure.label)
    _commits(axis, one)


def _scale(axis: Axes, one: Series, unit: float) -> None:
    """Set the limits around all values and intervals, with room for texts at the top."""
    ends = [end / unit for point in one.points for end in (point.lo, point.value, point.hi) if end is not None]
    low, high = min(ends), max(ends)
    middle = (low + high) / 2
    half = max((high - low) / 2, SPAN / 2 * middle)
    axis.set_ylim(middle - 1.15 * half, middle + 1.45 * half)
    axis.yaxis.set_major_locator(MaxNLocator(5))


def _commits(axis: Axes, one: Series) -> None:
    """Name runs by their commits: where a level begins, then the first run of each commit if there is room."""
    commits = [point.commit for point in one.points]
    fresh = [n for n, commit in enumerate(commits) if n == 0 or commit != commits[n - 1]]
    places = [0, *(step.at for step in one.steps)]
    for n in fresh if len(fresh) > 1 else range(len(commits)):
        if all(abs(n - other) * TICKS >= len(commits) for other in places):
            places.append(n)
    axis.xaxis.set_major_locator(FixedLocator(sorted(places)))
    names = [short(commits[n]) for n in sorted(places)]
    axis.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.7, len(commits) - 0.3)
    axis.set_xlabel("Run, by commit")


def _heads(sketch: Figure) -> None:
    """Move texts of changes that overlap into lines of their own."""
    sketch.draw_without_rendering()
    for axis in sketch.axes:
        ends: list[float] = []  # the right end of each line
        texts = [text for text in axis.texts if text.get_gid() == "change"]
        for text in sorted(texts, key=lambda text: text.get_window_extent().x0):
            box = text.get_window_extent()
            line = next((n for n, end in enumerate(ends) if end <= box.x0), len(ends))
            ends[line : line + 1] = [box.x1]
            text.set_y(0.98 - line * box.height / axis.bbox.height)
