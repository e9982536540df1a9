"""A block of turns: which cells in which order, and how long it is expected to take. Pure; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vbench import plan
from vbench.plan import Case
from vbench.sweeps.companies import Company

MOST_ROUNDS = 160
PROCESS_S = 1.5  # to start a process, build a model and warm it up


@dataclass(frozen=True, slots=True)
class Turns:
    """A block of turns. `span` blocks belong together: their order rotates, so that each cell has each place once.

    Every other span is reversed. With a span of two the second block has the order of the first, reversed.
    """

    company: Company
    block: int
    whole: int  # blocks before this one that did not fail
    known_ms: tuple[float, ...]  # of a call of each cell of the company, as measured before
    span: int

    @property
    def order(self) -> list[int]:
        """The cells of the company, by number, in the order of their turns."""
        count = len(self.company.cases)
        passed, shift = divmod(self.whole, self.span)
        if self.span != count:
            passed, shift = shift, 0
        order = [(place + shift) % count for place in range(count)]
        return order[::-1] if passed % 2 else order

    @property
    def cases(self) -> list[Case]:
        """The cells in the order of their turns."""
        return [self.company.cases[number] for number in self.order]

    @property
    def round_s(self) -> float:
        """The seconds of a round; 0 if they are not known yet."""
        return sum(self.known_ms) / 1e3 if all(self.known_ms) else 0.0


def rounds(round_s: float, protocol: plan.Protocol) -> int:
    """How many rounds a block has."""
    within = int(protocol.turns_s / max(round_s, 1e-6))
    wanted = protocol.rounds if protocol.rounds * round_s <= 2 * protocol.turns_s else 1
    return min(max(1, within, wanted), MOST_ROUNDS)


def block_s(turns: Turns, protocol: plan.Protocol) -> float:
    """The expected seconds of a block: its processes, their warm calls, and its rounds."""
    rounds_s = rounds(turns.round_s, protocol) * turns.round_s if turns.round_s else protocol.turns_s
    return len(turns.known_ms) * PROCESS_S + turns.round_s + rounds_s
