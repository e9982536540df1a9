"""Rows whose calls were timed though they did not do the work, as findings of a gate. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from vbench.results.frame import WRONG
from vbench.results.launches import Launch
from vbench.results.outcome import Finding

WHAT = {"nonfinite": "finite outputs", "output_differs": "right outputs", "impossible": "possible time"}


def wrong(cell: str, row: Mapping[Any, Any], launches: Sequence[Launch]) -> list[Finding]:
    """A finding WRONG for each flag of `WHAT` that a row of head has, with the reason that a launch gives."""
    raised = set(str(row["flags"] or "").split())
    return [
        Finding(cell, what, "WRONG", note=_note(flag, str(row["model"]), launches))
        for flag, what in WHAT.items()
        if flag in raised
    ]


def _note(flag: str, model: str, launches: Sequence[Launch]) -> str:
    why = WRONG[flag].format(model=model)
    if flag != "impossible":
        raised = "nonfinite" if flag == "nonfinite" else "differs"
        said = [launch.doubts.outputs for launch in launches if getattr(launch.doubts, raised)]
        return f"{why}: {said[0]}" if said else why
    latencies = [launch.latency.samples for launch in launches if launch.latency]
    middles = [float(np.median(samples)) for samples in latencies if samples is not None]
    floors = [launch.floor[0] for launch in launches if launch.floor and launch.floor[0]]
    return f"{why}: {median(middles):.3g} ms, at least {median(floors):.3g} ms"
