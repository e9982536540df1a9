"""Whose code a gate judges: the checkouts of the models, with their commits and what is not committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vbench import host
from vbench.errors import UnknownModelError
from vbench.models import external
from vbench.results.code import SHORT

NAMED = 3  # changed files that are named


@dataclass(frozen=True, slots=True)
class Code:
    """A checkout, or a folder or package that is in none: then only `name` and `digest` are known.

    `changes` are the files with changes that are not committed, and Python files that git does not know.
    """

    name: str
    commit: str | None = None
    changes: tuple[str, ...] = ()
    digest: str | None = None

    def __str__(self) -> str:
        if self.commit is None:
            return f"{self.name}, without a commit" + (f" (digest {self.digest})" if self.digest else "")
        beyond = f" and {len(self.changes) - NAMED} more files" if len(self.changes) > NAMED else ""
        changed = f" with uncommitted changes in {', '.join(self.changes[:NAMED])}{beyond}" if self.changes else ""
        return f"{self.name} at {self.commit[:SHORT]}{changed}"

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def code_of(models: Iterable[str]) -> list[Code]:
    """The checkout that holds each of these models, once. Models of vbench and of timm count as the current folder's.

    Without a checkout there, the code is vbench's own. Imports no model.
    """
    found: dict[Code, None] = {}
    for model in models:
        where = _folder(model)
        found[_held(model, where) if where else of_folder(Path()) or _ours()] = None
    return list(found)


def of_folder(folder: Path) -> Code | None:
    """The checkout that a folder is in; None if it is in none."""
    name = host.repository(folder)
    if name is None:
        return None
    new = ("--untracked-files=all", "--", ":(top,glob)**/*.py")
    changes = {*host.changed_files(folder, "--untracked-files=no"), *host.changed_files(folder, *new)}
    return Code(name, host.git(folder, "rev-parse", "HEAD"), tuple(sorted(changes)))


def in_words(found: Iterable[Code]) -> str:
    """ "my_net at 0123456789ab with uncommitted changes in my_net.py"."""
    return "; ".join(map(str, found))


def _held(model: str, where: Path) -> Code:
    """The checkout of a user's own model; its package where there is none."""
    if host.checkout(where)["commit"] is None and not _new(where):
        return Code(where.stem, digest=external.source(model))
    return of_folder(where if where.is_dir() else where.parent) or Code(where.stem, digest=external.source(model))


def _new(where: Path) -> bool:
    """Whether a file or folder lies in a checkout that has no commit yet, and does not ignore it."""
    folder, own = (where, ".") if where.is_dir() else (where.parent, where.name)
    return bool(host.changed_files(folder, "--untracked-files=all", "--", own))


def _folder(model: str) -> Path | None:
    try:
        return external.folder_of(model) if external.is_external(model) else None
    except UnknownModelError:
        return None


def _ours() -> Code:
    """vbench itself."""
    about = host.fingerprint("cpu", None)
    changed = ("its own code",) if about["dirty"] else ()
    return Code("vbench", about["commit"], changed, None if about["commit"] else about["source"])
