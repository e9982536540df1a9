"""The two revisions of `vbench gate --ab`: what git has at a revision (base), and the working tree (head).

For each one this finds the folder that must come first on Python's path. With `--install`, pip installs it into an
environment of its own that also sees the other packages of this one. An interpreter that the user names is used as it
is. `runners` then starts a process for base, one for its twin, and one for head.
"""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import vbench
from vbench import jobs
from vbench.errors import UsageError
from vbench.gate.code import of_folder
from vbench.jobs import scratch
from vbench.jobs.launch import Runner
from vbench.jobs.revision_runner import RevisionRunner
from vbench.models import external

INSTALL_LIMIT_S = 1800.0
ASK_LIMIT_S = 300.0  # for a question to a runner that measures nothing


@dataclass(frozen=True, slots=True)
class Install:
    """Where the code of one revision is: an interpreter, and the folders that come first on its path.

    The models that are measured must lie in `root`; None if the interpreter's environment decides.
    """

    label: str
    python: str = sys.executable
    path: tuple[Path, ...] = ()
    root: Path | None = None


@contextmanager
def prepared(
    revision: str,
    models: Sequence[str],
    base_python: str | None = None,
    head_python: str | None = None,
    *,
    install: bool = False,
) -> Iterator[tuple[Install, Install]]:
    """Base and head. Whatever is created for them is removed afterwards.

    Args:
        revision: of base, as git names it; head is the working tree of the current folder's repository.
        models: what will be measured; their code decides which folder goes on the path.
        base_python, head_python: interpreters in whose environments the revision is already installed.
        install: have pip install each revision, without its dependencies, into an environment of its own.

    Raises: UsageError if the current folder is in no git repository, git does not know the revision, an interpreter is
        missing, the repository holds no code of the models, or pip cannot install a revision.
    """
    for option, python in (("--base-python", base_python), ("--head-python", head_python)):
        if python and not Path(python).is_file():
            raise UsageError(f"{option}: there is no {python}; give an environment's python")
    no_git = "--ab compares revisions; this is no git repository"
    top = Path(_git(Path(), "rev-parse", "--show-toplevel", failure=no_git))
    unknown = f"--ab: git has no '{revision}'"
    commit = _git(top, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", failure=unknown)
    with scratch.folder("gate") as place:
        tree = place.resolve() / "base"
        label = f"{revision} ({commit[:12]})" if not commit.startswith(revision) else commit[:12]
        head = of_folder(top)
        label, tree_now = (f"{head.name} at {label}", str(head)) if head else (label, "working tree")
        if base_python is None:
            _git(top, "worktree", "add", "--detach", "--quiet", str(tree), commit, failure="--ab: no worktree")
        try:
            yield (
                _prepare(label, tree, top, models, base_python, install, place / "base-env"),
                _prepare(tree_now, top, top, models, head_python, install, place / "head-env"),
            )
        finally:
            if base_python is None:
                _git(top, "worktree", "remove", "--force", str(tree), failure="--ab: the worktree stays")


def _prepare(
    label: str, tree: Path, top: Path, models: Sequence[str], python: str | None, install: bool, environment: Path
) -> Install:
    if python is not None:
        return Install(label, python)
    if install:
        return Install(label, str(_installed(tree, environment)), root=environment)
    return Install(label, path=tuple(tree / root for root in _roots(top, models)), root=tree)


def _roots(top: Path, models: Sequence[str]) -> list[Path]:
    """The folders, relative to the repository's top, that hold the packages of the models.

    The models of vbench itself are in the repository only if it is the repository of vbench.
    """
    own = {name.partition(":")[0].partition(".")[0]: name for name in models if external.is_external(name)}
    if (top / "vbench" / "__init__.py").is_file() and not own:
        return [Path()]
    roots: dict[Path, None] = {}
    for package, name in own.items():
        where = external.folder_of(name)
        known = where.parent.relative_to(top) if where and where.is_relative_to(top) else None
        for root in [Path(), Path("src")] if known is None else [known]:
            if (top / root / package).is_dir() or (top / root / f"{package}.py").is_file():
                roots[root] = None
                break
    if not roots:
        code = ", ".join(own) or f"{', '.join(models)} (vbench's own models)"
        raise UsageError(
            f"--ab: this repository holds no code of {code}; name a model that it holds, "
            "or give --base-python and --head-python"
        )
    return list(roots)


def _installed(tree: Path, environment: Path) -> Path:
    """The interpreter of a new environment with the project in `tree` installed, and the packages of this one."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    libraries = next((environment / "lib").glob("python*/site-packages"))
    here = [*site.getsitepackages(), *(str(Path(folder).parent) for folder in vbench.__path__[:1])]
    (libraries / "this-environment.pth").write_text("\n".join(here) + "\n")
    command = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"--install: pip cannot install {tree.name}: {last[:300]}")
    return python


def _git(folder: Path, *args: str, failure: str) -> str:
    """What git prints. Raises: UsageError that begins with `failure`."""
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        raise UsageError("--ab needs git, which is not installed") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UsageError(failure + (f": {lines[-1][:200]}" if lines else "; give a branch, a tag or a commit"))
    return done.stdout.strip()


@contextmanager
def runners(base: Install, head: Install, models: Sequence[str], caches: Path) -> Iterator[dict[str, Runner]]:
    """Runners of base, its twin and head, each in a process of its own.

    Args:
        caches: a folder in which the compiled kernels of each revision stay from one call to the next.

    Raises: UsageError if a process does not start, or would measure code of another revision.
    """
    installs = {"base": base, "twin": base, "head": head}
    with ExitStack() as stack:
        started: dict[str, Runner] = {}
        for name, install in installs.items():
            cache = caches / ("head" if name == "head" else "base")
            runner = RevisionRunner(name, install.python, install.path, cache)
            started[name] = stack.enter_context(runner)
        with ThreadPoolExecutor(len(installs)) as pool:  # each imports torch
            list(pool.map(lambda name: check_code(name, installs[name], started[name], models), installs))
        yield started


def check_code(name: str, install: Install, runner: Runner, models: Sequence[str]) -> None:
    """Raise UsageError if a runner would measure models outside its own tree, such as an installed copy."""
    ending = runner.run(*jobs.whereabouts(models), ASK_LIMIT_S)
    if ending.status != "ok":
        raise UsageError(f"{name} cannot be asked for its code: {ending.reason}")
    root, used = install.root, [file for file in ending.parts["files"].values() if file]
    if root and used and not any(Path(file).is_relative_to(root) for file in used):
        raise UsageError(f"{name} would measure {used[0]}, which is not in its own tree; try --install")
