"""Records become a table: one row a cell, nothing blank without its reason."""

from __future__ import annotations

import pandas as pd
import pytest
from fakes import HOST, failed, make_record
from vbench.results.frame import COLUMNS, frame
from vbench.results.store import Record

PROMISED = (
    "model family mode phase height width batch dtype device status params macs latency_ms latency_ms_lo "
    "latency_ms_hi throughput_img_s peak_memory_bytes"
)


def test_columns(records: list[Record]) -> None:
    table = frame(records)
    assert list(table.columns) == list(COLUMNS)
    assert set(PROMISED.split()) <= set(table.columns)
    assert len(table) == len(records)


def test_an_empty_table_has_its_columns_and_types() -> None:
    table = frame([])
    assert list(table.columns) == list(COLUMNS)
    assert str(table["latency_ms"].dtype) == "Float64"


def test_statistics_come_from_the_samples() -> None:
    row = frame([make_record(latency={"batch": 1, "samples_ms": [5, 1, 4, 2, 3, 100], "cpu_share": 1.0})]).iloc[0]
    assert (row["latency_ms"], row["latency_ms_lo"], row["latency_ms_hi"]) == (3.5, 1, 100)
    assert row["latency_samples"] == 6
    assert row["flags"] == ""


def test_the_newest_record_of_a_cell_counts_and_devices_stay_apart() -> None:
    old, new = make_record(wall_s=1.0), make_record(throughput={"batch": 2, "images_per_s": 9.0})
    other = make_record(host={**HOST, "device_name": "another"})
    table = frame([old, new, other])
    assert len(table) == 2
    assert table[table["device_name"] == "a test CPU"]["throughput_img_s"].item() == 9.0


@pytest.mark.parametrize("status", ["oom", "timeout", "error"])
def test_a_failed_cell_is_a_row_with_its_reason(status: str) -> None:
    row = frame([failed(status, "why", model="deit_t", side=1024)]).iloc[0]
    assert (row["status"], row["reason"]) == (status, "why")
    assert pd.isna(row["latency_ms"])
    assert pd.isna(row["peak_memory_bytes"])
    assert row["macs"] > 0


def test_flags() -> None:
    few = make_record(latency={"batch": 1, "samples_ms": [1.0, 2.0], "cpu_share": 1.0})
    busy = make_record(latency={"batch": 1, "samples_ms": [1.0] * 9, "cpu_share": 0.5})
    apart = make_record(second_count={"macs_fvcore": 1, "agree": False, "reason": None})
    for record, flag in ((few, "few_samples"), (busy, "contended"), (apart, "counters_disagree")):
        assert frame([record]).iloc[0]["flags"] == flag


def test_accuracy_is_marked_as_published() -> None:
    row = frame([make_record("vig_t", 224)]).iloc[0]
    assert row["top1_published"] == 77.2
    assert "2405.18425" in row["top1_source"]
    assert pd.isna(frame([make_record("vig_t", 2048)]).iloc[0]["top1_published"])
