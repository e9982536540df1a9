"""What a sweep does next. It decides from what is measured so far, so a sweep can stop and resume at any moment.

First each cell is launched, then those that are fast enough are launched again, in rounds. Then the companies take
turns: as many blocks as cells, so that each has had each place, and as many again where a ratio is not known well
enough. If one round takes longer than a block should, blocks come in twos, in both directions: the place of a slow call
matters little. On the CPU a slow cell of a company is not launched again: its turns are its launches.
"""

from __future__ import annotations

import random
from bisect import bisect, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from math import inf, log
from statistics import median

from vbench import plan
from vbench.devices import on_host
from vbench.plan import Case
from vbench.results.moderation import Prior
from vbench.results.pairs import Key, PairedRatio, Ratios
from vbench.results.store import Record, TurnBlock
from vbench.sweeps.blocks import Turns
from vbench.sweeps.companies import Company
from vbench.sweeps.rest import PROCESS_S, Rest, of_blocks, of_launches

Place = tuple[Case, int]  # a case, and which launch of it
Kind = tuple[str, ...]  # what the cells have in common whose times tell of each other
First = tuple[int, float, float]  # a first launch: the pixels of the image, the ms of a call, the seconds that it took
SLOW_SHARE = 1 / 5  # a call that takes longer than this share of `sample_s` is slow
TRIES = 2  # blocks of a company that may fail


@dataclass(slots=True)
class Agenda:
    """What is measured so far, and what is next. What it knows of all cells it keeps up with each record, so that a
    sweep of many cells costs no more a launch than one of few.

    Args:
        held: the valid launches of each case, by its id and their number.
        blocks: the valid blocks of each company, by its id and their number.
    """

    cases: list[Case]
    companies: list[Company]
    protocol: plan.Protocol
    held: dict[str, dict[int, Record]]
    blocks: dict[str, dict[int, TurnBlock]]
    places: dict[Place, int] = field(init=False)  # the number of each launch in the order of measuring
    left: Rest = field(init=False)  # how much of `rest` there is
    _shares: dict[str, Rest] = field(init=False)  # of `left`, by the id of a case or of a company
    _queue: list[Place] = field(init=False)  # the next one last
    _companions: dict[Case, list[Company]] = field(init=False)
    _order: list[tuple[int, int, int]] = field(init=False)  # a heap: `_turn` of each open company
    _ranks: list[int] = field(init=False)
    _settled: set[str] = field(default_factory=set)  # ids of companies that need no more blocks
    _ms: dict[str, float | None] = field(init=False)  # `known_ms`, by the id of a case
    _firsts: dict[Kind, list[First]] = field(init=False)  # by size
    _kept: int = 0
    launches: int = field(init=False)  # in `held`
    touched: dict[str, Case | Company] = field(init=False)  # what changed, by its id; for a reader, who clears it
    _begun: dict[str, Company] = field(init=False)  # whose cells have not had all places equally often
    _ratios: Ratios = field(init=False)

    def __post_init__(self) -> None:
        order = plan.schedule(self.cases, self.protocol.launches, self.protocol.seed)
        self.places = {place: number for number, place in enumerate(order)}
        self._queue = order[::-1]
        self._companions = {}
        for company in self.companies:
            for case in company.cases:
                self._companions.setdefault(case, []).append(company)
        self._ranks = list(range(len(self.companies)))
        random.Random(self.protocol.seed).shuffle(self._ranks)
        self._ratios = Ratios()
        self._begun = {}
        for company in self.companies:
            self._count_blocks(company)
        open_ = [number for number, company in enumerate(self.companies) if company.id not in self._settled]
        self._order = [self._turn(number) for number in open_]
        heapify(self._order)
        self.left, self._shares, self._ms, self._firsts = Rest(), {}, {}, {}
        self.launches, self.touched = sum(map(len, self.held.values())), {}
        for case in self.cases:
            self._update(case)
            if first := self.held.get(case.id, {}).get(0):
                self._add_first(case, first.wall_s)
        for company in self.companies:
            self._update_turns(company)

    def next(self) -> Place | Turns | None:
        """What to measure now; None if nothing is left."""
        return next(self._launches(), None) or self._turns() or next(self.untimed(), None)

    def rest(self) -> list[Place | Turns]:
        """What is left, as far as it is known: of turns, the blocks that each company gets in any case."""
        found: list[Place | Turns] = list(self._launches())
        for company in self.companies:
            found += self._missing(company)
        return found

    def keep(self, record: Record) -> None:
        """A launch has ended so."""
        held = self.held.setdefault(record.case_id, {})
        self.launches += record.launch not in held
        held[record.launch] = record
        case = Case(**record.case)
        self._update(case)
        if record.launch == 0:
            self._add_first(case, record.wall_s if self._kept else _without_start_s(record))
        self._kept += 1
        for company in self._companions.get(case, ()):
            self._update_turns(company)

    def keep_block(self, company: Company, block: TurnBlock) -> None:
        """A block of turns has ended so."""
        self.blocks.setdefault(company.id, {})[block.block] = block
        self._count_blocks(company)
        self._update_turns(company)

    def _count_blocks(self, company: Company) -> None:
        self._ratios.set(company.id, self.blocks.get(company.id, {}).values())
        if self.whole(company) % self.span(company):
            self._begun[company.id] = company
        else:
            self._begun.pop(company.id, None)

    def _update(self, case: Case) -> None:
        """What is known of a case, and what it has left, have changed."""
        records = [record for record in self.held.get(case.id, {}).values() if record.status == "ok"]
        timed = [record for record in records if record.latency and record.latency["samples_ms"]]
        self._ms[case.id] = next((ms for ms in map(_call_ms, [*timed, *records]) if ms), None)
        launches = [launch for launch in range(self._launches_of(case)) if self._pending(case, launch)]
        self._share(case, of_launches(case, launches, self.protocol))

    def _update_turns(self, company: Company) -> None:
        self._share(company, of_blocks(self._missing(company), self.protocol))

    def _share(self, of: Case | Company, now: Rest) -> None:
        whose = of.id
        self.touched[whose] = of
        self.left = self.left - self._shares.get(whose, Rest()) + now
        self._shares[whose] = now

    def _launches_of(self, case: Case) -> int:
        return 1 if case.unsupported else self.protocol.launches

    def _missing(self, company: Company) -> list[Turns]:
        """The blocks that a company gets in any case."""
        if company.id in self._settled or self.failed(company):
            return []
        whole, span = self.whole(company), self.span(company)
        known = tuple(self.known_ms(case) or 0.0 for case in company.cases) if whole < span else ()
        return [Turns(company, number, whole, known, span) for number in range(whole, span)]

    def in_turns(self, case: Case) -> bool:
        """Whether the turns of a company may time this case, if it turns out to be slow."""
        return case in self._companions and on_host(case.device)

    def begun(self) -> list[Company]:
        """The companies whose cells have not had all places equally often."""
        return [company for company in self.companies if company.id in self._begun] if self._begun else []

    def known_ms(self, case: Case) -> float | None:
        """What a call of a case takes, as far as it is known."""
        return self._ms.get(case.id)

    def nearest(self, case: Case) -> First | None:
        """The first launch of the nearest size, of a cell that differs from this one in size, batch, layout alone."""
        firsts, pixels = self._firsts.get(_kind(case), []), case.height * case.width
        at = bisect(firsts, (pixels, inf, inf))
        return min(firsts[max(0, at - 1) : at + 1], key=lambda one: abs(log(one[0] / pixels)), default=None)

    def _add_first(self, case: Case, seconds: float) -> None:
        if ms := self.known_ms(case):
            insort(self._firsts.setdefault(_kind(case), []), (case.height * case.width, ms, seconds))

    def slow(self, case: Case) -> bool:
        known = self.known_ms(case)
        return known is not None and known / 1e3 > SLOW_SHARE * self.protocol.sample_s

    def _launches(self) -> Iterator[Place]:
        while self._queue and not self._pending(*self._queue[-1]):
            self._queue.pop()  # for good
        return (place for place in reversed(self._queue) if self._pending(*place))

    def _pending(self, case: Case, launch: int) -> bool:
        again = launch > 0 and self.slow(case) and self.in_turns(case)
        return not again and pending(launch, self.held.get(case.id, {}), self.protocol)

    def untimed(self) -> Iterator[Place]:
        """Cells that turns should have timed and did not."""
        for case in self.cases:
            own = self.held.get(case.id, {})
            if own and all(record.status == "ok" and record.latency is None for record in own.values()):
                yield case, max(own) + 1

    def _turn(self, number: int) -> tuple[int, int, int]:
        """When it is the turn of a company: how often its cells have had all places, its rank, its number."""
        company = self.companies[number]
        return self.whole(company) // self.span(company), self._ranks[number], number

    def _turns(self) -> Turns | None:
        """The next block: of the company whose cells have had all places the fewest times."""
        while self._order:
            number = self._order[0][-1]
            if (turn := self._turn(number)) != self._order[0]:  # it has had turns since
                heapreplace(self._order, turn)
                continue
            company = self.companies[number]
            whole = self.whole(company)
            if self.ready(company) and (whole % self.span(company) or not self._enough(company)):
                return self.block(company)
            heappop(self._order)
            self._settled.add(company.id)
            self._update_turns(company)
        return None

    def ready(self, company: Company) -> bool:
        """Whether the cells of a company can take turns."""
        return not self.failed(company) and all(self.known_ms(case) for case in company.cases)

    def block(self, company: Company) -> Turns:
        """The next block of a company."""
        known = tuple(self.known_ms(case) or 0.0 for case in company.cases)
        number = max(self.blocks.get(company.id, {}), default=-1) + 1
        return Turns(company, number, self.whole(company), known, self.span(company))

    def span(self, company: Company) -> int:
        """The blocks that belong together: as many as cells; two if a round takes longer than a block should."""
        firsts = [_call_ms(self.held[case.id][0]) for case in company.cases if 0 in self.held.get(case.id, {})]
        slow = all(firsts) and sum(ms or 0.0 for ms in firsts) / 1e3 > self.protocol.turns_s
        return 2 if slow and len(firsts) == len(company.cases) else len(company.cases)

    def whole(self, company: Company) -> int:
        """The blocks of a company that did not fail."""
        return sum(block.status == "ok" for block in self.blocks.get(company.id, {}).values())

    def failed(self, company: Company) -> bool:
        """Whether a cell of a company cannot be measured, or its turns cannot."""
        if any(r.status != "ok" for case in company.cases for r in self.held.get(case.id, {}).values()):
            return True
        failed = [block for block in self.blocks.get(company.id, {}).values() if block.status != "ok"]
        return len(failed) >= TRIES or any(block.status == "oom" for block in failed)

    def _enough(self, company: Company) -> bool:
        """Whether all ratios of a company are known as well as wanted, or its share of the time is over."""
        whole, count = self.whole(company), self.span(company)
        if whole < count:
            return False
        own = [block.wall_s for block in self.blocks[company.id].values()]
        if sum(own) + count * sum(own) / len(own) > self.protocol.company_s:
            return True
        return self.half_width(company) <= self.protocol.ratio_within

    def half_width(self, company: Company) -> float:
        """The widest of the intervals of a company's ratios; infinite if one is not known."""
        return self._ratios.half_width(company.id)

    def prior(self) -> Prior | None:
        """What all companies say of the scatter of blocks."""
        return self._ratios.prior()

    def ratios(self, company: Company) -> dict[Key, PairedRatio]:
        """The ratios of the cells of a company, as far as they are known."""
        return self._ratios.of(company.id)

    def timed_by_turns(self, case: Case) -> bool:
        """Whether a block of turns is a launch of this case too."""
        held = self.held[case.id]
        untimed = not any(record.latency for record in held.values())
        return self.in_turns(case) and (untimed or (self.slow(case) and len(held) < self.protocol.launches))

    def add(
        self,
        cases: Sequence[Case],
        companies: Sequence[Company],
        held: Mapping[str, dict[int, Record]],
        blocks: Mapping[str, dict[int, TurnBlock]],
    ) -> None:
        """Measure these cells and companies too; `held` and `blocks` are what there is of them."""
        self.cases += cases
        self.companies += companies
        self.held |= held
        self.blocks |= blocks
        self.__post_init__()


def _kind(case: Case) -> Kind:
    return case.model, case.mode, case.form or "", case.dtype, case.phase, case.backend


def _without_start_s(record: Record) -> float:
    """The seconds of the first launch of a run, without the wait for torch to be imported."""
    spent = record.spent or {}
    if "measured_s" not in spent:
        return record.wall_s
    passes_s = float(spent["measured_s"]) + float(spent.get("warmup_s", 0.0)) + energy_s(record)
    return min(record.wall_s, PROCESS_S + passes_s)


def _call_ms(record: Record) -> float | None:
    """What a call took in a launch, or else in its memory pass; None if it measured neither."""
    if record.latency and record.latency["samples_ms"]:
        return float(median(record.latency["samples_ms"]))
    return record.memory["pass_s"] * 1e3 if record.memory and "pass_s" in record.memory else None


def pending(launch: int, held: dict[int, Record], protocol: plan.Protocol) -> bool:
    """Whether a launch of a case is still to be measured; `held` are the launches that were.

    A case is not launched again if it failed, or if its launches would take longer than `protocol.cell_s`.
    """
    if launch in held or any(record.status != "ok" for record in held.values()):
        return False
    return 0 not in held or again_s(held[0]) * (launch + 1) <= protocol.cell_s


def again_s(first: Record) -> float:
    """The expected seconds of a later launch: those of the first one without memory, throughput and energy."""
    spent = first.spent or {}
    return first.wall_s - float(spent.get("memory_s", 0.0)) - float(spent.get("throughput_s", 0.0)) - energy_s(first)


def energy_s(record: Record) -> float:
    """The seconds that the energy of a launch took."""
    return float((record.energy or {}).get("wall_s", 0.0))
