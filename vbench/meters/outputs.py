"""The outputs of timed calls: what they were, and of which image, so that a wrong one is found afterwards.

A timed forward pass takes its image from a pool, in turn. Before each call, and outside of its time, the output of the
call before is copied and a part of the next image is drawn anew. So an output that was kept from an earlier call is of
another image, whatever it was kept by. Image 0 alone stays as it is: its first output is known from the memory pass.
Nothing is compared here; `vbench.verify.timed` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vbench.devices.base import Call

if TYPE_CHECKING:
    from vbench.meters.training import Trainer

POOL = 3  # images
BANDS = 8  # of an image's rows; one of them is drawn anew before each call
KEPT_BYTES = 2**16  # a larger first output is not kept: it would count in the memory pass

Output = tuple[Tensor, ...]  # the tensors of one output, copied
PLAIN = (bool, int, float, complex, str, bytes, Enum, np.generic, torch.dtype, torch.device)  # no tensors


@dataclass(frozen=True, slots=True)
class Seen:
    """What timed calls returned.

    `images` are as the last call of each had them, and `outputs` are of these calls; None where there was none.
    `first` is the output of image 0 in the first call of this process, if it was kept. `losses` are those of training
    steps; `learns` is whether a step must change them. `strange` says what an output holds that is no plain tensor.
    """

    calls: int
    nonfinite: int  # calls with a number that is not finite
    images: tuple[Tensor, ...] = ()
    outputs: tuple[Output | None, ...] = ()
    first: Output | None = None
    losses: tuple[float, ...] = ()
    learns: bool = True
    strange: str | None = None


def tensors_of(output: Any) -> Iterator[Tensor]:
    """The tensors in an output: a tensor, a parameter or an array of numpy, or containers of these: lists, mappings,
    dataclasses and simple namespaces. Words, numbers and None in them are skipped.

    Raises: TypeError for anything else, also for another subclass of `Tensor`: reading it may be what computes it.
    """
    if type(output) in (Tensor, nn.Parameter):
        yield output
    elif isinstance(output, np.ndarray):
        yield torch.from_numpy(output)
    elif isinstance(output, Mapping):
        yield from tensors_of(list(output.values()))
    elif isinstance(output, list | tuple):
        for each in output:
            yield from tensors_of(each)
    elif is_dataclass(output) and not isinstance(output, type):
        yield from tensors_of([getattr(output, field.name) for field in fields(output)])
    elif type(output) is SimpleNamespace:
        yield from tensors_of(vars(output))
    elif output is not None and not isinstance(output, PLAIN):
        raise TypeError(f"the output holds a {type(output).__qualname__}, which may compute when it is read")


def images_missing(output: Any, images: int) -> str | None:
    """Why an output cannot be of so many images: a model that is made for one may join them. None if it may be.

    Of tensors with dimensions, one must have so many images in one of these, or a multiple of them in the first.
    """
    try:
        shapes = [tuple(tensor.shape) for tensor in tensors_of(output) if tensor.ndim]
    except TypeError:  # nothing is known of it
        return None
    if not shapes or any(images in shape or shape[0] % images == 0 for shape in shapes):
        return None
    return f"an output of {shapes[0]} for {images} images; the model joins them, or is made for one"


def copied(output: Any) -> Output:
    """The tensors of an output, copied. Raises: TypeError, as `tensors_of`, and if there is no tensor."""
    found = tuple(tensor.detach().clone() for tensor in tensors_of(output))
    if not found:
        raise TypeError(f"the output is a {type(output).__qualname__} without tensors")
    return found


class First(nn.Module):
    """A module that keeps a copy of its first output, on the host, unless that is large or strange."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.output: Output | None = None
        self._called = False

    def forward(self, image: Tensor) -> Any:
        output = self.module(image)
        if not self._called:
            self._called = True
            self.keep(output)
        return output

    def keep(self, output: Any) -> None:
        """Keep this output."""
        try:
            found = tuple(tensors_of(output))
            if found and sum(tensor.nbytes for tensor in found) <= KEPT_BYTES:
                self.output = tuple(tensor.cpu() for tensor in copied(found))
        except TypeError:  # a strange output is found after the timing
            pass


class Pool:
    """A call of a model on the next image of a pool.

    Args:
        function: image -> output. It is what is timed.
        images: of one shape; they are changed, except the first.
        first: the first output of image 0 in this process, if it is known.
        buffer: where `function` reads its image whatever it is given, as a recorded graph does; None if it does not.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        images: Sequence[Tensor],
        first: Output | None = None,
        buffer: Tensor | None = None,
    ) -> None:
        self._function, self._images, self._buffer, self._first = function, tuple(images), buffer, first
        self._outputs: list[Output | None] = [None] * len(self._images)
        self._place = -1
        self._calls = 0
        self._nonfinite: Tensor | int = 0
        self._strange: str | None = None
        self._awaited = False
        self._returned: tuple[int, Any] | None = None

    @torch.inference_mode()
    def before(self) -> None:
        """Note the last output, and make the next image ready. What follows must be one call."""
        self._note()
        place = (self._place + 1) % len(self._images)
        image = self._images[place]
        if place:
            rows = max(1, image.shape[2] // BANDS)
            band = (self._calls // len(self._images)) % BANDS
            image[:, :, band * rows : (band + 1) * rows].normal_()
        if self._buffer is not None:
            self._buffer.copy_(image)
        self._awaited = True

    def __call__(self) -> Any:
        self._place = place = (self._place + 1) % len(self._images)
        with torch.inference_mode():
            output = self._function(self._images[place])
        if self._awaited:
            self._awaited, self._returned = False, (place, output)
        return output

    @torch.inference_mode()
    def seen(self) -> Seen:
        """The calls so far that `before` announced."""
        self._note()
        outputs = tuple(self._outputs)
        return Seen(self._calls, int(self._nonfinite), self._images, outputs, self._first, strange=self._strange)

    def _note(self) -> None:
        if self._returned is None:
            return
        (place, output), self._returned = self._returned, None
        self._calls += 1
        try:
            found = copied(output)
        except TypeError as error:
            self._strange = str(error)
            return
        device = found[0].device  # arrays of numpy are on the host
        whole = torch.stack([torch.isfinite(tensor).all().to(device) for tensor in found]).all()
        self._nonfinite = self._nonfinite + (~whole).int()  # a device is not waited for
        self._outputs[place] = found
        if place == 0 and self._first is None:
            self._first = found


class Steps:
    """A training step that notes the loss of each step before the next."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._losses: list[Tensor] = []
        self._awaited = False

    def before(self) -> None:
        """Note the loss of the last step. What follows must be one call."""
        self._note()
        self._awaited = True

    def __call__(self) -> None:
        self._trainer.step()

    def seen(self) -> Seen:
        """The steps so far that `before` announced."""
        self._note()
        losses = tuple(float(loss) for loss in self._losses)
        nonfinite = sum(not bool(torch.isfinite(loss)) for loss in self._losses)
        return Seen(len(losses), nonfinite, losses=losses, learns=self._trainer.learns)

    def _note(self) -> None:
        if self._awaited:
            self._awaited = False
            self._losses.append(self._trainer.loss_now())


def seen(call: Call) -> Seen | None:
    """What a call of `Workload.caller` returned when it was timed; None for a call that notes nothing."""
    return call.seen() if isinstance(call, Pool | Steps) else None
