"""The Python files that a user's model is made of: its own, and those beside them that they import."""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path


def closure(where: Path) -> list[Path]:
    """The files of a package's folder, or a one-file module; then those of all neighbours that they import, sorted.

    Imports are found by reading, wherever they stand; `import_module("name")` counts. A module that an installed one of
    the same name hides is no neighbour. Imports nothing.
    """
    found, folder = _files(where), where.parent
    if _is_installed(folder):
        return found
    places, todo, seen = {where}, list(found), set[str]()
    while todo:
        for name in sorted(_imported(todo.pop()) - seen):
            seen.add(name)
            place = _neighbour(name, folder)
            if place is not None and place not in places:
                places.add(place)
                todo += _files(place)
    return found + [file for place in sorted(places - {where}) for file in _files(place)]


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def _is_installed(folder: Path) -> bool:
    known = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")}
    return folder in known or folder.name in ("site-packages", "dist-packages")


def _neighbour(name: str, folder: Path) -> Path | None:
    """The file or folder of a top-level module if an import takes it from `folder`."""
    beside = PathFinder.find_spec(name, [str(folder)])
    if beside is None:
        return None
    try:
        first = find_spec(name) or beside
    except (ImportError, ValueError):
        return None
    places = list(first.submodule_search_locations or [])
    place = Path(places[0] if places else first.origin or "").resolve()
    return place if place.parent == folder and place.exists() else None


def _imported(file: Path) -> frozenset[str]:
    """The top-level names that a file imports, without those of Python itself."""
    try:
        return _imported_by(file.read_bytes())
    except OSError:
        return frozenset()


@lru_cache(maxsize=512)  # a file is asked about for each model that it is a part of
def _imported_by(source: bytes) -> frozenset[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a string with odd escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return frozenset(name.partition(".")[0] for name in names if not name.startswith(".")) - sys.stdlib_module_names
