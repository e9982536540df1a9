"""Copies of modules with faults, which `vbench verify` must catch."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from vbench.kernels.registry import trials
from vbench.verify import Extent, checks

BRIEF = Extent(tokens=6, cuts=1, brief=True, gradients=False)  # for kernels that are interpreted


def changed(module: ModuleType, changes: tuple[tuple[str, str], ...], folder: Path) -> ModuleType:
    """A copy of a module in which some texts are replaced, wherever they stand. Triton reads it from a file."""
    file = folder / Path(str(module.__file__)).name
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    file.write_text(source, encoding="utf-8")
    made = spec_from_file_location(module.__name__, file)
    assert made is not None
    assert made.loader is not None
    copy = module_from_spec(made)
    made.loader.exec_module(copy)
    return copy


def show(op: str, direction: str, patch: pytest.MonkeyPatch) -> None:
    """Let operators be tried on the first of their trials in a direction alone: that one shows the fault."""
    first = next(trial for trial in trials(op) if trial.direction == direction)
    patch.setattr(checks, "trials", lambda _: (first,))


def passes_at_once(op: str, form: str) -> bool:
    """Whether the output and the state in float32 pass: what is checked first of a form that has no float64."""
    made = checks.operator_checks(op, extent=replace(BRIEF, forms=(form,)))
    return all(check.ok for check in islice(made, 2))
