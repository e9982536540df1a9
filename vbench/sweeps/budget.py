"""A sweep that ends in time: what it measures next, and what more time would buy.

Each cell is launched once, small images first, then each company has its places once. What time is left goes where an
interval is widest, relative to what was asked: `cell_within` for a cell, `ratio_within` for a ratio. Nothing begins
that is expected to end too late, and whatever runs at the end is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, inf

from vbench.meters.throughput import too_slow
from vbench.plan import Case
from vbench.results.moderation import Prior
from vbench.results.statistics import Interval, interval, run_prior
from vbench.results.store import Record
from vbench.sweeps.agenda import Agenda, Place, again_s
from vbench.sweeps.blocks import Turns, block_s
from vbench.sweeps.companies import Company

PROCESS_S = 1.0  # to start a process and build a model
GUESS_S = 5.0  # for a first launch, if nothing is known of the model
PRIOR_GROWTH = 1.1  # what all cells say of each other is computed anew when there are so many times as many launches
MOST_LAUNCHES = 4  # times as many as the protocol's
POWERS = {True: 4.0, False: 2.0}  # of the side of an image, by which a call's time grows at most: attention, others


@dataclass(slots=True)
class Budget:
    """Decides in place of an agenda until `deadline`, a time of `clock`."""

    agenda: Agenda
    deadline: float
    clock: Callable[[], float]
    _order: list[Case] = field(init=False, default_factory=list)  # by their first launches, the next one last
    _cases: int = field(init=False, default=0)  # when it was made
    _common: Prior | None = field(init=False, default=None)
    _launches_then: int = field(init=False, default=0)  # when `_common` was computed
    _widths: dict[str, tuple[int, int, float | None]] = field(init=False, default_factory=dict)  # by the id of a case

    @property
    def left_s(self) -> float:
        return self.deadline - self.clock()

    def next(self) -> Place | Turns | None:
        """What to measure now; None if nothing is left that fits. What cannot be measured takes no time."""
        left = max(self.left_s, 0.0)
        for wanted in (self._begun(), self._first(), self._widest(), self._untimed()):
            for task, cost_s in wanted:
                if cost_s <= left:
                    return task
        return None

    def unmeasured(self) -> list[tuple[Case, float]]:
        """The cells that were never launched, and how long each is expected to take, s."""
        return [(task[0], cost_s) for task, cost_s in self._first() if not isinstance(task, Turns)]

    def wishes(self) -> list[str]:
        """What more time would buy, in sentences."""
        said = []
        if rest := self.unmeasured():
            said.append(
                f"{len(rest)} cells were not measured: {_minutes(sum(cost for _, cost in rest))} more, at least"
            )
        protocol = self.agenda.protocol
        wide = [(half, cost) for half, cost, _ in self._companies() if half > protocol.ratio_within]
        if wide:
            more = sum(_repeats(half / protocol.ratio_within) * cost for half, cost in wide)
            said.append(
                _wider(f"{len(wide)} of {len(self.agenda.companies)} groups of ratios", protocol.ratio_within, more)
            )
        cells = [(half, again_s(first)) for half, first in self._cells() if half > protocol.cell_within]
        if cells:
            launches = protocol.launches
            more = sum(min(_repeats(half / protocol.cell_within), launches) * cost for half, cost in cells)
            said.append(_wider(f"{len(cells)} cells", protocol.cell_within, more))
        return said

    def _begun(self) -> Iterator[tuple[Turns, float]]:
        """The next block of a company whose cells have not had all places equally often."""
        for company in self.agenda.begun():
            if not self.agenda.failed(company):
                turns = self.agenda.block(company)
                yield turns, self._block_s(turns)

    def _first(self) -> Iterator[tuple[Place, float]]:
        """The first launches, of small images first."""
        if len(self.agenda.cases) != self._cases:  # sizes were added
            self._cases = len(self.agenda.cases)
            places = {place[0]: number for place, number in self.agenda.places.items() if place[1] == 0}
            self._order = sorted(
                self.agenda.cases, key=lambda case: (case.height * case.width, places[case]), reverse=True
            )
        while self._order and self.agenda.held.get(self._order[-1].id):
            self._order.pop()
        for case in reversed(self._order):
            if not self.agenda.held.get(case.id):
                yield (case, 0), 0.0 if case.unsupported else self._first_s(case)

    def _untimed(self) -> Iterator[tuple[Place, float]]:
        for case, launch in self.agenda.untimed():
            yield (case, launch), self._first_s(case)

    def _widest(self) -> Iterator[tuple[Place | Turns, float]]:
        """Further launches and blocks, by how much wider an interval is than it should be."""
        protocol = self.agenda.protocol
        found: list[tuple[float, int, Place | Turns, float]] = []
        for half, cost_s, company in self._companies():
            if half > protocol.ratio_within:
                pixels = company.cases[0].height * company.cases[0].width
                found.append((half / protocol.ratio_within, -pixels, self.agenda.block(company), cost_s))
        for half, first in self._cells():
            launches = self.agenda.held[first.case_id]
            if half > protocol.cell_within and len(launches) < MOST_LAUNCHES * protocol.launches:
                case = Case(**first.case)
                pixels = case.height * case.width
                found.append((half / protocol.cell_within, -pixels, (case, max(launches) + 1), again_s(first)))
        for _, _, task, cost_s in sorted(found, key=lambda one: one[:2], reverse=True):
            yield task, cost_s

    def _companies(self) -> Iterator[tuple[float, float, Company]]:
        """(the widest half-width of its ratios, the seconds of the blocks that belong together, company)."""
        for company in self.agenda.companies:
            if self.agenda.ready(company):
                cost_s = self.agenda.span(company) * self._block_s(self.agenda.block(company))
                yield self.agenda.half_width(company), cost_s, company

    def _cells(self) -> Iterator[tuple[float, Record]]:
        """(the half-width of its latency, its first launch) of the cells that launches of their own time."""
        prior = self._prior()
        for case in self.agenda.cases:
            held = self.agenda.held.get(case.id)
            if not held:
                continue
            known = self._widths.get(case.id)
            if known is None or known[:2] != (len(held), self._launches_then):
                known = self._widths[case.id] = len(held), self._launches_then, self._width(case, prior)
            if known[2] is not None:
                yield known[2], next(iter(held.values()))

    def _width(self, case: Case, prior: Prior | None) -> float | None:
        """The half-width of a cell's latency; None if launches of its own do not time it."""
        samples = self._samples(case)
        whole = all(record.status == "ok" for record in self.agenda.held[case.id].values())
        if not samples or not whole or (self.agenda.slow(case) and self.agenda.in_turns(case)):
            return None
        return _half_width(interval(samples, prior=prior))

    def _samples(self, case: Case) -> list[list[float]]:
        records = self.agenda.held.get(case.id, {}).values()
        return [r.latency["samples_ms"] for r in records if r.latency and r.latency["samples_ms"]]

    def _prior(self) -> Prior | None:
        """What all cells say of the scatter of launches, computed anew when there are `PRIOR_GROWTH` times as many."""
        launches = sum(map(len, self.agenda.held.values()))
        if launches > PRIOR_GROWTH * self._launches_then:
            self._launches_then = launches
            self._common = run_prior([each for case in self.agenda.cases if (each := self._samples(case))])
        return self._common

    def _first_s(self, case: Case) -> float:
        """The expected seconds of a first launch, from the nearest size of the same cell that is known."""
        known = self.agenda.nearest(case)
        if known is None:
            return GUESS_S
        pixels, ms, took_s = known
        larger, protocol = case.height * case.width / pixels, self.agenda.protocol
        power = POWERS[case.spec.baseline] / 2 if larger > 1 else 1.0
        call_s = ms / 1e3 * larger**power
        if self.agenda.in_turns(case) and too_slow(call_s, protocol):
            return PROCESS_S + call_s
        return took_s if larger <= 1 else max(took_s, PROCESS_S + protocol.warmup_s + 5 * call_s)

    def _block_s(self, turns: Turns) -> float:
        """The expected seconds of a block: as long as the last one of the company."""
        own = self.agenda.blocks.get(turns.company.id, {}).values()
        return max((block.wall_s for block in own), default=block_s(turns, self.agenda.protocol))


def _half_width(of: Interval) -> float:
    return float((of.hi / of.lo) ** 0.5) - 1 if of.stated and of.lo > 0 else inf


def _repeats(times: float) -> float:
    """How many times as much as so far must be added, so that an interval shrinks to 1 / `times`."""
    return 1.0 if times == inf else ceil(times**2 - 1)


def _wider(what: str, within: float, seconds: float) -> str:
    return f"{what} are known less well than ±{within:.0%}: {_minutes(seconds)} more"


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds > 90 else f"about {seconds:.0f} s"
