"""Files of figures: parse what to draw, draw what the records allow, write each figure with its caption."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import pandas as pd

from vbench.errors import UsageError
from vbench.files import write_whole, writing
from vbench.options import choices, numbers, shown
from vbench.plan import LARGEST, parse_dtypes
from vbench.reports import tables
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import FORMATS, STYLES, Drawn, NotDrawnError, Options, save
from vbench.reports.figures.table import FIGURES
from vbench.reports.series import few
from vbench.results.axes import AXES, CAPTION
from vbench.results.text import tame

WIDTH = 100  # characters in a line of a caption
SHOWN = [name for name, axis in AXES.items() if axis.kind == "string" and axis.source] + [
    "form"
]  # columns whose text is drawn


@dataclass(frozen=True, slots=True)
class Request:
    """What to draw. `strict`: a figure that cannot be drawn is an error, because the user named it."""

    names: tuple[str, ...]
    style: str = "paper"
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
) -> Request:
    """The request that the options describe. Without names it has all figures. Raises: UsageError."""
    if style not in STYLES:
        raise UsageError(f"--style '{shown(style)}' is not known; take one of {', '.join(STYLES)}")
    costs = choices(cost, "--cost", tuple(MEASURES)) if cost else None
    sides = numbers(at, "--at", "512,1024,2048", allowed=range(1, LARGEST + 1), kind="a size in px")
    options = Options(sides, baseline, subject, costs)
    return Request(names or tuple(FIGURES), style, choices(formats, "--format", FORMATS), options, bool(names))


def of_dtype(table: pd.DataFrame, dtypes: str | None) -> pd.DataFrame:
    """The rows of these dtypes, comma-separated; all rows for None. Raises: UsageError if a dtype has no rows."""
    if dtypes is None:
        return table
    return table[table["dtype"].isin(parse_dtypes(dtypes, tuple(sorted(table["dtype"].unique()))))]


def write(request: Request, table: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw what the rows allow. Returns the files written, and a line for each figure that was not drawn.

    "paper:vig" gives paper-vig.png ... and its caption paper-vig.txt. Everything is drawn before a file is written;
    each file is written whole or not at all.

    Raises: UsageError for a named figure that cannot be drawn, or an unknown series; OutputError if writing fails.
    """
    files: list[Path] = []
    missing: list[str] = []
    with looking(request.style):
        drawn: dict[str, Drawn] = {}
        shown: dict[str, tuple[pd.DataFrame, list[str]]] = {}
        for name in request.names:
            try:
                shown[name] = few(_rows(name, table))
                drawn[name] = draw(name, shown[name][0], request.options)
            except NotDrawnError as why:
                line = f"{name} is not drawn: {why}; measure it by: {FIGURES[name].command}"
                if request.strict:
                    raise UsageError(line) from None
                missing.append(line)
        with writing(folder):
            for name, one in drawn.items():
                rows, cut = shown[name]
                text = caption(name, rows, replace(one, notes=(*cut, *one.notes)))
                files += write_files(one, text, folder / name.replace(":", "-"), request.formats)
    return files, missing


def draw(name: str, table: pd.DataFrame, options: Options) -> Drawn:
    """One figure of `FIGURES`, in the current style. Raises: NotDrawnError, UsageError."""
    entry = FIGURES[name]
    rows = _rows(name, table)
    rows = rows.assign(**{key: rows[key].map(tame, na_action="ignore") for key in SHOWN})
    if not entry.alone and not rows[list(entry.needs)].notna().all(axis=1).any():
        where = f" of phase {entry.phase}" if entry.phase == "train" else ""
        reasons = list(rows["energy_reason"].dropna().unique()) if "energy_j_per_image" in entry.needs else []
        why = f" ({tame(reasons[0])})" if len(reasons) else ""
        raise NotDrawnError(f"no row{where} has {', '.join(entry.needs) or 'anything'}{why}")
    module, function = entry.draw.split(":")
    found: Drawn = getattr(import_module(f"vbench.reports.figures.{module}"), function)(rows, options)
    return found


def caption(name: str, table: pd.DataFrame, drawn: Drawn) -> str:
    """The caption of a figure: its question, its notes, and the conditions of its rows."""
    entry = FIGURES[name]
    rows = _rows(name, table)
    lines = [f"{name}: {entry.question}", *drawn.notes]
    if len(rows):
        lines += [tables.caption(rows), conditions(rows), *tables.remarks(rows)]
    return "\n".join(textwrap.fill(tame(line), WIDTH, break_on_hyphens=False) for line in lines) + "\n"


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


@contextmanager
def looking(style: str) -> Iterator[None]:
    """A context in which figures have this style. The user's matplotlibrc is ignored."""
    with mpl.rc_context():
        mpl.rcdefaults()
        cast(dict[str, Any], mpl.rcParams).update(STYLES[style])
        yield


def write_files(drawn: Drawn, text: str, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figure as STEM.FORMAT and its caption as STEM.txt, each whole or not at all. Raises: OSError."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in (*formats, "txt")]
    for path in paths:
        if path.suffix == ".txt":
            write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
        else:
            write_whole(path, partial(save, drawn.figure))
    return paths


def _there(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # no name of a folder, or one that nobody may see
        return False


def _near(name: str) -> str:
    near = get_close_matches(name, FIGURES, n=1)
    return f": did you mean '{near[0]}'?" if near else ""
