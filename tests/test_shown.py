"""What a terminal shows: whole numbers at 80 columns, empty results as empty, folders instead of lists of files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import vbench
from fakes import make_record
from rich.console import Console

from vbench.commands.console import written
from vbench.reports import models, tables
from vbench.results.frame import frame
from vbench.results.store import Store
from vbench.results.text import bare_table, print_whole


def on_terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_models_fit_80_columns_and_no_number_is_cut() -> None:
    console = on_terminal(80)
    print_whole(models.to_rich(), console, spare=models.SPARE, elsewhere="--json has them")
    lines = text(console).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text(console)
    for row in models.rows():
        line = next(line for line in lines if line.split()[0] == row["model"])
        assert f" {row['params'] / 1e6:.2f} " in line
    assert "left out, the terminal is narrow: source" in text(console)
    assert "; --json has them" in text(console)


def test_columns_are_left_out_one_by_one_and_only_on_a_terminal() -> None:
    def shown(console: Console) -> str:
        table = bare_table(("model", "ms", "remark"), right=("ms",))
        table.add_row("m" * 20, "1234.5678", "r" * 20)
        print_whole(table, console, spare=("remark", "model"))
        return text(console)

    assert "rrr" in shown(on_terminal(80))
    narrow = shown(on_terminal(40))
    assert "rrr" not in narrow
    assert "mmm" in narrow
    assert "narrow: remark;" in " ".join(narrow.split())
    assert "1234.5678" in shown(on_terminal(12))
    assert "rrr" in shown(Console(file=io.StringIO(), width=40))


@pytest.mark.parametrize("command", [["report"], ["figures", "all"], ["tables"], ["fit"]])
def test_a_run_without_records_is_said_to_be_empty(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").touch()
    found = vbench(*command, str(tmp_path))
    assert found.returncode == 2
    assert "no cell was recorded yet" in found.stderr
    assert found.stdout == ""
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_run_of_unsupported_cells_has_its_reasons_and_no_picture(tmp_path: Path) -> None:
    record = replace(make_record(), status="unsupported", reason="there is no such mode", latency=None)
    with Store(tmp_path) as store:
        store.append(record)
    found = vbench("report", str(tmp_path))
    assert found.returncode == 0
    assert "nothing was measured: no cell is supported" in found.stdout
    assert "unsupported: there is no such mode" in found.stdout
    assert "unknown" not in found.stdout
    assert not list(tmp_path.glob("resolution.*"))
    assert (tmp_path / "summary.csv").is_file()
    assert tables.nothing(frame([record])) is not None
    assert tables.nothing(frame([make_record()])) is None


def test_json_is_an_array_with_the_names_of_the_columns_of_a_run(tmp_path: Path) -> None:
    with Store(tmp_path / "run") as store:
        store.append(make_record())
    (row,) = json.loads(vbench("report", str(tmp_path / "run"), "--json").stdout)
    assert isinstance(row["flags"], list)
    (suite,) = json.loads(vbench("suites", "minute", "--json").stdout)
    assert suite["suite"] == "minute"
    names = ("peak_memory_bytes", "flops_coverage", "predicted_peak_bytes")
    assert set(names) <= set(row)
    planned, *_ = json.loads(vbench("plan", "--models", "deit_t", "--res", "32", "--json", cwd=tmp_path).stdout)
    assert names[0] in planned
    (counted,) = json.loads(vbench("flops", "deit_t", "--res", "32", "--json", cwd=tmp_path).stdout)
    assert counted[names[1]] == 1.0
    (predicted,) = json.loads(vbench("memory", "deit_t", "--res", "32", "--json", cwd=tmp_path).stdout)
    assert predicted[names[2]] > 0


def test_figures_and_tables_as_json(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Store(run) as store:
        store.append(make_record())
    done = vbench("figures", "all", str(run), "-o", str(tmp_path / "drawn"), "--format", "png", "--json")
    found = {one["figure"]: one for one in json.loads(done.stdout)}
    assert [Path(file).name for file in found["resolution"]["files"]] == ["resolution.png", "resolution.txt"]
    assert found["resolution"]["reason"] is None
    assert found["training"]["files"] == []
    assert found["training"]["reason"].startswith("no row of phase train has latency_ms; measure it by: vbench sweep ")
    (table,) = json.loads(vbench("tables", str(run), "--what", "full", "--json").stdout)
    (row,) = table["rows"]
    assert table["table"] == "full"
    latency = next(name for name in row if name.startswith("latency (ms)"))
    assert isinstance(row[latency], float)
    assert table["caption"]


def test_an_error_is_an_object(tmp_path: Path) -> None:
    done = vbench("report", str(tmp_path / "nowhere"), "--json")
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert said == {"error": said["error"], "exit_code": 2}
    assert done.stderr == f"vbench: {said['error']}\n"
    refused = vbench("sweep", "--no-such-option", "--json")
    assert "--no-such-option" in json.loads(refused.stdout)["error"]
    assert vbench("report", str(tmp_path / "nowhere")).stdout == ""


def test_written_names_a_file_or_a_folder(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png", "c.txt")]
    assert written(files) == f"written: 3 files in {tmp_path}"
    assert written(files[:1]) == f"written: {files[0]}"
    assert written([files[0], files[1], Path("one.html")]) == f"written: 2 files in {tmp_path}, one.html"
