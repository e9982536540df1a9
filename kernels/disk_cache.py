"""Loops that were compiled once, kept on the disk for the processes to come."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps, pickle


def folder() -> Path:
    """Where the loops lie: in NUMBA_CACHE_DIR if it is set, else in the user's cache. It need not exist."""
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR) / "vbench"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vbench" / "machine_code"


def unusable() -> str | None:
    """Why nothing can be kept there, so that each process compiles anew; None if it can."""
    try:
        _own(folder())
        with tempfile.TemporaryFile(dir=folder()):
            return None
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        return str(error)


class DiskCache(NullCache):  # type: ignore[misc]
    """What numba asks before it compiles a loop for a type, and what it gives the result to.

    A file holds one loop for one type. Its name is a digest of all that the machine code depends on: the sources in the
    loop's folder and in this one, the types, the processor, numba and Python. So it need not be checked, and processes
    that write at once do not meet. A file that cannot be read or written is as if there were none.
    """

    def __init__(self, loop: Callable[..., Any]) -> None:
        self._name = f"{loop.__module__}.{loop.__qualname__}"
        self._source = Path(loop.__code__.co_filename)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The loop for these types; None if it is not there."""
        target_context.refresh()
        try:
            path = self._path(sig, target_context.codegen())
            _own(path.parent, make=False)
            return CompileResult._rebuild(target_context, *pickle.loads(path.read_bytes()))
        except Exception:  # whatever is wrong with it, the loop can be compiled
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the loop for these types, unless it holds addresses of this process."""
        if data.library.has_dynamic_globals:
            return
        try:
            path = self._path(sig, data.codegen)
            _own(path.parent)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(dumps(data._reduce()))
            Path(file.name).replace(path)
        except (OSError, RuntimeError):
            return

    def _path(self, sig: Any, codegen: Any) -> Path:
        known = (sig, codegen.magic_tuple(), _sources(self._source), numba.__version__, sys.implementation.cache_tag)
        return folder() / f"{self._name}-{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.nbc"


def _own(place: Path, *, make: bool = True) -> None:
    """Raises PermissionError if another user could have written what lies there. Makes the folder if there is none."""
    if make:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = place.stat()
    if hasattr(os, "geteuid") and (about.st_uid != os.geteuid() or about.st_mode & 0o022):
        raise PermissionError(f"{place} can be written to by others")


@cache
def _sources(file: Path) -> str:
    """A digest of the Python files that a loop in this one may be made of."""
    found = hashlib.sha256()
    for each in sorted({*file.parent.glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        found.update(each.name.encode() + b"\0" + each.read_bytes() + b"\0")
    return found.hexdigest()
