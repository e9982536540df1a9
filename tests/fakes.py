"""Records as a sweep would write them, without a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vbench.kernels import default_form
from vbench.models import spec
from vbench.plan import RIGORS, Case
from vbench.results.faults import judged, of_cells
from vbench.results.series import series_of
from vbench.results.store import Record

HOST = {
    "device": "cpu",
    "device_name": "a test CPU",
    "versions": {"vbench": "0.1.0", "torch": "2.11.0", "timm": "1.0.20", "triton": "3.6.0"},
    "commit": "0123456789abcdef",
    "dirty": False,
}


def make_record(model: str = "vig_t", side: int = 224, mode: Any = "parallel", **changes: Any) -> Record:
    """A record as a sweep would write it, with figures that follow from the size alone."""
    row = spec(model)
    form = default_form(row.operator, mode) if row.operator else None
    case = Case(model, side, side, mode, form, "knee", "float32", "cpu", attention=None if form else "fused")
    tokens = (side // 16) ** 2
    ms = tokens / 2 if model.startswith("vig") else tokens**1.5 / 50
    values: dict[str, Any] = {
        "case_id": case.id,
        "case": asdict(case),
        "launch": 0,
        "order": 0,
        "status": "ok",
        "reason": None,
        "conditions": "c0ffee",
        "protocol": asdict(RIGORS["quick"]),
        "host": HOST,
        "started_at": "2026-01-01T00:00:00+00:00",
        "wall_s": 2.0,
        "timeout_s": 300.0,
        "load": {"load_1min": 0.1, "free_bytes": 2**34},
        "work": {
            "params": 5_000_000,
            "tokens": tokens,
            "macs": 5_000_000 * tokens,
            "macs_executed": 5_100_000 * tokens,
            "padding": None,
            "unknown": {},
        },
        "second_count": {"macs_fvcore": 5_100_000 * tokens, "agree": True, "reason": None},
        "memory": {
            "batch": 1,
            "peak_bytes": 30_000_000 + 2_000 * tokens,
            "weights_bytes": 20_000_000,
            "input_bytes": 12 * side * side,
            "activation_bytes": 10_000_000 + 2_000 * tokens - 12 * side * side,
            "method": "made up",
        },
        "warmup": {"calls": 10, "wall_s": 0.5, "converged": True, "reason": None},
        "latency": latency(ms * f for f in (0.99, 1.0, 1.01, 1.0, 1.02, 0.98, 1.0)),
        "throughput": {"batch": 4, "images_per_s": 1200 / ms, "block_calls": 1, "blocks_ms": [4e3 * ms / 1200] * 3},
        "state": {"wall_s": 2.0, "cpu_s": 2.0, "threads": 1, "cores": 2, "others_busy_share": 0.0, "gpu": None},
        "spent": {"measured_s": 1.5, "warmup_s": 0.5},
    }
    return Record(**{**values, **changes})


def of_case(record: Record, **changes: Any) -> Record:
    """The same measurement of another case: another phase, dtype, batch ..."""
    case = Case(**{**record.case, **changes})
    return replace(record, case=asdict(case), case_id=case.id)


def latency(samples_ms: Iterable[float]) -> dict[str, Any]:
    """What a worker says of these samples."""
    return {"batch": 1, "samples_ms": list(samples_ms), "throttled": None, "host_ms": None}


def failed(status: str, reason: str, **where: Any) -> Record:
    """A record of a cell that ended before its latency was known."""
    return make_record(**where, status=status, reason=reason, memory=None, warmup=None, latency=None, throughput=None)


def faults(launches: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """The faults of a cell with these samples."""
    found = of_cells(judged([series_of(launch) for launch in launches]), np.zeros(len(launches), np.intp), 1)
    return tuple(fault for fault, there in found.items() if there[0])
