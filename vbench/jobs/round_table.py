"""A Unix socket at which several processes take turns, one after the other, as the process that listens tells them."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from vbench.jobs.turn_socket import ENDED, PATIENCE_S

WARM = 0  # instead of a number of calls: build the model and warm it up


class Table:
    """The end that gives the turns. Use as a context manager; leaving it tells all seats that there are no more.

    Args:
        path: of the socket; no file may be there before.
        seats: how many processes come.
    """

    def __init__(self, path: Path, seats: int) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(seats)
        self._peers: list[socket.socket] = []
        self._words: list[Any] = []
        self._seats = seats

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (*self._words, *self._peers, self._server):
            end.close()

    def seat(self, gone: Callable[[], bool]) -> None:
        """Wait until all have come. Raises: RuntimeError if `gone` says that one never will, or after `PATIENCE_S`."""
        arrived: dict[int, socket.socket] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(arrived) < self._seats:
            ready, _, _ = select.select([self._server], [], [], 0.05)
            if ready:
                peer, _ = self._server.accept()
                self._peers.append(peer)
                words = peer.makefile("r")
                self._words.append(words)
                arrived[int(words.readline())] = peer
            elif gone() or time.monotonic() > deadline:
                raise RuntimeError(ENDED)
        order = sorted(arrived)
        places = [self._peers.index(arrived[place]) for place in order]
        self._peers, self._words = [self._peers[i] for i in places], [self._words[i] for i in places]

    def turn(self, place: int, calls: int) -> list[float]:
        """Give a seat its turn, and wait for its times in ms. Raises: RuntimeError if it is gone."""
        try:
            self._peers[place].sendall(f"{calls}\n".encode())
            line = self._words[place].readline()
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(ENDED)
        found: list[float] = json.loads(line)
        return found


class Seat:
    """The end that takes turns. Use as a context manager. Raises: RuntimeError if nobody listens."""

    def __init__(self, path: Path, place: int) -> None:
        self._peer = socket.socket(socket.AF_UNIX)
        try:
            self._peer.connect(str(path))
        except OSError:
            self._peer.close()
            raise RuntimeError(ENDED) from None
        self._words = self._peer.makefile("r")
        self.answer(place)

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._words.close()
        self._peer.close()

    def turns(self) -> Iterator[int]:
        """The calls of each turn, as long as there are turns. Each is to be answered."""
        for line in self._words:
            yield int(line)

    def answer(self, value: Any) -> None:
        """End the turn. Raises: RuntimeError if the table is gone."""
        try:
            self._peer.sendall(f"{json.dumps(value)}\n".encode())
        except OSError:
            raise RuntimeError(ENDED) from None
