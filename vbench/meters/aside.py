"""A cell's model where its memory is measured: what its code imports is there before, and is none of the model's need.

A module is imported before the baseline is taken. Some import more as they build the model, or in their first call.
"""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from vbench.devices import on_host
from vbench.kernels.registry import missing, operator
from vbench.meters import memory
from vbench.meters.build import build, cast, finish, images, weights_of
from vbench.meters.memory import DOUBT_BYTES, Baseline
from vbench.models import external

if TYPE_CHECKING:
    from torch import nn

    from vbench.devices.base import Device
    from vbench.plan import Case

QUICK_S = 1.0  # a model that takes longer to build is not built a second time


class Loaded:
    """What this process has imported so far, and how often torch.compile has compiled; it is small itself."""

    def __init__(self) -> None:
        self._state = self._now()

    def grew(self) -> bool:
        """Whether it is more now."""
        return self._now() != self._state

    @staticmethod
    def _now() -> tuple[int, str, int]:
        """Modules are kept in the order of their imports."""
        return len(sys.modules), next(reversed(sys.modules)), _frames()


def prepare(case: Case) -> None:
    """Import what a cell's model is made of, as far as its name tells, and compile its loops in machine code.

    The compiler's memory, tens of MiB, is then part of the baseline, and no call waits for it.

    Raises: UnknownModelError.
    """
    import torch

    from vbench.kernels.warming import warm

    if case.spec.external:
        external.load(case.model)
        gc.collect()  # what the imports left would be freed later, and seem to be the model's
    elif case.operator and case.form:
        operator(case.operator, case.form)
        if missing(case.operator, case.form, case.device) is None:
            warm(case.operator, case.form, getattr(torch, case.autocast or case.weights_dtype))
            gc.collect()


def placed(case: Case) -> nn.Module:
    """The model of a cell in its types, on its device; lazy modules have their shapes. Raises: as `build`."""
    import torch

    model = cast(build(case), getattr(torch, case.weights_dtype)).to(case.device)
    finish(model, images(case, 1, torch.device(case.device)))
    return model


def built(case: Case, device: Device) -> tuple[nn.Module, Baseline]:
    """The model of a cell on its device, and what is in use without it. Raises: as `prepare` and `build`.

    If building imports something on the host, that is part of the baseline: the model takes what a second one like it
    does. A model that takes longer to build than `QUICK_S`, or of which there is no room for two, takes its weights.
    A user's module may make weights before it builds a model; they are the model's all the same.
    """
    prepare(case)
    loaded, before, begin = Loaded(), memory.baseline(device), perf_counter()
    model = placed(case)
    seconds = perf_counter() - begin
    if not on_host(device.name) or not (case.spec.external or loaded.grew()):
        return model, before
    if not loaded.grew():
        without = device.used_bytes() - memory.nbytes(weights_of(model))
        if without > before.used_bytes - DOUBT_BYTES:  # the usual; what follows needs memory itself
            return model, before
        weights = own_bytes(model, device)
        return model, replace(before, used_bytes=min(before.used_bytes, device.used_bytes() - weights))
    weights = own_bytes(model, device)
    another = _taken_by_another(case, device) if seconds < QUICK_S and device.fits(weights) else 0
    return model, replace(before, used_bytes=device.used_bytes() - max(weights, another))


def own_bytes(model: nn.Module, device: Device) -> int:
    """The bytes of a model's weights that `Device.used_bytes` counts."""
    return memory.nbytes(weights_of(model)) - memory.outside(model, device)


def _taken_by_another(case: Case, device: Device) -> int:
    """The bytes that a second model of a cell takes; 0 if it cannot be built."""
    import torch

    taken = 0
    with torch.random.fork_rng(devices=[]), suppress(Exception):
        before = device.used_bytes()
        another = placed(case)
        taken = device.used_bytes() - before
        del another
    gc.collect()
    return taken


def rehearse(case: Case, smallest: Case) -> None:
    """Have a user's model import whatever it does, before memory is rationed: an import cannot be done later.

    The model is built for a small image and called on it. If it takes none, it is built as the cell has it. What fails
    here is not said: it fails again where it counts. Another model than a user's is not touched.

    Raises: UnknownModelError if its module cannot be imported.
    """
    prepare(case)
    if not case.spec.external or not on_host(case.device):
        return
    try:
        _call_once(smallest)
    except Exception:
        with suppress(Exception):
            placed(case)
    gc.collect()


def _call_once(case: Case) -> None:
    import torch

    model, image = placed(case), images(case, 1, torch.device(case.device))
    with torch.no_grad():  # not in inference mode: what a module keeps of this call may be needed in training
        model(image)


def _frames() -> int:
    """How many functions torch.compile has compiled in this process, for a user's code too."""
    utils = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["frames"]["ok"])
