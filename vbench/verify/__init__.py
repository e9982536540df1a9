"""Whether the modes and forms that are timed compute the same function. Importing this does not import torch.

An operator is tested on its own inputs (`kernels/OP/trials.py`). Its forms are compared with the recurrence in float64,
float32 and half types, cut in two at random places, tested for causality, and differentiated. A model is built in every
form with the same random weights, and its logits are compared: exactly, and as they are timed, in a half type or under
autocast if that is so. `verify.checks` has the checks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from vbench import jobs
from vbench.errors import UsageError
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.lenient import Lenient
from vbench.kernels.registry import OPS
from vbench.models import spec
from vbench.plan import Dtype

HALF = 2.0  # in half types a form's error may be this many times the best form's
TOKENS = 133  # of a trial: two whole chunks and a shorter one
KINDS = ("float64", "float32", "half", "split", "causal", "grad", "timed")  # "timed": in the type that is timed
TELL_S = 1.0  # after which a job says what it has checked so far
LIMIT_S = 600.0  # for all checks of an operator or a model


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. `error` is relative (‖found − wanted‖ / ‖wanted‖) and passes up to `bound`."""

    subject: str  # an operator or a model
    kind: str  # one of `KINDS`
    form: str
    where: str  # the trial, or the image
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{self.subject} {self.form}, {self.kind}, {self.where}: error {self.error:.1e}, bound {self.bound:.1e}"

    def to_json(self) -> dict[str, Any]:
        """Its fields, and whether it passed; an error that is not finite is None."""
        return {**asdict(self), "error": self.error if isfinite(self.error) else None, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of an operator or a model; `reason` says why there are none, or not all."""

    subject: str
    checks: tuple[Check, ...]
    complete: bool = True
    reason: str | None = None
    notes: tuple[str, ...] = ()  # on the checkpoint that was loaded

    @property
    def ok(self) -> bool:
        return self.complete and all(check.ok for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """A line for each failure."""
        unfinished = [] if self.complete else [f"{self.subject}: not verified, {self.reason}"]
        return unfinished + [str(check) for check in self.checks if not check.ok]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of an operator is tested.

    Args:
        forms: names of forms; empty for all that can run.
        tokens: of a trial.
        cuts: the number of places where a trial is cut in two.
        brief: test half types, cuts and causality only in the first trial of each direction. The other trials test
            values in float32, and gradients of parallel forms (Triton's recurrent forms use the same kernels).
        gradients: whether to test gradients.
        values: whether to test all else.
    """

    forms: tuple[str, ...] = ()
    tokens: int = TOKENS
    cuts: int = 2
    brief: bool = False
    gradients: bool = True
    values: bool = True


BRIEF = Extent(tokens=70, cuts=1, brief=True, gradients=False)  # a whole chunk and a shorter one


def verify(
    subject: str,
    launcher: Runner,
    *,
    device: str = "cpu",
    seed: int = 0,
    weights: str | None = None,
    gradients: bool = True,
    brief: bool = False,
    dtype: Dtype = "float32",
    image_size: tuple[int, int] = (224, 224),
) -> Verification:
    """All checks of an operator ("gla") or a model ("vig_t"), in a child. A model's own usage error is a `reason`.

    Args:
        gradients: test gradients too, not only values.
        brief: fewer tokens, fewer trials, no gradients (`BRIEF`).
        dtype: in which a model is also compared, if that is not float32. An operator is compared in all types anyway.
        image_size: (height, width) in px for a model of the user's own; our models have a fixed size for this.

    Raises: UnknownModelError; UsageError for `weights` that cannot be read or do not fit.
    """
    if subject not in OPS and spec(subject).baseline:
        if weights:
            raise UsageError(f"{subject} has one form of attention, and nothing to compare it with: leave out weights")
        return Verification(subject, (), reason="one form of attention: nothing to compare")
    wanted = [BRIEF] if brief else extents(subject, gradients=gradients)
    made = asks(subject, wanted, device=device, seed=seed, weights=weights, image_size=image_size, dtype=dtype)
    runner = launcher if weights else Lenient(launcher)
    deadline = time.monotonic() + LIMIT_S
    return joined(subject, [runner.run(*ask, max(deadline - time.monotonic(), 0.0)) for ask in made])


def asks(
    subject: str,
    wanted: Iterable[Extent],
    *,
    device: str = "cpu",
    seed: int = 0,
    weights: str | None = None,
    image_size: tuple[int, int] = (224, 224),
    dtype: Dtype = "float32",
) -> list[jobs.Ask]:
    """The jobs that verify an operator or a model, one an extent; the other arguments are those of `verify`."""
    own_size = image_size if subject not in OPS and spec(subject).external else (224, 224)
    of = "float32" if subject in OPS else dtype
    return [jobs.verify(subject, device, seed, each, weights=weights, image_size=own_size, dtype=of) for each in wanted]


def extents(subject: str, *, gradients: bool = True) -> list[Extent]:
    """What is tested of an operator or a model, in jobs of their own: a `Memo` then knows the values of an operator
    when the gradients are wanted too."""
    return [Extent(gradients=False), *[Extent(values=False)] * (gradients and subject in OPS)]


def joined(subject: str, endings: Sequence[Ending]) -> Verification:
    """One verification from the endings of its jobs."""
    checks = tuple(Check(**fields) for ending in endings for fields in ending.parts.get("checks", ()))
    broken = [ending.reason for ending in endings if ending.status != "ok"]
    notes = tuple(dict.fromkeys(note for ending in endings for note in ending.parts.get("notes", ())))
    return Verification(subject, checks, not broken, "; ".join(filter(None, broken)) or None, notes)


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"subject", "device", "seed", "weights", "extent", "image_size", "dtype"} -> "checks" of an operator or a model,
    those so far and at the end all, and "notes" on its checkpoint.

    Raises: UsageError.
    """
    import torch

    from vbench.devices import open_device
    from vbench.verify import checks

    subject, device, seed = argument["subject"], argument["device"], argument["seed"]
    open_device(device).select(tf32=False)  # torch's own default lets convolutions round to TF32
    dtype, weights = argument.get("dtype", "float32"), argument["weights"]
    notes: list[str] = []
    if subject in OPS:
        torch.set_num_threads(1)  # its tensors are too small to share
        made = checks.operator_checks(subject, device, seed, Extent(**argument.get("extent", {})))
    elif spec(subject).external:
        made = checks.own_checks(subject, device, seed, tuple(argument["image_size"]), dtype, weights, notes.append)
    else:
        made = checks.model_checks(subject, device, seed, weights, dtype, notes.append)
    done: list[dict[str, Any]] = []
    told = time.monotonic()
    for check in made:
        done.append(asdict(check))
        if time.monotonic() - told > TELL_S:
            yield "checks", done
            told = time.monotonic()
    yield "checks", done
    if notes:
        yield "notes", notes


def subjects(models: Iterable[str]) -> list[str]:
    """The operators of these models, then the models."""
    models = list(models)
    return [*dict.fromkeys(op for op in (spec(model).operator for model in models) if op), *models]


def stamp(verifications: Sequence[Verification]) -> dict[str, Any] | None:
    """The part of a record: `ok`, the number of `checks`, and which `failed`; None if there was nothing to compare."""
    if all(each.ok and not each.checks for each in verifications):
        return None
    return {
        "ok": all(each.ok for each in verifications),
        "checks": sum(len(each.checks) for each in verifications),
        "failed": [line for each in verifications for line in each.failed],
    }
