"""This process's end of the fork server: it starts one, has it fork, and hears what becomes of each process.

No wait is without a limit, so that a server or a process that is stopped, killed or silent ends a job and not the run.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from signal import SIGKILL
from typing import Any

from vbench.jobs import lines
from vbench.jobs import server as program
from vbench.jobs.lines import CHUNK, LineError, Lines
from vbench.jobs.server import NUMBER

GRACE_S = 5.0  # for a process to end after it was killed or has closed its socket; for the server to tell that
SHOWN_BYTES = 2**16  # of a process's output are kept, the last ones
OURS = (b"{", b"")  # how a message begins
STATUSES = ("ok", "oom", "unsupported", "error", "usage")
_LOCK = threading.Lock()
_running: list[Server] = []  # at most one, for all launchers of this process


class ServerGoneError(Exception):
    """The fork server has ended; the message says how."""


class Server:
    """A fork server. It ends when `end` is called, or when this process ends, in whatever way.

    Args:
        modules: it imports these first. It has no working directory on its path while it does: a user's folder may
            hold a `torch.py`, and this project's checkout holds `kernels` and `models`.

    Raises: OSError if it cannot be started.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.owner = os.getpid()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._control, theirs = socket.socketpair()
        hello, write = os.pipe()
        self._hello = os.fdopen(hello, "rb", buffering=0)
        self._control.settimeout(GRACE_S)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-P", program.__file__, str(theirs.fileno()), str(write), *modules]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(), write),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # Ctrl-C is the launcher's to handle
            )
        except OSError:
            self._said.close()
            self._control.close()
            self._hello.close()
            raise
        finally:
            theirs.close()
            os.close(write)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def ready(self) -> bool:
        """Whether it has imported its modules."""
        with suppress(ValueError):  # `end` has closed it
            hello = self._hello.fileno()
            return bool(_events({hello: select.POLLIN}, 0.0).get(hello, 0) & select.POLLIN)
        return False

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def fork(self) -> Child:
        """Ask for a process. Raises: ServerGoneError; OSError if there is no descriptor left."""
        with ExitStack() as opened:
            ends, theirs = [], []
            for make in (_socketpair, os.pipe, os.pipe):
                mine, other = make()
                ends.append(mine)
                theirs.append(other)
                opened.callback(os.close, mine)
                opened.callback(os.close, other)
            try:
                socket.send_fds(self._control, [b"f"], theirs)
            except OSError:
                raise ServerGoneError(self.epitaph()) from None
            opened.pop_all()
        for end in theirs:
            os.close(end)
        return Child(self, socket.socket(fileno=ends[0]), *ends[1:])

    def epitaph(self) -> str:
        """How it has ended, and the last line that it has written."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        code = self._process.poll()
        how = "does not answer" if code is None else f"has ended ({ended(code)})"
        said = b""
        with suppress(ValueError, OSError):  # `end` has closed it
            said = os.pread(
                self._said.fileno(), SHOWN_BYTES, max(0, os.fstat(self._said.fileno()).st_size - SHOWN_BYTES)
            )
        return f"the fork server {how}{last_words(said)}"

    def end(self) -> None:
        """End it and its processes, by force if it does not end by itself."""
        if not self.ready:  # it hears nothing while it imports, and has no processes
            self._process.kill()
        self._control.close()
        self._hello.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        self._said.close()


def running(modules: Sequence[str]) -> Server:
    """The server that runs; one that imports these modules if none does. Raises: OSError."""
    with _LOCK:
        if _running and (_running[0].gone or _running[0].owner != os.getpid()):
            _running.pop()
        if not _running:
            _running.append(Server(modules))
            atexit.unregister(end)
            atexit.register(end)
        return _running[0]


def end(server: Server | None = None) -> None:
    """End this server, or the one that runs, so that the next process comes from another. None may be wanted."""
    with _LOCK:
        if server is None and _running:
            server = _running[0]
        if server in _running:
            _running.clear()
    if server is not None and server.owner == os.getpid():
        server.end()


class Child:
    """A process that a server was asked for, as it is known here. Use as a context manager, which ends it.

    Attributes:
        pid: its number; None before it has one, negative (minus an errno) if it could not be forked.
        code: its exit code; None while it runs.
        lost: whether its server is gone, and with it its exit code.
        closed: the time of `time.monotonic` at which its socket was closed; None while it is open.
        messages: what it has sent, and was not taken yet.
        junk: the beginning of something that it has sent and that is no message; None if there is none.
    """

    def __init__(self, server: Server, talk: socket.socket, output: int, status: int) -> None:
        self.server = server
        self.pid: int | None = None
        self.code: int | None = None
        self.lost = False
        self.closed: float | None = None
        self.junk: bytes | None = None
        self.messages: deque[dict[str, Any]] = deque()
        self._talk, self._output, self._status = talk, output, status
        self._unsent, self._lines, self._written, self._told = (
            memoryview(b""),
            Lines(lines.MOST_BYTES),
            bytearray(),
            b"",
        )
        self._silent = False  # its output is closed
        self._talk.setblocking(False)
        for fd in (output, status):
            os.set_blocking(fd, False)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """Whether it has ended, as far as its server can tell."""
        return self.lost or self.code is not None or (self.pid or 0) < 0

    @property
    def last_words(self) -> str:
        """ ": " and the last line that it has written; empty if it has written none."""
        return last_words(self._written)

    def ask(self, request: dict[str, Any]) -> None:
        """Send it what to do; that happens while `hear` waits."""
        self._unsent = memoryview(f"{json.dumps(request)}\n".encode())

    def hear(self, until: float) -> None:
        """Wait for news until a time of `time.monotonic`, and take them."""
        wanted = dict[int, int]()
        if not self.ended:
            wanted[self._status] = select.POLLIN
        if not self._silent:
            wanted[self._output] = select.POLLIN
        if self.closed is None:
            wanted[self._talk.fileno()] = select.POLLIN | (select.POLLOUT if self._unsent else 0)
        events = _events(wanted, max(0.0, until - time.monotonic()))
        if self._output in events:
            self._read_output()
        if self._status in events:
            self._read_status()
        if self._talk.fileno() in events:
            self._write_talk()
            self._read_talk()
        if self.ended:  # nothing is to come but what lies there
            begin = time.monotonic()
            while self.closed is None and self._read_talk() and time.monotonic() < begin + GRACE_S:
                pass
            while not self._silent and self._read_output() and time.monotonic() < begin + GRACE_S:
                pass

    def end(self) -> None:
        """Kill it and its group, and see it end. A server that cannot tell its end within `GRACE_S` is ended too."""
        self.kill()
        until = time.monotonic() + GRACE_S
        while not self.ended and self.pid is not None and (left := until - time.monotonic()) > 0:
            if self._status in _events({self._status: select.POLLIN}, left):
                self._read_status()
        if self.lost or (self.pid is not None and not self.ended):
            end(self.server)
            self.kill()  # the group, where the server has left it
        self.close()

    def kill(self) -> None:
        """Kill it and its group at once."""
        if self.pid is None or self.pid < 0 or self.code is not None:
            return
        with suppress(OSError):
            os.killpg(self.pid, SIGKILL)

    def close(self) -> None:
        """Close its descriptors; a process that has not begun ends then."""
        self._talk.close()
        for fd in (self._output, self._status):
            with suppress(OSError):
                os.close(fd)

    def _read_status(self) -> None:
        try:
            chunk = os.read(self._status, 2 * NUMBER.size - len(self._told))
        except BlockingIOError:
            return
        self._told += chunk
        numbers = [number for (number,) in NUMBER.iter_unpack(self._told[: len(self._told) // 8 * 8])]
        if numbers:
            self.pid = numbers[0]
        if len(numbers) > 1:
            self.code = numbers[1]
        elif not chunk:
            self.lost = True

    def _read_output(self) -> bool:
        """Take some of what it has written. Returns: whether there was something."""
        try:
            chunk = os.read(self._output, CHUNK)
        except BlockingIOError:
            return False
        self._silent = not chunk
        self._written += chunk
        del self._written[:-SHOWN_BYTES]
        return bool(chunk)

    def _write_talk(self) -> None:
        if self._unsent:
            try:
                self._unsent = self._unsent[self._talk.send(self._unsent) :]
            except BlockingIOError:
                return
            except OSError:
                self._unsent = memoryview(b"")

    def _read_talk(self) -> bool:
        """Take some of what it has sent. Returns: whether there was something."""
        try:
            chunk = self._talk.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.closed = time.monotonic()
            return False
        try:
            for line in self._lines.feed(chunk):
                message = _message(line)
                if message is None:
                    self.junk = self.junk or line
                elif self.junk is None:
                    self.messages.append(message)
        except LineError:
            self.junk = self.junk or self._lines.begun
        if self._lines.begun[:1] not in OURS:
            self.junk = self.junk or self._lines.begun
        return True


def ended(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def last_words(written: bytes | bytearray) -> str:
    """ ": " and the last line of an output; empty if there is none."""
    said = [line.strip() for line in written.decode(errors="replace").splitlines() if line.strip()]
    return f": {said[-1][:200]}" if said else ""


def _message(line: bytes) -> dict[str, Any] | None:
    """A line as a message of `jobs.child`; None if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    reason = found.get("reason")
    if found.get("started") is True or (isinstance(found.get("part"), str) and "value" in found):
        return found
    return found if found.get("status") in STATUSES and (reason is None or isinstance(reason, str)) else None


def _socketpair() -> tuple[int, int]:
    mine, other = socket.socketpair()
    return mine.detach(), other.detach()


def _events(wanted: dict[int, int], timeout_s: float) -> dict[int, int]:
    """What happens at descriptors within a time."""
    poll = select.poll()
    for fd, event in wanted.items():
        poll.register(fd, event)
    return dict(poll.poll(timeout_s * 1e3))
