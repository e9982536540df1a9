"""A sweep that ends in time: what it measures next, and what more time would buy.

Each cell is launched once, small images first, then each company has its places once. What time is left goes where an
interval is widest, relative to what was asked: `cell_within` for a cell, `ratio_within` for a ratio. Nothing begins
that is expected to end too late, and whatever runs at the end is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf

from vbench.meters.throughput import too_slow
from vbench.plan import Case
from vbench.results.moderation import Prior
from vbench.results.pairs import PRIOR_GROWTH
from vbench.results.statistics import Interval, interval, run_prior
from vbench.sweeps.agenda import Agenda, Place, again_s
from vbench.sweeps.blocks import Turns, block_s
from vbench.sweeps.companies import Company

PROCESS_S = 1.0  # to start a process and build a model
GUESS_S = 5.0  # for a first launch, if nothing is known of the model
MOST_LAUNCHES = 4  # times as many as the protocol's
POWERS = {True: 4.0, False: 2.0}  # of the side of an image, by which a call's time grows at most: attention, others


@dataclass(frozen=True, slots=True)
class _Wish:
    """What would make an interval narrower, which is so many `times` as wide as it should be."""

    times: float
    of: Case | Company
    pixels: int
    task: Place | Turns
    cost_s: float
    prior: Prior | None  # by which this was found out
    version: int  # later ones have a higher one


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
    _priors: tuple[Prior | None, Prior | None] = field(
        init=False, default=(None, None)
    )  # of launches, of turns; when all was looked at
    _wishes: dict[str, _Wish] = field(init=False, default_factory=dict)  # by the id of a case, or of a company
    _heap: list[tuple[float, int, str, int]] = field(init=False, default_factory=list)  # of `_wishes`, the widest first
    _versions: int = field(init=False, default=0)

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
        self._catch_up(whole=True)
        wide = [wish for wish in self._wishes.values() if isinstance(wish.task, Turns)]
        if wide:
            more = sum(_repeats(wish.times) * wish.cost_s for wish in wide)
            said.append(
                _wider(f"{len(wide)} of {len(self.agenda.companies)} groups of ratios", protocol.ratio_within, more)
            )
        cells = [wish for wish in self._wishes.values() if not isinstance(wish.task, Turns)]
        if cells:
            launches = protocol.launches
            again = [again_s(next(iter(self.agenda.held[wish.of.id].values()))) for wish in cells]
            more = sum(min(_repeats(wish.times), launches) * s for wish, s in zip(cells, again, strict=True))
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
        """Further launches and blocks, by how much wider an interval is than it should be; small images first.

        One that is too long is not offered again before more is known of it: the time that is left only shrinks.
        """
        self._catch_up()
        while self._heap or self._catch_up(whole=True):
            whose, version = self._heap[0][2:]
            wish = self._wishes.get(whose)
            if wish is None or wish.version != version:
                heappop(self._heap)
            elif wish.prior is not self._prior_of(wish.of):
                self._look_at(wish.of)
            else:
                yield wish.task, wish.cost_s
                heappop(self._heap)

    def _catch_up(self, *, whole: bool = False) -> bool:
        """Look at what was measured since the last time; if `whole`, at all, if what all say of the scatter has changed
        since. Returns: whether it looked at all, and there is something to do."""
        priors = self._prior(), self.agenda.prior()
        whole = whole and any(one is not before for one, before in zip(priors, self._priors, strict=True))
        changed: list[Case | Company] = list(self.agenda.touched.values())
        if whole:
            self._priors, changed = priors, [*self.agenda.cases, *self.agenda.companies]
        for of in changed:
            self._look_at(of)
        self.agenda.touched.clear()
        return whole and bool(self._heap)

    def _look_at(self, of: Case | Company) -> None:
        """Find out anew what would make an interval narrower."""
        self._wishes.pop(of.id, None)
        wish = self._of_company(of) if isinstance(of, Company) else self._of_cell(of)
        if wish is not None and wish.times > 1:
            self._wishes[of.id] = wish
            heappush(self._heap, (-wish.times, wish.pixels, of.id, wish.version))

    def _prior_of(self, of: Case | Company) -> Prior | None:
        return self.agenda.prior() if isinstance(of, Company) else self._prior()

    def _of_company(self, company: Company) -> _Wish | None:
        """A block of a company, and the seconds of the blocks that belong together; None if it cannot take turns."""
        if not self.agenda.ready(company):
            return None
        block = self.agenda.block(company)
        cost_s = self.agenda.span(company) * self._block_s(block)
        times = self.agenda.half_width(company) / self.agenda.protocol.ratio_within
        return self._wish(times, company, company.cases[0], block, cost_s)

    def _of_cell(self, case: Case) -> _Wish | None:
        """A further launch of a cell; None if launches of its own do not time it."""
        held, protocol = self.agenda.held.get(case.id, {}), self.agenda.protocol
        samples = self._samples(case)
        whole = all(record.status == "ok" for record in held.values())
        if not samples or not whole or (self.agenda.slow(case) and self.agenda.in_turns(case)):
            return None
        times = _half_width(interval(samples, prior=self._prior())) / protocol.cell_within
        full = len(held) >= MOST_LAUNCHES * protocol.launches
        again = inf if full else again_s(next(iter(held.values())))
        return self._wish(times, case, case, (case, max(held) + 1), again)

    def _wish(self, times: float, of: Case | Company, case: Case, task: Place | Turns, cost_s: float) -> _Wish:
        self._versions += 1
        return _Wish(times, of, case.height * case.width, task, cost_s, self._prior_of(of), self._versions)

    def _samples(self, case: Case) -> list[list[float]]:
        records = self.agenda.held.get(case.id, {}).values()
        return [r.latency["samples_ms"] for r in records if r.latency and r.latency["samples_ms"]]

    def _prior(self) -> Prior | None:
        """What all cells say of the scatter of launches, computed anew when there are `PRIOR_GROWTH` times as many."""
        if self.agenda.launches > PRIOR_GROWTH * self._launches_then:
            self._launches_then = self.agenda.launches
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
        call_s = float(ms / 1e3 * larger**power)
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
