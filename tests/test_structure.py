"""The rooms of the house: who may use whom, how large a file may be, and which code can move a number."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vbench
from vbench import host, jobs
from vbench.jobs.launch import Launcher
from vbench.plan import RIGORS, Sweep, plan

ROOT = Path(__file__).resolve().parent.parent
# From the ground up: a room uses those before it, and itself.
ROOMS = (
    *("errors", "options", "files", "devices"),
    *(
        "kernels",
        "models",
        "runtimes",
        "plan",
        "constraints",
        "host",
        "results",
        "suites",
        "jobs",
        "exports",
        "meters",
        "flops",
    ),
    *(
        "verify",
        "operators",
        "sweeps",
        "accuracy",
        "cluster",
        "doctor",
        "reports",
        "gate",
        "commands",
        "side",
        "__main__",
    ),
)
FACE = {"__init__.py", "__main__.py", "errors.py", "files.py", "host.py", "options.py", "plan.py", "side.py"}
LINES = 400  # of a file; a longer one says at its head why it is


def files() -> dict[str, Path]:
    """Every module by its name in the package."""
    found = {}
    for folder in ("vbench", "models", "kernels", "suites", "results", "reports", "constraints"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / "vbench" if folder == "vbench" else ROOT).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = file
    return found


def imports(file: Path) -> Iterator[str]:
    """Names of our own modules that a file imports, without `vbench.`; those of types alone do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    of_types = {id(inner) for node in typing for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in of_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "vbench":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vbench."):
            yield node.module.removeprefix("vbench.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("vbench.") for a in node.names if a.name.startswith("vbench."))


def rising(modules: dict[str, list[str]]) -> list[str]:
    """A line for each import of a higher room."""
    found = []
    for name, used in modules.items():
        room = name.partition(".")[0]
        for other in used:
            above = other.partition(".")[0]
            if room and above in ROOMS and ROOMS.index(above) > ROOMS.index(room):
                found.append(f"{name} imports {other}")
    return found


def test_no_room_uses_a_higher_one() -> None:
    assert rising({name: list(imports(file)) for name, file in files().items()}) == []
    assert rising({"meters.timing": ["plan", "sweeps.loop"]}) == ["meters.timing imports sweeps.loop"]


def test_every_module_is_in_a_room() -> None:
    assert {name.partition(".")[0] for name in files()} - {"", "__version__"} <= set(ROOMS)
    assert {file.name for file in (ROOT / "vbench").glob("*.py")} <= FACE


def head(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def test_a_long_file_says_why_it_is() -> None:
    long = {name: file for name, file in files().items() if len(file.read_text().splitlines()) > LINES}
    assert [name for name, file in long.items() if "One file" not in head(file)] == []


def test_every_job_is_where_the_table_says() -> None:
    from importlib import import_module

    for name in jobs.JOBS:
        module, _, function = jobs.target(name).partition(":")
        assert callable(getattr(import_module(module), function)), name
        assert callable(getattr(jobs, name)), f"no function builds the argument of {name}"
    for name, former in jobs.FORMER.items():
        assert jobs.target(former) == jobs.JOBS[name]


def test_whatever_measures_is_in_the_digest_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module that a launch imports is among the files whose change makes a sweep measure again."""
    short = {"sample_s": 0.01, "sample_max_s": 0.01, "warmup_s": 0.01, "warmup_max_s": 0.01, "throughput_s": 0.01}
    protocol = replace(RIGORS["quick"], **short, energy_s=0.01, samples_min=2)
    cases = plan(Sweep(("vig_t", "deit_t"), ((32, 32),), ("parallel",), batches=(1,)))
    with Launcher() as launcher:
        ending = launcher.run("jobs:modules", {"launches": [jobs.measure(case, protocol)[1] for case in cases]}, 120)
    used = {Path(file).resolve() for file in ending.parts["files"]}
    assert len(used) > 20
    constant = {"results", "reports", "suites", "commands"}  # what makes records, and no numbers
    missing = used - {file.resolve() for file in host.measuring_files().values()}
    assert {file for file in missing if not constant & set(file.parts)} == set()


@pytest.mark.parametrize("changed", ["meters/timing.py", "kernels/fused/tuning.toml", "sweeps/measure.py", "plan.py"])
def test_a_change_of_what_measures_changes_the_digest(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host._code.__wrapped__()["source"]
    read = Path.read_bytes
    target = host.measuring_files()[changed].resolve()
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" * (self.resolve() == target))
    assert host._code.__wrapped__()["source"] != before


FORMER_SIDE = '''
"""A side as release 0.1 had it: jobs by module and function, one line of JSON each."""
import json, sys
from importlib import import_module
for line in sys.stdin:
    ask = json.loads(line)
    module, _, name = ask["job"].partition(":")
    parts = dict(getattr(import_module(module), name)(ask["argument"]))
    print(json.dumps({"ending": {"status": "ok", "reason": None, "parts": parts}}), flush=True)
'''
FORMER_WORKER = """
def whereabouts(argument):
    yield "files", {name: __file__ for name in argument["models"]}
"""


def test_a_side_may_run_the_last_release(tmp_path: Path) -> None:
    from vbench.jobs.revision_runner import RevisionRunner

    package = tmp_path / "vbench"
    package.mkdir()
    for name, text in (("__init__", ""), ("side", FORMER_SIDE), ("worker", FORMER_WORKER)):
        (package / f"{name}.py").write_text(text)
    with RevisionRunner("base", sys.executable, [tmp_path], tmp_path / "cache") as side:
        ending = side.run(*jobs.whereabouts(["vig_t"]), 60.0)
    assert Path(ending.parts["files"]["vig_t"]).parent == package


def test_a_launcher_knows_the_names_of_the_last_release() -> None:
    with Launcher() as launcher:
        ending = launcher.run("vbench.worker:whereabouts", {"models": ["vig_t"]}, 120)
    assert Path(ending.parts["files"]["vig_t"]).is_relative_to(Path(vbench.__file__).resolve().parent.parent)


def test_records_that_a_sweep_writes_do_not_make_the_code_dirty(tmp_path: Path) -> None:
    """The second sweep of `make gpu` finds what the first has added to a committed folder."""
    (tmp_path / "vbench").mkdir()
    (tmp_path / "results" / "a-gpu").mkdir(parents=True)
    code, records = tmp_path / "vbench" / "__init__.py", tmp_path / "results" / "a-gpu" / "records.jsonl"
    reader = tmp_path / "results" / "frame.py"
    for file in (code, records, reader):
        file.write_text("1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    records.write_text("2\n")
    assert host._git(code.parent, *host.CHANGES) == ""
    for file in (reader, code):
        file.write_text("2\n")
        assert host._git(code.parent, *host.CHANGES)
        subprocess.run(["git", "checkout", "-q", str(file)], cwd=tmp_path, check=True)
