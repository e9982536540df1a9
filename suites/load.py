"""A suite file, checked, as the options that it stands for."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vbench.errors import UsageError
from vbench.plan import USUAL


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: what it answers, how long it takes and on what, and the axes of a sweep as on the command line."""

    question: str
    time: str
    axes: dict[str, str]


def shipped() -> list[str]:
    """Names of the suites that come with vbench."""
    folder = files("vbench.suites")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load(name: str) -> Suite:
    """The suite of that name, or of that .toml file.

    Raises: UsageError for one that is not there, or that has an unknown, missing or non-text key.
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
    known, needed = ["question", "time", "models", "res", *USUAL], ("question", "time", "models", "res")
    wrong = [key for key in values if key not in known] + [key for key in needed if key not in values]
    wrong += [key for key in values if key in known and not isinstance(values[key], str)]
    if wrong:
        raise UsageError(
            f"--suite: {name}: wrong, missing or non-text keys: {', '.join(wrong)}; a suite has {', '.join(known)}"
        )
    return Suite(values.pop("question"), values.pop("time"), values)
