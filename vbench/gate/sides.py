"""The sides of a comparison of two revisions: each in processes of its own, with its own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vbench import jobs
from vbench.errors import UsageError
from vbench.gate.revisions import Install
from vbench.jobs.launch import Runner
from vbench.jobs.revision_runner import RevisionRunner

ASK_LIMIT_S = 300.0


@contextmanager
def opened(base: Install, head: Install, models: Sequence[str], caches: Path) -> Iterator[dict[str, Runner]]:
    """Base, its twin and head, each in a process of its own.

    Args:
        caches: a folder in which each side's compiled kernels stay from one opening to the next.

    Raises: UsageError for a side that does not start, or that would measure other code than its own.
    """
    installs = {"base": base, "twin": base, "head": head}
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name, install in installs.items():
            cache = caches / ("head" if name == "head" else "base")
            side = RevisionRunner(f"{name}, {install.label},", install.python, install.path, cache)
            runners[name] = stack.enter_context(side)
        with ThreadPoolExecutor(len(installs)) as pool:  # each imports torch
            list(pool.map(lambda name: _check_code(name, installs[name], runners[name], models), installs))
        yield runners


def _check_code(name: str, install: Install, runner: Runner, models: Sequence[str]) -> None:
    """Raise UsageError unless a side's models are its own: an installed copy must not stand for both."""
    ending = runner.run(*jobs.whereabouts(models), ASK_LIMIT_S)
    if ending.status != "ok":
        raise UsageError(f"{name} cannot be asked for its code: {ending.reason}")
    own = [file for file in ending.parts["files"].values() if file and install.root]
    if own and not any(Path(file).is_relative_to(install.root) for file in own if install.root):
        raise UsageError(f"{name} would measure {own[0]}, which is not in its own tree; try --install")
