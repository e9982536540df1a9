"""Tables and figures, from records alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from alike import differences
from fakes import failed, latency, make_record, of_case
from rich.console import Console

from vbench import host
from vbench.reports import paper_tables, readme, tables
from vbench.reports.series import series_of
from vbench.reports.write import FILES, write_all
from vbench.results.frame import frame, of_folders
from vbench.results.store import Record, Store, read, read_turns

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, RECORDS = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "results" / "cpu"

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


def test_which_counter_disagrees_is_said() -> None:
    work = make_record().work
    assert work is not None
    counts = {"macs": 100 * 10**9, "macs_matmul": 90 * 10**9, "macs_closed_form": 120 * 10**9}
    wrong = {"macs_fvcore": 80 * 10**9, "agree": False, "reason": None}
    table = frame(
        [
            make_record(work={**work, **counts, "closed_form_agrees": False}, second_count=wrong),
            make_record("deit_t"),
        ]
    )
    assert tables.disagreements(table) == [
        "vig_t parallel 224: fvcore counts 80.00 GMACs, the ledger 90.00",
        "vig_t parallel 224: the closed form counts 120.0 GMACs, the ledger 100.0",
    ]
    assert tables.disagreements(frame([make_record()])) == []


def test_what_is_not_the_published_function_is_branded() -> None:
    failed_gate = {"ok": False, "checks": 3, "failed": ["gla reference"]}
    branded = [make_record("vig_t", side, verified=failed_gate) for side in (224, 512)]
    branded += [make_record("vir_s_softmax", side) for side in (224, 512)]
    branded += [make_record("vir_s", side, verified={"ok": True, "checks": 3, "failed": []}) for side in (224, 512)]
    table = frame(branded)
    flags = table.groupby("model")["flags"].first().to_dict()
    assert flags == {"vig_t": "modes_differ", "vir_s_softmax": "caveat", "vir_s": ""}
    assert any("DO NOT COMPUTE THE SAME FUNCTION" in note for note in tables.notes(table))
    assert any(note.startswith("caveat: not what the family's paper describes") for note in tables.notes(table))
    labels = [one.label for one in series_of(table)]
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
        assert readme.fill(text, RECORDS) == text
        text = RESULTS.read_text(encoding="utf-8")
        assert readme.fill_results(text, RECORDS) == text

    def test_its_records_were_made_by_the_code_that_measures_now(self) -> None:
        """`make sweep` was run after the last change of the code that measures; it takes a quarter of an hour."""
        now = host.code_source()
        assert {record.host["source"] for record in read(RECORDS)} == {now}
        assert {block.host["source"] for block in read_turns(RECORDS)} <= {now}

    def test_its_files_are_those_of_its_records(self, tmp_path: Path) -> None:
        write_all(of_folders([RECORDS]), tmp_path)
        assert differences(tmp_path / "summary.csv", RECORDS / "summary.csv") == []
        assert (tmp_path / "table.md").read_text() == (RECORDS / "table.md").read_text()  # of rounded figures

    def test_findings_are_computed(self) -> None:
        sides = (768, 1024, 2048)
        found = [make_record(model, side) for model in ("vig_t", "deit_t") for side in sides]
        found += [make_record("vig_t", side, "recurrent") for side in sides]
        said = readme.findings(frame(found))
        assert "At 1024 px vig_t parallel needs 1.00× the MACs, 0.39× the time (0.38–0.40) and 1.00× the peak" in said
        assert "vig_t parallel needs less time a call than deit_t: at every size from 768 to 2048 px" in said
        assert "time a call of vig_t, parallel: linear within the tolerance; exponent 1.00" in said
        assert "time a call of deit_t: grows faster than linear, slower than quadratic; exponent 1.50" in said
        assert "MACs of deit_t: linear within the tolerance; exponent 1.00" in said

    def test_the_small_table_is_a_part_of_the_large_one(self) -> None:
        table = of_folders([RECORDS])
        said = readme.small(table)
        assert sum(line.startswith(("| vig_t", "| deit_t")) for line in said.splitlines()) == 3 * len(readme.SIDES)
        told = {line for line in readme.headline(table).splitlines() if line.startswith("- ")}
        assert told < set(readme.findings(table).splitlines())
        assert all(note in said for note in tables.notes(table)[:1])  # none if no row has a flag

    def test_a_readme_without_its_markers_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no <!-- table -->"):
            readme.fill("nothing here", RECORDS)
        with pytest.raises(ValueError, match="no <!-- gpu -->"):
            readme.fill("<!-- table -->\n\n<!-- /table -->", RECORDS)


class TestReadmeOfAGpu:
    def test_without_a_folder_of_a_gpu_it_says_that_nothing_was_measured(self, tmp_path: Path) -> None:
        assert readme.on_gpus(tmp_path) == readme.NOTHING_ON_A_GPU
        kept(tmp_path / "cpu", [make_record()])
        assert readme.on_gpus(tmp_path) == readme.NOTHING_ON_A_GPU
        (tmp_path / "a-gpu").mkdir()
        (tmp_path / "a-gpu" / "steps.json").write_text("{half")
        assert readme.on_gpus(tmp_path) == readme.NOTHING_ON_A_GPU

    def test_it_fills_itself_from_the_folder(self, tmp_path: Path) -> None:
        results = tmp_path / "results"
        kept(results / "cpu", [make_record()])
        settings = {"attention": "fused", "attention_kernel": "cudnn"}
        found = [on_gpu("vig_t", side) for side in (224, 512, 1024)]
        found += [on_gpu("deit_t", side, settings=settings) for side in (224, 1024)]
        found += [on_gpu("deit_t", 224, backend="eager", attention="flash"), on_gpu("vig_t", 224, phase="train")]
        found.append(of_gpu(failed("oom", "out of memory", model="deit_t", side=2048)))
        kept(results / "a-gpu", found)
        steps(results / "a-gpu", {"sweep": "ok", "tests": "timeout", "bench": "left out", "check": "left out"})
        steps(results / "a-gpu", {"sweep": "left out", "tests": "timeout", "bench": "left out", "check": "ok"})
        said = readme.on_gpus(results)
        assert "in [`results/a-gpu/`](results/a-gpu)" in said
        rows = [line for line in said.splitlines() if line.startswith(("| vig_t", "| deit_t"))]
        assert [(row.split(" | ")[0][2:], row.split(" | ")[2], row.split(" | ")[3]) for row in rows] == [
            ("deit_t bfloat16 cudagraph", "224", "ok"),
            ("deit_t bfloat16 cudagraph", "1024", "ok"),
            ("deit_t bfloat16 cudagraph", "2048", "oom"),
            ("vig_t bfloat16 cudagraph", "224", "ok"),
            ("vig_t bfloat16 cudagraph", "1024", "ok"),
        ]
        assert "a test GPU; bfloat16" in said
        assert "Kernel of fused attention: cudnn." in said
        assert "did not end well, or were left out: tests (timeout), bench (left out)." in said
        assert readme.NOTHING_ON_A_GPU not in said

    def test_a_folder_whose_steps_all_ended_ok_says_nothing_of_them(self, tmp_path: Path) -> None:
        kept(tmp_path / "a-gpu", [on_gpu("vig_t", 224)])
        steps(tmp_path / "a-gpu", {"sweep": "failed"})
        steps(tmp_path / "a-gpu", {"sweep": "ok"})
        assert "make gpu` that" not in readme.on_gpus(tmp_path)


def of_gpu(record: Record, **changes: Any) -> Record:
    host = {**record.host, "device": "cuda:0", "device_name": "a test GPU"}
    usual = {"device": "cuda:0", "dtype": "bfloat16", "backend": "cudagraph"}
    return of_case(replace(record, host=host), **{**usual, **changes})


def on_gpu(model: str, side: int, settings: dict[str, Any] | None = None, **changes: Any) -> Record:
    return of_gpu(make_record(model, side, settings=settings), **changes)


def kept(folder: Path, records: list[Record]) -> None:
    with Store(folder) as store:
        for record in records:
            store.append(record)


def steps(folder: Path, outcomes: dict[str, str]) -> None:
    file = folder / "steps.json"
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    runs.append({"steps": [{"name": name, "outcome": outcome} for name, outcome in outcomes.items()]})
    file.write_text(json.dumps({"runs": runs}))


def test_a_row_without_an_interval_prints_its_range_in_brackets() -> None:
    few = frame([make_record(latency=latency([100.0, 110.0]))])
    place = tables.HEADER.index("95 % interval")
    assert tables.rows(few)[0][place] == "[100.0–110.0, n=2]"
    assert tables.notes(few).count(tables.BRACKETS) == 1
    many = frame([make_record(latency=latency([100.0, 110.0] * 20))])
    assert tables.rows(many)[0][place] == "100.0–110.0"
    assert tables.BRACKETS not in tables.notes(many)
    (series,) = series_of(few)
    assert series.cells["latency_ms_lo"].isna().all()  # no band


def test_nothing_is_best_where_a_value_has_no_interval() -> None:
    exact = make_record("vig_t", latency=latency([9.9, 10.1] * 20))
    for samples, best in (([19.9, 20.1] * 20, [False, True]), ([19.9, 20.1], [False, False])):
        made, _ = paper_tables.make(frame([exact, make_record("deit_t", latency=latency(samples))]), "resolution")
        (table,) = made["resolution"]
        cells = [row[4] for block in table.blocks for row in block.rows]
        assert [cell.bold for cell in cells] == best
