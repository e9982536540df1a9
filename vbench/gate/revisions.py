"""The two sides of `vbench gate --ab`: what git had at a revision, and what lies in the working tree.

Of each side the folder that Python's path must begin with is found; `--install` has pip install it into an environment
of its own instead, which sees the other packages of this one; and where the user names an interpreter, that is used.
"""

from __future__ import annotations

import site
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import vbench
from vbench.errors import UsageError
from vbench.models import external

INSTALL_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Install:
    """Where one side's code is: an interpreter, and folders that come first on its path. `root`, within which the
    models must lie that it measures; None where the interpreter's own environment says."""

    label: str
    python: str = sys.executable
    path: tuple[Path, ...] = ()
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class Pythons:
    """Interpreters that the user names; None for a side that is made here."""

    base: str | None = None
    head: str | None = None


ALL_MADE = Pythons()


@contextmanager
def sides(
    revision: str,
    models: Sequence[str],
    *,
    pythons: Pythons = ALL_MADE,
    install: bool = False,
    folder: Path | None = None,
) -> Iterator[tuple[Install, Install]]:
    """Base and head. What is made for them is removed afterwards.

    Args:
        revision: of base, as git understands it in `folder`; head is the working tree as it is.
        models: what will be measured; their code decides which folder goes on the path.
        pythons: interpreters of environments that have their side installed.
        install: have pip install each side, without its dependencies, into an environment of its own.
        folder: in the repository; the current one if None.

    Raises: UsageError for what is no repository, a revision that it does not have, an interpreter that is not there, a
        repository that holds no code that is measured, or a side that pip cannot install.
    """
    for option, python in (("--base-python", pythons.base), ("--head-python", pythons.head)):
        if python and not Path(python).is_file():
            raise UsageError(f"{option}: there is no {python}; give an environment's python")
    top = _git(
        folder or Path(), "rev-parse", "--show-toplevel", else_say="--ab compares revisions; this is no git repository"
    )
    commit = _git(
        Path(top),
        "rev-parse",
        "--verify",
        "--quiet",
        f"{revision}^{{commit}}",
        else_say=f"--ab: git has no '{revision}'",
    )
    with tempfile.TemporaryDirectory(prefix="vbench-gate-") as place:
        tree = Path(place).resolve() / "base"
        label = f"{revision} ({commit[:12]})" if not commit.startswith(revision) else commit[:12]
        if pythons.base is None:
            _git(Path(top), "worktree", "add", "--detach", "--quiet", str(tree), commit, else_say="--ab: no worktree")
        try:
            yield (
                _side(label, tree, Path(top), models, pythons.base, install, Path(place) / "base-env"),
                _side("working tree", Path(top), Path(top), models, pythons.head, install, Path(place) / "head-env"),
            )
        finally:
            if pythons.base is None:
                _git(Path(top), "worktree", "remove", "--force", str(tree), else_say="--ab: the worktree stays")


def _side(
    label: str, tree: Path, top: Path, models: Sequence[str], python: str | None, install: bool, environment: Path
) -> Install:
    if python is not None:
        return Install(label, python)
    if install:
        return Install(label, str(_installed(tree, environment)), root=environment)
    return Install(label, path=tuple(tree / root for root in _roots(top, models)), root=tree)


def _roots(top: Path, models: Sequence[str]) -> list[Path]:
    """The folders of the repository, relative to it, in which packages of the models lie; vbench's own models are in
    the repository only if it is vbench's."""
    own = {name.partition(":")[0].partition(".")[0]: name for name in models if external.is_external(name)}
    found: dict[Path, None] = {}
    if (top / "vbench" / "__init__.py").is_file() and not own:
        return [Path()]
    for package, name in own.items():
        where = external.folder_of(name)
        known = where.parent.relative_to(top) if where and where.is_relative_to(top) else None
        near = [Path(), Path("src")] if known is None else [known]
        root = next((root for root in near if _holds(top / root, package)), None)
        if root is not None:
            found[root] = None
    if not found:
        said = ", ".join(own) or f"{', '.join(models)} (vbench's own models)"
        raise UsageError(
            f"--ab: this repository holds no code of {said}; name a model that it holds, "
            "or give --base-python and --head-python"
        )
    return list(found)


def _holds(folder: Path, package: str) -> bool:
    return (folder / package).is_dir() or (folder / f"{package}.py").is_file()


def _installed(tree: Path, environment: Path) -> Path:
    """The interpreter of a new environment in which the project in `tree` is installed, and all else is as here."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    libraries = next((environment / "lib").glob("python*/site-packages"))
    here = [*site.getsitepackages(), *(str(Path(folder).parent) for folder in vbench.__path__[:1])]
    (libraries / "this-environment.pth").write_text("\n".join(here) + "\n")
    command = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UsageError(f"--install: pip cannot install {tree.name}: {said[:300]}")
    return python


def _git(folder: Path, *args: str, else_say: str) -> str:
    """git's answer. Raises: UsageError with `else_say` if it has none."""
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        raise UsageError("--ab needs git, which is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(else_say + (f": {said[-1][:200]}" if said else "; give a branch, a tag or a commit"))
    return done.stdout.strip()
