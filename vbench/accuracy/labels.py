"""From the classes of a data set to the outputs of a model. The lists of ImageNet are timm's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from vbench.errors import UsageError
from vbench.models.checkpoint.words import listed

WORDS = ("auto", "imagenet", "v2", "real")
OUTPUTS = 1000  # of a model of ImageNet-1K
LARGEST = 2**15 - 1  # the last class that an int16 holds
_REAL_NAME = "ILSVRC2012_val_{:08d}"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Where a data set's classes are among a model's outputs.

    Args:
        name: imagenet, v2, real, or the name of a file.
        outputs: of the model.
        index: the output of each class that was found in the data.
        empty: classes of the map that no image has.
        real: by the name of an ImageNet validation image, the answers that count as right; for ReaL alone.
    """

    name: str
    outputs: int
    index: dict[str, int]
    empty: tuple[str, ...] = ()
    real: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def answers(self, image: str, found: str) -> tuple[int, ...]:
        """The right answers for an image of the class `found`; none if the image does not count."""
        if not self.real:
            return (self.index[found],)
        return self.real[Path(image).name.partition(".")[0]]


def label_map(labels: str, found: Sequence[str], images: Sequence[str]) -> LabelMap:
    """The map that `--labels` names, held against the classes that the data has.

    Args:
        labels: "auto", "imagenet" (folders are synsets), "v2" (folders are "0" to "999"), "real" (ReaL, for the
            validation images of ImageNet), or a text file with the name of a class a line, in the order of the outputs.
        found: the classes of the data, as folders or features are called.
        images: the names of all images.

    Raises: UsageError, which names the classes that are not in the map.
    """
    if labels not in WORDS:
        return _of_file(labels, found)
    kind = _guessed(found) if labels == "auto" else labels
    if kind == "real":
        return _real(found, images)
    known = _numbers(OUTPUTS) if kind == "v2" else {name: place for place, name in enumerate(synsets())}
    return _held(kind, known, found)


def _guessed(found: Sequence[str]) -> str:
    known = set(synsets())
    if any(name in known for name in found):
        return "imagenet"
    if found and all(name.isdecimal() and name.isascii() for name in found):
        return "v2"
    raise UsageError(
        f"--labels: {_several(found)} no synset of ImageNet, as in n01440764, and no number; give --labels FILE, with "
        "the name of a class a line, in the order of the model's outputs"
    )


def _of_file(labels: str, found: Sequence[str]) -> LabelMap:
    file = Path(labels)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"--labels: {file.name} is not a text file; give the name of a class a line") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such file"
        raise UsageError(f"--labels: {labels}: {why}; give {', '.join(WORDS)}, or a file") from None
    names = [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names or len(names) > LARGEST:
        raise UsageError(f"--labels: {file.name} has {len(names)} classes; it must have 1 to {LARGEST}")
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if not name or name in seen:
            what = f"'{name}' stands twice" if name else "an empty line"
            raise UsageError(f"--labels: {file.name}, line {place + 1}: {what}; each line names one class")
        seen[name] = place
    return _held(file.name, seen, found)


def _held(name: str, known: dict[str, int], found: Sequence[str]) -> LabelMap:
    """The map, if it has all that was found."""
    if strange := [one for one in found if one not in known]:
        raise UsageError(
            f"--labels {name}: {_several(strange)} not among its {len(known)} classes, as {_some(known)}; "
            "give the map that these images have"
        )
    there = set(found)
    return LabelMap(name, len(known), {one: known[one] for one in found}, tuple(c for c in known if c not in there))


def _real(found: Sequence[str], images: Sequence[str]) -> LabelMap:
    answers = real()
    if strange := [name for name in images if Path(name).name.partition(".")[0] not in answers]:
        raise UsageError(
            f"--labels real: ReaL has labels for ILSVRC2012_val_00000001 to _00050000, and {_several(strange)} none of "
            "these; give --data the validation images of ImageNet under their own names"
        )
    return LabelMap("real", OUTPUTS, dict.fromkeys(found, -1), real=answers)


def _several(names: Sequence[str]) -> str:
    """ "'cat' is", "3 classes ('a', 'b', 'c') are"."""
    quoted = [f"'{name}'" for name in names]
    return f"{quoted[0]} is" if len(quoted) == 1 else f"{len(quoted)} names ({listed(quoted)}) are"


def _some(known: dict[str, int]) -> str:
    first = list(known)
    return f"'{first[0]}' and '{first[-1]}'"


def _numbers(count: int) -> dict[str, int]:
    """ "0" to "999", each its own number: sorted as words, "10" would come before "2"."""
    return {str(number): number for number in range(count)}


def _info(name: str) -> str:
    return (files("timm.data") / "_info" / name).read_text(encoding="utf-8")


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 synsets of ImageNet-1K, in the order of a model's outputs."""
    return tuple(_info("imagenet_synsets.txt").split())


@cache
def real() -> dict[str, tuple[int, ...]]:
    """ReaL's answers by the name of an image, without its ending; an image may have none."""
    answers = json.loads(_info("imagenet_real_labels.json"))
    return {_REAL_NAME.format(number): tuple(own) for number, own in enumerate(answers, start=1)}


@cache
def lemmas() -> tuple[str, ...]:
    """The first word for each class of ImageNet-1K, in the order of a model's outputs: "tench"."""
    said = dict(line.split("\t", 1) for line in _info("imagenet_synset_to_lemma.txt").splitlines())
    return tuple(said[synset].partition(",")[0].strip().lower() for synset in synsets())


def as_synsets(names: Sequence[str]) -> tuple[str, ...] | None:
    """Synsets for the names of 1,000 features in ImageNet's order, as "tench, Tinca tinca"; None if they are others.

    A few classes have two names, as "crane" and "crane2", so that a name in fifty may differ.
    """
    if len(names) != OUTPUTS:
        return None
    same = sum(own.partition(",")[0].strip().lower() == lemma for own, lemma in zip(names, lemmas(), strict=True))
    return synsets() if same >= 0.98 * OUTPUTS else None
