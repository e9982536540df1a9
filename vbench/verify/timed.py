"""Whether the outputs of timed calls are right: finite, of the image that was given, and what the model computes.

The reference is the model built once more, called once, in float32. An output in float32 may differ from it by 1e-5, or
by 8 times what rounding the image changes; an output in a half type by twice what a first call in that type differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices import is_out_of_memory
from vbench.errors import first_line
from vbench.kernels.trials import relative
from vbench.meters.autocast import UnderAutocast
from vbench.meters.build import cast
from vbench.meters.outputs import Output, Seen, copied
from vbench.plan import product_dtype
from vbench.verify import HALF
from vbench.verify.checks import BOUNDS, ELSEWHERE

REPEATED = {"float64": 1e-9, "float32": 1e-4}  # relative, of the same call twice; some kernels add in any order
REPEATED_HALF = 0.05
ROUNDING = {False: 2.0**-23, True: 2.0**-11}  # of float32 numbers; of products in TF32
NO_REFERENCE = "compared with the first call alone: "


@dataclass(slots=True)
class Found:
    """What was found. `checked` calls were looked at; `compared` outputs were compared, and `differs` were wrong.

    `worst` is the relative error that comes closest to its `bound`, or exceeds it most. `reason` says what is wrong,
    or what could not be compared.
    """

    checked: int
    nonfinite: int
    compared: int = 0
    differs: int = 0
    worst: float | None = None
    bound: float | None = None
    reason: str | None = None

    def enter(self, error: float, bound: float, what: str) -> None:
        """Enter a comparison; `what` says what is wrong if the error exceeds the bound."""
        self.compared += 1
        if self.worst is None or self.bound is None or error * self.bound > self.worst * bound:
            self.worst, self.bound = min(error, 1e300), bound
        if error > bound:
            self.differs += 1
            self.say(f"{what}: error {error:.1e}, bound {bound:.1e}")

    def say(self, reason: str) -> None:
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


def check(
    seen: Seen | None, dtype: str, twin: Callable[[], nn.Module] | None, *, tf32: bool = False, why_not: str = ""
) -> dict[str, Any]:
    """Check what timed calls returned.

    Args:
        dtype: of the model and its image.
        twin: builds the model once more, with the same weights in float32, on the images' device. None for no
            reference: then outputs are compared with the first one of the process and with each other.
        tf32: whether float32 products are rounded to TF32.
        why_not: why there is no twin.

    Returns: the fields of `Found`, JSON-able.
    """
    if seen is None:
        return asdict(Found(0, 0, reason="nothing noted what these calls returned"))
    found = Found(seen.calls, seen.nonfinite)
    if seen.nonfinite:
        found.say(f"{seen.nonfinite} of {seen.calls} outputs hold a number that is not finite")
    if seen.strange is not None:
        found.differs += 1
        found.say(seen.strange)
    elif seen.losses:
        _steps(seen, found)
    elif not seen.nonfinite:
        _outputs(seen, dtype, twin, tf32, why_not, found)
    return asdict(found)


def _steps(seen: Seen, found: Found) -> None:
    """A step must change the loss of the same batch, unless that is a mean, which need not change."""
    found.compared = len(seen.losses)
    if seen.learns and len(seen.losses) > 1 and len(set(seen.losses)) == 1:
        found.differs += 1
        found.say("the loss is the same after every step: nothing is learned")


@torch.inference_mode()
def _outputs(
    seen: Seen, dtype: str, twin: Callable[[], nn.Module] | None, tf32: bool, why_not: str, found: Found
) -> None:
    there = [place for place, output in enumerate(seen.outputs) if output is not None]
    if not there:
        found.say("no timed call was announced to its pool")
        return
    if seen.first is not None and 0 in there and len(there) == len(seen.outputs):
        again = _error(_of(seen, 0), seen.first)
        found.enter(again, REPEATED.get(dtype, REPEATED_HALF), "a later call does not return what the first one did")
    same = any(_equal(_of(seen, one), _of(seen, other)) for one, other in combinations(there, 2))
    same = same and any(x.is_floating_point() or x.is_complex() for x in _of(seen, there[0]))  # classes may be equal
    if twin is None:
        found.say(NO_REFERENCE + why_not)
    else:
        place = there[-1]
        try:
            _against_twin(_of(seen, place), seen.images[place], dtype, twin, tf32, found)
            same = same and _depends(twin, seen.images[place])
        except Exception as error:  # whatever a model raises in another type: nothing is known then
            lack = "no memory for a second model" if is_out_of_memory(error) else first_line(error, named=True)
            found.say(NO_REFERENCE + lack)
    if same:
        found.compared += 1
        found.differs += 1
        found.say("the outputs of different images are equal")


def _against_twin(
    output: Output, image: Tensor, dtype: str, twin: Callable[[], nn.Module], tf32: bool, found: Found
) -> None:
    """Compare an output with the twin's. Each call is the first one of a new model."""
    kind = getattr(torch, product_dtype(dtype))
    wanted = copied(twin().float()(image.float()))
    error, bound = _error(output, wanted), BOUNDS["float32"]
    if error > bound:
        if kind == torch.float32:
            rounded = image * (1 + ROUNDING[tf32] * torch.randn_like(image))
            bound = max(bound, ELSEWHERE * _error(copied(twin()(rounded)), wanted))
        else:
            autocast = dtype != product_dtype(dtype)
            other = UnderAutocast(twin(), image.device.type, kind) if autocast else cast(twin(), kind)
            bound = max(bound, HALF * _error(copied(other(image)), wanted))
    if isfinite(bound):
        found.enter(error, bound, "a timed output is not what the model computes")
    else:
        found.say(f"{NO_REFERENCE}a first call in {dtype} is not finite")


def _depends(twin: Callable[[], nn.Module], image: Tensor) -> bool:
    """Whether the right output depends on the image; a head of zeros, say, gives the same for all."""
    outputs = [copied(twin().float()(one)) for one in (image.float(), torch.zeros_like(image.float()))]
    return not _equal(*outputs)


def _of(seen: Seen, place: int) -> Output:
    output = seen.outputs[place]
    assert output is not None
    return output


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


def _error(one: Output, other: Output) -> float:
    """The largest relative error of a tensor; infinite if number or shapes differ."""
    if len(one) != len(other) or any(a.shape != b.shape for a, b in zip(one, other, strict=True)):
        return inf
    return max(relative(_real(a), _real(b.to(a.device))) for a, b in zip(one, other, strict=True))


def _real(x: Tensor) -> Tensor:
    """In float32; a complex tensor as pairs of numbers."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).float()
