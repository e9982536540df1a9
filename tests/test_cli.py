"""The command line, as its users meet it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import vbench
from fakes import make_record
from typer.main import get_command

from vbench.commands.app import app
from vbench.devices import nvml
from vbench.results.launches import read as launches_read
from vbench.results.store import Store, read

TINY = ["--models", "vig_t,deit_t", "--res", "32", "--batch", "1", "--seconds", "0.05", "--rigor", "quick"]


def process(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`vbench ARGS` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-P", "-m", "vbench", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=300)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, vbench("sweep", *TINY, "-o", str(folder))


def test_a_sweep_from_end_to_end(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = swept
    assert done.returncode == 0, done.stderr
    assert "vig_t   recurrent" in done.stdout
    assert re.search(r"\[([56])/\1\]", done.stderr)  # 3 launches, and 2 or 3 blocks of turns
    assert "\x1b[" not in done.stdout + done.stderr
    table = pd.read_csv(folder / "summary.csv")
    assert len(table) == 4
    measured = table[table["status"] == "ok"]
    assert set(zip(measured["model"], measured["mode"], strict=True)) == {
        ("vig_t", "parallel"),
        ("vig_t", "recurrent"),
        ("deit_t", "parallel"),
    }
    for column in ("latency_ms", "throughput_img_s", "peak_memory_bytes", "macs", "params", "weights_bytes"):
        assert (measured[column] > 0).all(), column
    assert (measured["latency_ms_lo"] <= measured["latency_ms"]).all()
    assert (measured["latency_ms"] <= measured["latency_ms_hi"]).all()
    refused = table[table["status"] == "unsupported"]
    assert set(refused["model"]) == {"deit_t"}
    assert refused["reason"].str.contains("no recurrent mode").all()
    for record in read(folder):
        if record.status == "ok":
            assert record.latency is not None
            assert len(record.latency["samples_ms"]) >= 2


def test_the_same_command_again_measures_nothing(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, first = swept
    before = (folder / "records.jsonl").read_bytes()
    again = vbench("sweep", *TINY, "-o", str(folder))
    assert again.returncode == 0
    assert (folder / "records.jsonl").read_bytes() == before
    assert again.stdout == first.stdout


def test_report_makes_the_files_again(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = swept
    (folder / "table.md").unlink()
    done = vbench("report", str(folder))
    assert done.returncode == 0
    assert done.stdout == first.stdout
    assert (folder / "table.md").exists()
    rows = json.loads(vbench("report", str(folder), "--json").stdout)
    assert len(rows) == 4
    assert {"model", "latency_ms", "status"} <= rows[0].keys()


def test_a_cell_that_needs_too_much_memory_or_time_is_a_row(tmp_path: Path) -> None:
    options = [
        "--models",
        "deit_t",
        "--modes",
        "parallel",
        "--seconds",
        "0.05",
        "--rigor",
        "quick",
        "-o",
        str(tmp_path),
    ]
    done = vbench("sweep", *options, "--res", "64", "--batch", "1000000000", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)[0]
    assert row["status"] == "oom"
    assert row["latency_ms"] > 0
    done = vbench("sweep", *options, "--res", "1024", "--timeout", "1", "--json")
    assert {row["status"] for row in json.loads(done.stdout)} == {"oom", "timeout"}


def test_training_and_other_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    options = ["--models", "deit_tiny_patch16_224", "--res", "32", "--modes", "parallel", "--batch", "2"]
    options += ["--phase", "infer,train", "--attention", "unfused", "--layout", "nhwc", "--backend", "eager,cudagraph"]
    done = vbench("sweep", *options, "--seconds", "0.05", "--rigor", "quick", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "deit_t train nhwc unfused" in done.stdout
    assert "rows differ in phase: infer (1), train (1); compare within one" in done.stdout
    table = pd.read_csv(tmp_path / "summary.csv")
    assert set(table["model"]) == {"deit_t"}
    graphs = table[table["backend"] == "cudagraph"]
    assert set(graphs["status"]) == {"unsupported"}
    eager = table[table["backend"] == "eager"].set_index("phase")
    assert set(eager["attention"]) == {"unfused"}
    train = eager.loc["train"]
    assert train["forward_ms"] + train["backward_ms"] + train["update_ms"] > 0
    assert train["optimizer_bytes"] > train["gradients_bytes"] > 0
    assert pd.isna(eager.loc["infer", "forward_ms"])
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert (run["cells"], run["launches"], run["complete"]) == (2, 2, True)


def test_recurrent_mode_trains_in_machine_code(tmp_path: Path) -> None:
    options = ["--models", "vig_t", "--modes", "recurrent", "--phase", "train", "--res", "32", "--batch", "2"]
    options += ["--device", "cpu", "--seconds", "0.02", "--rigor", "quick", "--pairs", "none", "--json"]
    done = vbench("sweep", *options, "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["status"], row["form"], row["mode"], row["phase"]) == ("ok", "compiled", "recurrent", "train")
    assert min(row[f"{part}_ms"] for part in ("forward", "backward", "update")) > 0
    assert row["gradients_bytes"] > 0
    assert not {"nonfinite", "modes_differ"} & set(row["flags"])


def test_verify(tmp_path: Path) -> None:
    done = vbench("verify", "--models", "vig_t,deit_t", "--json")
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert {check["subject"] for check in checks} == {"gla", "vig_t"}
    assert all(check["ok"] and check["error"] <= check["bound"] for check in checks)
    (tmp_path / "weights.pth").write_text("no weights")
    done = vbench("verify", "--models", "vig_t", "--weights", str(tmp_path / "weights.pth"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "it is a text, not a checkpoint" in done.stderr
    done = vbench("verify", "--models", "vig_t,vig_s", "--weights", "weights.pth")
    assert done.returncode == 2
    assert "--weights: one file belongs to one model, and --models names 2" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--models", "vig_tt", "--res", "224"], "did you mean vig_t"),
        (["--models", "timm/resnet5O", "--res", "224"], "timm/resnet50"),
        (["--models", "deit_t", "--res", "230"], "take 224 or 240"),
        (["--models", "vig_t", "--res", "2048:224"], "reversed"),
        (["--models", "vig_t", "--res", "0"], "between 1 and"),
        (["--models", "vig_t", "--res", "-5"], "between 1 and"),
        (["--models", "vig_t", "--res", "224", "--modes", "both"], "parallel, recurrent"),
        (["--models", "vig_t", "--res", "224", "--dtype", "int8"], "float32"),
        (["--models", "vig_t", "--res", "224", "--batch", "0"], "positive number"),
        (["--models", "vig_t", "--res", "224", "--rigor", "lax"], "quick, default, paper"),
        (["--models", "vig_t", "--res", "224", "--phase", "test"], "infer, train"),
        (
            ["--models", "vig_t", "--res", "224", "--device", "cpu", "--tf32"],
            "--tf32: rounds products of an NVIDIA GPU, not those of cpu",
        ),
        (["--models", "vig_t", "--res", "224", "--backend", "jit"], "eager, compile, cudagraph"),
        (["--models", "vig_t", "--res", "224", "--device", "tpu"], "auto, cpu, cuda"),
        (["--models", "vig_t", "--res", "224", "--suite", "none"], "there is no 'none'; there are"),
        (["--models", "vig_t"], "--res"),
        ([], "--models"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], says: str, tmp_path: Path) -> None:
    done = (vbench if args else process)("sweep", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["export", "vig_t", "--batch", "two"], "--batch"),
        (["export", "vig_t", "--mode", "both"], "not one of parallel, recurrent"),
        (["export", "vig_t", "-o", "one.pt2"], "whose files end in .onnx"),
        (["report", "RUN", "--labels", "vig_t"], "is not MODEL=LABEL"),
        (["report", "RUN", "--width", "wide"], "column (84 mm), full (170 mm)"),
        (["report", "RUN", "--font", "comic"], "sans, serif"),
        (["report", "RUN", "--price", "free"], "write 2.5/h"),
        (["report", "RUN", "-o", "page.pdf"], "report.html"),
        (["compare", "RUN", "RUN", "--threshold", "x"], "--threshold"),
        (["compare", "RUN"], "Missing argument 'B'"),
        (["models", "vig_t"], "extra argument"),
    ],
)
def test_bad_input_of_other_commands_is_one_plain_line_and_exit_code_2(args: list[str], says: str) -> None:
    run = str(Path(__file__).parent.parent / "results" / "minute")
    done = vbench(*(run if word == "RUN" else word for word in args))
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Input should" not in done.stderr


@pytest.mark.skipif(bool(nvml.gpus()), reason="this machine has a GPU")
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    done = vbench("sweep", "--models", "vig_t", "--res", "224", "--device", "cuda", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no cuda" in done.stderr


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Store(tmp_path / "old") as kept:
        kept.append(make_record())
    file = tmp_path / "old" / "records.jsonl"
    file.write_text(file.read_text().replace('"schema": 2', '"schema": 7'))
    for folder, says in (("file/run", "not a folder"), ("old", "schema 7")):
        done = vbench("sweep", "--models", "vig_t", "--res", "64", "-o", str(tmp_path / folder))
        assert done.returncode == 2
        assert says in done.stderr
    assert vbench("report", str(tmp_path)).returncode == 2


def test_a_damaged_last_line_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(
        "vbench.results.launches.read", lambda folder, cells: (reads.append(folder), launches_read(folder, cells))[1]
    )
    with Store(tmp_path) as kept:
        kept.append(make_record())
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"case_id": "1", "case')
    done = vbench("report", str(tmp_path))
    assert done.returncode == 0
    assert "the last line is incomplete and was dropped" in done.stderr
    assert reads == [tmp_path]  # once
    assert "vig_t" in done.stdout


def test_plan_estimates_without_measuring(tmp_path: Path) -> None:
    done = vbench("plan", "--models", "vig_t,deit_t,swin_t", "--res", "224,512", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 12
    possible = [row for row in rows if row["unsupported"] is None]
    assert len(possible) == 8
    assert all(row["seconds"] > 0 and row["peak_memory_bytes"] > 2e7 for row in possible)
    sizes = {(row["model"], row["height"]): row for row in possible if row["mode"] == "parallel"}
    for model in ("vig_t", "deit_t", "swin_t"):
        assert sizes[model, 512]["peak_memory_bytes"] > sizes[model, 224]["peak_memory_bytes"]
    assert "133x133" in sizes["swin_t", 512]["padding"]
    assert list(tmp_path.iterdir()) == []


def test_plan_says_where_the_time_goes(tmp_path: Path) -> None:
    done = vbench("plan", "--models", "vig_t", "--res", "64", "--modes", "parallel", "--rigor", "quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    total = " ".join(done.stdout.split()).partition("1 cell, 0 blocks of turns, roughly ")[2]
    assert re.match(r"[0-9.]+ minutes on cpu: measuring [0-9]+ s, ", total), done.stdout
    assert re.search(r"starting [0-9]+ s, reporting [0-9]+ s\. All figures are estimates\.", total), done.stdout


def test_models_and_doctor() -> None:
    rows = json.loads(vbench("models", "--json").stdout)
    assert rows[0]["model"] == "vig_t"
    assert rows[0]["modes"] == ["parallel", "recurrent"]
    assert "arXiv:2405.18425" in vbench("models").stdout
    findings = json.loads(vbench("doctor", "--quick", "--json").stdout)
    topics = {finding["topic"] for finding in findings}
    assert {"torch", "timm", "triton", "CPU", "load", "memory"} <= topics
    done = vbench("doctor", "--device", "tpu")
    assert done.returncode == 2
    assert "'tpu' is not one of auto, cpu, cuda, cuda:N" in done.stderr


def commands(path: tuple[str, ...] = (), group: Any = None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words that call each command or group of commands, and what they call."""
    group = group or get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands((*path, name), command)


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in commands()])
def test_help_says_all_of_every_option_and_its_default(
    path: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in square brackets in a help text is markup, and is not shown."""
    monkeypatch.setenv("COLUMNS", "1000")
    done = vbench(*path, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    for option in command.params:
        default = f" [default: ({option.show_default})]" if isinstance(option.show_default, str) else ""
        assert (option.help or "") + default in done.stdout
        assert (option.metavar or "") in done.stdout


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in commands()])
def test_help_has_words_for_arguments_and_no_type_of_python(
    path: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = vbench(*path, "--help").stdout
    assert not re.search(r"<\w|[{}]", text)  # 1<=x<=100 is a range
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = [one.metavar if one.required else f"[{one.metavar}]" for one in arguments]
    assert f"[OPTIONS] {' '.join(words)}".strip() in " ".join(text.split())
    assert all(one.nargs == 1 or one.metavar.endswith("...") for one in arguments)


def test_quick_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from vbench.commands.app import app\n"
        "for command in ['--help'], ['models'], *([name, '--help'] for name in ('plan', 'maxres', 'sweep')):\n"
        "    try: app(command)\n"
        "    except SystemExit: pass\n"
        "    heavy = {'torch', 'timm', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{command} imports {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_suite_can_be_named_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('question = "?"\ntime = "seconds"\nmodels = "deit_t"\nres = "64"\n')
    rows = json.loads(vbench("plan", "--suite", str(file), "--modes", "parallel", "--json").stdout)
    assert [(row["model"], row["height"], row["mode"]) for row in rows] == [("deit_t", 64, "parallel")]
    file.write_text('question = "?"\nmodel = "deit_t"\n')
    done = vbench("plan", "--suite", str(file))
    assert done.returncode == 2
    assert "model, time, models, res" in done.stderr
