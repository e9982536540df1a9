"""Files of reports: those beside the records of a sweep, and how a file is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from vbench.files import write_text, write_whole, writing
from vbench.reports.grid import inert
from vbench.results.text import tame

FILES = ("summary.csv", "summary.parquet", "table.md", "resolution.png", "resolution.pdf", "resolution.txt")


def write_all(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `FILES` into a folder, each whole or not at all.

    Raises: OutputError if the folder cannot be written.
    """
    from vbench.reports import tables
    from vbench.reports.figures import draw
    from vbench.reports.figures.style import Options
    from vbench.results.accuracy import measured

    with writing(folder):
        write_whole(folder / "summary.csv", lambda path: cleaned(table, inert).to_csv(path, index=False))
        write_whole(folder / "summary.parquet", lambda path: cleaned(table).to_parquet(path, index=False))
    write_text(folder / "table.md", tables.to_markdown(table))
    options = Options(accuracy=tuple(measured([folder])))
    draw.write(draw.Request(("resolution",), options=options), table, folder)
    return [folder / name for name in FILES]


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
