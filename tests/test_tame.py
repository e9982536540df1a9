"""Text from elsewhere is inert at every exit: one hostile run, one hostile model, hostile paths, read as bytes."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
import torch
from command import vbench
from fakes import HOST, failed, make_record

from vbench.commands.console import Terminal
from vbench.commands.progress import Progress
from vbench.errors import CheckpointError
from vbench.models import create, load_published
from vbench.reports.grid import csv_text
from vbench.results.store import FILE, read
from vbench.results.text import bare_table, print_whole, tame, tamed
from vbench.sweeps.rest import Rest

BAD = (
    "\x1b[2J\x1b]8;;http://evil\x07link\x1b\\\x9b31m",  # clears a screen, hides a link, colours
    "over\rwritten\x08\x7f\x00",
    "\u202egnp.exe\u202c\u2066\u200bzero\u2060\ufeff\u00ad\u3164",  # turned, and without width
    "\ue000private\ufffe",
    "line\u2028\u2029\x85feed\nforged: ok",
)
MARKUP = "[/b][bold]:warning:[link=http://evil]<script>alert(1)</script>&|$%_{}\\\"'`--]]>"
HOSTILE = "".join(BAD) + MARKUP
NAME = f"timm/{HOSTILE}".replace(" ", "")  # of a model
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


def no_formula(file: Path) -> None:
    """No cell of a CSV starts as a formula, also where ";" parts cells; a number may."""
    with file.open(newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert len(cells) > 20
    for cell in cells:
        for part in cell.split(";"):
            assert part.strip()[:1] not in {*"=+-@＝"} or re.fullmatch(r"-?[\d.e-]+", cell), cell


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
    named = make_record(NAME, 224, host=host, work=work)
    records += [
        named,
        make_record(NAME, 512, host=host, verified={"ok": False, "checks": 1, "failed": [HOSTILE]}),
    ]
    records += [
        failed("error", f"{lead} {HOSTILE}", model="vig_s", side=16 * n, host=host)
        for n, lead in enumerate(FORMULAS, 2)
    ]
    records.append(make_record("vig_b", 224, host=host, protocol={**records[0].protocol, "x": HOSTILE}))
    records.append(failed("error", "half \ud800 a pair", model="vig_b", side=32, host=host))  # no longer recorded so
    (folder / FILE).write_text("".join(json.dumps(asdict(record)) + "\n" for record in records), encoding="ascii")
    return folder


def test_the_table_and_its_files(run: Path) -> None:
    shown = said(vbench("report", str(run)))
    for part in ("[/b][bold]:warning:[link=", "<script>", "�[2J�]8;;http://evil�link", "line 18 (it is no JSON"):
        assert part in shown, part
    written(run, "summary.csv", "table.md", "resolution.txt")
    assert "<script>" not in (run / "table.md").read_text()
    no_formula(run / "summary.csv")
    table = pd.read_csv(run / "summary.csv")
    assert table["latency_ms"].dtype == float
    assert set(table["reason"].dropna().str.slice(0, 3)) == {"'=c", "'+1", "'-2", "'@S", "'=1", "'＝1", "fin"}
    assert set(pd.read_parquet(run / "summary.parquet")["device_name"].str.slice(0, 4)) == {"=1+1"}


def test_tables_of_a_paper(run: Path, tmp_path: Path) -> None:
    said(vbench("tables", str(run), "--what", "full,work", "-o", str(tmp_path)))
    written(tmp_path, "full.md", "full.tex", "full.csv", "work.csv")
    for name in ("full", "work"):
        no_formula(tmp_path / f"{name}.csv")
        assert "[/b][bold]" in (tmp_path / f"{name}.tex").read_text().replace("{[}", "[").replace("{]}", "]")
        assert r"\[/b\]\[bold\]" in (tmp_path / f"{name}.md").read_text()


def test_figures_and_the_page(run: Path, tmp_path: Path) -> None:
    said(vbench("figures", "resolution", str(run), "--format", "svg", "-o", str(tmp_path)))
    said(vbench("report", str(run), "-o", str(tmp_path / "page.html")))
    written(tmp_path, "resolution.svg", "resolution.txt", "page.html")
    assert "�[2J" in (tmp_path / "resolution.svg").read_text()
    assert "�[2J" in (tmp_path / "page.html").read_text()


def test_fits(run: Path) -> None:
    assert "[/b][bold]" in said(vbench("fit", str(run)))
    found = json.loads(vbench("fit", str(run), "--json").stdout)
    assert set().union(*map(unseen, texts(found))) == set()


def test_what_a_gate_writes_and_a_history(run: Path, tmp_path: Path) -> None:
    assert "[/b][bold]" in said(vbench("compare", str(run), str(run), "-o", str(tmp_path / "gate")))
    written(tmp_path / "gate", "gate.json", "gate.md", "junit.xml", "bencher.json")
    assert "[/b][bold]" in said(vbench("history", str(run.parent), "-o", str(tmp_path / "history")))
    written(tmp_path / "history", "history.md", "history.txt")


MODEL = """
import threading, time, torch, warnings

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 5)

    def forward(self, x):
        warnings.warn(SAYS)
        if x.shape[-1] > 32:
            raise RuntimeError(SAYS)
        return self.head(x.mean((2, 3)))

def nét():
    threading.Thread(target=time.sleep, args=(600,), name=SAYS, daemon=True).start()
    return Net()
"""


def test_a_model_that_speaks_to_the_terminal(tmp_path: Path) -> None:
    """Its exception, its thread, its warning; and the folder's name."""
    (tmp_path / "nét.py").write_text(f"SAYS = {HOSTILE!r}\n{MODEL}", encoding="utf-8")
    out = f"[/b]{BAD[0]}{BAD[2]}"
    options = [
        "--res",
        "32,64",
        "--modes",
        "parallel",
        "--batch",
        "1",
        "--seconds",
        "0.01",
        "--rigor",
        "quick",
        "--device",
        "cpu",
    ]
    done = vbench("sweep", "--models", "nét:nét", *options, "-o", out, cwd=tmp_path)
    shown = said(done)
    assert "nét:nét" in shown
    assert "[/b][bold]:warning:" in shown
    assert "files in [/b]�[2J" in shown
    written(tmp_path / out, "summary.csv", "table.md", "resolution.png")
    assert {record.status for record in read(tmp_path / out)} == {"ok", "unsupported"}


@pytest.mark.parametrize("name", [f"my:{HOSTILE}", f"{HOSTILE}:net", f"[/b]{BAD[0]}", BAD[2], "[/b]", "\udcff"])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    shown = said(vbench("sweep", "--models", name, "--res", "32", cwd=tmp_path), 2)
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("report", "{}"),
        ("report", "-o", "{}", "{}"),
        ("tables", "{}"),
        ("figures", "{}"),
        ("fit", "{}"),
        ("compare", "{}", "{}"),
        ("history", "{}"),
        ("suites", "{}.toml"),
        ("plan", "--suite", "{}.toml"),
        ("sweep", *ALONE, "-o", "file/{}"),
        ("sweep", *ALONE, "--rigor", "{}"),
        ("sweep", *ALONE, "--budget", "{}"),
        ("sweep", *ALONE, "--threads", "{}"),  # Typer's own
        ("sweep", "--{}"),
        ("{}",),
        ("kernels", "{}"),
        ("report", "{}", "--{}"),
        ("verify", "--models", "vig_t,deit_t", "--weights", "{}"),
        ("gate", "--counters", "{}"),
        ("kernels", "check", "--op", "{}"),
    ],
    ids=" ".join,
)
def test_a_path_or_an_option_is_said_as_it_is(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for word in (f"[/b]{HOSTILE.replace(chr(0), '')}"[:120], "x\udcff[bold]"):
        shown = said(vbench(*(part.format(word) for part in command), cwd=tmp_path), 2)
        assert len(shown.splitlines()) == 1, shown
        assert "[/b]" in shown or "[bold]" in shown or {"--weights", "--threads"} & {*command}, shown


def test_what_a_suite_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    words = json.dumps(HOSTILE.replace("\x7f", ""))
    file.write_text(f'question = {words}\ntime = {words}\nmodels = "deit_t"\nres = "64"\n', encoding="utf-8")
    assert "[/b][bold]" in said(vbench("suites", str(file)))
    file.write_text(f"{words} = 1\n", encoding="utf-8")
    assert len(said(vbench("suites", str(file)), 2).splitlines()) == 1


def terminal() -> tuple[Terminal, StringIO]:
    shown = StringIO()
    return Terminal(file=shown, force_terminal=True, width=200, legacy_windows=False), shown


def theirs(shown: StringIO) -> str:
    """What is left of a screen without the colours and movements that rich writes."""
    text = re.sub(r"\x1b\[(\?25[lh]|[\d;]*[mAK])|\r", "", shown.getvalue())
    assert unseen(text) == set(), ascii(text)
    return text


def test_lines_tables_and_the_wait() -> None:
    console, shown = terminal()
    console.print(HOSTILE, style="bold")
    table = bare_table(("model", f"head {HOSTILE}"), title=HOSTILE)
    table.add_row(HOSTILE, "[red]x[/red]")
    print_whole(table, console, [HOSTILE])
    with console.status(HOSTILE) as status:
        status.update(f"then {HOSTILE}")
    text = theirs(shown)
    assert text.count("[/b][bold]:warning:[link=") >= 5
    assert "[red]x[/red]" in text


def test_the_progress_of_a_sweep() -> None:
    console, shown = terminal()
    with Progress(console) as progress:
        progress.doing(f"measuring {HOSTILE}")
        progress.done(failed("error", HOSTILE, model="vig_t", side=64), Rest())
        progress.stopped([HOSTILE])
        progress._bar.refresh()
    text = theirs(shown)
    assert "error, �[2J" in text
    assert "the time is over: �[2J" in text


def test_a_tame_text_is_one_line_of_what_is_seen() -> None:
    assert tame("a\r\n b\t\u2028c\x1b") == "a b c�"
    assert tame("naïve 中文 עברית\u00a0é ±×→ 🙂") == "naïve 中文 עברית é ±×→ 🙂"
    assert tamed({"\x1b": [float("nan"), 1, True, None, "\ud800"]}) == {"�": [None, 1, True, None, "�"]}


def test_a_cell_of_csv() -> None:
    numbers = ["-1", "-0.5", "+2", "1e-9", "-3.5e+10", ""]
    assert csv_text([numbers]) == ",".join(numbers) + "\n"
    for formula in FORMULAS:
        ((cell,),) = csv.reader([csv_text([[formula]])])
        assert re.search("(^|; )'[=+@＝-]", cell), formula


def test_keys_of_a_checkpoint() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_published(create("vig_t", 64), {HOSTILE: torch.zeros(1)})
    assert "1 unexpected: " in str(caught.value)
    assert unseen(str(caught.value)) == set()
    assert "\n" not in str(caught.value)
