"""`vbench gate --ab`: times two revisions in turn on one machine, and judges the difference.

There are three runners, each with processes of its own: base, its twin (the same code again), and head. In a block, a
fresh process of base and a fresh one of head time a cell, and their calls alternate. As many blocks compare base with
its twin; their differences are the noise floor. Cells and kinds of block are shuffled. Each round of blocks starts the
runners anew: processes forked from one server share memory layout, which moves a time by some percent.

A cell that is ambiguous after a pass gets another pass. A cell that is flagged is measured again from the start, and
stays flagged only if both agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from vbench.gate.wrong import Watch
from vbench.jobs import scratch
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.turn_socket import ENDED
from vbench.meters import cpu
from vbench.models import MODELS
from vbench.plan import Case
from vbench.results import judge
from vbench.results.frame import frame
from vbench.results.machines import changed
from vbench.results.models import of_zoo
from vbench.results.outcome import Finding, GateVerdict, Outcome
from vbench.results.store import Record, Store
from vbench.suites.rules import Rules, over_budget

SCREEN_TRIES = 2  # launches of a cell before it is called broken
ALIKE = ("device_name", "cpu", "os")  # beside the versions
PAGES = 2**20  # bytes; on a CPU the allocator causes smaller differences of peaks


@dataclass(slots=True)
class Session:
    """One session; `run` it once.

    Args:
        cases: what is measured; those that cannot exist are left out.
        open_runners: a context of the three runners by role, entered anew for each round of blocks.
        tell: is told what is being done, a line each.
        folder: for the records of each role; None keeps none.
    """

    cases: Sequence[Case]
    design: Design
    rules: Rules
    open_runners: Callable[[], Any]
    tell: Callable[[str], None]
    folder: Path | None = None
    timeout_s: float = 300.0
    records: dict[str, list[Record]] = field(default_factory=lambda: {role: [] for role in ROLES})
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    passes: list[dict[str, Any]] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _watch: Watch = field(init=False)
    _screening: bool = True
    _runners: Mapping[str, Runner] = field(default_factory=dict)
    _stores: dict[str, Store] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def run(self, base: str, head: str) -> Outcome:
        """Measure and judge. `base` and `head` are labels of the revisions. Ctrl-C ends in an `Outcome` too."""
        self._random = random.Random(self.design.protocol.seed)
        findings: list[Finding] = []
        blocks: dict[Case, Blocks] = {}
        again: dict[Case, Blocks] = {}
        interrupted = False
        started = datetime.now(UTC)
        with ExitStack() as stack:
            if self.folder is not None:
                for role in ROLES:
                    self._stores[role] = stack.enter_context(Store(self.folder / role, fresh=True))
            try:
                with self.open_runners() as self._runners:
                    cases = [case for case in self.cases if not case.unsupported]
                    if not cases:
                        raise UsageError("none of these cells can exist; see 'vbench plan'")
                    self._ask_hosts(cases)
                    self._watch = Watch(self._on_head, cases[0].device, self.design.protocol)
                    findings += self._equality(cases)
                    cases, broken = self._screen(cases)
                    findings += broken
                    blocks = {case: Blocks() for case in cases}
                self._screening = False
                self._measure(blocks, cases)
                flagged = [case for case, verdict in self._judged(blocks).items() if verdict and _flags(verdict)]
                if flagged:
                    self.tell(f"{len(flagged)} flagged; measured again")
                    again = {case: Blocks() for case in flagged}
                    self._measure(again, flagged)
                for case in blocks:
                    findings += self._watch.findings(case, self._launches("head", case))
            except KeyboardInterrupt:
                interrupted = True
            finally:
                self._pool.shutdown(wait=False)
        findings += self._latencies(blocks, again)
        findings += self._memories(blocks)
        findings += self._budgets(blocks)
        protocol = self.design.protocol
        facts = {
            **_about(self.hosts),
            "threads": protocol.threads,
            "protocol": asdict(protocol),
            "blocks": self.design.blocks,
            "threshold": self.rules.threshold,
            "seed": protocol.seed,
            "passes": self.passes,
            "launches": sum(map(len, self.records.values())),
            "noise": {str(case): noise(own) for case, own in blocks.items()},
            "measured": raw(blocks),
            "measured_again": raw(again),
            "started_at": started.isoformat(timespec="seconds"),
            "wall_s": round((datetime.now(UTC) - started).total_seconds(), 1),
        }
        invalid = self._invalid(findings, blocks, again)
        unlike = _unlike(self.hosts)
        return Outcome("gate --ab", base, head, tuple(findings), invalid, interrupted, unlike, facts)

    def _ask_hosts(self, cases: Sequence[Case]) -> None:
        """Ask each runner for its machine, versions and code."""
        device, models = cases[0].device, models_of(cases)
        for role in self._runners:
            gpu = self._ask(role, jobs.probe(device, [model for model in models if model not in MODELS]))["gpu"]
            self.hosts[role] = self._ask(role, jobs.fingerprint(device, gpu, models))["host"]

    def _ask(self, role: str, ask: jobs.Ask) -> dict[str, Any]:
        ending = self._runners[role].run(*ask, ASK_LIMIT_S)
        if ending.status != "ok":
            raise UsageError(f"{role} cannot say what it runs on: {ending.reason}")
        return ending.parts

    def _equality(self, cases: Sequence[Case]) -> list[Finding]:
        """Whether the modes that are timed are one function in head."""
        findings = []
        for model, size in {case.model: (case.height, case.width) for case in cases}.items():
            self.tell(f"verifying {model}")
            verifications = [
                verify.verify(subject, self._runners["head"], device=cases[0].device, gradients=False, image_size=size)
                for subject in verify.subjects([model])
            ]
            if stamp := verify.stamp(verifications):
                note = "; ".join(stamp["failed"]) or f"checks passed: {stamp['checks']}"
                findings.append(Finding(model, "mode equality", "SAME" if stamp["ok"] else "UNEQUAL", note=note))
        return findings

    def _screen(self, cases: Sequence[Case]) -> tuple[list[Case], list[Finding]]:
        """Launch every cell once with each runner: the cells that all can measure, and findings on the others.

        This also fills the caches of compiled kernels.
        """
        self.tell(f"trying {len(cases)} cells on both sides")
        able, findings, outputs = [], [], dict[str, dict[str, Any]]()
        for case in cases:
            endings = {role: self._try(role, case) for role in ROLES}
            base, head = endings["base"], endings["head"]
            if base.status == head.status == "unsupported":
                continue
            if all(ending.status == "ok" for ending in endings.values()):
                able.append(case)
                outputs |= {case.id: head.parts["outputs"]} if head.parts.get("outputs") else {}
                continue
            verdict: GateVerdict = "UNMEASURED"
            if (base.status == "ok") != (head.status == "ok"):
                verdict = "BROKEN" if base.status == "ok" else "MENDED"
            findings.append(Finding(str(case), "status", verdict, note=f"base: {_words(base)}; head: {_words(head)}"))
        self._watch.learn(able, outputs)
        return able, findings

    def _on_head(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """Run a job with head's code; after the screening in runners of its own."""
        if self._screening:
            return self._runners["head"].run(job, argument, timeout_s)
        with self.open_runners() as self._runners:
            return self._runners["head"].run(job, argument, timeout_s)

    def _try(self, role: Role, case: Case) -> Ending:
        """A launch alone; head's is as a first one, whose outputs are compared with a reference."""
        for _ in range(SCREEN_TRIES):
            ending = self._launch(role, jobs.measure(case, self.design.protocol, launch=int(role != "head")))
            if ending.status in ("ok", "unsupported"):
                return ending
        self._keep(role, case, ending)
        return ending

    def _measure(self, blocks: dict[Case, Blocks], cases: Sequence[Case]) -> None:
        """Make a pass over these cells, and one more over those that are still ambiguous."""
        if not cases:
            return
        self._pass({case: blocks[case] for case in cases})
        judged = self._judged(blocks)
        unsure = [case for case, verdict in judged.items() if verdict and verdict.verdict == "AMBIGUOUS"]
        if unsure:
            self.tell(f"{len(unsure)} ambiguous; as many blocks again")
            self._pass({case: blocks[case] for case in unsure})

    def _pass(self, blocks: Mapping[Case, Blocks]) -> None:
        self.passes.append({"cells": [str(case) for case in blocks], "blocks": self.design.blocks})
        kinds: tuple[Role, ...] = ("head", "twin")
        first = {(case, kind): self._random.random() < 0.5 for case in blocks for kind in kinds}
        for number in range(self.design.blocks):
            self.tell(f"block {number + 1} of {self.design.blocks}, {len(blocks)} cells")
            places = list(first)
            self._random.shuffle(places)
            with self.open_runners() as self._runners:
                for case, kind in places:
                    self._block(case, kind, first[case, kind] ^ bool(number % 2), blocks[case])

    def _block(self, case: Case, kind: Role, base_outside: bool, into: Blocks) -> None:
        """Time a cell in a fresh process of base and one of `kind`, whose calls alternate."""
        roles: tuple[Role, Role] = ("base", kind) if base_outside else (kind, "base")
        with scratch.folder("turns") as folder:
            socket, core = folder / "turns", self._random.randrange(cpu.usable_cores())
            asks = [
                jobs.take_turns(case, self.design.protocol, socket=socket, first=role == roles[0], core=core)
                for role in roles
            ]
            running = [self._pool.submit(self._launch, role, ask, 2) for role, ask in zip(roles, asks, strict=True)]
            endings = dict(zip(roles, [each.result() for each in running], strict=True))
        for role, ending in endings.items():
            self._keep(role, case, ending)
        failed = [f"{role}: {_words(ending)}" for role, ending in endings.items() if ending.status != "ok"]
        if failed:  # the other process then only says that its peer ended
            into.lost += 1
            into.reason = next((words for words in failed if ENDED not in words), ENDED)
            return
        times = [tuple(ending.parts["latency"]["samples_ms"]) for ending in endings.values()]
        into.whole.append(Block(*roles, *times))

    def _launch(self, role: Role, ask: jobs.Ask, times: int = 1) -> Ending:
        """Run a job that may take `times` as long as one launch."""
        return self._runners[role].run(*ask, times * self.timeout_s)

    def _keep(self, role: Role, case: Case, ending: Ending) -> None:
        """Keep a launch as a record, on disk before the next one starts."""
        protocol = asdict(self.design.protocol)
        record = Record(
            case_id=case.id,
            case=asdict(case),
            launch=len(self._launches(role, case)),
            order=sum(map(len, self.records.values())),
            status=ending.status,
            reason=ending.reason,
            conditions=host.conditions(self.hosts[role], protocol),
            protocol=protocol,
            host=self.hosts[role],
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_s=round(sum((ending.parts.get("spent") or {}).values()), 3),
            timeout_s=self.timeout_s,
            load=host.load(),
            zoo=of_zoo(case.model, case.height, case.width),
            **ending.parts,
        )
        self.records[role].append(record)
        if role in self._stores:
            self._stores[role].append(record)

    def _launches(self, role: Role, case: Case) -> list[Record]:
        return [record for record in self.records[role] if record.case_id == case.id]

    def _judged(self, blocks: Mapping[Case, Blocks]) -> dict[Case, judge.Comparison | None]:
        """Each cell judged; None if failed launches lost as many blocks as there are."""
        cells = [
            judge.TimedCell(own.head if own.lost < len(own.head) else [], own.twin, self.rules.threshold_of(str(case)))
            for case, own in blocks.items()
        ]
        return dict(zip(blocks, judge.judge(cells), strict=True))

    def _latencies(self, blocks: Mapping[Case, Blocks], again: Mapping[Case, Blocks]) -> list[Finding]:
        """A finding for each cell; a flagged cell keeps its verdict only if the second time gave the same one."""
        first, second = self._judged(blocks), self._judged(again)
        findings = []
        for case, judged in first.items():
            own = blocks[case]
            if judged is None:
                note = "; ".join(filter(None, [f"{len(own.head)} whole blocks, {own.lost} lost", own.reason]))
                findings.append(Finding(str(case), "latency_ms", "UNMEASURED", note=note))
                continue
            verdict, note = judged.verdict, f"{judged.blocks} blocks"
            if _flags(judged):
                other = second.get(case)
                note += f"; again: {other.verdict}, {other.ratio:.3f}" if other else "; again: not measured"
                if other is None or other.verdict != judged.verdict:
                    verdict = "AMBIGUOUS"
            if own.lost:
                note += f"; {own.lost} blocks lost to failed launches, {own.reason}"
            times, interval = (own.middle("base"), own.middle("head")), (judged.ratio, judged.lo, judged.hi)
            findings.append(Finding(str(case), "latency_ms", verdict, *times, "ms", *interval, judged.delta, note))
        return findings

    def _memories(self, cases: Iterable[Case]) -> list[Finding]:
        """Peaks of memory.

        MORE or LESS if every launch of head differs from every launch of base and its twin by more than the threshold
        and by more than `PAGES`.
        """
        findings = []
        for case in cases:
            bases, heads = self._peaks("base", case) + self._peaks("twin", case), self._peaks("head", case)
            if not bases or not heads:
                continue
            base, head = median(bases), median(heads)
            matters = max(self.rules.threshold_of(str(case)) * base, PAGES)
            verdict: GateVerdict = "SAME"
            if min(heads) > max(bases) + matters:
                verdict = "MORE"
            elif max(heads) < min(bases) - matters:
                verdict = "LESS"
            what, delta = "peak_memory_bytes", matters / base
            findings.append(Finding(str(case), what, verdict, base, head, "bytes", head / base, delta=delta))
        return findings

    def _peaks(self, role: Role, case: Case) -> list[int]:
        launches = [record for record in self._launches(role, case) if record.status == "ok"]
        return [record.memory["peak_bytes"] for record in launches if record.memory]

    def _budgets(self, cases: Iterable[Case]) -> list[Finding]:
        """Whether head's own figures keep the absolute limits."""
        findings = []
        for case in cases:
            launches = self._launches("head", case)
            if launches and (budgets := self.rules.budgets_of(str(case))):
                findings += over_budget(str(case), frame(launches).iloc[0].to_dict(), budgets)
        return findings

    def _invalid(
        self, findings: Sequence[Finding], blocks: Mapping[Case, Blocks], again: Mapping[Case, Blocks]
    ) -> str | None:
        """Why the session proves nothing: equal code seemed to differ, or nothing was measured. Else None."""
        for measured in (blocks, again):
            twins = [
                judge.TimedCell(own.twin, [], self.rules.threshold_of(str(case))) for case, own in measured.items()
            ]
            for case, judged in zip(measured, judge.judge(twins), strict=True):
                if judged and _flags(judged):
                    return (
                        f"base differs from its twin, the same code, by {judged.lo - 1:+.1%} to {judged.hi - 1:+.1%} "
                        f"in {case}: this machine is too noisy now, or not at rest"
                    )
        if any(finding.what == "latency_ms" and finding.verdict != "UNMEASURED" for finding in findings):
            return None
        broken = [finding for finding in findings if finding.verdict == "BROKEN"]
        if any("head: oom" in (finding.note or "") for finding in broken):
            return None
        return "nothing was measured on both sides" + (f": {broken[0].note}" if broken else "")


def _flags(judged: judge.Comparison) -> bool:
    return judged.verdict in ("SLOW", "FAST")


def models_of(cases: Sequence[Case]) -> list[str]:
    return sorted({case.model for case in cases})


def _words(ending: Ending) -> str:
    return f"{ending.status}, {ending.reason}" if ending.reason else ending.status


def _unlike(hosts: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """The versions, and facts of the machine, in which base and head differ."""
    if "head" not in hosts:
        return ()
    each = [{**hosts[role]["versions"], **{key: hosts[role][key] for key in ALIKE}} for role in ("base", "head")]
    return changed(*each)


def _about(hosts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The device, the versions of head, and the code of each revision."""
    if "head" not in hosts:
        return {}
    base, head = hosts["base"], hosts["head"]
    code = {
        f"{role}_code": {model: own["commit"] or own["source"] for model, own in about["models"].items()}
        if "models" in about
        else about["commit"] or about["source"]
        for role, about in (("base", base), ("head", head))
    }
    return {"device": head["device_name"], "cpu": head["cpu"], "os": head["os"], "versions": head["versions"], **code}
