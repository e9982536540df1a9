"""What one launch measures: a forward pass or a training step, called through a back end."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

import torch
from torch import nn

from vbench.devices.base import Call, Device
from vbench.meters import backend, memory, training
from vbench.meters.build import attention_of, build, images
from vbench.plan import PINNED, Case


def workload(case: Case, device: Device, repeat_below_s: float) -> Workload:
    """What a cell measures, on a device. Call `memory` first, and once.

    Args:
        repeat_below_s: a pass that takes longer is not repeated to see whether memory grows.
    """
    return (TrainingStep if case.phase == "train" else ForwardPass)(case, device, repeat_below_s)


class Workload:
    """A cell's model and its calls. Latency and memory are measured at `batch`; `settings` as the function returns."""

    batch = 1

    def __init__(self, case: Case, device: Device, repeat_below_s: float) -> None:
        self._case, self._device, self._repeat_below_s = case, device, repeat_below_s
        self._where = torch.device(device.name)
        self._baseline = memory.baseline(device)
        self._model = build(case).to(self._where, getattr(torch, case.dtype))
        self._module = backend.prepared(case.backend, self._model)
        self.settings = settings(self._model, device, case.attention)

    def memory(self) -> dict[str, Any]:
        """The memory pass, with `first_call_s`: what the very first call took, compiling included."""
        raise NotImplementedError

    def caller(self, batch: int) -> Call:
        """The call at a batch size; only one lives at a time."""
        raise NotImplementedError

    def parts(self) -> dict[str, Call]:
        """The calls that the last caller's call consists of, in order; empty if it is one."""
        return {}

    def _first_call_s(self, call: Call) -> float:
        begin = time.perf_counter()
        call()
        self._device.wait()
        return time.perf_counter() - begin

    def _baseline_now(self, held_bytes: int) -> int:
        """The baseline once the compiler has run, so that what it left behind is not the model's.

        Args:
            held_bytes: what lives besides the weights.
        """
        weights = memory.nbytes(chain(self._model.parameters(), self._model.buffers()))
        return memory.baseline(self._device) - weights - held_bytes


class ForwardPass(Workload):
    """A forward pass in inference mode, at batch 1."""

    @torch.inference_mode()
    def memory(self) -> dict[str, Any]:
        image = images(self._case, 1, self._where)
        baseline, first_s = self._baseline, None
        if self._case.backend == "compile":
            first_s = self._first_call_s(lambda: self._module(image))
            baseline = self._baseline_now(image.nbytes)
        found = memory.measure(self._module, image, baseline, repeat_below_s=self._repeat_below_s)
        return {"first_call_s": found["pass_s"] if first_s is None else first_s, **found}

    def caller(self, batch: int) -> Call:
        with torch.inference_mode():
            image = images(self._case, batch, self._where)
            call = backend.call(self._case.backend, self._device, self._module, image)
        return torch.inference_mode()(call)


class TrainingStep(Workload):
    """A training step: forward, backward, update; at the batch that was asked for, or at 1."""

    def __init__(self, case: Case, device: Device, repeat_below_s: float) -> None:
        self.batch = case.batch if isinstance(case.batch, int) else 1
        super().__init__(case, device, repeat_below_s)

    def memory(self) -> dict[str, Any]:
        self.caller(self.batch)
        baseline, first_s = self._baseline, None
        if self._case.backend == "compile":
            first_s = self._first_call_s(self._trainer.step)
            baseline = self._baseline_now(self._trainer.images.nbytes + training.optimizer_bytes(self._trainer))
        found = training.measure(self._trainer, baseline, repeat_below_s=self._repeat_below_s)
        return {"first_call_s": found["pass_s"] if first_s is None else first_s, **found}

    def caller(self, batch: int) -> Call:
        self._trainer = training.Trainer(self._module, images(self._case, batch, self._where))
        return self._trainer.step

    def parts(self) -> dict[str, Call]:
        trainer = self._trainer
        return {"forward": trainer.forward, "backward": trainer.backward, "update": trainer.update}


def settings(model: nn.Module, device: Device, attention: str | None) -> dict[str, Any]:
    """What a sceptic asks of a row, as the model and torch have it: attention, types, TF32.

    Args:
        attention: what the case asks for. A kernel that is pinned stands for fused attention.
    """
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    how = attention if attention in PINNED else attention_of(model)
    return {"attention": how, "weights_dtype": "+".join(types), "tf32": device.tf32()}
