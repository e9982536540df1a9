"""A Unix socket at which several processes take turns, one after the other, as the process that listens tells them."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from vbench.jobs.lines import LineError, Peer
from vbench.jobs.turn_socket import ENDED, PATIENCE_S

WARM = 0  # instead of a number of calls: build the model and warm it up
MOST_BYTES = 2**20  # of an answer


class TurnsError(RuntimeError):
    """The turns cannot go on. `place` is the seat that is to blame, if that is known; `late` if it did not answer."""

    def __init__(self, message: str = ENDED, place: int | None = None, *, late: bool = False) -> None:
        super().__init__(message)
        self.place, self.late = place, late


class Table:
    """The end that gives the turns. Use as a context manager; leaving it tells all seats that there are no more.

    Args:
        path: of the socket; no file may be there before.
        seats: how many processes come.
        limit_s: until the last turn has ended.
    """

    def __init__(self, path: Path, seats: int, limit_s: float) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(seats)
        self._ends: list[socket.socket] = []
        self._peers: list[Peer] = []
        self._seats, self._limit_s = seats, limit_s
        self._until = time.monotonic() + limit_s

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (*self._ends, self._server):
            end.close()

    def seat(self, gone: Callable[[], bool]) -> None:
        """Wait until all have come. Raises: TurnsError if `gone` says that one never will, or after `PATIENCE_S`."""
        arrived: dict[int, Peer] = {}
        until = min(time.monotonic() + PATIENCE_S, self._until)
        while len(arrived) < self._seats:
            ready, _, _ = select.select([self._server], [], [], 0.05)
            if ready:
                end, _ = self._server.accept()
                self._ends.append(end)
                peer = Peer(end.fileno(), end.fileno(), MOST_BYTES)
                if (place := self._place(peer, until)) is not None:
                    arrived[place] = peer
            elif gone() or time.monotonic() > until:
                raise TurnsError
        self._peers = [arrived[place] for place in sorted(arrived)]

    def turn(self, place: int, calls: int) -> list[float]:
        """Give a seat its turn, and wait for its times in ms. Raises: TurnsError."""
        peer = self._peers[place]
        try:
            peer.send(str(calls), self._until)
            line = peer.receive(self._until)
        except LineError:
            line = b"a line without an end"
        except TimeoutError:
            raise TurnsError(f"took longer than {self._limit_s:g} s", place, late=True) from None
        except OSError:
            line = None
        if line is None:
            raise TurnsError
        times = _times(line)
        if times is None or bool(times) != (calls != WARM):
            raise TurnsError(
                f"the process sent {_shown(line)} instead of its times: its code writes to our socket", place
            )
        return times

    def _place(self, peer: Peer, until: float) -> int | None:
        """The seat that a process says it takes; None if it ended before it could. Raises: TurnsError."""
        try:
            line = peer.receive(until)
        except (OSError, LineError):
            line = None
        if line is None:
            return None
        if not line.isdigit() or int(line[:9]) >= self._seats:
            raise TurnsError(f"a process sent {_shown(line)} instead of its place: its code writes to our socket")
        return int(line)


def _times(line: bytes) -> list[float] | None:
    """A line as times; None if it is something else."""
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, list) and all(type(one) in (int, float) and isfinite(one) for one in found):
            return found
    return None


def _shown(line: bytes) -> str:
    return ascii(line[:40].decode(errors="replace"))


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
