"""A session of the timing gate, by sides that answer at once: what it calls, and with which code it ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from fakes import make_record

from vbench import host
from vbench.errors import UsageError
from vbench.gate import revisions
from vbench.gate.ab import Session
from vbench.gate.blocks import DESIGNS, Design
from vbench.gate.revisions import Install
from vbench.jobs.launch import Ending
from vbench.plan import Case, Sweep, plan
from vbench.results.store import read
from vbench.suites.rules import Rules, parse

CASES = plan(Sweep(("vig_t", "deit_t"), ((64, 64), (128, 128)), ("parallel",), batches=(1,)))
HOST = host.fingerprint("cpu", None)
MIB = 2**20


class Simulated:
    """A side whose calls take a base time, its own factor, and noise; it says in which order it was asked."""

    def __init__(self, name: str, how: World) -> None:
        self.name, self.how = name, how

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "probe":
            return Ending("ok", None, {"gpu": None})
        if job == "fingerprint":
            return Ending("ok", None, {"host": HOST})
        if job == "verify":
            error = 1.0 if self.how.unequal else 0.0
            check = {"subject": argument["subject"], "kind": "float64", "form": "x", "where": "y", "error": error}
            return Ending("ok", None, {"checks": [{**check, "bound": 0.5}]})
        if job == "count":
            cases = [Case(**fields) for fields in argument["cases"]]
            return Ending(
                "ok", None, {case.id: {"work": {"macs_executed": 10**9, "bytes_min": 10**6}} for case in cases}
            )
        if job == "roof":
            rates = {"flops_per_s": self.how.flops_per_s, "bytes_per_s": 1e10, "copy_bytes_per_s": 1e10}
            return Ending("ok", None, rates)
        case = Case(**argument["case"])
        return self.how.launch(self.name, case, argument.get("first"))


class World:
    """What the three sides measure.

    Args:
        factor: what a side's calls take over base's; `spread` is the noise of a launch, on the log scale.
        ends: how a launch ends, by the side and the cell; "ok" if it says nothing.
        interrupt_at: Ctrl-C comes at this launch.
        flops_per_s: of the device; `outputs` is what a side's launch says of its outputs, alone (True) or in turns.
    """

    def __init__(
        self,
        factor: Callable[[str, Case, int], float] = lambda *_: 1.0,
        *,
        spread: float = 0.002,
        ends: Callable[[str, Case], str] = lambda *_: "ok",
        interrupt_at: int | None = None,
        unequal: bool = False,
        peak: Callable[[str], int] = lambda _: 100 * MIB,
        flops_per_s: float = 1e12,
        outputs: Callable[[str, bool], dict[str, Any] | None] = lambda *_: None,
    ) -> None:
        self.flops_per_s, self.outputs = flops_per_s, outputs
        self.factor, self.spread, self.ends, self.peak = factor, spread, ends, peak
        self.interrupt_at, self.unequal = interrupt_at, unequal
        self.asked: list[
            tuple[str, Case, bool | None]
        ] = []  # the last: who has the first turn; None for a launch alone
        self.opened = 0
        self._lock = Lock()

    @contextmanager
    def open(self) -> Iterator[dict[str, Simulated]]:
        self.opened += 1
        yield {name: Simulated(name, self) for name in ("base", "twin", "head")}

    def launch(self, name: str, case: Case, first: bool | None) -> Ending:
        with self._lock:  # two sides are asked at once
            self.asked.append((name, case, first))
            if len(self.asked) == self.interrupt_at:
                raise KeyboardInterrupt
            status, number = self.ends(name, case), sum(asked[:2] == (name, case) for asked in self.asked)
        if status != "ok":
            return Ending(status, f"it ended {status}")  # type: ignore[arg-type]
        noise = random.Random(f"{name} {case} {number}").lognormvariate(0.0, self.spread)
        time = 10.0 * self.factor(name, case, self.opened) * noise
        made_up = make_record(case.model, case.height)
        assert made_up.latency is not None
        assert made_up.memory is not None
        parts = {key: getattr(made_up, key) for key in ("warmup", "throughput", "state", "spent")}
        parts["outputs"] = self.outputs(name, first is None)
        memory = {**made_up.memory, "peak_bytes": self.peak(name)}
        return Ending(
            "ok",
            None,
            {**parts, "memory": memory, "latency": {**made_up.latency, "samples_ms": [time] * (5 if first else 4)}},
        )


def run(world: World, *, rules: Rules | None = None, folder: Path | None = None, cases: list[Case] = CASES) -> Any:
    design = Design(6, DESIGNS["default"].protocol)
    return Session(cases, design, rules or Rules({}), world.open, lambda _: None, folder).run("base", "head")


def verdicts(found: Any, what: str = "latency_ms") -> dict[str, str]:
    return {finding.cell: finding.verdict for finding in found.findings if finding.what == what}


def slower(by: float, side: str = "head", model: str = "vig_t") -> Callable[[str, Case, int], float]:
    return lambda name, case, _: by if (name, case.model) == (side, model) else 1.0


def test_equal_sides_pass_and_a_slower_one_fails_where_it_is_slower() -> None:
    world = World()
    found = run(world)
    assert set(verdicts(found).values()) == {"SAME"}
    assert (found.exit_code(), world.opened) == (0, 1 + 6)
    world = World(slower(1.05))
    found = run(world)
    assert {cell for cell, verdict in verdicts(found).items() if verdict == "SLOW"} == {
        str(case) for case in CASES if case.model == "vig_t"
    }
    assert (found.exit_code(), world.opened) == (1, 1 + 6 + 6)
    assert set(verdicts(run(World(slower(0.9)))).values()) == {"FAST", "SAME"}


def test_blocks_are_balanced_and_hold_as_many_of_the_twin_as_of_head() -> None:
    world = World()
    run(world)
    assert all(first is None for _, _, first in world.asked[: 3 * len(CASES)])
    pairs = [world.asked[start : start + 2] for start in range(3 * len(CASES), len(world.asked), 2)]
    blocks = [{bool(first): (name, case) for name, case, first in pair} for pair in pairs]
    assert all(len(block) == 2 and block[True][1] == block[False][1] for block in blocks)
    for case in CASES:
        for kind in ("twin", "head"):  # of each cell, base is outside in half of the blocks of either kind
            own = [{block[True][0], block[False][0]} == {"base", kind} and block[True] for block in blocks]
            assert own.count(("base", case)) == own.count((kind, case)) == 3
    rounds = [[block[True][1] for block in blocks[start : start + 8]] for start in (0, 8, 16)]
    assert rounds[0] != rounds[1] != rounds[2]


def test_what_is_flagged_once_and_not_again_is_ambiguous() -> None:
    found = run(World(lambda name, case, opened: 1.1 if name == "head" and opened <= 7 else 1.0))
    assert set(verdicts(found).values()) == {"AMBIGUOUS"}
    assert (found.exit_code(), found.exit_code(strict=True)) == (0, 4)
    assert "again: SAME" in next(f.note for f in found.findings if f.what == "latency_ms")


def test_an_ambiguous_cell_gets_one_more_pass_and_no_other_does() -> None:
    world = World(slower(1.03), spread=0.01)
    found = run(world)
    assert [len(each["cells"]) for each in found.facts["passes"]] == [4, 2]
    assert world.opened == 1 + 6 + 6


def test_a_machine_that_tells_equal_code_apart_makes_the_session_invalid() -> None:
    found = run(World(slower(1.08, "twin")))
    assert found.exit_code() == 3
    assert "base differs from its twin, the same code, by +" in found.invalid


def test_a_session_that_measured_nothing_is_no_verdict() -> None:
    for status in ("error", "oom", "timeout"):
        found = run(World(ends=lambda *_, status=status: status))
        assert found.exit_code() == 3
        assert set(verdicts(found, "status").values()) == {"UNMEASURED"}
    found = run(World(ends=lambda name, _: "error" if name == "head" else "ok"))
    assert found.exit_code() == 3
    assert "nothing was measured on both sides" in found.invalid
    broken = World(ends=lambda name, case: "error" if name == "head" and case.model == "deit_t" else "ok")
    assert run(broken).exit_code() == 1
    with pytest.raises(UsageError, match="none of these cells can exist"):
        run(World(), cases=plan(Sweep(("deit_t",), ((64, 64),), ("recurrent",))))


def test_what_no_longer_fits_in_memory_fails_even_where_nothing_else_is_left() -> None:
    found = run(World(ends=lambda name, _: "oom" if name == "head" else "ok"))
    assert found.exit_code() == 1
    assert set(verdicts(found, "status").values()) == {"BROKEN"}
    assert set(verdicts(run(World(ends=lambda name, _: "oom" if name == "base" else "ok")), "status").values()) == {
        "UNMEASURED",
        "MENDED",
    } - {"UNMEASURED"}


@pytest.mark.parametrize("at", [1, 20, 61])
def test_an_interrupted_session_decides_nothing_and_keeps_its_records(tmp_path: Path, at: int) -> None:
    found = run(World(slower(1.5), interrupt_at=at), folder=tmp_path)
    assert found.interrupted
    assert found.exit_code() == found.exit_code(strict=True) == 3
    kept = sum(len(read(tmp_path / name)) for name in ("base", "twin", "head"))
    assert kept == max(0, at - 1 - 3 * len(CASES)) // 2 * 2


def test_blocks_with_a_failed_launch_are_lost_and_said() -> None:
    count = Counter[str]()

    def ends(name: str, case: Case) -> str:
        count[name] += 1
        return "timeout" if name == "head" and count[name] in (4, 6) else "ok"

    found = run(World(ends=ends), cases=CASES[:1])
    note = next(f.note for f in found.findings if f.what == "latency_ms")
    assert "2 blocks lost to failed launches, head: timeout" in note
    count.clear()
    dies = World(ends=lambda name, _: "error" if name == "head" and len(dies.asked) > 9 else "ok")
    found = run(dies, cases=CASES[:1])
    assert verdicts(found) == {str(CASES[0]): "UNMEASURED"}
    assert found.exit_code() == 3


def test_calls_that_return_what_they_should_not_fail_the_gate() -> None:
    fault = {"checked": 9, "nonfinite": 0, "differs": 1, "reason": "the outputs of different images are equal"}
    sound = {**fault, "differs": 0, "reason": None}

    def outputs(alone: bool, side: str = "head", **changes: Any) -> World:
        return World(outputs=lambda name, single: {**fault, **changes} if (name, single) == (side, alone) else sound)

    for alone in (True, False):
        found = run(outputs(alone))
        assert found.exit_code() == 1
        (note, *_) = [finding.note for finding in found.of("WRONG")]
        assert "did not return what the model computes: the outputs of different images are equal" in note
        assert set(verdicts(run(outputs(alone, nonfinite=9)), "finite outputs").values()) == {"WRONG"}
        assert run(outputs(alone, "base")).exit_code() == 0
    assert not run(World()).of("WRONG")


def test_calls_that_no_device_could_make_fail_the_gate() -> None:
    found = run(World(flops_per_s=1e11))  # 2 GFLOP in 10 ms
    assert set(verdicts(found, "possible time").values()) == {"WRONG"}
    assert found.exit_code() == 1


def test_modes_that_are_not_one_function_have_a_code_of_their_own() -> None:
    assert run(World(unequal=True)).exit_code() == 5


def test_memory_is_judged_by_every_launch() -> None:
    found = run(World(peak=lambda name: (110 if name == "head" else 100) * MIB))
    assert set(verdicts(found, "peak_memory_bytes").values()) == {"MORE"}
    assert found.exit_code() == 1
    small = run(World(peak=lambda name: 50_000 if name == "head" else 40_000))
    assert set(verdicts(small, "peak_memory_bytes").values()) == {"SAME"}


def test_rules_hold_by_cell() -> None:
    rules = parse(
        {
            "threshold": 0.03,
            "budgets": ["latency_ms<1000", "peak_memory_mib<512"],
            "cells": [{"match": "vig_t *", "threshold": 0.2}, {"match": "* 128 *", "budgets": ["latency_ms<9"]}],
        },
        "here",
    )
    found = run(World(slower(1.08)), rules=rules)
    assert set(verdicts(found).values()) == {"SAME"}
    assert set(verdicts(found, "latency_ms<9").values()) == {"OVER"}
    assert len(verdicts(found, "latency_ms<9")) == len(verdicts(found, "latency_ms<1000")) == 2
    assert found.exit_code() == 1


class Elsewhere:
    """A side that imports its model from this file."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        return Ending("ok", None, {"files": {"a:net": str(Path(__file__).resolve())}})


def test_a_side_that_would_measure_other_code_than_its_own_is_refused(tmp_path: Path) -> None:
    for root in (None, Path(__file__).resolve().parent):  # None: the interpreter is the user's
        revisions.check_code("head", Install("it", root=root), Elsewhere(), ["a:net"])
    with pytest.raises(UsageError, match=r"head would measure .*test_ab\.py, which is not in its own tree"):
        revisions.check_code("head", Install("it", root=tmp_path), Elsewhere(), ["a:net"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"treshold": 0.1}, "there is no treshold"),
        ({"threshold": 3}, "3 is no share"),
        ({"budgets": ["latency<20"]}, "'latency<20' is no budget"),
        ({"budgets": ["latency_ms<0"]}, "is no budget"),
        ({"budgets": "latency_ms<20"}, "a list"),
        ({"cells": [{"threshold": 0.1}]}, "match"),
        ({"res": 64}, "must be text"),
    ],
)
def test_a_rule_that_is_none_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(table, "[tool.vbench.gate]")
