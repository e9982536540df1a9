"""`vbench gate --ab`: two revisions measured in turn on one machine, and the verdict.

Three sides run, each with processes of its own: base, its twin (the same code again), and head. In a block a fresh
process of base and one of head time a cell, call by call in turn; as many blocks hold base against its twin, which is
the noise floor in the same places. Cells and kinds of block are shuffled, and for each round of blocks the sides are
started anew: processes that are forked from one server share where it put things, which moves a time by some percent.
What is ambiguous after a pass gets another one; what is flagged is measured again, and stands only if flagged again.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from vbench import host, jobs, verify
from vbench.errors import UsageError
from vbench.gate.blocks import ROLES, Block, Blocks, Design, Role, noise, raw
from vbench.gate.revisions import ASK_LIMIT_S
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.turn_socket import ENDED
from vbench.meters import cpu
from vbench.models import MODELS
from vbench.plan import Case
from vbench.results import judge
from vbench.results.frame import frame
from vbench.results.outcome import Finding, GateVerdict, Outcome
from vbench.results.store import Record, Store
from vbench.suites.rules import Rules, over_budget

SCREEN_TRIES = 2  # before a cell is called broken
PAGES = 2**20  # bytes; on a CPU smaller differences of peaks are the allocator's


@dataclass(slots=True)
class Session:
    """One session. `run` it once.

    Args:
        cases: what is measured; those that cannot exist are left out.
        open_sides: a context of the three runners, entered anew for each round of blocks.
        tell: hears what is being done, a line each.
        folder: for the records of each side; None keeps none.
    """

    cases: Sequence[Case]
    design: Design
    rules: Rules
    open_sides: Callable[[], Any]
    tell: Callable[[str], None]
    folder: Path | None = None
    timeout_s: float = 300.0
    records: dict[str, list[Record]] = field(default_factory=lambda: {name: [] for name in ROLES})
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    passes: list[dict[str, Any]] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _runners: Mapping[str, Runner] = field(default_factory=dict)
    _stores: dict[str, Store] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def run(self, base: str, head: str) -> Outcome:
        """Measure and judge. `base` and `head` are the sides' labels; an interruption ends in an `Outcome` too."""
        self._random = random.Random(self.design.protocol.seed)
        findings: list[Finding] = []
        blocks: dict[Case, Blocks] = {}
        again: dict[Case, Blocks] = {}
        interrupted = False
        started = datetime.now(UTC)
        with ExitStack() as stack:
            if self.folder is not None:
                for name in ROLES:
                    self._stores[name] = stack.enter_context(Store(self.folder / name, fresh=True))
            try:
                with self.open_sides() as self._runners:
                    cases = [case for case in self.cases if not case.unsupported]
                    if not cases:
                        raise UsageError("none of these cells can exist; see 'vbench plan'")
                    self._ask_hosts(cases)
                    findings += self._equality(cases)
                    cases, broken = self._screen(cases)
                    findings += broken
                    blocks = {case: Blocks() for case in cases}
                self._measure(blocks, cases)
                flagged = [case for case, found in self._judged(blocks).items() if found and _flags(found)]
                if flagged:
                    self.tell(f"{len(flagged)} flagged; measured again")
                    again = {case: Blocks() for case in flagged}
                    self._measure(again, flagged)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                self._pool.shutdown(wait=False)
        findings += self._latencies(blocks, again)
        findings += self._memories(list(blocks))
        findings += self._budgets(list(blocks))
        invalid = self._invalid(findings, blocks, again)
        facts = {
            **_about(self.hosts),
            "threads": self.design.protocol.threads,
            "protocol": asdict(self.design.protocol),
            "blocks": self.design.blocks,
            "threshold": self.rules.threshold,
            "seed": self.design.protocol.seed,
            "passes": self.passes,
            "launches": sum(map(len, self.records.values())),
            "noise": {str(case): noise(found) for case, found in blocks.items()},
            "measured": raw(blocks),
            "measured_again": raw(again),
            "started_at": started.isoformat(timespec="seconds"),
            "wall_s": round((datetime.now(UTC) - started).total_seconds(), 1),
        }
        return Outcome("gate --ab", base, head, tuple(findings), invalid, interrupted, facts)

    def _ask_hosts(self, cases: Sequence[Case]) -> None:
        """What each side is: its versions and its code."""
        device, models = cases[0].device, models_of(cases)
        for name in self._runners:
            gpu = self._ask(name, jobs.probe(device, [model for model in models if model not in MODELS]))["gpu"]
            self.hosts[name] = self._ask(name, jobs.fingerprint(device, gpu, models))["host"]

    def _ask(self, name: str, ask: jobs.Ask) -> dict[str, Any]:
        ending = self._runners[name].run(*ask, ASK_LIMIT_S)
        if ending.status != "ok":
            raise UsageError(f"{name} cannot say what it runs on: {ending.reason}")
        return ending.parts

    def _equality(self, cases: Sequence[Case]) -> list[Finding]:
        """Whether the modes that are timed are one function in head."""
        found = []
        for model, size in {case.model: (case.height, case.width) for case in cases}.items():
            self.tell(f"verifying {model}")
            verdicts = [
                verify.verify(subject, self._runners["head"], device=cases[0].device, gradients=False, image_size=size)
                for subject in verify.subjects([model])
            ]
            stamp = verify.stamp(verdicts)
            if stamp is not None:
                said = "; ".join(stamp["failed"]) or f"checks passed: {stamp['checks']}"
                found.append(Finding(model, "mode equality", "SAME" if stamp["ok"] else "UNEQUAL", note=said))
        return found

    def _screen(self, cases: Sequence[Case]) -> tuple[list[Case], list[Finding]]:
        """One launch of every cell on each side, which warms what is compiled: the cells that both can measure, and
        findings on the others."""
        self.tell(f"trying {len(cases)} cells on both sides")
        able, findings = [], []
        for case in cases:
            ended = {name: self._try(name, case) for name in ROLES}
            base, head = ended["base"], ended["head"]
            if base.status == head.status == "unsupported":
                continue
            if all(ending.status == "ok" for ending in ended.values()):
                able.append(case)
                continue
            said = f"base: {_said(base)}; head: {_said(head)}"
            verdict: GateVerdict = "UNMEASURED"
            if base.status == "ok" and head.status != "ok":
                verdict = "BROKEN"
            elif base.status != "ok" and head.status == "ok":
                verdict = "MENDED"
            findings.append(Finding(str(case), "status", verdict, note=said))
        return able, findings

    def _try(self, name: Role, case: Case) -> Ending:
        for _ in range(SCREEN_TRIES):
            ending = self._launch(name, jobs.measure(case, self.design.protocol, launch=1))
            if ending.status in ("ok", "unsupported"):
                return ending
        self._keep(name, case, ending)
        return ending

    def _measure(self, blocks: dict[Case, Blocks], cases: Sequence[Case]) -> None:
        """A pass over these cells, if there are any, and one extension over those that it leaves ambiguous."""
        if not cases:
            return
        self._pass({case: blocks[case] for case in cases})
        unsure = [case for case, found in self._judged(blocks).items() if found and found.verdict == "AMBIGUOUS"]
        if unsure:
            self.tell(f"{len(unsure)} ambiguous; as many blocks again")
            self._pass({case: blocks[case] for case in unsure})

    def _pass(self, blocks: Mapping[Case, Blocks]) -> None:
        cases = list(blocks)
        self.passes.append({"cells": [str(case) for case in cases], "blocks": self.design.blocks})
        first = {(case, kind): self._random.random() < 0.5 for case in cases for kind in ("head", "twin")}
        for number in range(self.design.blocks):
            self.tell(f"block {number + 1} of {self.design.blocks}, {len(cases)} cells")
            places: list[tuple[Case, Role]] = [(case, kind) for case in cases for kind in ("head", "twin")]
            self._random.shuffle(places)
            with self.open_sides() as self._runners:
                for case, kind in places:
                    self._block(case, kind, first[case, kind] ^ bool(number % 2), blocks[case])

    def _block(self, case: Case, kind: Role, base_outside: bool, into: Blocks) -> None:
        """A fresh process of base and one of the other side, whose calls alternate."""
        sides: tuple[Role, Role] = ("base", kind) if base_outside else (kind, "base")
        with tempfile.TemporaryDirectory(prefix="vbench-turns-") as folder:
            socket, core = Path(folder) / "turns", self._random.randrange(cpu.usable_cores())
            asks = [
                jobs.take_turns(case, self.design.protocol, socket=socket, first=name == sides[0], core=core)
                for name in sides
            ]
            started = [self._pool.submit(self._launch, name, ask, 2) for name, ask in zip(sides, asks, strict=True)]
            ended = dict(zip(sides, [each.result() for each in started], strict=True))
        for name, ending in ended.items():
            self._keep(name, case, ending)
        failed = [(name, ending) for name, ending in ended.items() if ending.status != "ok"]
        if failed:
            into.lost += 1
            into.reason = next((f"{name}: {_said(at)}" for name, at in failed if ENDED not in _said(at)), ENDED)
            return
        times = [tuple(ending.parts["latency"]["samples_ms"]) for ending in ended.values()]
        into.whole.append(Block(*sides, *times))

    def _launch(self, name: Role, ask: jobs.Ask, times: int = 1) -> Ending:
        """A child of that side; it may take so many times as long as one launch."""
        return self._runners[name].run(*ask, times * self.timeout_s)

    def _keep(self, name: Role, case: Case, ending: Ending) -> None:
        """A launch as a record, on disk before the next one."""
        record = Record(
            case_id=case.id,
            case=asdict(case),
            launch=sum(record.case_id == case.id for record in self.records[name]),
            order=sum(map(len, self.records.values())),
            status=ending.status,
            reason=ending.reason,
            conditions=host.conditions(self.hosts[name], asdict(self.design.protocol)),
            protocol=asdict(self.design.protocol),
            host=self.hosts[name],
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_s=round(sum((ending.parts.get("spent") or {}).values()), 3),
            timeout_s=self.timeout_s,
            load=host.load(),
            **ending.parts,
        )
        self.records[name].append(record)
        if name in self._stores:
            self._stores[name].append(record)

    def _judged(self, blocks: Mapping[Case, Blocks]) -> dict[Case, judge.Comparison | None]:
        """A verdict on each cell; None where as many blocks were lost to failed launches as were kept."""
        cells = [
            judge.TimedCell(
                found.head if found.lost < len(found.head) else [], found.twin, self.rules.threshold_of(str(case))
            )
            for case, found in blocks.items()
        ]
        return dict(zip(blocks, judge.judge(cells), strict=True))

    def _latencies(self, blocks: Mapping[Case, Blocks], again: Mapping[Case, Blocks]) -> list[Finding]:
        """A finding a cell; one that was flagged stands as it is only if it was flagged alike again."""
        first, second = self._judged(blocks), self._judged(again)
        findings = []
        for case, found in first.items():
            if found is None:
                note = f"{len(blocks[case].head)} whole blocks, {blocks[case].lost} lost"
                said = "; ".join(filter(None, [note, blocks[case].reason]))
                findings.append(Finding(str(case), "latency_ms", "UNMEASURED", note=said))
                continue
            verdict, note = found.verdict, f"{found.blocks} blocks"
            if _flags(found):
                other = second.get(case)
                said = f"{other.verdict}, {other.ratio:.3f}" if other else "not measured"
                note += f"; again: {said}"
                if other is None or other.verdict != found.verdict:
                    verdict = "AMBIGUOUS"
            if blocks[case].lost:
                note += f"; {blocks[case].lost} blocks lost to failed launches, {blocks[case].reason}"
            findings.append(
                Finding(
                    str(case),
                    "latency_ms",
                    verdict,
                    base=blocks[case].middle("base"),
                    head=blocks[case].middle("head"),
                    unit="ms",
                    ratio=found.ratio,
                    lo=found.lo,
                    hi=found.hi,
                    delta=found.delta,
                    note=note,
                )
            )
        return findings

    def _memories(self, cases: Sequence[Case]) -> list[Finding]:
        """Peaks: MORE or LESS where every launch of head is beyond every one of base and its twin, by the threshold and
        by `PAGES`."""
        findings = []
        for case in cases:
            known, heads = self._peaks("base", case) + self._peaks("twin", case), self._peaks("head", case)
            if not known or not heads:
                continue
            base, head = median(known), median(heads)
            share = self.rules.threshold_of(str(case))
            matters, verdict = max(share * base, PAGES), "SAME"
            if min(heads) > max(known) + matters:
                verdict = "MORE"
            elif max(heads) < min(known) - matters:
                verdict = "LESS"
            findings.append(
                Finding(
                    str(case),
                    "peak_memory_bytes",
                    verdict,  # type: ignore[arg-type]  # one of three literals
                    base=base,
                    head=head,
                    unit="bytes",
                    ratio=head / base,
                    delta=matters / base,
                )
            )
        return findings

    def _peaks(self, name: Role, case: Case) -> list[int]:
        return [
            record.memory["peak_bytes"]
            for record in self.records[name]
            if record.case_id == case.id and record.status == "ok" and record.memory
        ]

    def _budgets(self, cases: Sequence[Case]) -> list[Finding]:
        """What head's own figures say of absolute limits."""
        found = []
        for case in cases:
            own = [record for record in self.records["head"] if record.case_id == case.id]
            if own and (budgets := self.rules.budgets_of(str(case))):
                found += over_budget(str(case), frame(own).iloc[0].to_dict(), budgets)
        return found

    def _invalid(
        self, findings: Sequence[Finding], blocks: Mapping[Case, Blocks], again: Mapping[Case, Blocks]
    ) -> str | None:
        """Why the session proves nothing: equal code was told apart, or nothing was measured."""
        for measured in (blocks, again):
            cells = [
                judge.TimedCell(found.twin, [], self.rules.threshold_of(str(case))) for case, found in measured.items()
            ]
            for case, found in zip(measured, judge.judge(cells), strict=True):
                if found and _flags(found):
                    low, high = found.lo - 1, found.hi - 1
                    return (
                        f"base differs from its twin, the same code, by {low:+.1%} to {high:+.1%} in {case}: "
                        "this machine is too noisy now, or not at rest"
                    )
        if any(finding.what == "latency_ms" and finding.verdict != "UNMEASURED" for finding in findings):
            return None
        broken = [finding for finding in findings if finding.verdict == "BROKEN"]
        if any("head: oom" in (finding.note or "") for finding in broken):
            return None
        return "nothing was measured on both sides" + (f": {broken[0].note}" if broken else "")


def _flags(found: judge.Comparison) -> bool:
    return found.verdict in ("SLOW", "FAST")


def models_of(cases: Sequence[Case]) -> list[str]:
    return sorted({case.model for case in cases})


def _said(ending: Ending) -> str:
    return f"{ending.status}, {ending.reason}" if ending.reason else ending.status


def _about(hosts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The device, the versions, and of each side its code; versions that differ are said of both."""
    if "head" not in hosts:
        return {}
    base, head = hosts["base"], hosts["head"]
    versions = {
        name: value if base["versions"].get(name) == value else f"{base['versions'].get(name)} in base, {value} in head"
        for name, value in head["versions"].items()
    }
    code = {
        f"{name}_code": {model: own["commit"] or own["source"] for model, own in host["models"].items()}
        if "models" in host
        else host["commit"] or host["source"]
        for name, host in (("base", base), ("head", head))
    }
    return {"device": head["device_name"], "cpu": head["cpu"], "os": head["os"], "versions": versions, **code}
