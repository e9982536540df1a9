"""Verdicts on exports: a table for a terminal, the recorded ones, and their table in docs/export.md.

python -P -m vbench.reports.exports JSON...            adds what `vbench export --json` has printed to the recorded ones
python -P -m vbench.reports.exports --page PAGE        writes the table of the recorded ones into a page
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from vbench.models.registry import MODELS
from vbench.reports.write import filled
from vbench.results.text import bare_table, px

Row = Mapping[str, Any]
RECORDED = Path(__file__).resolve().parent.parent / "results" / "export.csv"
KEY = ("model", "mode", "form", "target", "height", "width", "dtype")
COLUMNS = (
    *KEY,
    *("exports", "stopped_by", "reason", "nodes", "bytes", "seconds", "error", "dynamic", "dynamic_reason", "versions"),
)
HEADS = ("model", "mode", "px", "type", "target", "exports", "nodes", "MB", "s", "error", "any size")
RIGHT = ("nodes", "MB", "s", "error")
NUMBERS = {"height": int, "width": int, "nodes": int, "bytes": int, "seconds": float, "error": float}


def to_rich(rows: Iterable[Row]) -> Table:
    """One row for each verdict. `error` is relative, to the model in eager mode."""
    rows = list(rows)
    filed = any(row.get("file") for row in rows)
    table = bare_table((*HEADS, "file") if filed else HEADS, right=RIGHT)
    for row in rows:
        table.add_row(*cells(row), *([row.get("file") or ""] if filed else []))
    return table


def cells(row: Row) -> list[str]:
    """A verdict in words, without its file and its reasons."""
    size = f"{row['bytes'] / 1e6:.1f}" if row["bytes"] is not None else ""
    return [
        row["model"],
        ":".join(filter(None, (row["mode"], row["form"]))),
        px(row["height"], row["width"]),
        row["dtype"],
        row["target"],
        row["exports"] or "not known",
        "" if row["nodes"] is None else f"{row['nodes']:,}",
        size,
        "" if row["seconds"] is None else f"{row['seconds']:.0f}",
        "" if row["error"] is None else f"{row['error']:.0e}",
        row["dynamic"] or "",
    ]


def remarks(rows: Iterable[Row]) -> list[str]:
    """Why models do not export, or not with open sides, or were not checked; a line for each reason."""
    said: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        what = f"{row['model']} {row['mode']}"
        if row["exports"] != "yes":
            verdict = "does not export" if row["exports"] == "no" else "is not known to export"
            said.setdefault((verdict, row["reason"]), {})[f"{what} to {row['target']}"] = None
        elif row["dynamic"] == "no":
            said.setdefault(("has a fixed size", row["dynamic_reason"]), {})[what] = None
        if row.get("check"):
            said.setdefault(("was not checked", row["check"]), {})[f"{what} to {row['target']}"] = None
    return [f"{verdict}: {', '.join(subjects)}: {reason}" for (verdict, reason), subjects in said.items()]


def read(file: Path = RECORDED) -> list[dict[str, Any]]:
    """The recorded verdicts, in the order of the zoo."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [
            {name: NUMBERS.get(name, str)(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(lines)
        ]


def write(rows: Iterable[Row]) -> str:
    """The recorded verdicts with these ones in place of those of the same export: the text of the file."""
    known = {tuple(row[name] for name in KEY): row for row in (*(read() if RECORDED.exists() else ()), *rows)}
    order = list(MODELS)
    text = StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in sorted(known.values(), key=lambda row: (order.index(row["model"]), row["mode"], str(row["form"]))):
        table.writerow({name: _short(row[name]) for name in COLUMNS})
    return text.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value


def made_by(rows: Iterable[Row]) -> str:
    """The versions of all packages."""
    return ", ".join(dict.fromkeys(part for row in rows for part in row["versions"].split(", ")))


def markdown(rows: Sequence[Row]) -> str:
    """The table of docs/export.md, and below it every reason once."""
    rules = ["---:" if head in RIGHT else "---" for head in HEADS]
    lines = [f"| {' | '.join(line)} |" for line in (HEADS, rules)]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    reasons = "".join(f"- {line.replace('<', '&lt;').replace('|', '/')}\n" for line in remarks(rows))
    return "\n".join(lines) + f"\n\nRecorded with {made_by(rows)}.\n\n{reasons}".rstrip()


if __name__ == "__main__":
    if sys.argv[1] == "--page":
        page = Path(sys.argv[2])
        page.write_text(filled(page.read_text(encoding="utf-8"), "exports", markdown(read())), encoding="utf-8")
    else:
        found = [row for file in sys.argv[1:] for row in json.loads(Path(file).read_text(encoding="utf-8"))]
        RECORDED.write_text(write(found), encoding="utf-8")
