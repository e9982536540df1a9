"""Lines between processes: never longer than a limit, never waited for longer than a time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

MOST_BYTES = 2**26  # of a line
CHUNK = 2**20
SHOWN = 60


class LineError(ValueError):
    """A line that is too long to be one of ours."""


class Lines:
    """Puts chunks of bytes together to lines."""

    def __init__(self, most: int) -> None:
        self._rest, self._most = bytearray(), most

    @property
    def begun(self) -> bytes:
        """The first bytes of a line that has not ended."""
        return bytes(self._rest[:SHOWN])

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in this chunk, without their ends. Raises: LineError."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = bytes(self._rest + end)
            self._rest.clear()
            yield line
        self._rest += rest
        if len(self._rest) > self._most:
            raise LineError


class Peer:
    """Two descriptors, or one twice, over which another process sends lines and gets some. It becomes non-blocking.

    Args:
        reads, writes: the descriptors; whoever opened them closes them.
        most: the most bytes of a line.
    """

    def __init__(self, reads: int, writes: int, most: int) -> None:
        self._reads, self._writes = reads, writes
        for end in (reads, writes):
            os.set_blocking(end, False)
        self._lines, self._ready = Lines(most), list[bytes]()

    def send(self, line: str, until: float) -> None:
        """Send a line. Raises: TimeoutError at `until`, a time of `time.monotonic`; OSError if the end is closed."""
        data = memoryview(line.encode() + b"\n")
        while data:
            _wait(self._writes, select.POLLOUT, until)
            try:
                data = data[os.write(self._writes, data) :]
            except BlockingIOError:
                continue

    def receive(self, until: float) -> bytes | None:
        """The next line; None if the other end is closed. Raises: TimeoutError at `until`; LineError."""
        while not self._ready:
            _wait(self._reads, select.POLLIN, until)
            try:
                chunk = os.read(self._reads, CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                return None
            if not chunk:
                return None
            self._ready += self._lines.feed(chunk)
        return self._ready.pop(0)


def _wait(fd: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1e3):
        raise TimeoutError
