"""Rows whose calls were timed though they did not do the work, as findings of a gate. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from vbench.results.frame import WRONG
from vbench.results.outcome import Finding
from vbench.results.store import Record

WHAT = {"nonfinite": "finite outputs", "output_differs": "right outputs", "impossible": "possible time"}


def wrong(cell: str, row: Mapping[Any, Any], launches: Sequence[Record]) -> list[Finding]:
    """A finding WRONG for each flag of `WHAT` that a row of head has, with the reason that a launch gives."""
    raised = set(str(row["flags"] or "").split())
    return [
        Finding(cell, what, "WRONG", note=_note(flag, str(row["model"]), launches))
        for flag, what in WHAT.items()
        if flag in raised
    ]


def _note(flag: str, model: str, launches: Sequence[Record]) -> str:
    why = WRONG[flag].format(model=model)
    if flag != "impossible":
        key = "nonfinite" if flag == "nonfinite" else "differs"
        outputs = [record.outputs for record in launches if record.outputs and record.outputs.get(key)]
        return f"{why}: {outputs[0]['reason']}" if outputs else why
    middles = [median(record.latency["samples_ms"]) for record in launches if record.latency]
    floors = [record.floor["floor_ms"] for record in launches if record.floor and record.floor["floor_ms"]]
    return f"{why}: {median(middles):.3g} ms, at least {median(floors):.3g} ms"
