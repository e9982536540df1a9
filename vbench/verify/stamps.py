"""Whether the modes of models are one function, for reports: found once for the same code and versions, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vbench import host
from vbench.jobs.launch import Launcher
from vbench.jobs.memo import Memo
from vbench.verify import stamp, subjects, verify


@contextmanager
def of_models() -> Iterator[Callable[[str], Mapping[str, Any] | None]]:
    """Within, a function from a model to the stamp of its operator and itself on the CPU, gradients left out.

    None if the model has one mode. It raises UnknownModelError.
    """
    with Launcher() as launcher:
        memo = Memo(launcher, host.code_digest())
        yield lambda model: stamp([verify(subject, memo, gradients=False) for subject in subjects([model])])
