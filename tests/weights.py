"""Weights, images and logits of the published code, for anyone to regenerate without a download.

A golden file holds the logits of a published implementation whose every tensor was filled by `weight` from
its published key, for images made by `image`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"


def weight(key: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Matrices and kernels N(0, 1/fan_in), vectors U[0.1, 1), drawn from a generator seeded by the key."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    if len(shape) < 2:
        return torch.from_numpy(generator.uniform(0.1, 1.0, shape).astype(np.float32))
    values = generator.standard_normal(shape) / np.sqrt(int(np.prod(shape[1:])))
    return torch.from_numpy(values.astype(np.float32))


def image(seed: int, batch: int, height: int, width: int) -> Tensor:
    """N(0, 1) pixels, float32 (batch, 3, height, width)."""
    generator = np.random.Generator(np.random.PCG64(10_000 + seed))
    return torch.from_numpy(generator.standard_normal((batch, 3, height, width)).astype(np.float32))


@contextmanager
def uninitialised() -> Iterator[None]:
    """Models that are built within have whatever memory holds; for those whose every tensor is then loaded."""
    fillers = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
    with pytest.MonkeyPatch.context() as patch:
        for name in fillers:
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


@lru_cache(maxsize=1)  # files of one model follow each other
def _filled(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, Tensor]:
    return {key: weight(key, shape) for key, shape in shapes}


class Golden:
    """One golden file: `manifest`, `arrays`, and for a model its `state` filled and its `cases`."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.manifest: dict[str, Any] = json.loads(str(file["manifest"]))
            self.arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "manifest"}

    def state(self) -> dict[str, Tensor]:
        """The published state dict, every tensor filled by its key; `kept_as_initialised` lists exceptions."""
        filled = _filled(tuple((key, tuple(shape)) for key, shape, _ in self.manifest["state"]))
        return {key: value.clone() for key, value in filled.items()}

    def cases(self) -> list[tuple[Tensor, Tensor]]:
        """(image batch, logits) of each case."""
        found = []
        for key, logits in self.arrays.items():
            seed, sizes = key.removeprefix("logits_seed").split("_")
            found.append((image(int(seed), *map(int, sizes.split("x"))), logits))
        return found
