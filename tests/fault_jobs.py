"""Jobs that end in the ways in which `vbench.jobs.launch` has to cope; none needs torch."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Job = Iterator[tuple[str, Any]]


def fine(argument: dict[str, Any]) -> Job:
    yield "server", os.getppid()
    yield "pid", os.getpid()
    yield "argument", argument


def sees(argument: dict[str, Any]) -> Job:
    main = getattr(sys.modules["__main__"], "__file__", None)
    about = {"main": main, "argv": sys.argv, "path": sys.path, "folder": str(Path.cwd()), "input": sys.stdin.read()}
    yield "seen", about


def descends(argument: dict[str, Any]) -> Job:
    """Starts a process that lives on and holds all that it inherits, and then dies."""
    for fd in _sockets():
        os.set_inheritable(fd, True)
    command = ["sleep", "600"]
    child = subprocess.Popen(command, close_fds=False, start_new_session=argument["own_session"])
    yield "grandchild", child.pid
    if not argument.get("well"):
        os._exit(7)


def closes(argument: dict[str, Any]) -> Job:
    """Closes all descriptors, and goes on, ends or opens others in their place."""
    yield "first", 1
    os.closerange(3, 4096)
    if argument["then"] == "goes on":
        time.sleep(600)
    if argument["then"] == "opens others":
        for _ in range(16):
            os.open(argument["file"], os.O_RDWR | os.O_CREAT)
    yield "second", 2


def writes(argument: dict[str, Any]) -> Job:
    """Writes to each socket that it finds, so to the one by which it answers too."""
    yield "first", 1
    for fd in _sockets():
        os.write(fd, argument["text"].encode())
    while argument.get("for_ever"):
        os.write(_sockets()[0], b"x" * 2**20)
    yield "second", 2


def stops(argument: dict[str, Any]) -> Job:
    """Stops in the middle of a message, or before one."""
    yield "first", 1
    if argument["half"]:
        os.write(_sockets()[0], b'{"part": "second", "val')
    os.kill(os.getpid(), signal.SIGSTOP)
    yield "second", 2


def stubborn(argument: dict[str, Any]) -> Job:
    """Ignores whatever can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        yield "first", 1
        time.sleep(0.01)


def talks(argument: dict[str, Any]) -> Job:
    """Writes much to its output, and its last words."""
    chunk = b"x" * 2**20
    for _ in range(argument["mib"]):
        os.write(1, chunk)
    os.write(2, b"\nthe last words\n")
    yield "first", 1
    os._exit(5)


def leaves_files(argument: dict[str, Any]) -> Job:
    import tempfile

    file = tempfile.mkdtemp()
    yield "file", file
    os.kill(os.getpid(), signal.SIGSEGV)


def kills_server_once(argument: dict[str, Any]) -> Job:
    mark = Path(argument["mark"])
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    yield "server", os.getppid()


def busy(argument: dict[str, Any]) -> Job:
    """One long call that lets no other thread of its process run."""
    Path(argument["mark"]).write_text(f"{os.getppid()} {os.getpid()}")
    sum(range(10**12))
    yield "never", 1


def large(argument: dict[str, Any]) -> Job:
    yield "length", len(argument["text"])
    yield "text", "y" * argument["answer"]


def sleeps_at_its_end(argument: dict[str, Any]) -> Job:
    atexit.register(time.sleep, 600)
    threading.Thread(target=time.sleep, args=(600,)).start()
    yield "pid", os.getpid()


def stops_server(argument: dict[str, Any]) -> Job:
    os.kill(os.getppid(), signal.SIGSTOP)
    yield "server", os.getppid()


def sits(argument: dict[str, Any]) -> Job:
    """A process of a block of turns. That in place 1 has the fault."""
    from vbench.jobs.round_table import WARM, Seat

    fault = argument["fault"] if argument["place"] == 1 else ""
    with Seat(Path(argument["socket"]), 10**6 if fault == "no place" else argument["place"]) as seat:
        for calls in seat.turns():
            if calls != WARM and fault == "dies":
                os.kill(os.getpid(), signal.SIGSEGV)
            if calls != WARM and fault == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if calls != WARM and fault == "junk":
                os.write(seat._peer.fileno(), b"junk\n")
            seat.answer([] if calls == WARM else [float("nan") if fault == "nan" else 1.0] * calls)
    yield "latency", {"batch": 1}


def _sockets() -> list[int]:
    """The sockets of this process."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                found.append(int(entry.name))
    return sorted(found)
