"""Records as a table: one row a cell, statistics computed from the raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import pandas as pd
from scipy.stats import binom
from vbench.models.registry import spec
from vbench.results.published import accuracies
from vbench.results.store import Record

CONFIDENCE = 0.95
CONTENDED = 0.9  # on the CPU: the share of the wall time that a measurement must have had its processors

COLUMNS: dict[str, str] = {  # in this order; the type is pandas'
    "model": "string",
    "family": "string",
    "mode": "string",
    "form": "string",
    "phase": "string",
    "height": "int64",
    "width": "int64",
    "tokens": "Int64",
    "batch": "Int64",
    "dtype": "string",
    "device": "string",
    "device_name": "string",
    "status": "string",
    "reason": "string",
    "flags": "string",
    "verified": "boolean",
    "params": "Int64",
    "macs": "Int64",
    "macs_executed": "Int64",
    "macs_fvcore": "Int64",
    "latency_batch": "Int64",
    "latency_ms": "Float64",
    "latency_ms_lo": "Float64",
    "latency_ms_hi": "Float64",
    "latency_coverage": "Float64",
    "latency_samples": "Int64",
    "throughput_img_s": "Float64",
    "batch_policy": "string",
    "memory_batch": "Int64",
    "peak_memory_bytes": "Int64",
    "weights_bytes": "Int64",
    "input_bytes": "Int64",
    "activation_bytes": "Int64",
    "reserved_bytes": "Int64",
    "process_bytes": "Int64",
    "padding": "string",
    "top1_published": "Float64",
    "top1_source": "string",
    "threads": "Int64",
    "torch": "string",
    "triton": "string",
    "timm": "string",
    "vbench": "string",
    "commit": "string",
    "started_at": "string",
    "case_id": "string",
    "conditions": "string",
}


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row a cell and device; of several records of a cell the newest counts.

    Columns and types are `COLUMNS`. `latency_ms` is the median of single calls at `latency_batch`,
    `latency_ms_lo` and `_hi` its interval and `latency_coverage` that interval's level; `throughput_img_s`
    is at `batch`, peak memory at `memory_batch`. What was not measured is missing, and `status` and
    `reason` say why.
    """
    newest = {(record.case_id, record.host.get("device_name")): record for record in records}
    rows = [_row(record) for record in newest.values()]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    order = ["device_name", "model", "mode", "dtype", "height", "width", "case_id"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def median_interval(samples: Sequence[float]) -> tuple[float, float, float, float]:
    """Median, and its distribution-free interval from order statistics: (median, lo, hi, coverage).

    The narrowest symmetric pair of order statistics that covers the median with at least 95 %; fewer than
    six samples cannot, and then it is their range, with the coverage that it has.
    """
    ordered = sorted(samples)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    rank = 0
    while rank + 1 < n - 1 - rank and 1 - 2 * binom.cdf(rank + 1, n, 0.5) >= CONFIDENCE:
        rank += 1
    return middle, ordered[rank], ordered[n - 1 - rank], float(max(0.0, 1 - 2 * binom.cdf(rank, n, 0.5)))


def _row(record: Record) -> dict[str, Any]:
    case, host = record.case, record.host
    work, second = record.work or {}, record.second_count or {}
    memory, latency, throughput = record.memory or {}, record.latency or {}, record.throughput or {}
    row: dict[str, Any] = {
        **{key: case[key] for key in ("model", "mode", "form", "phase", "height", "width", "dtype", "device")},
        **{key: work.get(key) for key in ("params", "tokens", "macs", "macs_executed", "padding")},
        "family": spec(case["model"]).family,
        "device_name": host.get("device_name"),
        "status": record.status,
        "reason": record.reason,
        "verified": (record.verified or {}).get("ok"),
        "macs_fvcore": second.get("macs_fvcore"),
        "batch": throughput.get("batch", None if case["batch"] == "auto" else case["batch"]),
        "batch_policy": "auto" if case["batch"] == "auto" else "fixed",
        "throughput_img_s": throughput.get("images_per_s"),
        "memory_batch": memory.get("batch"),
        "peak_memory_bytes": memory.get("peak_bytes"),
        **{
            key: memory.get(key)
            for key in ("weights_bytes", "input_bytes", "activation_bytes", "reserved_bytes", "process_bytes")
        },
        "threads": record.protocol.get("threads"),
        **{key: host.get("versions", {}).get(key) for key in ("torch", "triton", "timm", "vbench")},
        "commit": host.get("commit") and host["commit"] + ("-dirty" if host.get("dirty") else ""),
        "started_at": record.started_at,
        "case_id": record.case_id,
        "conditions": record.conditions,
    }
    if samples := latency.get("samples_ms"):
        middle, low, high, coverage = median_interval(samples)
        row |= {
            "latency_batch": latency["batch"],
            "latency_ms": middle,
            "latency_ms_lo": low,
            "latency_ms_hi": high,
            "latency_coverage": coverage,
            "latency_samples": len(samples),
        }
    if case["height"] == case["width"] and (known := accuracies().get((case["model"], case["height"]))):
        row |= {"top1_published": known.top1, "top1_source": f"{known.source}; {known.locator}"}
    row["flags"] = " ".join(_flags(row, record))
    return row


def _flags(row: dict[str, Any], record: Record) -> list[str]:
    flags = []
    if row["verified"] is False:
        flags.append("modes_differ")
    if spec(row["model"]).caveat:
        flags.append("caveat")
    if 0 < row.get("latency_coverage", 0) < CONFIDENCE:
        flags.append("few_samples")
    share = (record.latency or {}).get("cpu_share")
    if share is not None and isfinite(share) and share < CONTENDED:
        flags.append("contended")
    if (record.second_count or {}).get("agree") is False:
        flags.append("counters_disagree")
    if row["padding"]:
        flags.append("cropped" if row["padding"].startswith("cuts off") else "padded")
    return flags
