"""`make constraints`: the versions of all that vbench and its tests bring into this environment."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vbench.errors import UsageError


def brought(package: str, extras: set[str]) -> dict[str, str]:
    """What a package with these extras needs here, and what that needs in turn: versions by canonical name.

    The package itself is not in it, nor are requirements whose markers do not hold here. Versions have no local part
    ("+cu130"): the same release from another index satisfies them too.

    Raises: UsageError for a requirement that is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(package, extra) for extra in ("", *sorted(extras))]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": extra}):
                continue
            needs = canonicalize_name(needed.name)
            try:
                found[needs] = Version(distribution(needs).version).public
            except PackageNotFoundError:
                raise UsageError(f"{needs} is not installed, and {name} needs it; pip install {needs}") from None
            todo += [(needs, each) for each in ("", *sorted(needed.extras))]
    found.pop(canonicalize_name(package), None)
    return found


def page(package: str = "vbench", extras: tuple[str, ...] = ("test",)) -> str:
    """The constraint file: a line of when and with what, then name==version, sorted. Raises: UsageError."""
    when = f"# Python {platform.python_version()} on {datetime.now(UTC).date()}, by: make constraints\n"
    return when + "".join(f"{name}=={version}\n" for name, version in sorted(brought(package, set(extras)).items()))


def main(words: list[str]) -> None:
    """Write the file that is named; one line and exit code 2 if that cannot be."""
    try:
        if len(words) != 1:
            raise UsageError("name one file: python -P -m vbench.constraints.write FILE")
        text = page()
        Path(words[0]).write_text(text, encoding="utf-8")
    except UsageError as error:
        sys.exit(_refused(str(error)))
    except OSError as error:
        sys.exit(_refused(f"{words[0]} cannot be written: {error.strerror}"))


def _refused(line: str) -> int:
    print(f"vbench: {line}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    main(sys.argv[1:])
