"""Two processes that take turns, so that each has the machine to itself for one call at a time. Over a Unix socket."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType

PATIENCE_S = 120.0  # for the other process to appear
ENDED = "the other side ended first"


class TurnSocket:
    """One end. Use as a context manager; what happens to the other end is told by `wait`.

    Args:
        path: of the socket, the same at both ends; nothing is there before.
        first: whether this end has the first turn. It listens, the other one calls.

    Raises: RuntimeError if the other end does not appear.
    """

    def __init__(self, path: Path, *, first: bool) -> None:
        self._peer = _accepted(path) if first else _connected(path)
        self._words = self._peer.makefile("r")

    def __enter__(self) -> TurnSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._words.close()
        self._peer.close()

    def give(self, word: str = "") -> None:
        """It is the other's turn, who is told a word. Raises: RuntimeError if it has ended."""
        try:
            self._peer.sendall(f"{word}\n".encode())
        except OSError:
            raise RuntimeError(ENDED) from None

    def wait(self) -> str:
        """Until it is our turn: the other's word. Raises: RuntimeError if it has ended."""
        try:
            line = self._words.readline()
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(ENDED)
        return line.strip()


def _accepted(path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(PATIENCE_S)
        try:
            peer, _ = server.accept()
        except TimeoutError:
            raise RuntimeError(ENDED) from None
    peer.settimeout(None)
    return peer


def _connected(path: Path) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(path))
        except OSError:
            peer.close()
            if time.monotonic() > deadline:
                raise RuntimeError(ENDED) from None
            time.sleep(0.01)
        else:
            return peer
