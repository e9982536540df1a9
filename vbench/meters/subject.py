"""What a launch measures, behind one face: a forward pass or a training step, through a back end."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any, Protocol

import torch
from torch import nn

from vbench.meters import backend, memory, training
from vbench.meters.build import attention_of, build, images
from vbench.meters.device import Call
from vbench.plan import Case


class Subject(Protocol):
    """Latency and memory are at `batch`."""

    batch: int
    settings: dict[str, Any]

    def memory(self) -> dict[str, Any]:
        """The memory pass, with `first_call_s`: what the very first call took, compiling included."""

    def caller(self, batch: int) -> Call:
        """The call at a batch size; only one lives at a time."""

    def parts(self) -> dict[str, Call]:
        """The calls that the last caller's call consists of, in order; empty if it is one."""


def subject(case: Case, device: torch.device, repeat_below_s: float) -> Subject:
    """What a cell measures, on a device. Call `memory` first, and once.

    Args:
        repeat_below_s: a pass that takes longer is not repeated to see whether memory grows.
    """
    return (Step if case.phase == "train" else Forward)(case, device, repeat_below_s)


class Forward:
    """A forward pass in inference mode, at batch 1."""

    batch = 1

    def __init__(self, case: Case, device: torch.device, repeat_below_s: float) -> None:
        self._case, self._device, self._repeat_below_s = case, device, repeat_below_s
        self._baseline = memory.baseline(device)
        self._model = build(case).to(device, getattr(torch, case.dtype))
        self._module = backend.prepared(case.backend, self._model)
        self.settings = settings(self._model, case)

    @torch.inference_mode()
    def memory(self) -> dict[str, Any]:
        image = images(self._case, 1, self._device)
        baseline, first_s = self._baseline, None
        if self._case.backend == "compile":
            first_s = _seconds(lambda: self._module(image), self._device)
            held = memory.nbytes(chain(self._model.parameters(), self._model.buffers())) + image.nbytes
            baseline = memory.baseline(self._device) - held  # so that what the compiler left behind is not the model's
        found = memory.measure(self._module, image, baseline, repeat_below_s=self._repeat_below_s)
        return {"first_call_s": found["pass_s"] if first_s is None else first_s, **found}

    def caller(self, batch: int) -> Call:
        with torch.inference_mode():
            call = backend.call(self._case.backend, self._module, images(self._case, batch, self._device))
        return torch.inference_mode()(call)

    def parts(self) -> dict[str, Call]:
        return {}


class Step:
    """A training step: forward, backward, update; at the batch that was asked for, or at 1."""

    def __init__(self, case: Case, device: torch.device, repeat_below_s: float) -> None:
        self.batch = case.batch if isinstance(case.batch, int) else 1
        self._case, self._device, self._repeat_below_s = case, device, repeat_below_s
        self._baseline = memory.baseline(device)
        self._model = build(case).to(device, getattr(torch, case.dtype))
        self._module = backend.prepared(case.backend, self._model)
        self.settings = settings(self._model, case)

    def memory(self) -> dict[str, Any]:
        self.caller(self.batch)
        baseline, first_s = self._baseline, None
        if self._case.backend == "compile":
            first_s = _seconds(self._trainer.step, self._device)
            held = memory.nbytes(chain(self._model.parameters(), self._model.buffers())) + self._trainer.images.nbytes
            baseline = memory.baseline(self._device) - held - training.optimizer_bytes(self._trainer)
        found = training.measure(self._trainer, baseline, repeat_below_s=self._repeat_below_s)
        return {"first_call_s": found["pass_s"] if first_s is None else first_s, **found}

    def caller(self, batch: int) -> Call:
        self._trainer = training.Trainer(self._module, images(self._case, batch, self._device))
        return self._trainer.step

    def parts(self) -> dict[str, Call]:
        trainer = self._trainer
        return {"forward": trainer.forward, "backward": trainer.backward, "update": trainer.update}


def settings(model: nn.Module, case: Case) -> dict[str, Any]:
    """What a sceptic asks of a row, as the model and torch have it: attention, types, TF32."""
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    return {
        "attention": attention_of(model),
        "weights_dtype": "+".join(types),
        "tf32": torch.backends.cuda.matmul.allow_tf32 if case.device.startswith("cuda") else None,
    }


def _seconds(call: Call, device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
