"""Weights, images and logits of the published code, for anyone to regenerate without a download.

A golden file holds the logits of a published implementation whose every tensor was filled by `weight` from
its published key, for images made by `image`. Of the scans of Mamba, decays and steps have their initial values
instead, by the formulas of `INITIAL`: with these, memory spans the image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
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


def _decays(shape: tuple[int, ...]) -> np.ndarray:
    """log A of each channel: log 1 to log N, where N is the last dimension."""
    return np.broadcast_to(np.log(np.arange(1, shape[-1] + 1)), shape)


def _steps(shape: tuple[int, ...]) -> np.ndarray:
    """What softplus turns into steps from 0.001 to 0.1, even in their logarithm.

    (K, D) has K such rows; row k begins k · D // 4 places later, and goes on from the start at its end.
    """
    bias = np.log(np.expm1(0.001 * 100 ** np.linspace(0, 1, shape[-1])))
    if len(shape) == 1:
        return bias
    return np.stack([np.roll(bias, -(k * shape[-1] // 4)) for k in range(shape[0])])


# By the end of a key that a manifest has in `kept_as_initialised`: its values, from its shape.
INITIAL: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "A_log": _decays,
    "A_b_log": _decays,
    "A_logs": _decays,
    "dt_proj.bias": _steps,
    "dt_proj_b.bias": lambda shape: _steps(shape)[::-1],
    "dt_projs_bias": _steps,
}
OF_THE_SIZE = "rope.rotations"  # the end of the keys whose tables a model makes for its image


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
        """The published state dict, every tensor filled by its key.

        A key in `kept_as_initialised` has the value of `INITIAL`, if there is one; otherwise the row of the file says
        what it has. A key that ends as one of `scaled` is multiplied by its factor. Counters of batch norms, and
        tables that depend on the image's size, are left out.
        """
        kinds = self.manifest["state"]
        shapes = {key: tuple(shape) for key, shape, dtype in kinds if dtype.startswith("float")}
        shapes = {key: shape for key, shape in shapes.items() if not key.endswith(OF_THE_SIZE)}
        state = {key: value.clone() for key, value in _filled(tuple(shapes.items())).items()}
        for key in shapes.keys() & set(self.manifest.get("kept_as_initialised", ())):
            for end, values in INITIAL.items():
                if key.endswith(end):
                    state[key] = torch.from_numpy(np.ascontiguousarray(values(shapes[key]), dtype=np.float32))
        for end, factor in self.manifest.get("scaled", {}).items():
            for key in (key for key in shapes if key.endswith(end)):
                state[key] *= factor
        return state

    def cases(self) -> list[tuple[Tensor, Tensor]]:
        """(image batch, logits) of each case."""
        found = []
        for key, logits in self.arrays.items():
            seed, sizes = key.removeprefix("logits_seed").split("_")
            found.append((image(int(seed), *map(int, sizes.split("x"))), logits))
        return found
