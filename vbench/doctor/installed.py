"""Whether another project has installed its files among ours: `vbench` is the name of one on the package index."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import vbench

THEIRS = "vbench"  # the distribution that installs a package of our name


def rival(found: Distribution | None = None) -> str | None:
    """What is wrong if the other project lies in the folder of this package, in words; None if it does not.

    Args:
        found: its distribution; None to look for it.
    """
    try:
        other = found or distribution(THEIRS)
    except PackageNotFoundError:
        return None
    here = Path(vbench.__file__).resolve().parent
    places = (Path(str(other.locate_file(file))).resolve() for file in other.files or [])
    if not any(place.is_relative_to(here) for place in places):
        return None
    return (
        f"another project, {THEIRS} {other.version}, has files in the same folder, and the later one overwrote the "
        f"earlier one's: pip uninstall {THEIRS} {vbench.DISTRIBUTION}, then install the one that you want"
    )
