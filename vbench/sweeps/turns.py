"""One block of turns: a process for each cell, started anew, whose calls this process conducts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

from vbench import jobs, plan
from vbench.jobs import scratch
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.round_table import WARM, Table, TurnsError
from vbench.jobs.turn_socket import ENDED
from vbench.meters.throughput import of_single_calls
from vbench.results.store import Record, TurnBlock
from vbench.sweeps.blocks import Turns, rounds

TURN_MS = 5.0  # a turn has so many calls that it takes this long, or one
TOO_LONG = 3.0  # a process is stopped if its rounds take this many times the time that they should


@dataclass(frozen=True, slots=True)
class Taken:
    """What a block yielded; `endings` of the cells, in their order. `samples_ms` is None if one of them failed."""

    endings: Sequence[Ending]
    samples_ms: list[list[float]] | None
    calls: list[int]
    stop: str
    fault: TurnsError | None = None  # what ended them too early, if anything did

    @property
    def status(self) -> str:
        """The status of the cell that failed, "error" if no cell says why the turns ended, or "ok"."""
        return next((one.status for one in self._failed), "error" if self.fault else "ok")

    @property
    def _failed(self) -> list[Ending]:
        """The endings of the cells that failed, first that of the one to blame. Some only say that another one did."""
        blamed = None if self.fault is None or self.fault.place is None else self.endings[self.fault.place]
        failed = [one for one in self.endings if one.status != "ok"]
        return sorted(failed, key=lambda one: (one is not blamed, ENDED in (one.reason or "")))

    def reason(self, cases: Sequence[plan.Case]) -> str | None:
        """Which cell failed, and why."""
        if self.fault and (not self._failed or (self.fault.place is None and str(self.fault) != ENDED)):
            return f"in turns: {self.fault}"
        if not self._failed:
            return None
        first = self._failed[0]
        number = next(number for number, one in enumerate(self.endings) if one is first)
        return f"{cases[number]}, in turns: {first.reason or first.status}"


def around(cells: int, number: int) -> list[int]:
    """The order of the turns in a round. Each second one is reversed but for the first turn.

    So a cell follows each of its neighbours equally often, and never itself.
    """
    order = list(range(cells))
    return order[:1] + order[:0:-1] if number % 2 else order


def take(
    turns: Turns, protocol: plan.Protocol, launcher: Runner, *, core: int, allowed_s: float, most_s: float
) -> Taken:
    """Conduct a block.

    Args:
        core: the first of the processors on which all its processes run.
        allowed_s: for one launch of a cell, as elsewhere; a process has as much for each cell, beside the rounds.
        most_s: the block is stopped after that time.
    """
    cases = turns.cases
    known = [turns.known_ms[number] for number in turns.order]
    calls = [max(1, ceil(TURN_MS / max(ms, 1e-3))) for ms in known]
    round_s = sum(ms * count for ms, count in zip(known, calls, strict=True)) / 1e3
    limit_s = min(len(cases) * allowed_s + TOO_LONG * rounds(round_s, protocol) * round_s, most_s)
    samples: list[list[float]] = [[] for _ in cases]
    pool = ThreadPoolExecutor(len(cases))
    with scratch.folder("turns") as folder:
        socket = folder / "table"
        try:
            with Table(socket, len(cases), limit_s) as table:
                running: list[Future[Ending]] = []
                for place, (case, ms) in enumerate(zip(cases, known, strict=True)):
                    ask = jobs.take_rounds(case, protocol, socket=socket, place=place, core=core, known_ms=ms)
                    running.append(pool.submit(launcher.run, *ask, limit_s))
                fault = _conduct(table, running, calls, protocol, samples)
            endings = [each.result() for each in running]
        finally:
            pool.shutdown(wait=False)
    if fault is not None and fault.place is not None:
        endings[fault.place] = Ending("timeout" if fault.late else "error", str(fault), endings[fault.place].parts)
    whole = fault is None and all(one.status == "ok" for one in endings)  # a process can fail after its last turn
    return Taken(endings, samples if whole else None, calls, f"{len(samples[0])} rounds", fault)


def _conduct(
    table: Table,
    running: Sequence[Future[Any]],
    calls: Sequence[int],
    protocol: plan.Protocol,
    samples: list[list[float]],
) -> TurnsError | None:
    """Give the turns, as many rounds as their own time allows. Returns: why cells had not all of theirs."""
    try:
        table.seat(lambda: any(each.done() for each in running))
        for place in range(len(calls)):
            table.turn(place, WARM)
        number, begin = 0, time.monotonic()
        while number == 0 or number < rounds((time.monotonic() - begin) / number, protocol):
            for place in around(len(calls), number):
                samples[place].append(median(table.turn(place, calls[place])))
            number += 1
    except TurnsError as fault:
        return fault
    return None


def block(turns: Turns, taken: Taken, *, wall_s: float, order: int, **about: Any) -> TurnBlock:
    """The record of a block; `about` tells what was there when it began."""
    cases = turns.cases
    batches = [ending.parts["latency"]["batch"] for ending in taken.endings] if taken.samples_ms else None
    return TurnBlock(
        company=turns.company.id,
        block=turns.block,
        case_ids=[case.id for case in cases],
        cases=[asdict(case) for case in cases],
        order=order,
        status=taken.status,
        reason=taken.reason(cases),
        wall_s=wall_s,
        samples_ms=taken.samples_ms,
        batches=batches,
        calls=taken.calls,
        stop=taken.stop,
        **about,
    )


def launch(case: plan.Case, ending: Ending, held: dict[int, Record], **about: Any) -> Record:
    """A launch of a cell that its turns have timed; `held` are its launches so far, `about` is as in `block`."""
    first, latency = held[0], ending.parts["latency"]
    timed_before = any(record.throughput for record in held.values())
    return Record(
        case_id=case.id,
        case=asdict(case),
        launch=max(held) + 1,
        order=first.order,
        status="ok",
        reason=None,
        wall_s=round(sum(ending.parts["spent"].values()), 3),
        verified=first.verified,
        work=first.work,
        second_count=first.second_count,
        zoo=first.zoo,
        latency=latency,
        throughput=None if timed_before else of_single_calls(latency),
        **{key: ending.parts[key] for key in ("settings", "warmup", "spent", "outputs") if key in ending.parts},
        **about,
    )
