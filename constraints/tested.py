"""What was tested of a package, by the constraint files beside this module; `make constraints` writes `tested.txt`."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import vbench
from vbench.errors import UsageError


@cache
def pinned(name: str) -> dict[str, str]:
    """The versions that `NAME.txt` pins, by canonical package name."""
    lines = (files("vbench.constraints") / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {canonicalize_name(package): version for package, _, version in pins if version}


def outside(package: str, installed: str) -> str | None:
    """How an installed version lies outside the tested range, in words; None if it lies inside.

    The range goes from `lowest.txt` to `tested.txt`, both included. A local part ("+cu130") is ignored, and a
    development version comes before its release. If a file does not name the package, that end has no bound.
    """
    lowest, highest = (pinned(name).get(canonicalize_name(package)) for name in ("lowest", "tested"))
    try:
        version = Version(Version(installed).public)
    except InvalidVersion:
        return "the version cannot be compared; not known whether it was tested"
    if lowest and version < Version(lowest):
        return f"tested from {lowest}"
    if highest and version > Version(highest):
        return f"tested up to {highest}"
    return None


def required(package: str, extras: set[str]) -> dict[str, str]:
    """All that a package with these extras requires here, directly or not: versions by canonical name.

    Leaves out the package itself, requirements whose markers do not hold here, and local parts of versions ("+cu130"):
    the same release from another index has another local part.

    Raises: UsageError for a requirement that is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(package, extra) for extra in ("", *sorted(extras))]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            needed = canonicalize_name(requirement.name)
            try:
                versions[needed] = Version(distribution(needed).version).public
            except PackageNotFoundError:
                raise UsageError(f"{needed} is not installed, and {name} needs it; pip install {needed}") from None
            todo += [(needed, each) for each in ("", *sorted(requirement.extras))]
    versions.pop(canonicalize_name(package), None)
    return versions


def page(package: str = vbench.DISTRIBUTION, extras: tuple[str, ...] = ("test",)) -> str:
    """The text of `tested.txt`: a line with Python's version and the date, then name==version, sorted."""
    head = f"# Python {platform.python_version()} on {datetime.now(UTC).date()}, by: make constraints\n"
    return head + "".join(f"{name}=={version}\n" for name, version in sorted(required(package, set(extras)).items()))


def main(words: list[str]) -> None:
    """Write the page to the one file that is named. If that fails, print one line and exit with code 2."""
    try:
        if len(words) != 1:
            raise UsageError("name one file: python -P -m vbench.constraints.tested FILE")
        Path(words[0]).write_text(page(), encoding="utf-8")
    except (UsageError, OSError) as error:
        why = f"{words[0]} cannot be written: {error.strerror}" if isinstance(error, OSError) else error
        print(f"vbench: {why}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
