"""Files of reports: those beside the records of a sweep, and how a file is written whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vbench.files import write_text, write_whole, writing
from vbench.reports import tables, witnesses
from vbench.reports.grid import inert
from vbench.results.frame import objects
from vbench.results.text import tame

if TYPE_CHECKING:
    from vbench.reports.figures.style import Look

CHUNK = 20_000  # rows of a CSV that are turned into text together
FILES = ("summary.csv", "summary.parquet", "table.md", "resolution.png", "resolution.pdf", "resolution.txt")


def write_all(
    table: pd.DataFrame, folder: Path, told: tables.Below | None = None, look: Look | None = None
) -> list[Path]:
    """Write `FILES` into a folder, each whole or not at all; no picture if no cell was measured. `told`: as in
    `tables.show`; `look`: of the figure. `table.md` has its labels too; the summaries have the models' own names.

    Returns: the files that were written.
    Raises: OutputError if the folder cannot be written.
    """
    from vbench.reports.figures import draw
    from vbench.reports.figures.style import Look, Options
    from vbench.results.accuracy import measured

    look = look or Look()
    names = ("resolution",) if (table["status"] == "ok").any() else ()
    request = draw.Request(names, look, options=Options(accuracy=tuple(measured([folder]))))
    with draw.meanwhile(request, table) as drawn:
        with writing(folder):
            write_whole(folder / "summary.csv", lambda path: _to_csv(table, path))
            write_whole(folder / "summary.parquet", lambda path: cleaned(table).to_parquet(path, index=False))
        write_text(
            folder / "table.md",
            tables.to_markdown(table, told, look.labels) + witnesses.to_markdown(table, look.labels),
        )
        pictures, _ = draw.put(drawn(), request, folder)
    return [*(folder / name for name in FILES if not name.startswith("resolution.")), *pictures]


def _to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the bytes of `DataFrame.to_csv`, in a fraction of its time. Raises: OSError."""
    clean = cleaned(table, inert)
    with path.open("w", encoding="utf-8", newline="") as text:
        text.write(",".join(_quoted(clean.columns)) + "\n")
        for begin in range(0, len(clean), CHUNK):
            part = clean.iloc[begin : begin + CHUNK]
            text.writelines(",".join(row) + "\n" for row in zip(*(_fields(part[name]) for name in part), strict=True))


def _fields(values: pd.Series[Any]) -> list[str]:
    """The fields of a column; empty for missing values. A text that comes again is quoted once."""
    if values.dtype.kind in "biuf":
        return ["" if value is None else repr(value) for value in objects(values)]
    codes, texts = pd.factorize(values)
    return list(np.array([*_quoted(texts), ""], object)[codes])  # the code of missing values is -1


def _quoted(texts: Iterable[str]) -> list[str]:
    """Texts as a CSV has them beside others."""
    lines: list[str] = []
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="").writerows((text, "") for text in texts)
    return [line[:-1] for line in lines]


def cleaned(table: pd.DataFrame, clean: Callable[[str], str] = tame) -> pd.DataFrame:
    """The frame with all its text made clean."""
    changed: dict[str, Any] = {}
    for name in map(str, table.select_dtypes(["object", "string"])):
        found = {text: clean(text) for text in table[name].unique() if isinstance(text, str)}
        if any(text != instead for text, instead in found.items()):
            texts = [found.get(text, text) if isinstance(text, str) else text for text in table[name]]
            changed[str(name)] = pd.Series(texts, index=table.index, dtype=table[name].dtype)
    return table.assign(**changed)


def filled(page: str, name: str, text: str) -> str:
    """A page with `text` between its markers of that name. Raises: ValueError if a marker is missing."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return before + begin + text + end + after
