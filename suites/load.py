"""A suite file, checked, as the options that it stands for."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from vbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite. The last five fields are written as on the command line."""

    question: str  # what the sweep answers
    time: str  # how long it takes, and on what
    models: str
    res: str
    modes: str = "parallel,recurrent"
    batch: str = "auto"
    dtype: str = "float32"


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
    known = [f.name for f in fields(Suite)]
    wrong = [key for key in values if key not in known] + [k for k in known[:4] if k not in values]
    wrong += [key for key in values if key in known and not isinstance(values[key], str)]
    if wrong:
        raise UsageError(
            f"--suite: {name}: wrong, missing or non-text keys: {', '.join(wrong)}; a suite has {', '.join(known)}"
        )
    return Suite(**values)
