"""Whether a pass failed because of what the model was given: a size, a batch or channels that it does not take.

The model is tried again with something else. If that works, the cell is unsupported, with the model's own words; if
nothing works, it is an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from vbench.devices import is_out_of_memory
from vbench.errors import UnsupportedError, UsageError, VbenchError, first_line
from vbench.meters import autocast, training
from vbench.meters.build import build, cast, images
from vbench.models import MODELS, sized
from vbench.models import external as own
from vbench.plan import Case

SEARCH_S = 20.0  # after which no other size is tried
SIDES = (224, 32, 64, 256, 384, 512, 96, 128, 448, 518)  # px; what models of one size are made for
LARGEST = 1024  # px; a larger side takes too long to try
WORDS = 180  # characters of the model's own error


@contextmanager
def explained(case: Case, batch: int = 1) -> Iterator[None]:
    """Within, the model of a cell is built, or called for the first time, on `batch` images (in training on those of
    the cell).

    Raises: UnsupportedError instead of what a model of timm or of the user's own raises, if it works with another
        size, with one image, or with another number of channels. Our own models know their sizes, so an error of
        theirs stays one. A UsageError that a user's model raises is taken as any other error.
    """
    try:
        yield
    except Exception as error:
        ours = isinstance(error, VbenchError) and not isinstance(error, UsageError)
        reason = None if ours or case.model in MODELS or is_out_of_memory(error) else refusal(case, batch)
        if reason is None:
            raise
        raise UnsupportedError(reason) from error


def refusal(case: Case, batch: int = 1) -> str | None:
    """What a model does not take, with its own words; None if it works as asked, or fails whatever it is given.

    It may work as asked where a back end failed, or a pass without data. `batch` is as in `explained`.
    """
    if case.phase == "train":
        batch = case.batch if isinstance(case.batch, int) else 1
    if (what := failure(case, batch)) is None:
        return None
    if batch > 1 and _works(case):
        does = "train on" if case.phase == "train" else "take"
        return f"{case.model} cannot {does} a batch of {batch}: {what}; a batch of 1 works"
    modules = _modules(case)
    begin = time.monotonic()
    for height, width in [(case.height, case.width), *sizes(case, modules)]:
        if time.monotonic() - begin > SEARCH_S:
            break
        other = replace(case, height=height, width=width)
        if _works(other, batch):
            asked = f"{case.height}x{case.width}"
            return f"{case.model} cannot take {asked}: {what}; {height}x{width} works{_unsized(other)}"
        if channels := next(
            (count for count in _channels(modules) if failure(other, batch, channels=count) is None), None
        ):
            of = "1 channel" if channels == 1 else f"{channels} channels"
            return f"{case.model} takes images of {of}, ours have 3: {what}"
    return None


def failure(case: Case, batch: int = 1, *, channels: int = 3) -> str | None:
    """How a cell's model fails, built anew, in a pass or a training step in eager mode; None if it works."""
    where = torch.device(case.device)
    try:
        model = autocast.under(case, cast(build(case).to(where), getattr(torch, case.weights_dtype)))
        image = images(case, batch, where)
        image = image if channels == 3 else image[:, :1].repeat(1, channels, 1, 1)
        if case.phase == "train":
            training.Trainer(model, image, scaled=training.needs_scale(case)).step()
        else:
            with torch.inference_mode():
                model(image)
    except Exception as error:  # whatever a model raises
        return first_line(error, named=True)[:WORDS]
    return None


def _works(case: Case, batch: int = 1) -> bool:
    return failure(case, batch) is None


def sizes(case: Case, modules: Sequence[nn.Module]) -> list[tuple[int, int]]:
    """Sizes at which a model may work: those that it says it is made for, then usual ones."""
    said = [sized.as_size(getattr(module, key, None)) for module in modules for key in own.SIZES]
    found = [_declared(case), *said, *((side, side) for side in SIDES)]
    asked = case.height, case.width
    return [size for size in dict.fromkeys(found) if size and size != asked and max(size) <= LARGEST]


def _declared(case: Case) -> tuple[int, int] | None:
    """What timm, or the default of the user's argument for the size, says."""
    from vbench.models import baselines

    name = case.spec.args["name"]
    return own.size_of(name) if case.spec.external else baselines.size_of(name)


def _modules(case: Case) -> list[nn.Module]:
    """The modules of a cell's model, as far as it can be built."""
    try:
        return list(build(case).modules())
    except Exception:  # it is this size perhaps at which it cannot be built
        return []


def _channels(modules: Sequence[nn.Module]) -> list[int]:
    """How many channels the first convolution wants, if not 3; empty if there is none."""
    wanted = [module.in_channels for module in modules if isinstance(module, nn.Conv2d)]
    return [count for count in wanted[:1] if count != 3]


def _unsized(case: Case) -> str:
    """What to do if the user's callable does not get the size of this cell, which works."""
    if not case.spec.external:
        return ""
    by = own.build_and_tell((case.height, case.width), name=case.spec.args["name"], mode=case.mode)[1]
    return "" if by else "; it is built without a size: name a callable with an argument img_size"
