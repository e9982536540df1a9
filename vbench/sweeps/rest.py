"""How much of a sweep is left, by its protocol. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vbench.plan import Case, Protocol
from vbench.sweeps.blocks import Turns, block_s

PROCESS_S = 1.0  # of a launch beside its protocol: the process, the model, its first calls


@dataclass(frozen=True, slots=True)
class Rest:
    """How many launches and blocks are left, and how many seconds by the protocol: those of first launches, of later
    ones, and of blocks."""

    count: int = 0
    first_s: float = 0.0
    later_s: float = 0.0
    turns_s: float = 0.0

    def __len__(self) -> int:
        return self.count

    def __add__(self, other: Rest) -> Rest:
        first_s, later_s = self.first_s + other.first_s, self.later_s + other.later_s
        return Rest(self.count + other.count, first_s, later_s, self.turns_s + other.turns_s)

    def __sub__(self, other: Rest) -> Rest:
        return self + Rest(-other.count, -other.first_s, -other.later_s, -other.turns_s)


def of_launches(case: Case, launches: Iterable[int], protocol: Protocol) -> Rest:
    """What these launches of a case take. One that probably is not made takes no time. A cell that is not supported
    has none."""
    found = Rest()
    if case.unsupported:
        return found
    for launch in launches:
        seconds = guess_s(case, launch, protocol) if _fits(case, launch, protocol) else 0.0
        found += Rest(1, later_s=seconds) if launch else Rest(1, first_s=seconds)
    return found


def of_blocks(blocks: Iterable[Turns], protocol: Protocol) -> Rest:
    """What these blocks of turns take."""
    seconds = [block_s(block, protocol) for block in blocks]
    return Rest(len(seconds), turns_s=sum(seconds))


def guess_s(case: Case, launch: int, protocol: Protocol) -> float:
    """The seconds of a launch by its protocol and its size."""
    searches = launch == 0 and case.batch == "knee"
    usual = PROCESS_S + protocol.warmup_s + protocol.sample_s + (protocol.throughput_s if searches else 0.0)
    return float(usual * (1 + 1.4 * (case.height * case.width / 2**20) ** 1.3))


def _fits(case: Case, launch: int, protocol: Protocol) -> bool:
    """Whether a launch probably belongs to those that fit into the time of a cell."""
    return launch == 0 or guess_s(case, launch, protocol) * (launch + 1) <= protocol.cell_s
