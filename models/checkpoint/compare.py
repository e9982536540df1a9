"""Hold what a checkpoint offers beside the model: what is missing, what is too much, and what that means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from vbench.errors import CheckpointError
from vbench.models.checkpoint.adapt import Rule, State, rule, whole
from vbench.models.checkpoint.read import is_plain, tensors
from vbench.models.checkpoint.unwrap import Candidate, is_counter
from vbench.models.checkpoint.words import line, listed

_HINTS = (  # in unexpected keys: what it means
    (r"\bparametrizations\b|weight_orig$", "they are parametrised: call remove_parametrizations before saving"),
    (r"\b_?flat_param", "they are flattened shards of FSDP: save with StateDictType.FULL_STATE_DICT"),
    (r"\blora_", "they hold adapters (LoRA): merge these before saving"),
)
_HEADS = ("head", "fc", "classifier")


@dataclass(frozen=True)
class Fit:
    """A candidate beside the model.

    Args:
        state: its tensors under the model's names.
        left: what it has of a classifier that the model was built without.
        wrong: the names that are missing, unexpected, misshapen, there twice, or no tensors.
    """

    candidate: Candidate
    state: State
    left: tuple[str, ...]
    wrong: dict[str, list[str]]

    @property
    def faults(self) -> int:
        return sum(map(len, self.wrong.values()))

    @property
    def place(self) -> str:
        return line(str(self.candidate), 200) or "the weights at the top"

    @property
    def faults_in_words(self) -> str:
        return "; ".join(f"{len(keys)} {word}: {listed(keys)}" for word, keys in self.wrong.items() if keys)


@dataclass(frozen=True)
class Target:
    """A model that wants weights.

    Raises: CheckpointError if it has tensors without a shape.
    """

    model: nn.Module

    def __post_init__(self) -> None:
        if lazy := [key for key, value in self.own.items() if nn.parameter.is_lazy(value)]:
            raise CheckpointError(f"the model has no shapes before its first call; call it once: {listed(lazy)}")

    @cached_property
    def own(self) -> State:
        """Its tensors, by name."""
        return {key: value for key, value in self.model.state_dict().items() if isinstance(value, Tensor)}

    @cached_property
    def extras(self) -> set[str]:
        """Names of its state that are no tensors (`get_extra_state`)."""
        return self.model.state_dict().keys() - self.own.keys()

    @cached_property
    def rule(self) -> Rule | None:
        return rule(self.model)

    @cached_property
    def twins(self) -> dict[str, list[str]]:
        """The names of each tensor, itself included: tied weights have several, and safetensors keeps one."""
        places: dict[Any, list[str]] = {}
        for key, value in self.own.items():
            shared = is_plain(value) and value.numel() > 0
            places.setdefault((value.data_ptr(), value.shape, value.stride()) if shared else key, []).append(key)
        return {key: names for names in places.values() for key in names}

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """How the keys of the classifier start that it was built without."""
        if getattr(self.model, "num_classes", None) != 0:
            return ()
        about = getattr(self.model, "pretrained_cfg", None)
        published = about.get("classifier") if isinstance(about, dict) else None
        named = getattr(self.model, "CLASSIFIER", None) or published or ()
        return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))

    def rank(self, candidate: Candidate) -> tuple[int, int]:
        """The place in the order of preference; first the entry that the authors of the model test."""
        return (-1, 0) if getattr(self.model, "PUBLISHED_ENTRY", None) in candidate.entry else candidate.rank

    def fit(self, candidate: Candidate) -> Fit:
        """Compare a candidate as it is, and if it does not fit, as the model's family adapts it."""
        best = self._compare(candidate, candidate.state)
        for adapt in (whole, self.rule):
            if best.faults and adapt is not None:
                try:
                    adapted = self._compare(candidate, adapt(dict(candidate.state)))
                except Exception:  # a rule may fail in any way on keys of another family
                    continue
                best = min(adapted, best, key=lambda fit: fit.faults)  # of two equal ones the adapted one
        return best

    def fit_nested(self, contents: Mapping[Any, Any]) -> Fit | None:
        """Compare what the family's rule makes of a whole checkpoint: some of timm's rules unwrap it themselves."""
        try:
            made = self.rule(dict(contents)) if self.rule else {}
        except Exception:  # as in `fit`
            return None
        found = tensors(made)
        others = tuple(str(key) for key in made if key not in found)
        return self._compare(Candidate((), "", found, others=others), found) if found else None

    def _compare(self, candidate: Candidate, found: Mapping[str, Tensor]) -> Fit:
        state = {key: value for key, value in found.items() if key in self.own}
        absent = [key for key in self.own if key not in state and not is_counter(key)]
        tied = {key: twin for key in absent for twin in self.twins[key] if twin in state}
        state |= {key: state[twin] for key, twin in tied.items()}
        surplus = [key for key in found if key not in self.own and not is_counter(key)]
        wrong = {
            "missing": [key for key in absent if key not in tied],
            "unexpected": [key for key in surplus if not key.startswith(self.absent)],
            "misshapen": [
                f"{key} {_shape(value)} instead of {_shape(self.own[key])}"
                for key, value in state.items()
                if _shape(value) != _shape(self.own[key])
            ],
            "twice, with different weights": list(candidate.twice),
            "that are no tensors": [key for key in candidate.others if key not in self.extras],
        }
        return Fit(candidate, state, tuple(key for key in surplus if key.startswith(self.absent)), wrong)

    def misfit(self, fit: Fit) -> str:
        """Why the nearest candidate does not fit, and what may be done about it."""
        hints = [words for pattern, words in _HINTS if any(re.search(pattern, key) for key in fit.wrong["unexpected"])]
        place = [f"looked at {fit.place}"] if str(fit.candidate) else []
        first = f"these are not the weights of this {type(self.model).__name__}"
        return "; ".join([first, *hints, *self._of_classes(fit), fit.faults_in_words, *place])

    def _of_classes(self, fit: Fit) -> list[str]:
        """What to do if only the classifier does not fit."""
        classes = getattr(self.model, "num_classes", None)
        rows = [key for key, value in self.own.items() if value.ndim and value.shape[0] == classes]
        heads = {key for key in rows if key.split(".")[-2:-1] and key.split(".")[-2] in _HEADS}
        wrong = {key.split(" ")[0] for keys in fit.wrong.values() for key in keys}
        if not wrong or not wrong <= heads:
            return []
        if not fit.wrong["misshapen"]:
            return ["they have no classifier: create the model with num_classes=0"]
        found = fit.state[min(wrong & fit.state.keys())].shape
        return [f"they have {found[0]} classes: create the model with num_classes={found[0]}"] if found else []


def _shape(value: Tensor) -> tuple[int, ...] | str:
    return "of several shapes" if value.is_nested else tuple(value.shape)
