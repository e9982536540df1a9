"""One pass of one image through any model, entered into a ledger.

The pass runs without data if the model can. A model that needs values (it branches on them, selects by them, or leaves
torch for numpy) makes a real pass of noise on the CPU. Above `DIRECT` pixels that would take long, so smaller images
are passed, and each count is extrapolated if it proves to be a polynomial of the side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vbench.errors import UncountedError, UnsupportedError, UsageError
from vbench.flops.autocast import Autocast, casting
from vbench.flops.dataless import Following, afresh, uncompiled, with_data, without_data
from vbench.flops.extrapolation import extrapolated, fill, numbers
from vbench.flops.ledger import Ledger
from vbench.meters.build import finish, images
from vbench.plan import Case

REAL = "counted on a real pass of one noise image: the model needs values"
BY_NUMPY = "what the model computes by numpy is not counted"
DIRECT = 640 * 640  # px; a larger image is passed only if smaller ones do not tell its counts
SMALLEST = (64, 224)  # px; where the shorter sides of small images begin
STEP, SMALL = 32, 5  # px between small images, and how many; five give a polynomial of fourth degree
LIMIT_S = 90.0  # for a real pass of one image

Book = TypeVar("Book", bound=Ledger)
Kept_co = TypeVar("Kept_co", bound=Ledger, covariant=True)
Opening = Callable[[nn.Module, Autocast], Book]  # makes a ledger of a model, under the cell's autocast


@dataclass(frozen=True, slots=True)
class Entered(Generic[Kept_co]):
    """A model, and a ledger that has its pass. `notes`: how it was passed, a sentence each, if not without data."""

    model: nn.Module
    ledger: Kept_co
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Real(Generic[Book]):
    """A real pass of some images. `grown`: whether the model took its final shape in it."""

    case: Case
    model: nn.Module
    ledger: Book
    grown: bool
    by_numpy: bool
    seconds: float


def entered(case: Case, opening: Opening[Book]) -> Entered[Book]:
    """A pass of one image of a cell.

    Raises: UnsupportedError if the cell asks for an attention that the model does not have; UncountedError if only a
        real pass could tell and it would take too long; or what the model raises in a real pass.
    """
    failure: Exception | None = None
    attempts: tuple[Callable[[], AbstractContextManager[Any]], ...] = (nullcontext, Following)
    for following in attempts:
        try:
            model = without_data(case)
            image = torch.empty(1, 3, case.height, case.width, dtype=getattr(torch, case.weights_dtype), device="meta")
            with following():
                return Entered(model, _passed(case, model, image, opening)[0])
        except (UnsupportedError, UsageError):
            raise
        except Exception as error:
            failure = error
    if case.operator and failure:  # on the CPU our operators are many operations, and some are machine code
        raise failure
    return _with_data(case, opening)


def _passed(case: Case, model: nn.Module, image: Tensor, opening: Opening[Book]) -> tuple[Book, bool]:
    """A ledger with the pass, and whether the model took its final shape only in a pass before that."""
    with casting(case) if image.is_meta else _autocast(case) as cast, uncompiled():
        grown = finish(model, image)
        parts = _parts(model)
        ledger = opening(model, cast)
        ledger.enter(image)
        if _parts(model) != parts:  # modules made in a first call are not part of a later one
            grown, ledger = True, opening(model, cast)
            ledger.enter(image)
    return ledger, grown


@contextmanager
def _autocast(case: Case) -> Iterator[Autocast]:
    """Within, torch itself casts as the CPU's autocast does, inside of scripts too."""
    half = getattr(torch, case.autocast or "bfloat16")
    with torch.autocast("cpu", half, enabled=case.autocast is not None):
        yield Autocast(None)


def _parts(model: nn.Module) -> tuple[int, int]:
    return sum(1 for _ in model.modules()), sum(1 for _ in model.parameters())


def _with_data(case: Case, opening: Opening[Book]) -> Entered[Book]:
    if case.height * case.width > DIRECT:
        return _by_smaller_images(case, opening)
    try:
        found = _real(case, opening)
    except Exception:
        if by_several := _by_several_images(case, opening):
            return by_several
        raise
    return Entered(found.model, found.ledger, _notes(REAL, [found]))


def _notes(how: str, passes: Iterable[_Real[Book]]) -> tuple[str, ...]:
    return (how, BY_NUMPY) if any(one.by_numpy for one in passes) else (how,)


def _real(case: Case, opening: Opening[Book], batch: int = 1) -> _Real[Book]:
    """A pass of noise through the model as it is built. The noise and the weights are the same each time."""

    def run() -> _Real[Book]:
        with torch.random.fork_rng(devices=[]), _Leaving() as leaving:
            torch.manual_seed(0)
            model, image = with_data(case), images(case, batch, torch.device("cpu"))
            leaving.by_numpy, begin = False, time.monotonic()
            ledger, grown = _passed(case, model, image, opening)
        return _Real(case, model, ledger, grown, leaving.by_numpy, time.monotonic() - begin)

    return afresh(case, run)


def _by_several_images(case: Case, opening: Opening[Book]) -> Entered[Book] | None:
    """The counts of one image, for a model that takes no single one; None if they are not proportional to a batch."""
    try:
        two, four, six = (_real(case, opening, batch) for batch in (2, 4, 6))
    except Exception:
        return None
    known, check = [numbers(two.ledger), numbers(four.ledger)], numbers(six.ledger)
    if (found := extrapolated(known, Fraction(-1, 2), check=check, check_at=2)) is None:
        return None
    how = "extrapolated from real passes of 2, 4 and 6 noise images: the model takes no single one"
    return _filled(two.model, opening, found, _notes(how, [two]))


def _by_smaller_images(case: Case, opening: Opening[Book]) -> Entered[Book]:
    """The counts of a large image by extrapolation, or else by its pass."""
    seconds = 0.0  # of this image, at least
    for smallest in SMALLEST:
        steps = (min(case.height, case.width) - smallest) // STEP  # from the smallest image to this one
        half = steps - min(case.height, case.width) // (2 * STEP)  # to the one that checks
        if half < SMALL:
            continue
        try:
            *small, check = (_real(_shrunk(case, steps - place), opening) for place in (*range(SMALL), half))
        except Exception:  # the model does not take these sizes
            continue
        seconds = check.seconds * case.height * case.width / (check.case.height * check.case.width)
        if any(one.grown for one in (*small, check)):
            continue  # this size may give it other weights
        known = [numbers(one.ledger) for one in small]
        found = extrapolated(known, steps, check=numbers(check.ledger), check_at=half)
        if found is not None:
            sides = ", ".join(f"{one.case.height}x{one.case.width}" for one in small)
            how = (
                f"extrapolated from real passes of one noise image of {sides} px, which give just what is counted at "
                f"{check.case.height}x{check.case.width} px: the model needs values"
            )
            return _filled(with_data(case), opening, found, _notes(how, [check]))
    if seconds > LIMIT_S:
        raise UncountedError(
            f"the model needs values, a real pass would take {seconds:.0f} s or more, and the counts of smaller images "
            "do not tell those of this one"
        )
    real = _real(case, opening)
    return Entered(real.model, real.ledger, _notes(REAL, [real]))


def _shrunk(case: Case, steps: int) -> Case:
    return replace(case, height=case.height - STEP * steps, width=case.width - STEP * steps)


def _filled(model: nn.Module, opening: Opening[Book], found: Any, notes: tuple[str, ...]) -> Entered[Book]:
    ledger = opening(model, Autocast(None))
    fill(ledger, found)
    return Entered(model, ledger, notes)


class _Leaving(TorchFunctionMode):
    """Sees whether tensors leave torch for numpy."""

    by_numpy = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        self.by_numpy |= getattr(func, "__name__", "") in ("numpy", "__array__")
        return func(*args, **(kwargs or {}))
