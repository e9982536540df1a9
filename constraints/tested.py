"""What was tested of a package, read from the constraint files beside this module; whether a version lies in it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@cache
def pinned(name: str) -> dict[str, str]:
    """The versions that `NAME.txt` pins, by their packages' canonical names."""
    lines = (files("vbench.constraints") / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {canonicalize_name(package): version for package, _, version in pins if version}


def outside(package: str, installed: str) -> str | None:
    """In what way an installed version lies outside what was tested, in words; None if it does not.

    Tested is from `lowest.txt` to `tested.txt`, both included; a local part ("+cu130") does not matter, and a
    development version comes before its release. A package of which a file says nothing has no bound there.
    """
    lowest, highest = (pinned(name).get(canonicalize_name(package)) for name in ("lowest", "tested"))
    try:
        version = Version(Version(installed).public)
    except InvalidVersion:
        return "no version that can be compared; not known whether it was tested"
    if lowest and version < Version(lowest):
        return f"tested from {lowest}"
    if highest and version > Version(highest):
        return f"tested up to {highest}"
    return None
