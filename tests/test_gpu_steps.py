"""`make gpu`: its steps go on after a failure, keep to a budget, and need nothing that a GPU machine lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_lines import check
from taken_away import environment
from taken_away import run as run_command

from vbench.devices import KINDS
from vbench.results.store import read

ROOT = Path(__file__).resolve().parent.parent
ABSENT = (  # what a machine with a GPU may lack: parts of the program that can be left out, and what only tests need
    *("fvcore", "iopath", "astropy", "numba", "jsonschema", "check_jsonschema", "ruamel", "ruamel.yaml"),
    *("hypothesis", "xdist", "execnet", "lxml", "playwright", "axe_core_python", "sphinx", "myst_parser", "furo"),
    *("mypy", "fla", "mlstm_kernels"),
)
SMALL = {"--device": "cpu", "--models": "vig_t,deit_t", "--res": "32", "--backend": "eager", "--seconds": "0.05"}
FORM = {"--device": "cpu", "--op": "mingru", "--form": "scan"}
SHRUNK = {  # options that make a step small, and one for a CPU, in place of its own
    "sweep": {**SMALL, "--batch": "1"},
    "others": {**SMALL, "--batch": "1"},
    "training": {**SMALL, "--batch": "2"},
    "attention": {**SMALL, "--models": "deit_t", "--attention": "fused,math", "--batch": "1"},
    "forms": {**SMALL, "--models": "vig_t", "--batch": "1"},
    "check": {**FORM, "--tokens": "9"},
    "bench": {**FORM, "--n": "32", "--backend": "eager", "--l2": "warm", "--seconds": "0.001"},
    "tests": {"--collect-only": "-q"},
    "readme": {},
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_steps", ROOT / ".ci" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_steps"] = module
    spec.loader.exec_module(module)
    return module


gpu = load()


def step(name: str, code: str, priority: int = 1, expected_s: float = 1.0, limit_s: float = 60.0) -> Any:
    return gpu.Step(name, ("python", "-c", code), priority, expected_s, limit_s)


def recorded(folder: Path, run: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "steps.json").read_text())["runs"][run]
    return found


def outcomes(folder: Path, run: int = -1) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in recorded(folder, run)["steps"]}


class TestSteps:
    def test_a_failure_stops_no_other_step_and_makes_the_exit_code_1(self, tmp_path: Path) -> None:
        mark = tmp_path / "ran"
        wanted = [
            step("good", "pass"),
            step("bad", "raise SystemExit(3)"),
            gpu.Step("absent", ("no-such-program",), 1, 1.0, 9.0),
            step("after", f"open({str(mark)!r}, 'w')"),
        ]
        said: list[str] = []
        assert gpu.run(wanted, tmp_path / "gpu", "A GPU", tell=said.append) == 1
        assert outcomes(tmp_path / "gpu") == {"good": "ok", "bad": "failed", "absent": "failed", "after": "ok"}
        assert mark.exists()
        run = recorded(tmp_path / "gpu")
        assert (run["device"], run["budget_s"]) == ("A GPU", None)
        assert [one["exit_code"] for one in run["steps"]] == [0, 3, None, 0]
        assert run["steps"][1]["reason"] == "exit code 3"
        assert "cannot be started" in run["steps"][2]["reason"]
        assert run["steps"][0]["command"] == "python -c pass"
        assert all(one["started_at"] and one["seconds"] >= 0 for one in run["steps"])
        assert any(line.startswith("bad: failed") for line in said)

    def test_if_all_end_ok_the_exit_code_is_0_and_earlier_runs_stay(self, tmp_path: Path) -> None:
        assert gpu.run([step("one", "raise SystemExit(1)")], tmp_path, "A GPU") == 1
        assert gpu.run([step("one", "pass")], tmp_path, "A GPU") == 0
        assert (outcomes(tmp_path, 0), outcomes(tmp_path, 1)) == ({"one": "failed"}, {"one": "ok"})
        (tmp_path / "steps.json").write_text("{half")
        assert gpu.run([step("one", "pass")], tmp_path, "A GPU") == 0
        assert outcomes(tmp_path, 0) == {"one": "ok"}
        assert [file.name for file in tmp_path.iterdir()] == ["steps.json"]

    def test_a_step_that_hangs_is_interrupted_and_then_ended_with_its_children(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        hangs = f"trap '' INT; sleep 600 & echo $! >{pid}; while :; do sleep 1; done"
        polite = "trap 'exit 7' INT; while :; do sleep 0.1; done"
        limited = [
            gpu.Step(name, ("sh", "-c", does), 1, 1.0, 3.0) for name, does in (("hangs", hangs), ("polite", polite))
        ]
        wanted = [*limited, step("after", "pass")]
        assert gpu.run(wanted, tmp_path, "A GPU", grace_s=1.0) == 1
        assert outcomes(tmp_path) == {"hangs": "timeout", "polite": "timeout", "after": "ok"}
        assert [one["exit_code"] for one in recorded(tmp_path)["steps"]] == [-signal.SIGKILL, 7, 0]
        assert recorded(tmp_path)["steps"][0]["reason"] == "it took longer than 3 s"
        assert not alive(int(pid.read_text()))

    def test_what_a_step_leaves_running_is_ended(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        code = (
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        )
        assert gpu.run([step("leaves", code)], tmp_path, "A GPU") == 0
        assert not alive(int(pid.read_text()))

    def test_each_step_is_on_disk_before_the_next_begins(self, tmp_path: Path) -> None:
        file = tmp_path / "steps.json"
        code = f"import json; raise SystemExit(len(json.load(open({str(file)!r}))['runs'][0]['steps']))"
        gpu.run([step("first", "pass"), step("second", code)], tmp_path, "A GPU")
        assert recorded(tmp_path)["steps"][1]["exit_code"] == 1

    def test_ctrl_c_ends_the_step_and_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wait, interrupted = subprocess.Popen.wait, []

        def once(self: Any, timeout: float | None = None) -> int:
            if not interrupted:
                interrupted.append(self.pid)
                raise KeyboardInterrupt
            return wait(self, timeout)

        monkeypatch.setattr(subprocess.Popen, "wait", once)
        wanted = [step("first", "import time; time.sleep(600)"), step("second", "pass")]
        assert gpu.run(wanted, tmp_path, "A GPU") == 130
        assert outcomes(tmp_path) == {"first": "interrupted"}
        assert not alive(interrupted[0])


class TestBudget:
    def test_what_does_not_fit_is_left_out_by_priority_and_named(self, tmp_path: Path) -> None:
        wanted = [
            step("second", "pass", priority=2, expected_s=300),
            step("third", "pass", priority=3, expected_s=400),
            step("small", "pass", priority=4, expected_s=50),
            step("first", "pass", priority=1, expected_s=120),
        ]
        said: list[str] = []
        assert gpu.run(wanted, tmp_path, "A GPU", 480, tell=said.append) == 0
        assert outcomes(tmp_path) == {"second": "ok", "third": "left out", "small": "ok", "first": "ok"}
        left = recorded(tmp_path)["steps"][1]
        assert left["reason"] == "400 s expected; 480 s of 480 s are left for all that follows"
        assert (left["started_at"], left["exit_code"]) == (None, None)
        assert any(line.startswith("third: left out, 0 s: 400 s expected") for line in said)

    def test_a_budget_too_small_for_any_step_runs_none(self, tmp_path: Path) -> None:
        mark = tmp_path / "ran"
        wanted = [step(name, f"open({str(mark)!r}, 'w')", expected_s=10) for name in ("one", "two")]
        assert gpu.run(wanted, tmp_path, "A GPU", 5) == 0
        assert set(outcomes(tmp_path).values()) == {"left out"}
        assert not mark.exists()

    def test_a_step_that_exceeds_the_budget_is_ended_and_later_ones_are_left_out(self, tmp_path: Path) -> None:
        wanted = [step("slow", "import time; time.sleep(600)", expected_s=1), step("after", "pass", 2, expected_s=2.5)]
        assert gpu.run(wanted, tmp_path, "A GPU", 4, grace_s=1.0) == 1
        assert outcomes(tmp_path) == {"slow": "timeout", "after": "left out"}

    def test_time_that_a_step_did_not_need_is_there_for_the_next(self) -> None:
        wanted = [step("a", "pass", 1, expected_s=60), step("b", "pass", 2, expected_s=60)]
        assert gpu.chosen(wanted, 100) == wanted[:1]
        assert gpu.chosen(wanted[1:], 99) == wanted[1:]

    def test_480_seconds_hold_the_sweep_and_the_check(self) -> None:
        names = [one.name for one in gpu.chosen(gpu.steps("results/a-gpu"), 480)]
        assert names == ["sweep", "check", "readme"]


class TestTheCommand:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "sweep,nothing"], "gpu.py: --only: 'nothing' is not one of sweep, others"),
            (["--budget", "-3"], "gpu.py: --budget: -3 is not a positive number of seconds"),
            (["--budget", "soon"], "gpu.py: argument --budget: invalid float value: 'soon'"),
        ],
    )
    def test_wrong_options_are_one_line(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            gpu.main(arguments)
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(said)
        assert error.count("\n") == 1

    def test_without_a_gpu_it_is_one_line_and_nothing_is_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "ROOT", tmp_path)
        monkeypatch.setattr(gpu, "ASK", "import sys; sys.exit('--device: there is no cuda:0')")
        with pytest.raises(SystemExit) as ended:
            gpu.main([])
        assert ended.value.code == 2
        assert capsys.readouterr().err == "gpu.py: --device: there is no cuda:0\n"
        assert list(tmp_path.iterdir()) == []

    def test_the_folder_is_named_after_torchs_cuda_0_whatever_nvml_numbers_first(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake = (
            "from vbench import devices\n"
            "from vbench.devices import cuda, nvml\n"
            "from dataclasses import replace\n"
            "two = [{'name': 'NVIDIA T4', 'driver': '1'}, {'name': 'NVIDIA H200', 'driver': '1'}]\n"
            "devices.KINDS['cuda'] = replace(devices.KINDS['cuda'], present=lambda: two)\n"
            "cuda.Cuda.about = lambda self: {'name': {'cuda:0': 'NVIDIA H200 MIG 1g.18gb'}[self.name]}\n"
        )
        monkeypatch.setattr(gpu, "ASK", fake + gpu.ASK)
        assert gpu.main(["--name"]) == 0
        assert capsys.readouterr().out == "nvidia-h200-mig-1g.18gb\n"

    def test_every_step_is_a_command_that_vbench_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], present=lambda: [{"name": "a GPU"}]))
        commands = [one.command for one in gpu.steps("results/a-gpu") if one.name not in ("tests", "readme")]
        for command in commands:
            assert command[:4] == ("python", "-P", "-m", "vbench")
            check(["vbench", *command[4:]])

    def test_every_step_writes_into_the_one_folder(self) -> None:
        for one in gpu.steps("results/a-gpu"):
            if "-o" in one.command and one.name != "tests":
                assert one.command[one.command.index("-o") + 1] == "results/a-gpu"
            assert one.expected_s < one.limit_s
        assert [one.name for one in gpu.steps("x")][-4:] == ["check", "tests", "bench", "readme"]
        assert all(one.name != "tune" for one in gpu.steps("x"))


class TestWhatTheMachineLacks:
    """Every step on a machine without `ABSENT`, made small and run on the CPU."""

    def test_the_gpu_tests_are_collected(self, tmp_path: Path) -> None:
        command = gpu_step("tests")
        done = run_command(command, bare(tmp_path), ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "tests/test_gpu.py::test_a_cell_is_measured" in done.stdout
        assert "error" not in done.stdout.lower().splitlines()[-1]

    @pytest.mark.parametrize(
        "name",
        [
            name if name == "check" else pytest.param(name, marks=pytest.mark.full)
            for name in SHRUNK
            if name not in ("tests", "readme")
        ],
    )
    def test_a_step_lacks_nothing(self, tmp_path: Path, name: str) -> None:
        done = run_command(gpu_step(name), bare(tmp_path), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        if name == "bench":
            rows = [json.loads(line) for line in (tmp_path / "folder" / "kernels.jsonl").read_text().splitlines()]
            assert {row["status"] for row in rows if row["form"] == "scan"} == {"ok"}
        elif name != "check":
            records = read(tmp_path / "folder")
            assert {record.status for record in records} == {"ok"}
            assert all(record.work for record in records)
            assert (tmp_path / "folder" / "summary.csv").is_file()

    def test_the_readme_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "results").symlink_to(ROOT / "results")
        (tmp_path / "docs").mkdir()
        for page in ("README.md", "docs/results.md"):
            shutil.copy(ROOT / page, tmp_path / page)
        done = run_command(gpu_step("readme"), bare(tmp_path), tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()

    def test_each_step_is_tried(self) -> None:
        assert set(SHRUNK) == {one.name for one in gpu.steps("x")}


def gpu_step(name: str) -> list[str]:
    (found,) = (one for one in gpu.steps("folder") if one.name == name)
    command = [sys.executable if word == "python" else word for word in found.command]
    for option, value in SHRUNK[name].items():
        if option in command:
            command[command.index(option) + 1] = value
        else:
            command += [option, value]
    return command


def bare(folder: Path) -> dict[str, str]:
    """The variables of such a machine, which lacks what `ABSENT` names.

    Pytest would load plugins by their entry points, which it would not have.
    """
    hide = f"import sys\n\nfor name in {list(ABSENT)}:\n    sys.modules[name] = None\n"
    return {**environment(hide, folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def alive(pid: int) -> bool:
    """Whether a process still runs, a little later if it must; one that is dead and not yet collected does not."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True
