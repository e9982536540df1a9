"""What a sweep finds out before it measures: whether the modes of a model are one function, and the work of each cell.

Neither depends on time, so each is done once for all folders (`jobs.memo`), and named with a guess of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Literal

from vbench import jobs, verify
from vbench.flops.count import ENDED
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.memo import Memo
from vbench.kernels.registry import OPS
from vbench.models import spec
from vbench.plan import Case, Dtype
from vbench.results.store import Record

NOT_VERIFIED = {"ok": False, "checks": 0, "failed": ["not verified, the time of the sweep was over"]}
Verb = Literal["verifying", "counting"]
Subject = tuple[str, Dtype]
COUNT_LIMIT_S = 120.0  # for the first cell of a model
COUNT_EACH_S = 5.0  # for each other one
MOST_S = 1800.0  # for all cells of a model, and as much for verifying all operators and models
# Guesses for what was never timed on this machine: vig_t and its operator, on one core of a server.
OPERATOR_S = 5.0
MODEL_S = 2.5  # in its forms, without its products
MODEL_S_A_PARAMETER = 1e-7  # of a pass of the few tokens that are compared, in all forms and types
COUNT_S = 1.5  # a case, with a second count that executes the model


@dataclass(frozen=True, slots=True)
class Task:
    """An operator or a model to verify, or a model whose cells are to be counted; and a guess of the seconds."""

    verb: Verb
    subject: str
    seconds: float
    dtype: Dtype = "float32"  # in which a model is verified too

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}" + (f" in {self.dtype}" if self.dtype != "float32" else "")


@dataclass(slots=True)
class Preparation:
    """What is known of the models and cells of a sweep, and the finding out of it.

    Args:
        cases: all cells of the sweep.
        launcher: runs the jobs that have no result yet, whose results go into `memo`.
        left_s: the seconds until the sweep must be over. What has no time left is not found out.
        timeout_s: for one launch of a cell; to count one cell, or to verify one subject, takes no longer either.
    """

    cases: list[Case]
    launcher: Runner
    memo: Memo
    left_s: Callable[[], float] = lambda: inf
    timeout_s: float = inf
    seconds: dict[Verb, float] = field(default_factory=lambda: {"verifying": 0.0, "counting": 0.0})  # that `run` took
    _stamps: dict[Subject, dict[str, Any] | None] = field(default_factory=dict)  # by model and dtype
    _verdicts: dict[Subject, verify.Verification] = field(default_factory=dict)  # an operator's is of all types
    _counts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the id of a case

    def recall(self, records: Iterable[Record]) -> None:
        """Take over the verification of records that were measured under the same conditions."""
        self._stamps |= {
            (record.case["model"], record.case["dtype"]): record.verified for record in records if record.verified
        }

    def stamp(self, case: Case) -> dict[str, Any] | None:
        """Whether a model's modes are one function in the type that is timed (`verify.stamp`); None for one form.

        It must have been prepared; so must a case to be counted.
        """
        return None if case.spec.baseline else self._stamps.get((case.model, case.dtype), NOT_VERIFIED)

    def count(self, case: Case) -> dict[str, Any]:
        """The parts "work" and "second_count" of a case; or "unsupported", or "uncounted", with the reason."""
        return self._counts.get(case.id, _uncounted("the time of the sweep was over"))

    def tasks(self, wanted: Iterable[Case]) -> list[Task]:
        """What must be found out for these cases, without what is known already."""
        models = self._by_model(wanted)
        found = [self._verifying(*of, models) for of in self._subjects(models)]
        for model, cases in models.items():
            guesses = [self.memo.expected_s(*jobs.count([case])) for case in cases if case.id not in self._counts]
            seconds = sum(COUNT_S if guess is None else guess for guess in guesses)
            found.append(Task("counting", model, seconds))
        return [task for task in found if task.seconds > 0]

    def run(self, wanted: Iterable[Case], begins: Callable[[int], None] = lambda number: None) -> None:
        """Find it out, all that is to be verified first. What is kept is read without a word.

        It stops when no time is left.

        Args:
            begins: is called with the number of each of `tasks`, from 0, as it begins.
        """
        models = self._by_model(wanted)
        numbers = {(task.verb, task.subject, task.dtype): number for number, task in enumerate(self.tasks(wanted))}

        def do(verb: Verb, subject: str, dtype: Dtype, work: Callable[[], None]) -> None:
            begin = time.monotonic()
            if self.left_s() <= 0:
                return
            if (verb, subject, dtype) in numbers:
                begins(numbers[verb, subject, dtype])
            work()
            self.seconds[verb] += time.monotonic() - begin

        for subject, dtype in self._subjects(models):
            do("verifying", subject, dtype, partial(self._verify, subject, dtype, models))
        for model, dtype in self._unstamped(models):
            parts = [(subject, _compared_in(subject, dtype)) for subject in verify.subjects([model])]
            if all(part in self._verdicts for part in parts):
                self._stamps[model, dtype] = verify.stamp([self._verdicts[part] for part in parts])
        for model, cases in models.items():
            do("counting", model, "float32", partial(self._count, cases))

    def _by_model(self, wanted: Iterable[Case]) -> dict[str, list[Case]]:
        """The cells that can exist, by model."""
        models: dict[str, list[Case]] = {}
        for case in wanted:
            if not case.unsupported:
                models.setdefault(case.model, []).append(case)
        return models

    def _unstamped(self, models: dict[str, list[Case]]) -> list[Subject]:
        """The models with several forms that have no stamp in a type in which they are timed."""
        found = dict.fromkeys((model, case.dtype) for model, cases in models.items() for case in cases)
        return [of for of in found if not spec(of[0]).baseline and of not in self._stamps]

    def _subjects(self, models: dict[str, list[Case]]) -> list[Subject]:
        """The operators and models to verify, each once."""
        unknown = self._unstamped(models)
        operators = [each for each in verify.subjects([model for model, _ in unknown]) if each in OPS]
        found: list[Subject] = [*((operator, "float32") for operator in operators), *unknown]
        return [of for of in found if of not in self._verdicts]

    def _asks(self, subject: str, dtype: Dtype, models: dict[str, list[Case]]) -> list[jobs.Ask]:
        first = models[subject][0] if subject in models else self.cases[0]
        wanted = verify.extents(subject, gradients=any(case.phase == "train" for case in self.cases))
        size = first.height, first.width
        return verify.asks(subject, wanted, device=first.device, image_size=size, dtype=dtype)

    def _verifying(self, subject: str, dtype: Dtype, models: dict[str, list[Case]]) -> Task:
        usual = OPERATOR_S if subject in OPS else MODEL_S + MODEL_S_A_PARAMETER * (spec(subject).params or 0)
        guesses = [self.memo.expected_s(*ask) for ask in self._asks(subject, dtype, models)]
        return Task("verifying", subject, sum(usual if guess is None else guess for guess in guesses), dtype)

    def _verify(self, subject: str, dtype: Dtype, models: dict[str, list[Case]]) -> None:
        """Verify a subject; one limit is over all its jobs."""
        spare_s = max(MOST_S - self.seconds["verifying"], 0.0)
        limit_s = min(verify.LIMIT_S, self.timeout_s, spare_s, self.left_s())
        deadline, endings = time.monotonic() + limit_s, []
        for ask in self._asks(subject, dtype, models):
            if kept := self.memo.recall(*ask):
                endings.append(kept)
            elif (left_s := deadline - time.monotonic()) > 0:
                endings.append(self.memo.run(*ask, left_s))
            else:
                endings.append(Ending("timeout", f"the {limit_s:.0f} s for verifying {subject} were over"))
        self._verdicts[subject, dtype] = verify.joined(subject, endings)

    def _count(self, cases: list[Case]) -> None:
        """Count cells of one model together; those that another one's end took along, alone. One limit is over all."""
        for case in cases:
            if (kept := self.memo.recall(*jobs.count([case]))) is not None:
                self._counts |= kept.parts
        rest = [case for case in cases if case.id not in self._counts]
        if not rest:
            return
        one_s = min(COUNT_LIMIT_S, self.timeout_s)
        together_s = min(one_s + COUNT_EACH_S * (len(rest) - 1), MOST_S, self.left_s())
        deadline = time.monotonic() + min(together_s + one_s, MOST_S, self.left_s())
        ending, seconds = self._counted(rest, together_s)
        for case in rest:
            self._remember(case, ending, seconds / len(rest))
        self._counts |= ending.parts
        stuck = ending.status == "timeout" and all(map(_whole, ending.parts.values()))  # in the count of the next cell
        for number, case in enumerate(case for case in rest if case.id not in ending.parts):
            left_s = min(one_s, deadline - time.monotonic())
            if number == 0 and stuck:
                self._counts[case.id] = _uncounted(ending.reason)
            elif left_s <= 0:
                self._counts[case.id] = _uncounted(f"the time to count {len(rest)} cells of {case.model} was over")
            else:
                alone, seconds = self._counted([case], left_s)
                self._remember(case, alone, seconds)
                self._counts[case.id] = alone.parts.get(case.id) or _uncounted(alone.reason)

    def _counted(self, cases: list[Case], limit_s: float) -> tuple[Ending, float]:
        """How the count of some cells of a model ends, and after how many seconds."""
        begin = time.monotonic()
        ending = self.launcher.run(*jobs.count(cases), limit_s)
        return ending, time.monotonic() - begin

    def _remember(self, case: Case, ending: Ending, seconds: float) -> None:
        """Keep the work of a case. Why it could not be counted is not kept."""
        part = ending.parts.get(case.id)
        if ending.status in ("ok", "timeout") and part and "uncounted" not in part and _whole(part):
            self.memo.keep(*jobs.count([case]), Ending("ok", None, {case.id: part}), seconds)


def _whole(part: dict[str, Any]) -> bool:
    """Whether the count of a case came to its end."""
    return (part.get("second_count") or {}).get("reason") != ENDED


def _uncounted(reason: str | None) -> dict[str, Any]:
    return {"uncounted": f"MACs not counted: {reason}"}


def _compared_in(subject: str, dtype: Dtype) -> Dtype:
    """The type under which the verification of a part of a model is kept: an operator's is of all types."""
    return "float32" if subject in OPS else dtype
