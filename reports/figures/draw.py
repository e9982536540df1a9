"""Files of figures: parse what to draw, draw what the records allow, write each figure with its caption."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from vbench.errors import UsageError
from vbench.files import write_whole, writing
from vbench.options import choices, numbers, shown
from vbench.plan import LARGEST, parse_dtypes
from vbench.reports import labels, tables
from vbench.reports.figures.accuracies import beside
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import (
    FORMATS,
    Drawn,
    Look,
    NotDrawnError,
    Options,
    looking,
    named,
    parse_look,
    rendered,
)
from vbench.reports.figures.table import FIGURES
from vbench.reports.series import few
from vbench.results import workers
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.axes import AXES, CAPTION
from vbench.results.published import efficiency
from vbench.results.text import tame

WIDTH = 100  # characters in a line of a caption
MANY = 10_000  # rows, for which it is worth the start of processes to draw several figures at the same time
SHOWN = [name for name, axis in AXES.items() if axis.kind == "string" and axis.source] + [
    "form"
]  # columns whose text is drawn


@dataclass(frozen=True, slots=True)
class Request:
    """What to draw. `strict`: a figure that cannot be drawn is an error, because the user named it."""

    names: tuple[str, ...]
    look: Look = Look()  # noqa: RUF009  # frozen
    formats: tuple[str, ...] = ("png", "pdf")
    options: Options = Options()  # noqa: RUF009  # frozen
    strict: bool = False


def parse_words(words: Sequence[str]) -> tuple[tuple[str, ...], list[Path]]:
    """The figures' names that stand before the folders, and the folders. "all" gives no names. Raises: UsageError."""
    names: list[str] = []
    rest = list(words)
    while rest and (rest[0] in ("all", *FIGURES) or "," in rest[0]) and not (names and _there(rest[0])):
        names += rest.pop(0).split(",")
    for name in names:
        if name not in FIGURES and name != "all":
            raise UsageError(f"unknown figure '{shown(name)}'{_near(name)}; there are {', '.join(FIGURES)}, or all")
    if rest and not _there(rest[0]):
        raise UsageError(
            f"'{shown(rest[0])}' is neither a figure{_near(rest[0])} nor a folder; figures: {', '.join(FIGURES)}"
        )
    chosen = () if "all" in names else tuple(dict.fromkeys(names))
    if not rest and not (chosen and all(FIGURES[name].alone for name in chosen)):
        raise UsageError("give the --out folder of a sweep; without one only paper: figures can be drawn, by name")
    return chosen, [Path(word) for word in rest]


def parse(
    names: tuple[str, ...],
    *,
    style: str,
    formats: str,
    at: str,
    baseline: str | None,
    subject: str | None,
    cost: str | None,
    width: str | None = None,
    font: str = "sans",
    accuracy: Sequence[MeasuredAccuracy] = (),
) -> Request:
    """The request that the options describe. Without names it has all figures. Raises: UsageError."""
    look = parse_look(style, width, font)
    costs = choices(cost, "--cost", tuple(MEASURES)) if cost else None
    sides = numbers(at, "--at", "512,1024,2048", allowed=range(1, LARGEST + 1), kind="a size in px")
    options = Options(sides, baseline, subject, tuple(accuracy), costs)
    return Request(names or tuple(FIGURES), look, choices(formats, "--format", FORMATS), options, bool(names))


def labelled(request: Request, table: pd.DataFrame, text: str | None) -> Request:
    """The request with what --labels gave, for models of the table, and those that papers print. Raises: UsageError."""
    papers = any(FIGURES[name].alone for name in request.names)
    printed = [row.model for row in efficiency() if row.model] if papers else []
    return replace(request, look=replace(request.look, labels=labels.parse(text, [*table["model"], *printed])))


def of_dtype(table: pd.DataFrame, dtypes: str | None) -> pd.DataFrame:
    """The rows of these dtypes, comma-separated; all rows for None. Raises: UsageError if a dtype has no rows."""
    if dtypes is None:
        return table
    return table[table["dtype"].isin(parse_dtypes(dtypes, tuple(sorted(table["dtype"].unique()))))]


def write(request: Request, table: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw what the rows allow. Returns the files written, and a line for each figure that was not drawn.

    "paper:vig" gives paper-vig.png ... and its caption paper-vig.txt. Everything is drawn before a file is written;
    each file is written whole or not at all. Of many rows several figures are drawn at the same time.

    Raises: UsageError for a named figure that cannot be drawn, or an unknown series; OutputError if writing fails.
    """
    return put(_side_by_side(request, table) or _made(request, table), request, folder)


def put(found: Made, request: Request, folder: Path) -> tuple[list[Path], list[str]]:
    """Write what was made of a request, as `write`. Raises: OutputError."""
    order = list(request.names)
    files: list[Path] = []
    with writing(folder):
        for name, contents in sorted(found.files.items(), key=lambda one: order.index(one[0])):
            files += _put(folder / name.replace(":", "-"), contents)
    return files, [found.missing[name] for name in order if name in found.missing]


@contextmanager
def meanwhile(request: Request, table: pd.DataFrame) -> Iterator[Callable[[], Made]]:
    """A context in which a process makes the figures of many rows. It gives what waits for them, or makes them here."""
    with ExitStack() as stack:
        worker: workers.Worker | None = None
        if len(table) >= MANY and workers.count() > 1:
            with suppress(*workers.LOST):
                worker = stack.enter_context(workers.worker(f"{__name__}:draw_share"))
                worker.say((request, table))

        def made() -> Made:
            if worker is not None:
                with suppress(*workers.LOST):
                    found: Made = worker.hear()
                    return found
            return _made(request, table)

        yield made


class Made(NamedTuple):
    """Figures by name: what their files hold, by suffix; and why others are not drawn."""

    files: dict[str, dict[str, bytes]]
    missing: dict[str, str]


def _made(request: Request, table: pd.DataFrame) -> Made:
    """The figures of a request. Raises: UsageError."""
    found = Made({}, {})
    shown: dict[str, tuple[pd.DataFrame, list[str]]] = {}  # by the phase of the rows
    with looking(request.look):
        for name in request.names:
            phase = FIGURES[name].phase or ""
            try:
                if phase not in shown:
                    shown[phase] = few(_rows(name, table))
                rows, cut = shown[phase]
                one = draw(name, rows, request.options)
            except NotDrawnError as why:
                line = f"{name} is not drawn: {why}; measure it by: {FIGURES[name].command}"
                if request.strict:
                    raise UsageError(line) from None
                found.missing[name] = line
                continue
            text = caption(name, rows, replace(one, notes=(*cut, *one.notes)))
            found.files[name] = _contents(one, text, request.formats)
    return found


def _side_by_side(request: Request, table: pd.DataFrame) -> Made | None:
    """`_made` by several processes; None for few rows or figures, or if a process is lost. Raises: UsageError."""
    count = min(workers.count(), len(request.names))
    if count < 2 or len(table) < MANY:
        return None
    try:
        with ExitStack() as stack:
            started = [stack.enter_context(workers.worker(f"{__name__}:draw_share")) for _ in range(count)]
            for number, worker in enumerate(started):
                worker.say((replace(request, names=request.names[number::count]), table))
            parts = [worker.hear() for worker in started]
    except workers.LOST:
        return None
    return Made(
        {name: files for part in parts for name, files in part.files.items()},
        {name: line for part in parts for name, line in part.missing.items()},
    )


def draw_share(hear: Callable[[], Any], say: Callable[[Any], None]) -> None:
    """What a process does with its figures."""
    say(_made(*hear()))


def draw(name: str, table: pd.DataFrame, options: Options) -> Drawn:
    """One figure of `FIGURES`, in the current style. Raises: NotDrawnError, UsageError."""
    entry = FIGURES[name]
    rows = _rows(name, table)
    rows = rows.assign(**{key: rows[key].map(tame, na_action="ignore") for key in SHOWN})
    rows = beside(rows, options.accuracy)
    if not entry.alone and not rows[list(entry.needs)].notna().all(axis=1).any():
        where = f" of phase {entry.phase}" if entry.phase == "train" else ""
        reasons = list(rows["energy_reason"].dropna().unique()) if "energy_j_per_image" in entry.needs else []
        why = f" ({tame(reasons[0])})" if len(reasons) else ""
        raise NotDrawnError(f"no row{where} has {', '.join(entry.needs) or 'anything'}{why}")
    module, function = entry.draw.split(":")
    found: Drawn = getattr(import_module(f"vbench.reports.figures.{module}"), function)(rows, options)
    return found


def caption(name: str, table: pd.DataFrame, drawn: Drawn) -> str:
    """The caption of a figure: its question, its notes, and the conditions of its rows, with the look's labels."""
    entry = FIGURES[name]
    rows = _rows(name, table)
    lines = [f"{name}: {entry.question}", *drawn.notes]
    if len(rows):
        lines += [tables.caption(rows), conditions(rows), *tables.remarks(rows)]
    return wrapped(lines)


def wrapped(lines: Iterable[str]) -> str:
    """The text of a caption from its lines."""
    return "\n".join(textwrap.fill(named(tame(line)), WIDTH, break_on_hyphens=False) for line in lines) + "\n"


def _rows(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a figure shows: those of its phase. Without a phase: those of inference, or else all."""
    phase = FIGURES[name].phase or "infer"
    rows = table[table["phase"] == phase]
    return rows if len(rows) or FIGURES[name].phase else table


def conditions(rows: pd.DataFrame) -> str:
    """Protocol and settings in words."""
    found = {key: [str(value) for value in sorted(rows[key].dropna().unique())] for key in CAPTION}
    said = [f"{key} {', '.join(values)}" for key, values in found.items() if values]
    return f"Protocol: {'; '.join(said)}."


def write_files(drawn: Drawn, text: str, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figure as STEM.FORMAT and its caption as STEM.txt, each whole or not at all. Raises: OSError."""
    return _put(stem, _contents(drawn, text, formats))


def _contents(drawn: Drawn, text: str, formats: Sequence[str]) -> dict[str, bytes]:
    """What the files of a figure hold, by suffix."""
    return {**{suffix: rendered(drawn.figure, suffix) for suffix in formats}, "txt": text.encode()}


def _put(stem: Path, contents: dict[str, bytes]) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_whole(path, partial(Path.write_bytes, data=content))
    return paths


def _there(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # no name of a folder, or one that nobody may see
        return False


def _near(name: str) -> str:
    near = get_close_matches(name, FIGURES, n=1)
    return f": did you mean '{near[0]}'?" if near else ""
