"""Every ending of a child becomes a typed result, and no child outlives its sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from vbench.errors import UsageError
from vbench.jobs.launch import Launcher, two_at_a_time


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def test_parts_of_a_finished_job(launcher: Launcher) -> None:
    ending = launcher.run("jobs:fine", {"x": [1, "two"]}, 60)
    assert (ending.status, ending.reason) == ("ok", None)
    assert ending.parts["first"] == [1, "two"]
    assert ending.parts["second"]["pid"] != os.getpid()


def test_each_job_has_a_process_of_its_own(launcher: Launcher) -> None:
    pids = {launcher.run("jobs:fine", {"x": 0}, 60).parts["second"]["pid"] for _ in range(3)}
    assert len(pids) == 3


def test_ctrl_c_ends_the_children_and_waits_for_none(tmp_path: Path) -> None:
    """The children ignore it: of four that would run for ten minutes two have begun, and go with their launcher."""
    pids = tmp_path / "pids"

    def begun() -> list[str]:
        return pids.read_text().split() if pids.exists() else []

    def press() -> None:
        while len(begun()) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt), Launcher() as launcher:
            list(two_at_a_time([partial(launcher.run, "jobs:endless", {"pids": str(pids)}, 600.0)] * 4))
    finally:
        signal.signal(signal.SIGINT, before)
    first = begun()
    for _ in range(100):
        left = [pid for pid in first if Path(f"/proc/{pid}").exists()]
        time.sleep(0.1 if left else 0.0)
    assert not left
    assert begun() == first  # neither a third, nor one of the two once more


@pytest.mark.parametrize(
    ("job", "argument", "status", "reason"),
    [
        ("exits", {}, "error", "exit code 3"),
        ("segfault", {}, "error", "signal 11"),
        ("killed", {}, "error", "signal 9"),
        ("raises", {"kind": "value"}, "error", "ValueError: a wrong"),
        ("raises", {"kind": "memory"}, "oom", "none left"),
        ("raises", {"kind": "unsupported"}, "unsupported", "no such mode"),
        ("allocates_too_much", {}, "oom", "can't allocate memory"),
    ],
)
def test_failures_are_typed_and_keep_what_was_done(
    launcher: Launcher, job: str, argument: dict[str, str], status: str, reason: str
) -> None:
    ending = launcher.run(f"jobs:{job}", argument, 60)
    assert ending.status == status
    assert ending.reason is not None
    assert reason in ending.reason
    assert "\n" not in ending.reason
    assert ending.parts == {"first": 1}


def test_a_bug_is_not_an_out_of_memory(launcher: Launcher) -> None:
    ending = launcher.run("jobs:shape_bug", {}, 60)
    assert ending.status == "error"
    assert "RuntimeError" in (ending.reason or "")


def test_a_file_in_the_working_directory_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('the wrong timm')")
    code = (
        "from vbench.jobs.launch import Launcher\n"
        "if __name__ == '__main__':\n"
        "    with Launcher() as launcher:\n"
        "        asked = {'device': 'cpu', 'models': ['timm/resnet18']}\n"
        "        print(launcher.run('probe', asked, 60).status)\n"
    )
    assert _script(code, tmp_path) == "ok"


def test_time_out(launcher: Launcher) -> None:
    begin = time.monotonic()
    ending = launcher.run("jobs:slow", {"s": 600}, 1)
    assert time.monotonic() - begin < 60
    assert (ending.status, ending.reason, ending.parts) == ("timeout", "took longer than 1 s", {"first": 1})


def test_a_slow_start_is_not_the_jobs(tmp_path: Path) -> None:
    code = (
        "from vbench.jobs.launch import Launcher\n"
        "if __name__ == '__main__':\n"
        "    with Launcher(['slow_start', 'jobs']) as launcher:\n"
        "        print(launcher.run('jobs:fine', {'x': 1}, 3).status)\n"
    )
    assert _script(code, tmp_path) == "ok"


def test_a_killed_child_is_started_once_more(launcher: Launcher, tmp_path: Path) -> None:
    ending = launcher.run("jobs:killed_once", {"mark": str(tmp_path / "mark")}, 60)
    assert (ending.status, ending.parts) == ("ok", {"first": 1})


def test_usage_errors_reach_the_caller(launcher: Launcher) -> None:
    with pytest.raises(UsageError, match="no such size"):
        launcher.run("jobs:raises", {"kind": "usage"}, 60)


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "from vbench.jobs.launch import Launcher\n"
        "if __name__ == '__main__':\n"
        f"    Launcher([]).run('jobs:waits_for_ever', {{'mark': {str(mark)!r}}}, 600)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-P", str(script)], env=environment, cwd=tmp_path)
    _until(lambda: mark.exists() and bool(mark.read_text()))
    child = int(mark.read_text())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _alive(child))


def _script(code: str, folder: Path) -> str:
    """What a program prints that is run in a folder."""
    (folder / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-P", "script.py"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def _until(condition: object, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)
