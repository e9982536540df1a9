"""A suite file, checked, as the options that it stands for."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from vbench.errors import UsageError
from vbench.plan import USUAL

WORDS, NEEDED = ("question", "time"), ("models", "res")
AXES = ("models", "res", *USUAL)


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: its question, the time that it takes, and the axes of a sweep as on the command line.

    A suite may have several sets of axes, its [[part]] tables; the axes above them apply to all.
    """

    question: str
    time: str
    axes: dict[str, str]
    parts: tuple[dict[str, str], ...] = ({},)
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
        raise UsageError(f"--suite: there is no '{name}'; there are {', '.join(shipped())}, or give a .toml file")
    try:
        text = (source or files("vbench.suites") / f"{name}.toml").read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"--suite: {name} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--suite: {name} is not TOML: {error}") from None
    parts = values.pop("part", [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UsageError(f"--suite: {name}: part is no table; write [[part]] above each set of axes")
    alone, gate = parts == [{}], values.pop("gate", {})
    _check(name, values, [*WORDS, *AXES], [*WORDS, *NEEDED] if alone else WORDS)
    for number, part in enumerate([] if alone else parts, start=1):
        _check(f"{name}: part {number}", part, AXES, [key for key in NEEDED if key not in values])
    return Suite(values.pop("question"), values.pop("time"), values, tuple(parts), gate)


def _check(where: str, table: dict[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    """Raises: UsageError for a key that is unknown, missing or no text."""
    wrong = [key for key in table if key not in known] + [key for key in needed if key not in table]
    wrong += [key for key in table if key in known and not isinstance(table[key], str)]
    if wrong:
        what = "a suite" if WORDS[0] in known else "a part"
        raise UsageError(
            f"--suite: {where}: wrong, missing or non-text keys: {', '.join(wrong)}; {what} has {', '.join(known)}"
        )
