"""What one launch measures: a forward pass or a training step, called through a back end."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices import on_host
from vbench.devices.base import Call, Device
from vbench.kernels.registry import OPS
from vbench.meters import autocast, backend, memory, outputs, training
from vbench.meters.build import attention_of, build, images
from vbench.meters.memory import Baseline
from vbench.plan import PINNED, Case


def workload(case: Case, device: Device, compilations: backend.Compilations, repeat_below_s: float) -> Workload:
    """What a cell measures, on a device. Call `memory` first, and once.

    Args:
        compilations: of the case's back end, entered.
        repeat_below_s: a pass that takes longer is not repeated to see whether memory grows.
    """
    return (TrainingStep if case.phase == "train" else ForwardPass)(case, device, compilations, repeat_below_s)


class Workload:
    """A cell's model and its calls. Latency and memory are measured at `batch`; `settings` as the function returns."""

    batch = 1

    def __init__(self, case: Case, device: Device, compilations: backend.Compilations, repeat_below_s: float) -> None:
        self._case, self._device, self._repeat_below_s = case, device, repeat_below_s
        self._compilations, self._compiled = compilations, set[int]()  # and the batch sizes that were
        self._where = torch.device(device.name)
        self._baseline = memory.baseline(device)
        self._model = build(case).to(self._where, getattr(torch, case.weights_dtype))
        self._module = autocast.under(case, backend.prepared(case.backend, self._model))
        self.settings = settings(self._model, device, case.attention)

    def memory(self) -> dict[str, Any]:
        """The memory pass, as `memory.measure` returns it."""
        raise NotImplementedError

    def caller(self, batch: int) -> Call:
        """The call at a batch size, compiled if that is the back end. Drop the last one before: two need twice as much.

        Raises: CompileError if nothing is compiled for this size.
        """
        call = self._caller(batch)
        self._compile(call, batch)
        return call

    def _caller(self, batch: int) -> Call:
        raise NotImplementedError

    def twin(self) -> nn.Module:
        """The model built once more, with the same weights, in float32 where the host is; nobody has called it yet."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())  # what a model draws beside its parameters is the same too
            fresh = build(self._case)
        fresh.load_state_dict(self._model.state_dict())
        return fresh.to(self._where)

    def parts(self) -> dict[str, Call]:
        """The calls that the last caller's call consists of, in order; empty if it is one."""
        return {}

    def _compile(self, call: Call, batch: int) -> None:
        if batch not in self._compiled:
            self._compilations.first(call, f"batch {batch}")
            self._compiled.add(batch)

    def _compiler(self) -> bool:
        """Whether the first call runs a compiler whose memory would count as the model's.

        torch.compile does, and on the host numba, whose kernels may lie in a cache.
        """
        op, form = self._case.operator, self._case.form
        by_numba = on_host(self._device.name) and op and form and OPS[op][form].package
        return self._case.backend == "compile" or bool(by_numba)

    def _after_compiling(self, call: Call) -> float:
        """Make the first call at this batch; return the seconds that it took."""
        begin = time.perf_counter()
        if self._case.backend == "compile":
            self._compile(call, self.batch)
        else:
            call()
        self._device.wait()
        return time.perf_counter() - begin

    def _baseline_now(self, held_bytes: int) -> Baseline:
        """The baseline once the compiler has run, so that what it left behind is not the model's.

        Args:
            held_bytes: what lives besides the weights.
        """
        weights = memory.nbytes(chain(self._model.parameters(), self._model.buffers()))
        weights -= memory.outside(self._model, self._device)
        now = memory.baseline(self._device)
        return replace(self._baseline, used_bytes=now.used_bytes - weights - held_bytes)


class ForwardPass(Workload):
    """A forward pass in inference mode, at batch 1. Its single calls take their image from a pool, in turn."""

    _image: Tensor | None = None  # of the memory pass, and the first of the pool
    _first: outputs.Output | None = None  # its output in this process's first call

    @torch.inference_mode()
    def memory(self) -> dict[str, Any]:
        image = self._image = images(self._case, 1, self._where)
        module, baseline, limit_s = outputs.First(self._module), self._baseline, self._repeat_below_s
        if self._case.backend == "cudagraph":
            found = memory.measure_recording(module, image, baseline, repeat_below_s=limit_s)
        elif not self._compiler():
            found = memory.measure(module, image, baseline, repeat_below_s=limit_s)
        else:
            first_s = self._after_compiling(lambda: module(image))
            found = memory.measure(module, image, self._baseline_now(image.nbytes), repeat_below_s=limit_s)
            found |= {"first_call_s": first_s}
        self._first = module.output
        return found

    def _caller(self, batch: int) -> Call:
        """At batch 1 a call of the pool; at another one image is enough, as nothing is asked of its outputs."""
        pool = [self._image] if batch == self.batch and self._image is not None else []
        first = self._first if pool else None
        wanted = outputs.POOL if batch == self.batch else 1
        with torch.inference_mode():
            pool += [images(self._case, batch, self._where) for _ in range(wanted - len(pool))]
            if self._case.backend != "cudagraph":
                return outputs.Pool(self._module, pool, first)
            buffer = pool[0].clone()
            replay = backend.call(self._case.backend, self._device, self._module, buffer)
        return outputs.Pool(lambda _: replay(), pool, first, buffer)


class TrainingStep(Workload):
    """A training step: forward, backward, update; at the batch that was asked for, or at 1."""

    def __init__(self, case: Case, device: Device, compilations: backend.Compilations, repeat_below_s: float) -> None:
        self.batch = case.batch if isinstance(case.batch, int) else 1
        self._trainer: training.Trainer | None = None
        super().__init__(case, device, compilations, repeat_below_s)

    def memory(self) -> dict[str, Any]:
        trainer, baseline, first_s = self._new_trainer(self.batch), self._baseline, None
        if self._compiler():
            first_s = self._after_compiling(trainer.step)
            baseline = self._baseline_now(trainer.images.nbytes + training.optimizer_bytes(trainer))
        found = training.measure(trainer, baseline, repeat_below_s=self._repeat_below_s)
        return found if first_s is None else {**found, "first_call_s": first_s}

    def _caller(self, batch: int) -> Call:
        return outputs.Steps(self._new_trainer(batch))

    def _new_trainer(self, batch: int) -> training.Trainer:
        """A trainer in place of the last one, whose batch and optimiser go before."""
        self._trainer = None
        image = images(self._case, batch, self._where)
        self._trainer = training.Trainer(self._module, image, scaled=training.needs_scale(self._case))
        return self._trainer

    def parts(self) -> dict[str, Call]:
        trainer = self._trainer
        assert trainer is not None, "caller comes first"
        return {"forward": trainer.forward, "backward": trainer.backward, "update": trainer.update}


def settings(model: nn.Module, device: Device, attention: str | None) -> dict[str, Any]:
    """What a sceptic asks of a row, as the model and torch have it: attention, types, TF32, caches between calls.

    Args:
        attention: what the case asks for. A kernel that is pinned stands for fused attention.
    """
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    how = attention if attention in PINNED else attention_of(model)
    about = {"attention": how, "weights_dtype": "+".join(types) or None, "tf32": device.tf32()}
    return {**about, "caches": "warm"}  # nothing is flushed between calls, neither the CPU's caches nor a GPU's L2
