"""Whether head's calls did the work that was timed: their outputs, and the least time that the device needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vbench import jobs
from vbench.jobs.launch import Ending
from vbench.plan import Case, Protocol
from vbench.results.frame import frame
from vbench.results.launches import kept
from vbench.results.outcome import Finding
from vbench.results.store import Record
from vbench.results.wrong import wrong
from vbench.sweeps.floor import Roofs

COUNT_LIMIT_S = 60.0  # for a cell


@dataclass(slots=True)
class Watch:
    """What a session knows of head's work and of the device.

    Args:
        run: runs a job with head's code.
    """

    run: Callable[[str, dict[str, Any], float], Ending]
    device: str
    protocol: Protocol
    _roofs: Roofs = field(init=False)
    _work: dict[str, dict[str, Any]] = field(default_factory=dict)
    _outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._roofs = Roofs(self.run, self.device, self.protocol.threads, self.protocol.tf32)

    def learn(self, cases: Sequence[Case], outputs: Mapping[str, dict[str, Any]]) -> None:
        """Count the work of cells and measure the device; `outputs` are of launches with a reference, by case id."""
        self._outputs |= outputs
        counted = self.run(*jobs.count(cases), COUNT_LIMIT_S * len(cases)).parts if cases else {}
        self._work = {case.id: counted[case.id]["work"] for case in cases if "work" in counted.get(case.id, {})}
        for dtype in dict.fromkeys(case.dtype for case in cases):
            self._roofs.of(dtype)

    def findings(self, case: Case, launches: Sequence[Record]) -> list[Finding]:
        """Each fault in head's launches of a cell. The device is measured again before a time fails."""
        work = self._work.get(case.id)
        known = [replace(one, floor=self._roofs.floor(case, work, one.latency)) for one in launches]
        tried = self._outputs.get(case.id)
        if known and tried is not None:
            known[0] = replace(known[0], outputs=_worse(tried, known[0].outputs))
        return wrong(str(case), frame(known).iloc[0].to_dict(), kept(known)) if known else []


def _worse(tried: dict[str, Any], own: dict[str, Any] | None) -> dict[str, Any]:
    """What was found with a reference, unless the launch itself found a fault."""
    return own if own and (own.get("nonfinite") or own.get("differs")) else tried
