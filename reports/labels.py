"""Names that a reader is shown in place of models' names, as `--labels "vig_t=ViG-T,deit_t=DeiT-T"` gives them.

labels = parse(text, table["model"])  # text: what --labels gave, or None
labels("vig_t")                       # "ViG-T"; a model without a label keeps its name
labels.within("vig_t recurrent")      # "ViG-T recurrent": legends, captions, sentences
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vbench.errors import UsageError
from vbench.options import folded, items, shown
from vbench.results.text import listed, tame

OPTION = "--labels"
EXAMPLE = '"vig_t=ViG-T,deit_t=DeiT-T"'
HELP = f"Names of models as readers see them, as in {EXAMPLE}."  # of the option, in every command that has it
LONGEST = 40  # characters of a label
NAMED = 12  # models that a message lists


@dataclass(frozen=True, slots=True)
class Labels:
    """model -> the name shown; without labels every model keeps its name."""

    names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, model: str) -> str:
        """The shown name of a model, which is its own if it has no label."""
        return self.names.get(model, model)

    def within(self, text: str) -> str:
        """A text with the label of each model that it names as a whole word: "vig_t" is not in "vig_t_plus"."""
        if not self.names:
            return text
        longest_first = sorted(self.names, key=lambda name: (-len(name), name))
        named = "|".join(map(re.escape, longest_first))
        return re.sub(rf"(?<![\w.:@-])({named})(?![\w@-]|[.:]\w)", lambda found: self(found[1]), text)


def parse(text: str | None, models: Iterable[str]) -> Labels:
    """What --labels gave, for the models of a run; "ViG-T" on the left is `vig_t`, as in --models.

    Args:
        text: "model=label, ..."; None for no labels.
        models: the models that the records hold.

    Raises: UsageError for what is no MODEL=LABEL, a model that the records do not hold or that is named twice, and a
        label that is too long or that two models would share.
    """
    if text is None:
        return Labels()
    there = list(dict.fromkeys(models))
    known = {folded(model): model for model in there} | {model: model for model in there}
    found: dict[str, str] = {}
    for part in items(text, OPTION, EXAMPLE):
        given, equals, label = (side.strip() for side in part.partition("="))
        if not (given and equals and label):
            raise UsageError(f"{OPTION}: '{shown(part)}' is not MODEL=LABEL; write it like {EXAMPLE}")
        if len(label) > LONGEST:
            raise UsageError(f"{OPTION}: '{shown(label)}' has {len(label)} characters; a label has up to {LONGEST}")
        model = known.get(given, known.get(folded(given)))
        if model is None:
            raise UsageError(f"{OPTION}: the records have no model '{shown(given)}'; they have {_listed(there)}")
        if model in found:
            raise UsageError(f"{OPTION}: {model} is named twice; give it one label")
        found[model] = tame(label)
    _check_distinct(found, there)
    return Labels(found)


def _check_distinct(found: Mapping[str, str], models: Iterable[str]) -> None:
    """Raise UsageError if two models would be shown under one name."""
    owner: dict[str, str] = {}
    for model in models:
        label = found.get(model, model)
        if label in owner:
            both = listed([owner[label], model])
            raise UsageError(f"{OPTION}: {both} would both be shown as '{label}'; give each a name of its own")
        owner[label] = model


def _listed(models: list[str]) -> str:
    more = f" and {len(models) - NAMED} more" if len(models) > NAMED else ""
    return (", ".join(models[:NAMED]) or "none") + more
