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
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.memo import Memo
from vbench.kernels.registry import OPS
from vbench.models import spec
from vbench.plan import Case, Dtype
from vbench.results.store import Record

Verb = Literal["verifying", "counting"]
Subject = tuple[str, Dtype]
COUNT_LIMIT_S = 120.0  # for a case
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
    """

    cases: list[Case]
    launcher: Runner
    memo: Memo
    left_s: Callable[[], float] = lambda: inf
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
        return None if case.spec.baseline else self._stamps[case.model, case.dtype]

    def count(self, case: Case) -> dict[str, Any]:
        """The parts "work" and "second_count" of a case; or "unsupported", or "uncounted", with the reason."""
        return self._counts[case.id]

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
        made = self._asks(subject, dtype, models)
        endings = [self.memo.run(*ask, min(verify.LIMIT_S, max(self.left_s(), 0.0))) for ask in made]
        self._verdicts[subject, dtype] = verify.joined(subject, endings)

    def _count(self, cases: list[Case]) -> None:
        """Count cells of one model together; those that another one's end took along, alone."""
        for case in cases:
            if (kept := self.memo.recall(*jobs.count([case]))) is not None:
                self._counts |= kept.parts
        rest = [case for case in cases if case.id not in self._counts]
        if not rest:
            return
        begin = time.monotonic()
        ending = self.launcher.run(*jobs.count(rest), min(COUNT_LIMIT_S * len(rest), self.left_s()))
        each_s = (time.monotonic() - begin) / len(rest)
        for case in rest:
            self._remember(case, ending, each_s)
        self._counts |= ending.parts
        for case in rest:
            if case.id not in self._counts and (left_s := self.left_s()) > 0:
                begin = time.monotonic()
                alone = self.launcher.run(*jobs.count([case]), min(COUNT_LIMIT_S, left_s))
                self._remember(case, alone, time.monotonic() - begin)
                uncounted = {case.id: {"uncounted": f"MACs not counted: {alone.reason}"}}
                self._counts |= alone.parts if case.id in alone.parts else uncounted

    def _remember(self, case: Case, ending: Ending, seconds: float) -> None:
        """Keep the work of a case. Why it could not be counted is not kept."""
        part = ending.parts.get(case.id)
        if ending.status == "ok" and part is not None and "uncounted" not in part:
            self.memo.keep(*jobs.count([case]), Ending("ok", None, {case.id: part}), seconds)


def _compared_in(subject: str, dtype: Dtype) -> Dtype:
    """The type under which the verification of a part of a model is kept: an operator's is of all types."""
    return "float32" if subject in OPS else dtype
