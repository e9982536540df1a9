"""The fork server: a program that forks a process for each request, tells how it ended, and ends what it has left.

`python -P server.py CONTROL HELLO MODULE...` imports the modules and writes a byte to the pipe HELLO. A request is a
byte on the socket CONTROL with three descriptors: a socket to talk with the process, a pipe for its output, and a pipe
for its status: its number, and its exit code later (each 8 bytes; instead of a number, minus an errno). The process
reads one line, {"path", "argv", "folder", "temporary", "job", "argument"}, and goes on in `vbench.jobs.child`.

The server ends with CONTROL, and its processes end with it. It imports nothing of vbench before a process has the
path for that.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

NUMBER = struct.Struct("<q")
LAST_S = 5  # for the processes to end when the server does
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def signal_when_closed(fd: int, number: signal.Signals = signal.SIGCONT) -> None:
    """Have the kernel send this process a signal when the other end of a pipe closes (Linux).

    SIGCONT lets it go on if it is stopped, so that it sees that the end is closed.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Server:
    """The loop that answers requests."""

    def __init__(self, control: socket.socket, hello: int) -> None:
        self._control, self._hello = control, hello
        self._statuses: dict[int, int] = {}  # of each process that runs
        self._own = set(_children())  # what an import has started
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)

    def run(self) -> None:
        """Answer requests until the socket closes."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        os.write(self._hello, b"\n")
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._answer():
                return

    def _answer(self) -> bool:
        """Fork once. Returns: False if there are no more requests."""
        try:
            word, fds, _, _ = socket.recv_fds(self._control, 1, 3)
        except OSError:
            return False
        if not word or len(fds) != 3:
            return False
        talk, output, status = fds
        server = os.getpid()
        pid = _fork()
        if pid == 0:
            self._become(server, talk, output, status)
        os.close(talk)
        os.close(output)
        _tell(status, pid)
        if pid > 0:
            with suppress(OSError):  # both of us say so, whoever is first
                os.setpgid(pid, pid)
            self._statuses[pid] = status
        else:
            os.close(status)
        return True

    def _reap(self) -> None:
        """Tell the exit codes of those that have ended, after their groups and what they left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid in self._statuses:
                _end_group(pid)
                self._end_orphans()
                end = self._statuses.pop(pid)
                _tell(end, os.waitstatus_to_exitcode(status))
                os.close(end)
        self._end_orphans()

    def _end_orphans(self) -> None:
        """End processes that have become our own because the one that started them has ended."""
        for pid in _children():
            if pid not in self._statuses and pid not in self._own:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """End all processes."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LAST_S)  # one that cannot be ended is left
        for pid in self._statuses:
            _end_group(pid)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
                self._statuses.clear()
                self._end_orphans()

    def _become(self, server: int, talk: int, output: int, status: int) -> None:
        """Go on as the new process."""
        code = 1
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what it starts does not get away from it
            if os.getppid() != server:
                os._exit(code)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
            for fd in (self._hello, self._wake, self._woken, status, *self._statuses.values()):
                os.close(fd)
            os.set_inheritable(talk, False)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            _serve(talk)
            code = 0
        except BaseException:
            with suppress(Exception):
                traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _serve(talk: int) -> None:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(talk, 65536)
        if not chunk:
            return  # nobody wants it any more
        line += chunk
    request = json.loads(line)
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path[:], sys.argv = request["path"], [request["argv"]]
    with suppress(OSError, TypeError):
        os.chdir(request["folder"])
    os.environ["TMPDIR"] = request["temporary"]
    tempfile.tempdir = None  # what was imported may have looked for the folder before
    import_module("vbench.jobs.child").run(talk, request["job"], request["argument"])


def _children() -> list[int]:
    me = os.getpid()
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    return []


def _fork() -> int:
    """0 in the new process, its number here; minus an errno if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that what was imported has started
        try:
            return os.fork()
        except OSError as error:
            return -(error.errno or errno.EAGAIN)


def _end_group(pid: int) -> None:
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _tell(status: int, number: int) -> None:
    with suppress(OSError):  # nobody waits for it any more
        os.write(status, NUMBER.pack(number))


def main(control: int, hello: int, modules: list[str]) -> None:
    """Import the modules and answer requests. A module that cannot be imported is left to the process that needs it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that starts us may have blocked some
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the launcher has them too, and says what happens
        signal.signal(number, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal_when_closed(hello, signal.SIGKILL)  # an import can take a minute
    for module in modules:
        with suppress(Exception):
            import_module(module)
    signal_when_closed(hello)
    with socket.socket(fileno=control) as requests:
        server = Server(requests, hello)
        server.run()
        server.end()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
