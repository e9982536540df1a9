"""A suite file, checked, as the options that it stands for."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from vbench.errors import UsageError, first_line
from vbench.options import shown
from vbench.plan import USUAL

WORDS, NEEDED = ("question", "time"), ("models", "res")
AXES = ("models", "res", *USUAL)
HOW = ("rigor", "seconds", "pairs", "refine", "budget")  # how cells are measured, as the options of these names
LONGEST = 2**20  # bytes of a file


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: its question, the time that it takes, and the axes of a sweep as on the command line.

    A suite may have several sets of axes, its [[part]] tables; the axes above them apply to all.
    """

    question: str
    time: str
    axes: dict[str, str]
    parts: tuple[dict[str, str], ...] = ({},)
    how: dict[str, str] = field(default_factory=dict)  # of `HOW`, what is not as usual
    gate: dict[str, Any] = field(default_factory=dict)  # thresholds and budgets for `vbench gate`; see `rules`

    @property
    def sets(self) -> list[dict[str, str]]:
        """The axes of each part, the common ones included; one set where there are no parts."""
        return [{**self.axes, **part} for part in self.parts]


def shipped() -> list[str]:
    """Names of the suites that come with vbench."""
    folder = files("vbench.suites")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load(name: str) -> Suite:
    """The suite of that name, or of that .toml file.

    Raises: UsageError if there is no such suite, or if a key is unknown, missing or no text.
    """
    source = Path(name) if name.endswith(".toml") else None
    if source is None and name not in shipped():
        raise UsageError(
            f"--suite: there is no '{shown(name)}'; there are {', '.join(shipped())}, or give a .toml file"
        )
    values = toml(source or files("vbench.suites") / f"{name}.toml", f"--suite: {shown(name)}")
    parts = values.pop("part", [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UsageError(f"--suite: {name}: part is no table; write [[part]] above each set of axes")
    alone, gate = parts == [{}], values.pop("gate", {})
    _check(name, values, [*WORDS, *AXES, *HOW], [*WORDS, *NEEDED] if alone else WORDS)
    for number, part in enumerate([] if alone else parts, start=1):
        _check(f"{name}: part {number}", part, AXES, [key for key in NEEDED if key not in values])
    how = {key: values.pop(key) for key in HOW if key in values}
    return Suite(values.pop("question"), values.pop("time"), values, tuple(parts), how, gate)


def toml(file: Path | Traversable, where: str) -> dict[str, Any]:
    """A TOML file that a person wrote. Raises: UsageError, after `where`, for one that is none, or is too long."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise UsageError(f"{where} has more than {LONGEST >> 20} MiB, too much for axes and rules")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{where} is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{where} is not TOML: {first_line(error)}") from None


def _check(where: str, table: dict[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    """Raises: UsageError for a key that is unknown, missing or no text."""
    wrong = [key for key in table if key not in known] + [key for key in needed if key not in table]
    wrong += [key for key in table if key in known and not isinstance(table[key], str)]
    if wrong:
        what = "a suite" if WORDS[0] in known else "a part"
        keys = shown(", ".join(wrong))
        raise UsageError(f"--suite: {where}: wrong, missing or non-text keys: {keys}; {what} has {', '.join(known)}")
