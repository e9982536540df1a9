"""Load published weights into our modules: read them, unwrap them, adapt their keys, compare them, then load."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from huggingface_hub import hf_hub_download, list_repo_files
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vbench.errors import CheckpointError

HUB = "hf-hub:"  # as timm writes it
SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".tar")
NAMED = 8  # how many keys an error names; it counts the rest

# Keys under which training snapshots keep the weights. The first one that exists is used; averaged weights come first.
_WRAPPERS = ("model_ema", "state_dict_ema", "model", "module", "state_dict")

# What training snapshots hold beside tensors: options and numpy's numbers. This is plain data; reading it runs no code.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "bool")),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
]


def load(model: nn.Module, source: Mapping[str, Any] | str | Path) -> None:
    """As `vbench.models.load_published`."""
    state = _adapter(model)(_unwrap(source if isinstance(source, Mapping) else read(source)))
    own = model.state_dict()
    wrong = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "misshapen": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(wrong.values()):
        parts = [f"{len(keys)} {word}: {_listed(keys)}" for word, keys in wrong.items() if keys]
        raise CheckpointError(f"these are not the weights of this {type(model).__name__}; {'; '.join(parts)}")
    model.load_state_dict(state)


def read(source: str | Path) -> Mapping[str, Any]:
    """The contents of a checkpoint, on the CPU. No code in it is run.

    Args:
        source: a .safetensors file, or one that torch.save wrote (.pth, .pt, .th, .bin, .tar). Give its path, its
            http(s) URL, or "hf-hub:ORG/REPO/FILE@REVISION". FILE may be left out if the repository has only one
            checkpoint; without REVISION the newest is read. Downloads are kept in torch's or the hub's cache.

    Raises: CheckpointError if there is no such file, if it is damaged or no checkpoint, or if unpickling it would run
        code.
    """
    text = str(source)
    if text.startswith(HUB):
        path = _from_hub(text)
    elif text.startswith(("http://", "https://")):
        path = _from_url(text)
    else:
        path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"{text}: there is no such file; give a path, an http(s) URL or {HUB}ORG/REPO/FILE")
    try:
        contents = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except pickle.UnpicklingError as error:
        if call := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{text}: refused, because reading it would call {call[1]}; save only its tensors, best as .safetensors"
            ) from None
        raise CheckpointError(f"{text}: it is damaged, or torch.save did not write it") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{text}: it is damaged, or no checkpoint: {first[:200]}") from None
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"{text}: it holds a {type(contents).__name__}, not a state dict")
    return contents


def _unpickle(path: Path) -> Any:
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of unusual pickles; we say what is wrong
        return torch.load(path, map_location="cpu", weights_only=True)


def _from_url(url: str) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    name = url.partition("?")[0].rpartition("/")[2]
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (URLError, OSError, ValueError) as error:
            raise CheckpointError(f"{url}: cannot download it: {error}") from None
    return path


def _from_hub(source: str) -> Path:
    where, _, revision = source.removeprefix(HUB).partition("@")
    parts = where.split("/", 2)
    if len(parts) < 2:
        raise CheckpointError(f"{source}: write {HUB}ORG/REPO or {HUB}ORG/REPO/FILE")
    repo, file = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        if file is None:
            files = [name for name in list_repo_files(repo, revision=revision or None) if name.endswith(SUFFIXES)]
            if len(files) != 1:
                raise CheckpointError(f"{source}: {len(files)} checkpoints; name one: {_listed(files) or 'none'}")
            file = files[0]
        return Path(hf_hub_download(repo, file, revision=revision or None))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{source}: cannot download it: {str(error).splitlines()[0]}") from None


def _listed(keys: list[str]) -> str:
    """The first keys by name, and the number of the others."""
    rest = len(keys) - NAMED
    return ", ".join(keys[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _adapter(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The function that makes a model's published tensors fit: it renames old keys and resizes position tables.

    Our backbones have it as a method, `adapt_published`; timm has a `checkpoint_filter_fn` in each family's module.
    """
    own: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = getattr(model, "adapt_published", None)
    if own is not None:
        return own
    family = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    return (lambda state: dict(family(state, model))) if family else (lambda state: state)


def _unwrap(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the wrappers of training. Raises: CheckpointError if there is none."""
    state: Any = contents
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"this is no state dict; these entries are no tensors: {_listed(others)}")
    return {key.removeprefix("module."): value for key, value in state.items()}
