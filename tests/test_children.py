"""Whatever a child process, its descendants or the fork server do, it is an ending in words, in time, and cleared up.

Faults are made for real: processes are killed and stopped, bytes written, folders removed. No job needs torch.
"""

from __future__ import annotations

import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from vbench.commands.app import root
from vbench.devices import process
from vbench.errors import UsageError
from vbench.jobs import forks, launch, revision_runner, scratch
from vbench.jobs.launch import Ending, Launcher
from vbench.jobs.turn_socket import TurnSocket
from vbench.plan import Protocol, Sweep, plan
from vbench.sweeps import turns
from vbench.sweeps.agenda import Turns
from vbench.sweeps.companies import Company

LIMIT_S = 60.0  # of what should take no time


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    """Of a server without torch; that of other tests goes on."""
    with pytest.MonkeyPatch.context() as patch, Launcher([]) as found:
        patch.setattr(forks, "_running", [])
        yield found
        forks.end()


def server() -> psutil.Process:
    return psutil.Process(forks._running[0].pid)


def works(launcher: Launcher) -> None:
    """The next launch does."""
    assert launcher.run("fault_jobs:fine", {}, LIMIT_S).status == "ok"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("own_session", [False, True])
def test_a_dead_child_is_known_though_a_grandchild_holds_its_pipes(launcher: Launcher, own_session: bool) -> None:
    ending = launcher.run("fault_jobs:descends", {"own_session": own_session}, 600)
    assert (ending.status, ending.reason) == ("error", "the process died (exit code 7)")
    until(lambda: not alive(ending.parts["grandchild"]))


@pytest.mark.parametrize("own_session", [False, True])
def test_no_grandchild_goes_on_after_a_job_that_ended_well(launcher: Launcher, own_session: bool) -> None:
    ending = launcher.run("fault_jobs:descends", {"own_session": own_session, "well": True}, 600)
    assert ending.status == "ok"
    until(lambda: not alive(ending.parts["grandchild"]))


@pytest.mark.parametrize("then", ["goes on", "ends", "opens others"])
def test_a_model_that_closes_all_descriptors_is_told_so(
    launcher: Launcher, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 0.1)
    file = tmp_path / "a users file"
    ending = launcher.run("fault_jobs:closes", {"then": then, "file": str(file)}, 600)
    assert ending == Ending("error", launch.CLOSED, {"first": 1})
    assert not file.exists() or file.read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("5\n", "'5'"),
        ("no line", "'no line"),
        ('{"status": "wonderful"}\n', "wonderful"),
        ('{"part": 1, "value": 2}\n', "part"),
        ("[" * 10**5 + "\n", "'[[["),
        ("\x1b[31mred\ud83d".encode("utf-8", "replace").decode() + "\n", "'\\x1b[31mred"),
    ],
)
def test_bytes_on_the_pipe_that_are_not_ours_are_an_error(launcher: Launcher, text: str, shown: str) -> None:
    ending = launcher.run("fault_jobs:writes", {"text": text}, LIMIT_S)
    assert (ending.status, ending.parts) == ("error", {"first": 1})
    assert ending.reason is not None
    assert ending.reason.startswith("the process sent '")
    assert shown in ending.reason
    assert "\n" not in ending.reason


@pytest.mark.parametrize("text", ["x", '{"part": "'])
def test_a_message_without_an_end_takes_no_memory(
    launcher: Launcher, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vbench.jobs.lines.MOST_BYTES", 2**22)
    before = psutil.Process().memory_info().rss
    process.reset_peak()
    ending = launcher.run("fault_jobs:writes", {"text": text, "for_ever": True}, LIMIT_S)
    assert ending.status == "error"
    assert process.peak_bytes() - before < 2**25


def test_much_output_fills_neither_disk_nor_memory(launcher: Launcher) -> None:
    before = psutil.Process().memory_info().rss
    process.reset_peak()
    ending = launcher.run("fault_jobs:talks", {"mib": 512}, LIMIT_S)
    assert ending == Ending("error", "the process died (exit code 5): the last words", {"first": 1})
    assert process.peak_bytes() - before < 2**25
    assert sum(file.stat().st_size for file in scratch.home().rglob("*") if file.is_file()) == 0


def test_messages_of_megabytes_pass_in_both_directions(launcher: Launcher) -> None:
    ending = launcher.run("fault_jobs:large", {"text": "x" * 5_000_000, "answer": 5_000_000}, LIMIT_S)
    assert ending.status == "ok"
    assert (ending.parts["length"], len(ending.parts["text"])) == (5_000_000, 5_000_000)


def test_a_server_killed_between_two_launches_is_replaced(launcher: Launcher) -> None:
    works(launcher)
    gone, former = server(), forks._running[0]
    gone.kill()
    works(launcher)
    assert server().pid != gone.pid
    former.end()  # closes its pipes, also if the launch saw its end first and forgot it


def test_a_server_killed_before_it_forks_is_replaced(launcher: Launcher) -> None:
    works(launcher)
    gone = server()
    gone.suspend()  # so that it does not fork before it is killed
    found: list[Ending] = []
    asking = threading.Thread(target=lambda: found.append(launcher.run("fault_jobs:fine", {}, LIMIT_S)))
    asking.start()
    until(lambda: launcher._running)
    gone.kill()
    asking.join(LIMIT_S)
    assert found[0].status == "ok"
    assert found[0].parts["server"] != gone.pid


def test_a_server_killed_under_a_job_is_replaced_and_the_job_done(launcher: Launcher, tmp_path: Path) -> None:
    works(launcher)
    before = server().pid
    ending = launcher.run("fault_jobs:kills_server_once", {"mark": str(tmp_path / "mark")}, LIMIT_S)
    assert ending.status == "ok"
    assert ending.parts["server"] != before


@contextmanager
def another_server(*modules: str) -> Iterator[Launcher]:
    with pytest.MonkeyPatch.context() as patch, Launcher(list(modules)) as found:
        patch.setattr(forks, "_running", [])
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield found
        forks.end()


def test_a_server_started_by_a_thread_that_blocks_signals_hears_of_deaths() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    try:
        with another_server() as launcher:
            ending = launcher.run("fault_jobs:descends", {"own_session": False}, 5)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert ending.reason == "the process died (exit code 7)"


def test_a_server_that_cannot_start_is_one_line() -> None:
    with another_server("dies_at_import") as launcher:
        ending = launcher.run("fault_jobs:fine", {}, LIMIT_S)
    gone = "no process could be started: the fork server has ended (exit code 3): no such library"
    assert ending == Ending("error", gone, {})


def test_a_server_that_stops_as_it_starts_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "START_LIMIT_S", 0.5)
    with another_server("stops_at_import") as launcher:
        ending = launcher.run("fault_jobs:fine", {}, 600)
        assert ending == Ending("timeout", "the fork server did not answer within 0.5 s", {})
        assert forks._running == []


def test_a_stopped_server_is_replaced(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "FORK_LIMIT_S", 0.2)
    works(launcher)
    gone = server()
    gone.suspend()
    works(launcher)
    assert not alive(gone.pid)


def test_a_server_stopped_under_a_job_does_not_lose_it(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "GRACE_S", 0.2)
    ending = launcher.run("fault_jobs:stops_server", {}, LIMIT_S)
    assert ending.status == "ok"
    assert not alive(ending.parts["server"])
    works(launcher)


@pytest.mark.parametrize("half", [True, False])
def test_a_child_that_stops_is_a_time_out(launcher: Launcher, half: bool) -> None:
    ending = launcher.run("fault_jobs:stops", {"half": half}, 0.2)
    assert ending == Ending("timeout", "took longer than 0.2 s", {"first": 1})
    assert server().children() == []
    works(launcher)


def test_a_child_that_ignores_signals_and_sends_for_ever_is_a_time_out(launcher: Launcher) -> None:
    ending = launcher.run("fault_jobs:stubborn", {}, 0.2)
    assert ending == Ending("timeout", "took longer than 0.2 s", {"first": 1})
    assert server().children() == []


def test_a_child_is_not_waited_for_at_its_end(launcher: Launcher) -> None:
    """It sleeps in a handler of `atexit`, and in a thread that would be joined."""
    ending = launcher.run("fault_jobs:sleeps_at_its_end", {}, 5)
    assert ending.status == "ok"
    assert not alive(ending.parts["pid"])


def test_without_a_free_descriptor_there_is_a_reason(launcher: Launcher) -> None:
    works(launcher)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, hard))
        ending = launcher.run("fault_jobs:fine", {}, LIMIT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ending == Ending("error", "no process could be started: Too many open files", {})
    works(launcher)


def test_a_childs_temporary_files_go_with_it(launcher: Launcher) -> None:
    ending = launcher.run("fault_jobs:leaves_files", {}, LIMIT_S)
    assert ending.status == "error"
    left = Path(ending.parts["file"])
    assert left.is_relative_to(scratch.home())
    assert not left.exists()


def test_a_removed_folder_of_temporary_files_is_made_again(launcher: Launcher) -> None:
    shutil.rmtree(scratch.home())
    works(launcher)
    assert scratch.home().is_dir()


def test_without_a_folder_for_temporary_files_there_is_a_reason(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr(scratch, "_homes", {})
    ending = launcher.run("fault_jobs:fine", {}, LIMIT_S)
    assert ending.status == "error"
    assert ending.reason is not None
    assert ending.reason.endswith("cannot be written: No such file or directory; set TMPDIR to a folder that can")


def script(folder: Path, body: str) -> tuple[list[str], dict[str, str]]:
    """A program that has a launcher without torch, and an environment in which it leaves its files in `folder`/tmp."""
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "script.py").write_text(
        "from vbench.commands.console import end_as_by_ctrl_c\n"
        "from vbench.jobs.launch import Launcher\n"
        "end_as_by_ctrl_c()\n"
        "with Launcher([]) as launcher:\n"
        "    try:\n"
        f"        {body}\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
        "        raise SystemExit(130)\n"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "tmp")}
    return [sys.executable, "-P", str(folder / "script.py")], environment


def busy(mark: Path) -> str:
    return f"launcher.run('fault_jobs:busy', {{'mark': {str(mark)!r}}}, 600)"


def pids(mark: Path) -> list[int]:
    """Of the server and of its child, once that is in the middle of its call."""
    until(lambda: mark.exists() and len(mark.read_text().split()) == 2)
    return [int(pid) for pid in mark.read_text().split()]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_parent_takes_all_with_it_and_the_next_run_its_files(tmp_path: Path, stopped: bool) -> None:
    """Its child is in the middle of one long call; its server may be stopped."""
    command, environment = script(tmp_path, busy(tmp_path / "mark"))
    parent = subprocess.Popen(command, env=environment)
    both = pids(tmp_path / "mark")
    if stopped:
        os.kill(both[0], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(pid) for pid in both))
    (left,) = (tmp_path / "tmp").iterdir()
    assert left.name.startswith(f"vbench-{parent.pid}-")
    command, environment = script(tmp_path, "print(launcher.run('fault_jobs:fine', {}, 60).status)")
    assert subprocess.run(command, env=environment, capture_output=True, check=True).stdout == b"ok\n"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_killed_parent_takes_a_server_with_it_that_still_imports(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "imports_for_ever.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(f'{{os.getpid()}} 0')\ntime.sleep(600)\n"
    )
    command, environment = script(
        tmp_path, "launcher._preload.append('imports_for_ever'); launcher.run('never', {}, 1)"
    )
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(tmp_path)])
    with subprocess.Popen(command, env=environment) as parent:
        importing, _ = pids(mark)
        parent.kill()
    until(lambda: not alive(importing))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_a_run_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    command, environment = script(tmp_path, busy(tmp_path / "mark"))
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    both = pids(tmp_path / "mark")
    parent.send_signal(number)
    assert parent.communicate(timeout=LIMIT_S)[0] == b"interrupted\n"
    assert parent.returncode == 130
    assert not any(alive(pid) for pid in both)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_every_command_ends_by_these_signals() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a process that nobody told otherwise
        root()
        for number in handlers:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_terminal_that_hangs_up_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    """What it prints to the terminal then is no error."""
    command, environment = script(tmp_path, busy(tmp_path / "mark"))
    terminal, other = pty.openpty()
    on_it = (  # a leader of a session gets the first terminal that it opens
        "import os, sys\n"
        "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
        "for fd in (0, 1, 2): os.dup2(terminal, fd)\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    starting = [sys.executable, "-S", "-c", on_it, os.ttyname(other), *command]
    parent = subprocess.Popen(starting, env=environment, start_new_session=True)
    both = pids(tmp_path / "mark")
    os.close(other)
    os.close(terminal)
    assert parent.wait(LIMIT_S) == 130
    assert not any(alive(pid) for pid in both)


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    raising = "import os; os.kill(os.getpid(), 1); print('goes on')"
    command, environment = script(tmp_path, raising)
    done = subprocess.run(["nohup", *command], env=environment, capture_output=True, check=True)
    assert done.stdout == b"goes on\n"


def test_only_folders_of_ended_processes_of_this_user_are_removed(tmp_path: Path) -> None:
    mine, ended = os.getpid(), subprocess.Popen(["true"])
    ended.wait()
    made = {
        "ended": tmp_path / f"vbench-{ended.pid}-1",
        "another with the same number": tmp_path / f"vbench-{mine}-1",
        "alive": tmp_path / f"vbench-{mine}-{scratch.start_of(mine)}",
        "held by a container": tmp_path / f"vbench-{ended.pid}-2",
        "other": tmp_path / "vbench-run",
    }
    for path in made.values():
        path.mkdir()
        (path / scratch.OWNER).touch()
    elsewhere = tmp_path / "a users folder"
    elsewhere.mkdir()
    (tmp_path / f"vbench-{ended.pid}-3").symlink_to(elsewhere)
    holds = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-S", "-c", holds, str(made["held by a container"] / scratch.OWNER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert set(scratch.clear(tmp_path)) == {made["ended"], made["another with the same number"]}
        holder.communicate(b"\n")
    assert elsewhere.is_dir()
    if os.getuid() == 0:
        os.chown(made["held by a container"], 12345, 12345)
        assert scratch.clear(tmp_path) == []
    assert made["alive"].is_dir()
    assert made["other"].is_dir()


class Sitting:
    """Runs the processes of a block by `fault_jobs.sits`."""

    def __init__(self, launcher: Launcher, fault: str) -> None:
        self.launcher, self.fault = launcher, fault

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        assert job == "take_rounds"
        return self.launcher.run("fault_jobs:sits", {**argument, "fault": self.fault}, timeout_s)


JUNK = ": its code writes to our socket"


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("", "ok", None),
        ("dies", "error", "the process died (signal 11)"),
        ("stops", "timeout", "took longer than 0.5 s"),
        ("junk", "error", f"the process sent 'junk' instead of its times{JUNK}"),
        ("nan", "error", "the process sent '[NaN"),
        ("no place", "error", f"in turns: a process sent '1000000' instead of its place{JUNK}"),
    ],
)
def test_a_process_of_a_block_that_fails_is_named(
    launcher: Launcher, fault: str, status: str, reason: str | None
) -> None:
    cases = plan(Sweep(("vig_t", "deit_t"), ((64, 64),), ("parallel",)))
    protocol = Protocol(turns_s=0.05, rounds=2)
    taking = Turns(Company(tuple(cases)), 0, 0, (1.0, 1.0), 2)
    taken = turns.take(
        taking,
        protocol,
        Sitting(launcher, fault),
        core=0,
        allowed_s=LIMIT_S,
        most_s=0.5 if fault == "stops" else LIMIT_S,
    )
    assert taken.status == status
    assert (taken.samples_ms is None) == bool(fault)
    if reason is not None:
        assert reason in (taken.reason(taking.cases) or "")
        assert fault == "no place" or (taken.reason(taking.cases) or "").startswith(str(taking.cases[1]))
    assert server().children() == []


@pytest.mark.parametrize("junk", [b"junk\n", b"7" * 100, b"\xff\n"])
def test_a_word_that_is_no_turn_is_an_error(tmp_path: Path, junk: bytes) -> None:
    import socket

    path = tmp_path / "socket"

    def writes() -> None:
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as other:
            until(lambda: other.connect_ex(str(path)) == 0)
            other.sendall(junk)
            other.recv(1)

    threading.Thread(target=writes, daemon=True).start()
    with TurnSocket(path, first=True) as mine, pytest.raises(RuntimeError, match="where its turn should end"):
        mine.wait()


SIDES = {
    "stops": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n", "has not answered within 1 s"),
    "junk": ("input()\nprint('a banner', flush=True)\ninput()\n", "its process answered 'a banner'"),
    "other": ("input()\nprint('{\"ending\": 5}', flush=True)\ninput()\n", "its process answered"),
    "ends": ("import sys\ninput()\nsys.exit('no torch here')\n", "no torch here"),
}


@pytest.mark.parametrize("fault", SIDES)
def test_another_revision_that_does_not_answer_is_one_line(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("START_LIMIT_S", 0.0), ("GRACE_S", 1.0), ("PATIENCE_S", 0.1)):
        monkeypatch.setattr(revision_runner, name, value)
    text, words = SIDES[fault]
    (tmp_path / "vbench").mkdir()
    (tmp_path / "vbench" / "__init__.py").touch()
    (tmp_path / "vbench" / "side.py").write_text(text)
    runner = revision_runner.RevisionRunner("head", sys.executable, [tmp_path], tmp_path / "cache")
    with runner, pytest.raises(UsageError, match=f"^head cannot be run: .*{words}"):
        runner.run("whereabouts", {"models": ["x" * 10**6]}, 0.0 if fault == "stops" else LIMIT_S)


def test_another_revision_ends_with_us_in_the_middle_of_a_job(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "script.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom vbench.jobs import launch\nlaunch.PRELOAD[:] = []\n"
        "from vbench.jobs.revision_runner import serve\nserve()\n"
    )
    command = [sys.executable, "-P", str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as side:
        assert side.stdin is not None
        side.stdin.write(f'{{"job": "fault_jobs:busy", "argument": {{"mark": "{mark}"}}, "timeout_s": 600}}\n'.encode())
        side.stdin.flush()
        both = pids(mark)
        side.stdin.close()
        assert side.wait(LIMIT_S) == 0
    assert not any(alive(pid) for pid in both)
