"""Where in a checkpoint a model's weights may be: in which entry, and behind which prefix of its keys.

Training saves weights inside wrappers, of entries ({"model": {"state_dict": ...}}) and prefixes ("module.backbone."),
in any order. So nothing is peeled off by a list: every entry that holds tensors is looked at, behind every prefix that
leads to names of the model. `load` compares these candidates with the model; here they are only found and ranked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vbench.models.checkpoint.read import is_plain, mappings, tensors

MOST = 32  # candidates that are compared with a model: those that share most names with it
DEPTH = 8  # parts of a prefix

# Parts of keys that wrappers put anywhere in them: torch.compile, data parallelism, FSDP, activation checkpointing,
# Lightning Fabric. A part that the model itself uses stays.
_MARKS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}

# Names of the part of a larger model that is the backbone. Behind another name a backbone must be half of the entry.
_BACKBONES = {
    *(
        "model",
        "net",
        "network",
        "backbone",
        "encoder",
        "student",
        "teacher",
        "body",
        "trunk",
        "visual",
        "vision_model",
    ),
    *("image_encoder", "feature_extractor", "base_encoder", "momentum_encoder", "encoder_q", "encoder_k"),
    *("online_encoder", "target_encoder", "ema", "ema_model", "model_ema", "averaged_model", "state_dict"),
}

# If several candidates fit with different weights: averages of weights first, copies from which one learns last.
_AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|teacher|shadow)\d*(_|$)|^target_encoder$")
_COPIES = {"student", "encoder_k", "momentum_encoder", "current_model_state"}
_ORDER = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "model", "module", "state_dict")

_NO_WEIGHTS = re.compile(  # entries of training that hold tensors of its own
    r"optim(i[sz]er)?s?(_|\d|$)|sched|scaler|exp_avg|momentum_buffer|(^|_)grad|(^|_)rng"
)
_COUNTERS = {"n_averaged"}  # of torch's AveragedModel


@dataclass(frozen=True)
class Candidate:
    """One place in a checkpoint.

    Args:
        entry: the keys that lead to it.
        prefix: what stands before the model's names in its keys, "module.backbone."; "" for nothing.
        state: its tensors, without the prefix and the marks of wrappers.
        twice: names that two of its keys come to, with different weights.
        beside: keys of the entry that do not have the prefix.
        others: names of what is no tensor among those that have it.
    """

    entry: tuple[str, ...]
    prefix: str
    state: dict[str, Tensor]
    twice: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @cached_property
    def rank(self) -> tuple[int, int]:
        """The place in the order of preference; the smallest comes first."""
        parts = [*self.entry, *self.prefix.split(".")]
        kind = 0 if any(map(_AVERAGED.search, parts)) else 2 if _COPIES.intersection(parts) else 1
        return kind, min((_ORDER.index(part) for part in parts if part in _ORDER), default=len(_ORDER))

    def __str__(self) -> str:
        """ "model_ema", "state_dict, behind backbone."; "" for all of a file."""
        return ", ".join(filter(None, (".".join(self.entry), self.prefix and f"behind {self.prefix}")))


def candidates(contents: Mapping[Any, Any], own: Collection[str]) -> list[Candidate]:
    """The places that may hold a model's weights, those that share most names with it first.

    Args:
        own: the names of the model's tensors.
    """
    marks = _MARKS - {part for name in own for part in name.split(".")}
    found: list[tuple[int, Candidate]] = []
    for entry, mapping in mappings(contents):
        if any(not isinstance(part, str) or _NO_WEIGHTS.search(part) for part in entry):
            continue
        held = tensors(mapping)
        state, twice = _bare(held, marks)
        others = [_name(str(key), marks) for key in mapping if key not in held]
        for prefix, hits in _prefixes(state, own).items() if state else ():
            inside = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            beside = tuple(key for key in state if not key.startswith(prefix))
            both, strange = ([key for key in keys if key.startswith(prefix)] for keys in (twice, others))
            found.append((hits, Candidate(entry, prefix, inside, tuple(both), beside, tuple(strange))))
    found.sort(key=lambda one: (-one[0], one[1].rank))
    return [candidate for _, candidate in found[:MOST]]


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two states hold the same weights; counters of batches are none."""
    names = {key for key in first.keys() | second.keys() if not is_counter(key)}
    return all(key in first and key in second and _equal(first[key], second[key]) for key in names)


def is_counter(key: str) -> bool:
    """Whether a tensor counts the batches of a batch norm: torch has it since 0.4.1, and only training uses it."""
    return key.rpartition(".")[2] == "num_batches_tracked"


def _equal(a: Tensor, b: Tensor) -> bool:
    plain = is_plain(a) and is_plain(b)
    return a is b or (plain and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def _bare(state: Mapping[str, Tensor], marks: set[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state without the marks of wrappers in its keys, and the keys that are then there twice."""
    bare: dict[str, Tensor] = {}
    twice = []
    for key, value in state.items():
        name = _name(key, marks)
        if name in bare and not _equal(bare[name], value):
            twice.append(name)
        if name.rpartition(".")[2] not in _COUNTERS:
            bare[name] = value
    return bare, tuple(twice)


def _name(key: str, marks: set[str]) -> str:
    """A key without the marks of wrappers."""
    return ".".join(part for part in key.split(".") if part not in marks)


def _prefixes(keys: Collection[str], own: Collection[str]) -> dict[str, int]:
    """Every prefix that may stand before a model's names, with the number of names behind it."""
    hits = Counter({"": 0})
    named = set()
    for key in keys:
        parts = key.split(".", DEPTH)
        for length in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:length])
            hits[prefix] += key[len(prefix) :] in own
            if _is_backbone(parts[:length]):
                named.add(prefix)
    first, last = min(keys), max(keys)  # a prefix of both is one of all
    return {
        prefix: count
        for prefix, count in hits.items()
        if prefix in named or (first.startswith(prefix) and last.startswith(prefix)) or 2 * count >= len(keys)
    }


def _is_backbone(parts: Iterable[str]) -> bool:
    return all(part in _BACKBONES or part in _MARKS or _AVERAGED.search(part) for part in parts)
