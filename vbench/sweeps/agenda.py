"""What a sweep does next. It decides from what is measured so far, so a sweep can stop and resume at any moment.

First each cell is launched, then those that are fast enough are launched again, in rounds. Then the companies take
turns: as many blocks as cells, so that each has had each place, and as many again where a ratio is not known well
enough. If one round takes longer than a block should, blocks come in twos, in both directions: the place of a slow call
matters little. On the CPU a slow cell of a company is not launched again: its turns are its launches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from math import inf
from statistics import median

from vbench import plan
from vbench.devices import on_host
from vbench.plan import Case
from vbench.results.pairs import alike, paired
from vbench.results.store import Record, TurnBlock
from vbench.sweeps.companies import Company

Place = tuple[Case, int]  # a case, and which launch of it
SLOW_SHARE = 1 / 5  # a call that takes longer than this share of `sample_s` is slow
TRIES = 2  # blocks of a company that may fail


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


@dataclass(slots=True)
class Agenda:
    """What is measured so far, and what is next.

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
    _queue: list[Place] = field(init=False)  # the next one last
    _companions: set[Case] = field(init=False)
    _ranks: dict[str, int] = field(init=False)
    _settled: set[str] = field(default_factory=set)  # ids of companies that need no more blocks

    def __post_init__(self) -> None:
        order = plan.schedule(self.cases, self.protocol.launches, self.protocol.seed)
        self.places = {place: number for number, place in enumerate(order)}
        self._queue = order[::-1]
        self._companions = {case for company in self.companies for case in company.cases}
        ranks = list(range(len(self.companies)))
        random.Random(self.protocol.seed).shuffle(ranks)
        self._ranks = {company.id: rank for company, rank in zip(self.companies, ranks, strict=True)}

    def next(self) -> Place | Turns | None:
        """What to measure now; None if nothing is left."""
        return next(self._launches(), None) or self._turns() or next(self.untimed(), None)

    def rest(self) -> list[Place | Turns]:
        """What is left, as far as it is known: of turns, the blocks that each company gets in any case."""
        found: list[Place | Turns] = list(self._launches())
        for company in self.companies:
            whole, missing = self.whole(company), range(self.span(company))[self.whole(company) :]
            if company.id not in self._settled and not self.failed(company):
                known = tuple(self.known_ms(case) or 0.0 for case in company.cases)
                found += [Turns(company, number, whole, known, self.span(company)) for number in missing]
        return found

    def in_turns(self, case: Case) -> bool:
        """Whether the turns of a company may time this case, if it turns out to be slow."""
        return case in self._companions and on_host(case.device)

    def known_ms(self, case: Case) -> float | None:
        """What a call of a case takes, as far as it is known."""
        records = [record for record in self.held.get(case.id, {}).values() if record.status == "ok"]
        timed = [record for record in records if record.latency and record.latency["samples_ms"]]
        return next((ms for ms in map(_call_ms, [*timed, *records]) if ms), None)

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

    def _turns(self) -> Turns | None:
        """The next block: of the company whose cells have had all places the fewest times."""
        open_ = [company for company in self.companies if company.id not in self._settled]
        for company in sorted(open_, key=lambda one: (self.whole(one) // self.span(one), self._ranks[one.id])):
            whole = self.whole(company)
            if not self.ready(company) or (whole % self.span(company) == 0 and self._enough(company)):
                self._settled.add(company.id)
            else:
                return self.block(company)
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
        found = paired(self.all_blocks())
        keys = permutations([alike(asdict(case)) for case in company.cases], 2)
        return max((found[key].half_width if key in found else inf for key in keys), default=inf)

    def all_blocks(self) -> Iterator[TurnBlock]:
        for blocks in self.blocks.values():
            yield from blocks.values()

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
