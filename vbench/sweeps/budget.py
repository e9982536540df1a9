"""A sweep that ends in time: what it measures next, and what more time would buy.

Each cell is launched once, small images first, then each company has its places once. What time is left goes where an
interval is widest, relative to what was asked: `cell_within` for a cell, `ratio_within` for a ratio. Nothing begins
that is expected to end too late, and whatever runs at the end is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf

from vbench.meters.throughput import too_slow
from vbench.plan import Case
from vbench.results.statistics import Interval, interval, run_prior
from vbench.results.store import Record
from vbench.sweeps.agenda import Agenda, Place, Turns, again_s
from vbench.sweeps.companies import Company
from vbench.sweeps.turns import block_s

PROCESS_S = 1.0  # to start a process and build a model
GUESS_S = 5.0  # for a first launch, if nothing is known of the model
MOST_LAUNCHES = 4  # times as many as the protocol's
POWERS = {True: 4.0, False: 2.0}  # of the side of an image, by which a call's time grows at most: attention, others


@dataclass(slots=True)
class Budget:
    """Decides in place of an agenda until `deadline`, a time of `clock`."""

    agenda: Agenda
    deadline: float
    clock: Callable[[], float]

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
        for company in self.agenda.companies:
            if self.agenda.whole(company) % self.agenda.span(company) and not self.agenda.failed(company):
                turns = self.agenda.block(company)
                yield turns, self._block_s(turns)

    def _first(self) -> Iterator[tuple[Place, float]]:
        """The first launches, of small images first."""
        places = {place[0]: number for place, number in self.agenda.places.items() if place[1] == 0}
        for case in sorted(self.agenda.cases, key=lambda case: (case.height * case.width, places[case])):
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
            case, launches = Case(**first.case), self.agenda.held[first.case_id]
            if half > protocol.cell_within and len(launches) < MOST_LAUNCHES * protocol.launches:
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
        held = [list(self.agenda.held[case.id].values()) for case in self.agenda.cases if self.agenda.held.get(case.id)]
        cells = [[r for r in records if r.latency and r.latency["samples_ms"]] for records in held]
        samples = [[record.latency["samples_ms"] for record in records if record.latency] for records in cells]
        prior = run_prior([each for each in samples if each])
        for records, each in zip(cells, samples, strict=True):
            if each and all(record.status == "ok" for record in records):
                case = Case(**records[0].case)
                if not (self.agenda.slow(case) and self.agenda.in_turns(case)):
                    yield _half_width(interval(each, prior=prior)), records[0]

    def _first_s(self, case: Case) -> float:
        """The expected seconds of a first launch, from the nearest size of the same cell that is known."""
        alike = [
            (other.height * other.width, self.agenda.known_ms(other), first.wall_s)
            for other in self.agenda.cases
            if (other.model, other.mode, other.form, other.dtype, other.phase, other.backend)
            == (case.model, case.mode, case.form, case.dtype, case.phase, case.backend)
            and (first := self.agenda.held.get(other.id, {}).get(0))
        ]
        known = [one for one in alike if one[1]]
        if not known:
            return GUESS_S
        pixels, ms, wall_s = max(known)
        call_s = float((ms or 0.0) / 1e3 * (case.height * case.width / pixels) ** (POWERS[case.spec.baseline] / 2))
        protocol = self.agenda.protocol
        if self.agenda.in_turns(case) and too_slow(call_s, protocol):
            return PROCESS_S + call_s
        return max(wall_s, PROCESS_S + protocol.warmup_s + 5 * call_s)

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
