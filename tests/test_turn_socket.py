"""Two processes take turns: neither runs while the other does, and what becomes of one is told to the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from simulated import Simulated

from vbench.jobs.turn_socket import ENDED, TurnSocket
from vbench.meters.timing import FEWEST_TURNS, MOST_TURNS, latency_in_turns
from vbench.plan import RIGORS


def both(path: Path, seconds: float) -> tuple[list[float], list[float], list[str]]:
    """The samples of both ends, and in which order calls were made."""
    order: list[str] = []
    protocol = replace(RIGORS["quick"], sample_s=1.0, sample_max_s=3.0, samples_min=16)

    def one(first: bool) -> list[float]:
        def durations() -> Iterator[float]:
            while True:
                order.append("A" if first else "B")
                yield seconds

        device = Simulated(durations())
        with TurnSocket(path, first=first) as turn_socket:
            if not first:
                turn_socket.wait()
            turn_socket.give()
            if first:
                turn_socket.wait()
            taken = latency_in_turns(device.call, device, protocol, turn_socket, first=first)
            found: list[float] = taken["samples_ms"]
            return found

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(one, first) for first in (True, False)]
        outer, inner = (end.result(20) for end in ends)
    return outer, inner, order


@pytest.mark.parametrize(
    ("seconds", "turns"), [(0.02, 50), (0.1, 16), (0.4, 7), (2.0, FEWEST_TURNS), (1e-4, MOST_TURNS)]
)
def test_calls_alternate_and_are_as_many_as_fit(tmp_path: Path, seconds: float, turns: int) -> None:
    outer, inner, order = both(tmp_path / "socket", seconds)
    assert (len(outer), len(inner)) == (turns + 1, turns)
    assert "".join(order) == "AAA" + "AB" * turns + "A"  # the first three tell how long a call takes


def test_an_end_that_ends_is_noticed(tmp_path: Path) -> None:
    def leaves() -> None:
        with TurnSocket(tmp_path / "socket", first=False) as turn_socket:
            turn_socket.wait()

    with ThreadPoolExecutor(1) as pool:
        gone = pool.submit(leaves)
        with TurnSocket(tmp_path / "socket", first=True) as turn_socket:
            turn_socket.give()
            gone.result(20)
            with pytest.raises(RuntimeError, match=ENDED):
                turn_socket.wait()


def test_one_that_never_comes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.jobs.turn_socket.PATIENCE_S", 0.05)
    for first in (True, False):
        with pytest.raises(RuntimeError, match=ENDED):
            TurnSocket(tmp_path / f"{first}", first=first)
