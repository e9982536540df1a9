"""Text from elsewhere is inert at every exit: one hostile run, one hostile model, hostile paths, read as bytes."""

from __future__ import annotations

import csv
import json
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from io import StringIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from command import vbench
from fakes import HOST, failed, make_record
from rich.table import Table

from vbench.commands.console import Terminal
from vbench.commands.progress import Progress
from vbench.models import checkpoint
from vbench.reports.grid import csv_text, inert, to_markdown
from vbench.reports.tables import full
from vbench.results.frame import of_folders
from vbench.results.store import FILE
from vbench.results.text import bare_table, print_whole, tame, tamed

BAD = (
    "\x1b[2J\x1b]8;;http://evil\x07link\x1b\\\x9b31m",  # clears a screen, hides a link, colours
    "over\rwritten\x08\x7f\x00",
    "\u202egnp.exe\u202c\u2066\u200bzero\u2060\ufeff\u00ad\u3164",  # turned, and without width
    "\ud800lone\udfff\ue000\ufffe",
    "line\u2028\u2029\x85feed\nforged: ok",
)
MARKUP = "[/b][bold]:warning:[link=http://evil]<script>alert(1)</script>&|$%_{}\\\"'`--]]>"
HOSTILE = "".join(BAD) + MARKUP
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1+1", "fine; =1+1")
ALONE = ("--models", "vig_t", "--res", "64", "--device", "cpu")


def unseen(text: str) -> set[str]:
    """The characters of a text that nobody sees, beside "\\n"."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return {c for c in text if (unicodedata.category(c) in bad or c == "\u3164") and c != "\n"}


def texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts(one)


def said(done: CompletedProcess[str], code: int = 0) -> str:
    """What a command printed, of which every byte is harmless."""
    shown = done.stdout + done.stderr
    shown.encode("utf-8")
    assert done.returncode == code, shown
    assert unseen(shown) == set(), sorted(map(ascii, unseen(shown)))
    assert "Traceback" not in shown
    assert not any(line.startswith("forged") for line in shown.splitlines())
    return shown


def written(folder: Path, *names: str) -> None:
    """Every text in a folder is UTF-8 in which all characters are seen; and these files are there."""
    assert {*names} <= {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        if path.suffix in (".png", ".pdf", ".parquet", ".jsonl") or path.name == "run.json":
            continue
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".html":
            text = re.sub(r"(?s)<script>(?!\{).*?</script>", "", text)  # plotly.js, which is not from elsewhere
        assert unseen(text) == set(), (path.name, sorted(map(ascii, unseen(text))))
        if path.suffix == ".json":
            assert set().union(*map(unseen, texts(json.loads(text)))) == set()
        if path.suffix in (".svg", ".xml"):
            ET.fromstring(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records that say something hostile wherever a record can say something."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    host = {
        **HOST,
        "device_name": f"=1+1 {HOSTILE}",
        "cpu": HOSTILE,
        "versions": {**HOST["versions"], "torch": HOSTILE},
    }
    host |= {"os": HOSTILE, "commit": f"-1+2{HOSTILE}"}
    records = [make_record(model, side, host=host) for side in (224, 512, 1024) for model in ("vig_t", "deit_t")]
    work = {**(records[0].work or {}), "unknown": {HOSTILE: {"calls": 1, "bytes": 8}}, "padding": HOSTILE}
    named = make_record(f"timm/{HOSTILE}", 224, host=host, work=work)
    records += [
        named,
        make_record(f"timm/{HOSTILE}", 512, host=host, verified={"ok": False, "checks": 1, "failed": [HOSTILE]}),
    ]
    records += [
        failed("error", f"{lead} {HOSTILE}", model="vig_s", side=16 * n, host=host)
        for n, lead in enumerate(FORMULAS, 2)
    ]
    records.append(make_record("vig_b", 224, host=host, protocol={**records[0].protocol, "x": HOSTILE}))
    (folder / FILE).write_text("".join(json.dumps(asdict(record)) + "\n" for record in records), encoding="ascii")
    return folder


class TestARun:
    def test_the_table_and_its_files(self, run: Path) -> None:
        shown = said(vbench("report", str(run)))
        for part in ("[/b][bold]:warning:[link=", "<script>", "�[2J�]8;;http://evil�link", "�lone"):
            assert part in shown, part
        written(run, "summary.csv", "table.md", "resolution.txt")
        assert "<script>" not in (run / "table.md").read_text()
        rows = json.loads(vbench("report", str(run), "--json").stdout)
        assert set().union(*map(unseen, texts(rows))) == set()

    def test_no_cell_of_a_spreadsheet_is_a_formula_and_numbers_stay_numbers(self, run: Path, tmp_path: Path) -> None:
        said(vbench("report", str(run)))
        said(vbench("tables", str(run), "-o", str(tmp_path)))
        for file in [run / "summary.csv", *tmp_path.glob("*.csv")]:
            with file.open(newline="") as lines:
                cells = [cell for row in csv.reader(lines) for cell in row]
            assert len(cells) > 20
            for cell in cells:
                for part in cell.split(";"):
                    assert part.strip()[:1] not in {*"=+-@＝"} or re.fullmatch(r"-?[\d.e-]+", cell), cell
        table = pd.read_csv(run / "summary.csv")
        assert table["latency_ms"].dtype == float
        assert set(table["reason"].dropna().str.slice(0, 3)) == {"'=c", "'+1", "'-2", "'@S", "'=1", "'＝1", "fin"}
        assert set(pd.read_parquet(run / "summary.parquet")["device_name"].str.slice(0, 4)) == {"=1+1"}

    def test_tables_of_a_paper(self, run: Path, tmp_path: Path) -> None:
        said(vbench("tables", str(run), "-o", str(tmp_path)))
        written(tmp_path, "full.md", "full.tex", "full.csv")
        for shape in ("md", "tex"):
            assert MARKUP[:4] in said(vbench("tables", str(run), "--what", "full", "--format", shape)).replace(
                "{[}", "["
            )

    def test_figures_and_the_page(self, run: Path, tmp_path: Path) -> None:
        said(vbench("figures", "resolution", str(run), "--format", "svg,png", "-o", str(tmp_path)))
        said(vbench("report", str(run), "-o", str(tmp_path / "page.html")))
        written(tmp_path, "resolution.svg", "resolution.png", "resolution.txt", "page.html")
        assert "�[2J" in (tmp_path / "resolution.svg").read_text()
        assert "�[2J" in (tmp_path / "page.html").read_text()

    def test_fits(self, run: Path) -> None:
        assert MARKUP[:20] in said(vbench("fit", str(run)))
        found = json.loads(vbench("fit", str(run), "--json").stdout)
        assert set().union(*map(unseen, texts(found))) == set()

    def test_what_a_gate_writes_and_a_history(self, run: Path, tmp_path: Path) -> None:
        shown = said(vbench("compare", str(run), str(run), "-o", str(tmp_path / "gate")), 0)
        assert MARKUP[:20] in shown
        written(tmp_path / "gate", "gate.json", "gate.md", "junit.xml", "bencher.json")
        assert unseen(json.dumps(json.loads(vbench("compare", str(run), str(run), "--json").stdout))) == set()
        assert MARKUP[:20] in said(vbench("history", str(run.parent), "-o", str(tmp_path / "history")))
        written(tmp_path / "history", "history.md", "history.txt")
