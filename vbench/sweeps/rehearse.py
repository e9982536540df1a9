"""A sweep with estimates in place of measurements: what it would do, and how long that takes. Measures nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import exp, inf
from typing import Any

from vbench.flops.estimate import LAUNCH_OVERHEAD_S, Estimate
from vbench.meters.throughput import too_slow
from vbench.plan import Case, Protocol
from vbench.results.store import Record, TurnBlock
from vbench.sweeps.agenda import Agenda
from vbench.sweeps.blocks import Turns, block_s, rounds
from vbench.sweeps.budget import Budget
from vbench.sweeps.companies import Company

LAUNCH_SCATTER = 0.08  # of the logs of launches, as on a machine with two cores that is shared
TURNS_SCATTER = 0.03  # of a cell's log in a block of turns
_ABOUT: dict[str, Any] = {"conditions": "", "protocol": {}, "host": {}, "started_at": "", "timeout_s": 0.0}


@dataclass(slots=True)
class Rehearsal:
    """What a sweep would do: the seconds of each cell's launches and their number, and the seconds of all turns."""

    seconds: Counter[Case] = field(default_factory=Counter)
    launches: Counter[Case] = field(default_factory=Counter)
    launches_s: float = 0.0  # the sum of `seconds`
    blocks: int = 0
    turns_s: float = 0.0
    unmeasured: list[Case] = field(default_factory=list)
    wishes: list[str] = field(default_factory=list)  # what more time would buy; only with a budget

    @property
    def spent_s(self) -> float:
        return self.launches_s + self.turns_s


def rehearse(
    estimates: Mapping[Case, Estimate], companies: list[Company], protocol: Protocol, budget_s: float | None = None
) -> Rehearsal:
    """Go through a sweep of these cells, with the usual scatter of a shared machine.

    Args:
        budget_s: for what is measured; None for a sweep that takes the time that it needs.
    """
    found, chance = Rehearsal(), random.Random(protocol.seed)
    known = [company for company in companies if all(case in estimates for case in company.cases)]
    agenda = Agenda(list(estimates), known, protocol, {case.id: {} for case in estimates}, {})
    budget = None if budget_s is None else Budget(agenda, budget_s, clock=lambda: found.spent_s)
    left_s = inf
    while (task := (budget or agenda).next()) is not None:
        if budget_s is not None:
            left_s = budget_s - found.spent_s
        if isinstance(task, Turns):
            block = _block(task, protocol, chance)
            if block.wall_s > left_s:  # stopped at the end
                found.turns_s += left_s
                break
            agenda.keep_block(task.company, block)
            found.blocks += 1
            found.turns_s += block.wall_s
            for case, samples in zip(task.cases, block.samples_ms or [], strict=True):
                if agenda.timed_by_turns(case):
                    held = agenda.held[case.id]
                    agenda.keep(_record(case, len(held), 0.0, samples))
        else:
            case, launch = task
            guess, in_turns = estimates[case], agenda.in_turns(case) and not agenda.held[case.id]
            if in_turns and too_slow(guess.call_s, protocol):
                record = _record(case, launch, LAUNCH_OVERHEAD_S + guess.call_s, None, pass_s=guess.call_s)
            else:
                whole = not agenda.held[case.id]
                ms = guess.call_s * 1e3 * exp(chance.gauss(0, LAUNCH_SCATTER))
                memory_s = guess.first_s - guess.again_s if whole else 0.0
                record = _record(case, launch, guess.first_s if whole else guess.again_s, [ms], memory_s=memory_s)
            found.seconds[case] += min(record.wall_s, left_s)  # type: ignore[assignment]
            found.launches_s += min(record.wall_s, left_s)
            if record.wall_s > left_s:
                break
            agenda.keep(record)
            found.launches[case] += 1
    if budget:
        found.unmeasured, found.wishes = [case for case, _ in budget.unmeasured()], budget.wishes()
    return found


def _record(
    case: Case, launch: int, wall_s: float, samples: list[float] | None, *, pass_s: float = 0.0, memory_s: float = 0.0
) -> Record:
    return Record(
        case_id=case.id,
        case=asdict(case),
        launch=launch,
        order=0,
        status="ok",
        reason=None,
        wall_s=wall_s,
        memory={"pass_s": pass_s} if pass_s else None,
        latency=None if samples is None else {"samples_ms": samples},
        spent={"memory_s": memory_s},
        **_ABOUT,
    )


def _block(task: Turns, protocol: Protocol, chance: random.Random) -> TurnBlock:
    known = [task.known_ms[number] * exp(chance.gauss(0, TURNS_SCATTER)) for number in task.order]
    return TurnBlock(
        company=task.company.id,
        block=task.block,
        case_ids=[case.id for case in task.cases],
        cases=[asdict(case) for case in task.cases],
        order=0,
        status="ok",
        reason=None,
        wall_s=block_s(task, protocol),
        samples_ms=[[ms] * rounds(task.round_s, protocol) for ms in known],
        **_ABOUT,
    )
