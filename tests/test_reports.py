"""Tables and figures, from records alone."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from fakes import failed, make_record
from matplotlib.figure import Figure
from rich.console import Console
from vbench.reports import charts, readme, tables
from vbench.reports.write import FILES, write_all
from vbench.results.frame import frame
from vbench.results.store import Record, read

ROOT = Path(__file__).resolve().parent.parent
README, RECORDS = ROOT / "README.md", ROOT / "results" / "cpu-amd-epyc"

HEAD = (
    "| model | mode | size (px) | status | GMACs | latency (ms) | 95 % interval | images/s | at batch "
    "| peak memory (MiB) | flags |\n"
)


def test_the_table_shows_every_cell_and_says_why_some_are_missing(records: list[Record]) -> None:
    text = tables.to_markdown(frame([*records, failed("unsupported", "no such mode", model="vig_t", side=640)]))
    assert text.startswith(HEAD)
    assert "| vig_t | recurrent | 512 | ok | 5.120 | 512.0 | 501.8–522.2 |" in text
    assert "| deit_t | parallel | 1024 | oom | 20.48 |" in text
    assert "oom: out of memory (deit_t parallel 1024)" in text
    assert "unsupported: no such mode (vig_t parallel 640)" in text
    assert "a test CPU; float32; 1 CPU thread(s); torch 2.11.0" in text


def test_markdown_is_not_broken_by_what_a_record_says() -> None:
    text = tables.to_markdown(frame([make_record(status="error", reason="a | b")]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_a_narrow_terminal_cuts_no_figure(records: list[Record]) -> None:
    shown = {}
    for width in (40, 200):
        text = StringIO()
        tables.show(frame(records), Console(file=text, width=width))
        shown[width] = text.getvalue()
    assert "…" not in shown[40]
    assert shown[40].split() == shown[200].split()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.012344, "0.01234"),
        (0.5, "0.5000"),
        (1.5, "1.500"),
        (999.96, "1000"),
        (12.345, "12.35"),
        (1234.4, "1,234"),
        (99999, "99,999"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert tables.figure(value) == text


def drawn(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Figure:
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: kept.append(self))
    charts.resolution(table, [Path("figure.png")])
    return kept[0]


def test_the_figure_has_four_labelled_panels(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(frame(records), monkeypatch)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert [label.split()[0] for label in labels] == ["GMACs", "Peak", "Latency", "ImageNet-1K"]
    assert all(axis.get_xlabel() == "Image side (px)" for axis in figure.axes)
    latency = {line.get_label(): list(line.get_ydata()) for line in figure.axes[2].get_lines()}
    assert latency["vig_t parallel"] == pytest.approx([98.0, 512.0, 2048.0])
    assert len(latency["deit_t"]) == 2


def test_a_curve_says_why_it_ends(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(frame(records), monkeypatch)
    said = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert "out of memory" not in said[0]
    assert said[1] == said[2] == ["out of memory"]
    slow = frame([make_record("deit_t", 224), failed("timeout", "slow", model="deit_t", side=512)])
    assert "time-out" in [text.get_text() for text in drawn(slow, monkeypatch).axes[2].texts]


def test_accuracy_is_hollow_and_titled_as_published(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    axis = drawn(frame(records), monkeypatch).axes[3]
    assert "published, not measured" in axis.get_title(loc="left")
    assert {line.get_markerfacecolor() for line in axis.get_lines()} == {"white"}
    shown = {line.get_label(): max(line.get_xdata()) for line in axis.get_lines()}
    assert shown == {"vig_t": 1024, "deit_t": 1024}


def test_which_counter_disagrees_is_said() -> None:
    work = make_record().work
    assert work is not None
    counts = {"macs": 100e9, "macs_matmul": 90e9, "macs_closed_form": 120e9, "closed_form_agrees": False}
    wrong = {"macs_fvcore": 80e9, "agree": False, "reason": None}
    table = frame(
        [
            make_record(work={**work, **{k: int(v) for k, v in counts.items()}}, second_count=wrong),
            make_record("deit_t"),
        ]
    )
    assert tables.disagreements(table) == [
        "vig_t parallel 224: fvcore counts 80.00 GMACs, the ledger 90.00",
        "vig_t parallel 224: the closed form counts 120.0 GMACs, the ledger 100.0",
    ]
    assert tables.disagreements(frame([make_record()])) == []


def test_what_is_not_the_published_function_is_branded(monkeypatch: pytest.MonkeyPatch) -> None:
    failed_gate = {"ok": False, "checks": 3, "failed": ["gla reference"]}
    branded = [make_record("vig_t", side, verified=failed_gate) for side in (224, 512)]
    branded += [make_record("vir_s_softmax", side) for side in (224, 512)]
    branded += [make_record("vir_s", side, verified={"ok": True, "checks": 3, "failed": []}) for side in (224, 512)]
    table = frame(branded)
    flags = table.groupby("model")["flags"].first().to_dict()
    assert flags == {"vig_t": "modes_differ", "vir_s_softmax": "caveat", "vir_s": ""}
    assert any("ARE NOT ONE FUNCTION" in note for note in tables.notes(table))
    assert any(note.startswith("caveat: not what the family's paper describes") for note in tables.notes(table))
    figure = drawn(table, monkeypatch)
    labels = figure.axes[2].get_legend_handles_labels()[1]
    assert sorted(labels) == ["vig_t (MODES DIFFER)", "vir_s", "vir_s_softmax (not the paper's)"]


def test_the_same_records_give_the_same_bytes(records: list[Record], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_all(frame(records), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_files_hold_what_the_frame_holds(records: list[Record], tmp_path: Path) -> None:
    table = frame(records)
    write_all(table, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "summary.parquet"), table)
    assert list(pd.read_csv(tmp_path / "summary.csv")["latency_ms"].dropna()) == list(table["latency_ms"].dropna())


@pytest.mark.parametrize("statuses", [["unsupported"], ["error"], ["oom", "timeout"]])
def test_a_sweep_without_a_single_figure_still_reports(statuses: list[str], tmp_path: Path) -> None:
    found = [failed(status, "why", side=side) for status, side in zip(statuses, (224, 512), strict=False)]
    assert all(path.stat().st_size > 0 for path in write_all(frame(found), tmp_path))


def test_reporting_imports_no_torch() -> None:
    code = "import sys, vbench.reports.write, vbench.results.frame; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


class TestReadme:
    def test_it_shows_what_the_committed_records_give(self) -> None:
        """`make readme` was run after the last change of records or tables."""
        text = README.read_text(encoding="utf-8")
        assert readme.fill(text, read(RECORDS)) == text

    def test_its_files_are_those_of_its_records(self, tmp_path: Path) -> None:
        write_all(frame(read(RECORDS)), tmp_path)
        assert (tmp_path / "summary.csv").read_bytes() == (RECORDS / "summary.csv").read_bytes()
        assert (tmp_path / "table.md").read_bytes() == (RECORDS / "table.md").read_bytes()

    def test_findings_are_computed(self) -> None:
        sides = (768, 1024, 2048)
        found = [make_record(model, side) for model in ("vig_t", "deit_t") for side in sides]
        found += [make_record("vig_t", side, "recurrent") for side in sides]
        said = readme.findings(frame(found))
        assert "At 1024 px vig_t parallel needs 1.00× the MACs, 0.39× (0.38–0.40) the time and 1.00× the peak" in said
        assert "vig_t parallel needs less time a call than deit_t: at every size from 768 to 2048 px" in said
        assert "time a call of vig_t, parallel: linear within the tolerance; exponent 1.00" in said
        assert "time a call of deit_t: grows faster than linear, slower than quadratic; exponent 1.50" in said
        assert "MACs of deit_t: linear within the tolerance; exponent 1.00" in said

    def test_a_readme_without_its_markers_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no <!-- table -->"):
            readme.fill("nothing here", [make_record()])
