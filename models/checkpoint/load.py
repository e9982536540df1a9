"""Choose a model's weights among the candidates of a checkpoint, and load them, all or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vbench.errors import CheckpointError, first_line
from vbench.models.checkpoint.compare import Fit, Target
from vbench.models.checkpoint.read import read
from vbench.models.checkpoint.unwrap import Candidate, candidates, same
from vbench.models.checkpoint.values import check_plain, check_values
from vbench.models.checkpoint.words import line, listed, shown

_LOG = logging.getLogger("vbench.models")
_SHELLS = {  # what is around a model: the attribute that holds it
    **{"OptimizedModule": "_orig_mod", "AveragedModel": "module"},
    **{"DataParallel": "module", "DistributedDataParallel": "module"},
}


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Args:
        place: the entry of the checkpoint, and the prefix of its keys; "" for all of it.
        notes: what was chosen, left out or converted, a sentence each.
    """

    place: str
    notes: tuple[str, ...]


def load(model: nn.Module, source: Mapping[str, Any] | str | Path) -> Loaded:
    """As `vbench.models.load_published`."""
    where = "" if isinstance(source, Mapping) else f"{shown(source)}: "
    contents = source if isinstance(source, Mapping) else read(source)
    while isinstance(inner := getattr(model, _SHELLS.get(type(model).__name__, ""), None), nn.Module):
        model = inner
    try:
        target = Target(model)
        chosen, notes = _choose(target, contents)
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        notes += check_values(chosen.state, target.own, parameters)
        try:
            model.load_state_dict({**model.state_dict(), **chosen.state})
        except RuntimeError as error:
            raise CheckpointError(f"{type(model).__name__} does not take these weights: {first_line(error)}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{where}{error}") from None
    return Loaded(str(chosen.candidate), tuple(notes))


def _choose(target: Target, contents: Mapping[Any, Any]) -> tuple[Fit, list[str]]:
    """The candidate to load, and what is to be said of the choice.

    Raises: CheckpointError if no candidate fits, or if several fit with different weights and none is preferred.
    """
    fits = [target.fit(each) for each in candidates(contents, target.own.keys()) or _nothing(contents)]
    if all(fit.faults for fit in fits) and (nested := target.fit_nested(contents)):
        fits.append(nested)
    good = sorted((fit for fit in fits if not fit.faults), key=lambda fit: target.rank(fit.candidate))
    if not good:
        nearest = min(fits, key=lambda fit: (-len(fit.state), len(fit.candidate.prefix), fit.faults))
        raise CheckpointError(target.misfit(nearest))
    first = good[0]
    check_plain(first.state)
    others = [fit for fit in good[1:] if not same(first.state, fit.state)]
    if rivals := [fit for fit in others if target.rank(fit.candidate) == target.rank(first.candidate)]:
        places = "; ".join(fit.place for fit in (first, *rivals))
        raise CheckpointError(f"{1 + len(rivals)} places in it fit, with different weights: {places}; pass one of them")
    said = [f"{fit.place} fits too, with other weights" for fit in others]
    said += [
        f"{fit.place} comes first, but does not fit: {fit.faults_in_words}" for fit in _passed_over(target, fits, first)
    ]
    notes = [line(f"loaded {first.place}; {each}", 400) for each in said]
    for note in notes:
        _LOG.warning(note)
    if left := [*first.left, *first.candidate.beside]:
        notes.append(f"left out {len(left)} tensors that are not the model's: {listed(left)}")
    return first, notes


def _passed_over(target: Target, fits: list[Fit], first: Fit) -> list[Fit]:
    """The nearest candidate that should come before the first one, but does not fit."""
    kind, _ = target.rank(first.candidate)
    before = [fit for fit in fits if fit.faults and target.rank(fit.candidate)[0] < kind]
    near = [fit for fit in before if 2 * len(fit.state) > len(first.state)]
    return sorted(near, key=lambda fit: fit.faults)[:1]


def _nothing(contents: Mapping[Any, Any]) -> list[Candidate]:
    """The candidate of an empty checkpoint. Raises: CheckpointError for one that holds something else than weights."""
    if not contents:
        return [Candidate((), "", {})]
    if unnamed := [repr(key) for key, value in contents.items() if isinstance(value, Tensor)]:
        raise CheckpointError(f"this is no state dict; its tensors have no names but {listed(unnamed)}")
    raise CheckpointError(f"this is no state dict; these entries are no tensors: {listed(contents)}")
