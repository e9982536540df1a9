"""Read a checkpoint's contents. No code in it is run, and it takes no more memory than its size allows."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vbench.errors import CheckpointError, first_line
from vbench.models.checkpoint import fetch
from vbench.models.checkpoint.formats import DAMAGED, recognise
from vbench.models.checkpoint.words import line, listed, shown

EXPANDED = 8  # a file's tensors may take this many times its size, because tensors may share memory
SPARE = 1 << 26  # and so many bytes more
LEVELS = 32  # of mappings in mappings; deeper ones are not looked into

# What training snapshots hold beside tensors: options and numpy's numbers. This is plain data; reading it runs no code.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "bool")),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
]
_FOLDERS = {  # a file in a folder: what the folder is
    ".metadata": "a distributed checkpoint; use torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
    "zero_to_fp32.py": "a DeepSpeed checkpoint; convert it: python zero_to_fp32.py . model.safetensors",
    "saved_model.pb": "a TensorFlow model, not a state dict of torch",
    "_CHECKPOINT_METADATA": "an Orbax checkpoint of JAX, not a state dict of torch",
    "data.pkl": "an unpacked file of torch.save; pack it again: zip -0 -r weights.pth FOLDER",
}


def read(source: str | Path) -> Mapping[str, Any]:
    """The contents of a checkpoint, on the CPU. No code in it is run.

    Args:
        source: a safetensors file, or one that torch.save wrote; its bytes say which, whatever its name is. A folder,
            or the JSON index of a model in shards. Give a path, an http(s) URL, or "hf-hub:ORG/REPO/FILE@REVISION".
            FILE may be left out if the repository has only one checkpoint, or one that Hugging Face's names point to;
            without REVISION the newest is read. Downloads are kept in torch's or the hub's cache.

    Raises: CheckpointError if there is no such file, if it is damaged or no checkpoint, or if unpickling it would run
        code. Its message does not hold the secrets of a URL.
    """
    try:
        path = fetch.local(source)
        try:
            return _contents(path)
        except CheckpointError:
            if fetch.is_url(source):
                path.unlink(missing_ok=True)  # it is fetched anew the next time
            raise
    except CheckpointError as error:
        raise CheckpointError(f"{shown(source)}: {error}") from None


def _contents(path: Path) -> Mapping[str, Any]:
    try:
        if path.is_dir():
            path = _in_folder(path)
        if not path.is_file():
            raise CheckpointError("it is no regular file")
        return _shards(path) if recognise(path) == "index" else _one(path)
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror or type(error).__name__}") from None


def _in_folder(folder: Path) -> Path:
    names = [file.name for file in folder.iterdir()]
    if known := [words for file, words in _FOLDERS.items() if file in names]:
        raise CheckpointError(f"it is {known[0]}")
    return folder / fetch.pick(sorted(names))


def _shards(index: Path) -> Mapping[str, Any]:
    """The tensors of all shards of a large model."""
    files = sorted(set(map(str, json.loads(index.read_bytes())["weight_map"].values())))
    if strange := [file for file in files if Path(file).name != file]:
        raise CheckpointError(f"its shards must lie beside it; elsewhere are {listed(strange)}")
    if missing := [file for file in files if not (index.parent / file).is_file()]:
        raise CheckpointError(f"{len(missing)} of its {len(files)} shards are not beside it: {listed(missing)}")
    whole: dict[str, Any] = {}
    for file in files:
        try:
            part = _one(index.parent / file)
        except CheckpointError as error:
            raise CheckpointError(f"in its shard {line(file, 80)}: {error}") from None
        if twice := [key for key in part if key in whole]:
            raise CheckpointError(f"two of its shards hold {listed(twice)}")
        whole.update(part)
    return whole


def _one(path: Path) -> Mapping[str, Any]:
    """The contents of one file."""
    kind = recognise(path)
    try:
        contents = load_file(path) if kind == "safetensors" else _unpickle(path, mapped=kind == "zip")
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(str(error))) from None
    except Exception as error:  # a damaged file fails in whatever way its bytes say
        raise CheckpointError(f"{DAMAGED}: {line(first_line(error, named=True), 200)}") from None
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"it holds a {line(type(contents).__name__, 80)}, not a state dict")
    held = [value for _, mapping in mappings(contents) for value in tensors(mapping).values() if is_plain(value)]
    needed = sum(value.numel() * value.element_size() for value in held)
    size = path.stat().st_size
    if needed > EXPANDED * size + SPARE:
        raise CheckpointError(f"{DAMAGED}: its tensors would take {needed} bytes, and the file has {size}")
    return contents


def _unpickle(path: Path, *, mapped: bool) -> Any:
    """What torch.save wrote. A mapped file gives no tensor more bytes than it has."""
    mapped = mapped and path.suffix != ".safetensors"  # torch goes by this suffix if it is given a path
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # torch warns of unusual pickles; we say what is wrong
        return torch.load(str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)


def _refused(why: str) -> str:
    """torch's reason not to unpickle a file, in one line."""
    if call := re.search(r"GLOBAL (\S+)", why):
        called = line(call[1], 80)
        return f"refused, because reading it would call {called}; save only its tensors, best as .safetensors"
    if "DTensors" in why or "NJTs" in why:
        return "it holds distributed or nested tensors; save full tensors, best as .safetensors"
    return "it is damaged, or torch.save did not write it"


def mappings(contents: Mapping[Any, Any]) -> Iterator[tuple[tuple[Any, ...], Mapping[Any, Any]]]:
    """Every mapping in nested ones, the outermost first, each once, with the keys that lead to it."""
    found: list[tuple[tuple[Any, ...], Mapping[Any, Any]]] = [((), contents)]
    seen = {id(contents)}
    for path, mapping in found:  # it grows
        yield path, mapping
        for key, value in mapping.items() if len(path) < LEVELS else ():
            inner = value.state_dict() if isinstance(value, nn.Module) else value
            if isinstance(inner, Mapping) and id(inner) not in seen:
                seen.add(id(inner))
                found.append(((*path, key), inner))


def tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping that have names."""
    return {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}


def is_plain(value: Tensor) -> bool:
    """Whether a tensor has a value at every place: it is not sparse, nested, quantised or without data."""
    return value.layout is torch.strided and not (value.is_nested or value.is_quantized or value.is_meta)
