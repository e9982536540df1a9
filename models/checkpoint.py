"""Published weights into our modules: read, unwrap, adapt, compare, and only then load."""

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
NAMED = 8  # keys of a kind that an error names; it counts the rest

_WRAPPERS = (
    "model_ema",
    "state_dict_ema",
    "model",
    "module",
    "state_dict",
)  # in order of preference: averaged weights first

# What training snapshots hold beside tensors: options and numpy's numbers, plain data that calls nothing.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "bool")),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
]


def load(model: nn.Module, source: Mapping[str, Any] | str | Path) -> None:
    """See `vbench.models.load_published`."""
    state = _adapter(model)(_unwrap(source if isinstance(source, Mapping) else read(source)))
    own = model.state_dict()
    found = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "misshapen": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(found.values()):
        parts = [f"{len(keys)} {word}: {_some(keys)}" for word, keys in found.items() if keys]
        raise CheckpointError(f"not the weights of this {type(model).__name__}; {'; '.join(parts)}")
    model.load_state_dict(state)


def read(source: str | Path) -> Mapping[str, Any]:
    """The contents of a checkpoint, on the CPU. No code in it is ever run.

    Args:
        source: a .safetensors file, or one that torch.save wrote (.pth, .pt, .th, .bin, .tar); its path,
            its http(s) URL, or "hf-hub:ORG/REPO/FILE@REVISION". Downloads are kept in torch's or the hub's cache.
            FILE may be left out where the repository has one checkpoint alone, and REVISION for the newest.

    Raises: CheckpointError where there is no such file, where it is damaged or no checkpoint, and where
        unpickling it would call anything.
    """
    text = str(source)
    if text.startswith(HUB):
        path = _from_hub(text)
    elif text.startswith(("http://", "https://")):
        path = _from_url(text)
    else:
        path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"{text}: no such file; give a path, an http(s) URL or {HUB}ORG/REPO/FILE")
    try:
        contents = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except pickle.UnpicklingError as error:
        if call := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{text}: refused, for reading it would call {call[1]}; save its tensors alone, best as .safetensors"
            ) from None
        raise CheckpointError(f"{text}: damaged, or nothing that torch.save wrote") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{text}: damaged, or no checkpoint: {first[:200]}") from None
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"{text}: holds a {type(contents).__name__}; want a state dict")
    return contents


def _unpickle(path: Path) -> Any:
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch on unusual pickles; what is wrong with them we say
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
            raise CheckpointError(f"{url}: cannot be fetched: {error}") from None
    return path


def _from_hub(source: str) -> Path:
    where, _, revision = source.removeprefix(HUB).partition("@")
    parts = where.split("/", 2)
    if len(parts) < 2:
        raise CheckpointError(f"{source}: want {HUB}ORG/REPO or {HUB}ORG/REPO/FILE")
    repo, file = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        if file is None:
            files = [name for name in list_repo_files(repo, revision=revision or None) if name.endswith(SUFFIXES)]
            if len(files) != 1:
                raise CheckpointError(f"{source}: has {len(files)} checkpoints, name one: {_some(files) or 'none'}")
            file = files[0]
        return Path(hf_hub_download(repo, file, revision=revision or None))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{source}: cannot be fetched: {str(error).splitlines()[0]}") from None


def _some(keys: list[str]) -> str:
    rest = len(keys) - NAMED
    return ", ".join(keys[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _adapter(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """How this model's published tensors become its own: position tables resized, old keys renamed.

    Our backbones bring a method `adapt_published`; timm keeps a `checkpoint_filter_fn` beside each family.
    """
    own: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = getattr(model, "adapt_published", None)
    if own is not None:
        return own
    family = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    return (lambda state: dict(family(state, model))) if family else (lambda state: state)


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    state: Any = state_dict
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"no state dict: these entries are no tensors: {_some(strange)}")
    return {key.removeprefix("module."): value for key, value in state.items()}
