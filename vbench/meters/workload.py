"""What one launch measures: a forward pass or a training step, called through a back end of torch.

A pass that a runtime calls is in `deployed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices import on_host
from vbench.devices.base import Call, Device
from vbench.kernels.registry import OPS
from vbench.meters import aside, autocast, backend, memory, outputs, training
from vbench.meters.build import attention_of, beside_complex, build, images
from vbench.meters.memory import Baseline
from vbench.meters.refusals import explained
from vbench.models import guest
from vbench.plan import PINNED, Case


def workload(case: Case, device: Device, compilations: backend.Compilations, repeat_below_s: float) -> Workload:
    """What a cell measures, on a device. Call `memory` first, and once.

    Args:
        compilations: of the case's back end, entered.
        repeat_below_s: a pass that takes longer is not repeated to see whether memory grows.

    Raises: UnsupportedError if the model cannot be built for this cell, but for another (`refusals.explained`).
    """
    from vbench.meters.deployed import DeployedPass

    kind = DeployedPass if case.deployed else TrainingStep if case.phase == "train" else ForwardPass
    with explained(case):
        return kind(case, device, compilations, repeat_below_s)


class Workload:
    """A cell's model and its calls. Latency and memory are measured at `batch`.

    Of a training step `settings` have the loss too, once `memory` has made a step.
    """

    batch = 1

    def __init__(self, case: Case, device: Device, compilations: backend.Compilations, repeat_below_s: float) -> None:
        self._case, self._device, self._repeat_below_s = case, device, repeat_below_s
        self._compilations, self._compiled = compilations, set[int]()  # and the batch sizes that were
        self._where = torch.device(device.name)
        self._process, threads = guest.read(), set(threading.enumerate())
        self._settings = self._built()
        if left := sorted(thread.name for thread in set(threading.enumerate()) - threads):
            self._settings["background_threads"] = left
        self._told: dict[str, Any] | None = None

    def _built(self) -> dict[str, Any]:
        """Build what is called, where its memory is measured. Returns: `settings` of the model."""
        self._model, self._baseline = aside.built(self._case, self._device)
        self._module = autocast.under(self._case, backend.prepared(self._case.backend, self._model))
        return settings(self._model, self._device, self._case.attention)

    @property
    def settings(self) -> dict[str, Any]:
        """What the function `settings` returns, and what the model's code has made of the process, if it has:
        `background_threads`, the names of those it left running when it was built; `changed`, settings in words."""
        changed = guest.changes(self._process)
        return self._settings | ({"changed": changed} if changed else {})

    def tell(self) -> Iterator[tuple[str, Any]]:
        """Yields "settings", unless they are those of the last time."""
        if self.settings != self._told:
            self._told = self.settings
            yield "settings", self._told

    def memory(self) -> dict[str, Any]:
        """The memory pass, as `memory.measure` returns it. Raises: UnsupportedError, as `beside_complex`."""
        with beside_complex(self._model, self._case):
            return self._memory()

    def _memory(self) -> dict[str, Any]:
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
        fresh.load_state_dict(self._state())
        return fresh.to(self._where)

    def _state(self) -> dict[str, Tensor]:
        """The weights of what is called."""
        return self._model.state_dict()

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
        begin = perf_counter()
        if self._case.backend == "compile":
            self._compile(call, self.batch)
        else:
            call()
        self._device.wait()
        return perf_counter() - begin

    def _above_baseline(
        self,
        measure: Callable[[Baseline], dict[str, Any]],
        loaded: aside.Loaded,
        first_s: float | None,
        held_bytes: Callable[[], int],
    ) -> dict[str, Any]:
        """What `measure` finds above the baseline. It measures again if its calls imported or compiled something on the
        host: what that leaves behind is not the model's.

        Args:
            loaded: before there was anything beside the weights.
            first_s: of a first call that compiled; None if there was none.
            held_bytes: what lives besides the weights between calls.
        """
        if first_s is not None:
            return measure(self._baseline_now(held_bytes())) | {"first_call_s": first_s}
        found = measure(self._baseline)
        if not on_host(self._device.name) or not loaded.grew():
            return found
        again = measure(self._baseline_now(held_bytes()))
        method = f"{again['method']}, after calls that imported or compiled code of the model"
        return again | {"first_call_s": found["first_call_s"], "method": method}

    def _baseline_now(self, held_bytes: int) -> Baseline:
        """The baseline once imports are done and the compiler has run.

        Args:
            held_bytes: what lives besides the weights.
        """
        weights = aside.own_bytes(self._model, self._device)
        now = memory.baseline(self._device)
        return replace(self._baseline, used_bytes=now.used_bytes - weights - held_bytes)


class ForwardPass(Workload):
    """A forward pass in inference mode, at batch 1. Its single calls take their image from a pool, in turn."""

    _image: Tensor | None = None  # of the memory pass, and the first of the pool
    _first: outputs.Output | None = None  # its output in this process's first call

    @torch.inference_mode()
    def _memory(self) -> dict[str, Any]:
        loaded, limit_s = aside.Loaded(), self._repeat_below_s
        image = self._image = images(self._case, 1, self._where)
        module = outputs.First(self._module)
        if self._case.backend == "cudagraph":
            found = memory.measure_recording(module, image, self._baseline, repeat_below_s=limit_s)
        else:
            first_s = self._after_compiling(lambda: module(image)) if self._compiler() else None
            found = self._above_baseline(
                lambda baseline: memory.measure(module, image, baseline, repeat_below_s=limit_s),
                loaded,
                first_s,
                held_bytes=lambda: image.nbytes,
            )
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

    def _memory(self) -> dict[str, Any]:
        loaded, trainer = aside.Loaded(), self._new_trainer(self.batch)
        found = self._above_baseline(
            lambda baseline: training.measure(trainer, baseline, repeat_below_s=self._repeat_below_s),
            loaded,
            self._after_compiling(trainer.step) if self._compiler() else None,
            held_bytes=lambda: trainer.images.nbytes + training.optimizer_bytes(trainer),
        )
        self._settings |= trainer.about_loss
        return found

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
