"""A forward pass that a runtime calls, from a file to which the model was exported.

The file is made before the baseline of memory is taken, in another process, and the runtime's library is loaded by
then. So what is above the baseline is what the loaded model needs: its weights, however often the runtime keeps them,
its plans, its arena. Pages of the model's file count where the runtime maps them in.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vbench.devices import on_host, process
from vbench.devices.base import Call
from vbench.meters import aside, deploy, memory, outputs
from vbench.meters.build import images
from vbench.meters.workload import Workload
from vbench.runtimes import open_runtime
from vbench.runtimes.base import Session


class DeployedPass(Workload):
    """A forward pass at batch 1, and at others for throughput: each size has a file of its own."""

    _image: Tensor | None = None  # of the memory pass, and the first of the pool
    _first: outputs.Output | None = None

    def _built(self) -> dict[str, Any]:
        self._made = self._file(self.batch)
        aside.prepare(self._case)  # for the twin, whose code is none of the runtime's memory
        threads, tf32 = torch.get_num_threads(), bool(self._device.tf32())
        self._runtime = open_runtime(self._case.backend, self._device.name, threads, tf32=tf32)
        self._sessions: dict[int, Session] = {}
        return self._made.settings | {"runtime": self._runtime.name}

    @torch.inference_mode()
    def memory(self) -> dict[str, Any]:
        meter = self._device.charged()
        baseline = memory.baseline(meter)
        image = self._image = images(self._case, self.batch, self._where)
        before = self._mapped()
        kept = outputs.First(torch.nn.Identity())
        begin = perf_counter()
        session = self._session(self.batch, image)
        loading_s = perf_counter() - begin

        def call() -> None:
            output = session(image)
            if kept.output is None:
                kept.keep(output)

        seen = memory.watch(call, meter, baseline, peak_call=1, repeat_below_s=self._repeat_below_s)
        mapped = self._mapped() - before
        words = f"{seen.method}, above the runtime's library; {mapped / 2**20:.1f} MiB of the model's files mapped in"
        seen = replace(
            seen,
            peak_bytes=seen.peak_bytes + mapped,
            alive_bytes=seen.alive_bytes + mapped,
            first_call_s=loading_s + seen.first_call_s,
            method=words,
        )
        self._first = kept.output
        held = {"weights_bytes": self._made.weights_bytes, "input_bytes": image.nbytes}
        cost = {"compile_s": self._made.compile_s, "compilations": 1}
        return {"batch": self.batch, **memory.anatomy(seen, held), **cost}

    def _caller(self, batch: int) -> Call:
        pool = [self._image] if batch == self.batch and self._image is not None else []
        wanted = outputs.POOL if batch == self.batch else 1
        with torch.inference_mode():
            pool += [images(self._case, batch, self._where) for _ in range(wanted - len(pool))]
        return outputs.Pool(self._session(batch, pool[0]), pool, self._first if batch == self.batch else None)

    def _session(self, batch: int, image: Tensor) -> Session:
        """The session of a batch; that of batch 1 is kept, so that the memory pass's is the one that is timed."""
        if batch in self._sessions:
            return self._sessions[batch]
        made = self._made if batch == self.batch else self._file(batch)
        session = self._runtime.session(made.file, image)
        self._settings["computes_in"] = self._runtime.computes_in()
        if batch == self.batch:
            self._sessions[batch] = session
        return session

    def _mapped(self) -> int:
        """The bytes of the model's files that are mapped in; a runtime may unpack its own into the temporary folder."""
        on_device = not on_host(self._device.name)
        return 0 if on_device else process.file_bytes(self._made.file.parent, Path(tempfile.gettempdir()))

    def _file(self, batch: int) -> deploy.Made:
        threads, tf32 = torch.get_num_threads(), bool(self._device.tf32())
        return deploy.made(deploy.Request(self._case, batch, threads, torch.initial_seed(), tf32))

    def _state(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(self._made.weights, map_location=self._where)
        return found
