"""`vbench memory`: what cells need on a card, and the largest batch and image that fit, all predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Protocol

from vbench import host, jobs
from vbench.errors import ResolutionError, UsageError
from vbench.flops.cards import cards
from vbench.jobs.launch import Launcher
from vbench.jobs.lenient import Lenient
from vbench.jobs.memo import Memo
from vbench.kernels.registry import default_form
from vbench.models import spec
from vbench.plan import LARGEST, Case
from vbench.results.claim_predictions import DTYPE, Predict, Wanted

TIME_LIMIT_S = 600.0  # for one cell
MOST_IMAGES = 65_536
CLAIMED_ON = "a100"  # cards differ in cuBLAS's workspace alone
STEP = 32  # px between the sides that are tried


def predict_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case", "card", "batch", "tf32", "largest"} -> "prediction", "fits", and if asked
    "largest_batch" and "largest_side" in px; or "unsupported", why there is none."""
    from vbench.errors import UnsupportedError
    from vbench.flops.peak import Predictor

    case, card, batch = Case(**argument["case"]), cards()[argument["card"]], argument["batch"]
    try:
        predictor = Predictor(case)
        found = predictor.predict(card, batch=batch, tf32=argument["tf32"])
    except UnsupportedError as error:
        yield "unsupported", str(error)
        return
    yield "prediction", asdict(found)
    yield "fits", found.process_bytes <= card.memory_bytes or predictor.fits(card, batch=batch)
    if argument["largest"]:
        yield "largest_batch", largest(lambda n: predictor.fits(card, batch=n), MOST_IMAGES)

        def fits_at(step: int) -> bool:
            side = step * STEP
            try:
                case.spec.grid(side, side)
                sized = Predictor(replace(case, height=side, width=side))
            except (ResolutionError, UnsupportedError):
                return False
            return sized.fits(card, batch=batch)

        steps = largest(fits_at, LARGEST // STEP)
        yield "largest_side", steps and steps * STEP


def largest(fits: Callable[[int], bool], limit: int) -> int | None:
    """The largest whole number up to `limit` for which `fits` holds, if it holds up to there; None if not for 1."""
    if not fits(1):
        return None
    low = 1
    while 2 * low <= limit and fits(2 * low):
        low *= 2
    high = min(2 * low, limit + 1)  # the smallest that may not fit
    while high - low > max(1, low // 64):  # a step of 1.5 % is finer than the prediction
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def run(case: Case, card: str, launcher: Launcher, *, batch: int, searches: bool) -> dict[str, Any]:
    """One cell on a card as a flat, JSON-able dict, predicted in a child.

    Returns: the axes of the cell, `card`, `card_bytes`, and None with `reason` or the fields of
        `peak.Prediction`; `fits`; `largest_batch` and `largest_side` if `searches`.
    Raises: UsageError if the model's pass cannot run without data.
    """
    on = cards()[card]
    axes = ("model", "height", "width", "mode", "form", "dtype", "phase", "layout", "attention", "reparam")
    row = {axis: getattr(case, axis) for axis in axes} | {"batch": batch}
    row |= {"card": card, "card_bytes": on.memory_bytes, "reason": case.unsupported}
    if case.unsupported:
        return row
    asked = jobs.predict_memory(case, card, batch=batch, largest=searches)
    ending = Lenient(launcher).run(*asked, TIME_LIMIT_S)
    if "unsupported" in ending.parts:
        return row | {"reason": ending.parts["unsupported"]}
    if "prediction" not in ending.parts:
        raise UsageError(f"{case} cannot be predicted: {ending.reason}")
    row |= ending.parts["prediction"]
    row["fits"] = ending.parts["fits"]
    if searches:
        row |= {name: ending.parts.get(name) for name in ("largest_batch", "largest_side")}
    return row


class Asker(Protocol):
    """Predicts the memory of a call; returns the fields of `peak.Prediction`."""

    def __call__(self, case: Case, card: str, batch: int, *, tf32: bool = False) -> Mapping[str, Any]: ...


@contextmanager
def asking() -> Iterator[Asker]:
    """Within, an `Asker`, whose results are kept for the same code and versions. It raises UsageError, as `run`."""
    with Launcher() as launcher:
        memo = Memo(Lenient(launcher), host.code_digest())

        def ask(case: Case, card: str, batch: int, *, tf32: bool = False) -> Mapping[str, Any]:
            asked = jobs.predict_memory(case, card, batch=batch, tf32=tf32)
            ending = memo.run(*asked, TIME_LIMIT_S)
            if "prediction" not in ending.parts:
                raise UsageError(f"{case} cannot be predicted: {ending.parts.get('unsupported', ending.reason)}")
            found: Mapping[str, Any] = ending.parts["prediction"]
            return found

        yield ask


def of_claims(ask: Asker) -> Predict:
    """Answers what claims ask for (`results.claim_predictions`)."""

    def predict(wanted: Wanted) -> Mapping[str, int] | None:
        row = spec(wanted.model)
        form = default_form(row.operator, "parallel", "cuda") if row.operator else None
        size = wanted.side, wanted.side
        case = Case(wanted.model, *size, "parallel", form, wanted.batch, DTYPE, "cuda:0", attention=wanted.attention)
        return ask(case, CLAIMED_ON, wanted.batch)

    return predict
