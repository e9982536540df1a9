"""AOTInductor: torch.compile's code, compiled ahead of time into a library that needs no Python to run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vbench.runtimes.base import Runtime, Session


class Aoti(Runtime):
    """A package of AOTInductor. It runs on torch's own threads and memory; its weights lie in its library's file."""

    title = "AOTInductor"
    _dtype = ""

    def __init__(self, device: str, threads: int, *, tf32: bool = False) -> None:
        super().__init__(device, threads, tf32=tf32)
        import torch._inductor.package  # takes 80 MiB

        self._load = torch._inductor.aoti_load_package

    @property
    def name(self) -> str:
        return f"torch {torch.__version__}"

    def session(self, file: Path, image: Tensor) -> Session:
        try:
            run: Session = self._load(str(file))
        except Exception as error:
            raise self.refused(error) from error
        self._dtype = str(image.dtype).removeprefix("torch.")
        return run

    def computes_in(self) -> str:
        return self._dtype
