"""A Unix socket by which two processes take turns: while one makes a call, the other waits."""

from __future__ import annotations

import socket
import time
from pathlib import Path

PATIENCE_S = 120.0  # for the other process to appear
ENDED = "the other side ended first"  # `gate --ab` looks for it in the answers of older releases too
MOST = 20  # characters of a word


class TurnSocket:
    """One end of the socket. Use as a context manager.

    Args:
        path: of the socket, the same at both ends; no file may be there before.
        first: whether this end has the first turn. The first end listens, the other one connects.

    Raises: RuntimeError if the other end does not appear.
    """

    def __init__(self, path: Path, *, first: bool) -> None:
        self._peer = _accepted(path) if first else _connected(path)
        self._words = self._peer.makefile("r", errors="replace")

    def __enter__(self) -> TurnSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._words.close()
        self._peer.close()

    def give(self, word: str = "") -> None:
        """Give the turn to the other end, with a word for it. Raises: RuntimeError if the other end has closed."""
        try:
            self._peer.sendall(f"{word}\n".encode())
        except OSError:
            raise RuntimeError(ENDED) from None

    def wait(self) -> str:
        """Wait for our turn; the word that came with it, a number or nothing.

        Raises: RuntimeError if the other end has closed, or has sent something else.
        """
        try:
            line = self._words.readline(MOST)
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(ENDED)
        word = line.strip()
        if not line.endswith("\n") or (word and not (word.isascii() and word.isdigit())):
            raise RuntimeError(f"the other side sent {word!a} where its turn should end: its code writes to our socket")
        return word


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
