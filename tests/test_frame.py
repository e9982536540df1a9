"""Records become a table: one row a cell, nothing blank without its reason."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import pytest
from fakes import HOST, failed, latency, make_record

from vbench.plan import Protocol
from vbench.results.frame import COLUMNS, filled, frame
from vbench.results.store import Record
from vbench.suites.rules import budget, over_budget

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
    row = frame([make_record(latency=latency([5, 1, 4, 2, 3, 100]))]).iloc[0]
    assert (row["latency_ms"], row["latency_ms_lo"], row["latency_ms_hi"]) == (3.5, 1, 100)
    assert (row["latency_samples"], row["latency_launches"], row["flags"]) == (6, 1, "")
    assert row["latency_ms_min"] == 1


def test_launches_of_a_cell_become_one_row() -> None:
    samples = ([10.0] * 9, [11.0] * 9, [12.0] * 9)
    table = frame([make_record(launch=n, latency=latency(ms)) for n, ms in enumerate(samples)])
    row = table.iloc[0]
    assert len(table) == 1
    assert row["latency_ms"] == pytest.approx(11.0)
    assert (row["latency_launches"], row["latency_samples"]) == (3, 27)
    assert (row["latency_basis"], row["latency_level"]) == ("launches", 0.95)
    assert row["latency_ms_lo"] < 10
    assert row["latency_ms_hi"] > 12
    late = make_record(launch=1, status="timeout", reason="too long", latency=None)
    assert frame([make_record(), late]).iloc[0]["reason"] == "too long"


def test_memory_is_the_middle_launchs_and_growth_that_of_the_one_which_was_asked() -> None:
    first = make_record().memory
    assert first is not None
    peaks = ((100, 7, None), (90, None, "asked once"), (110, None, "asked once"))
    table = frame(
        [
            make_record(launch=n, memory={**first, "peak_bytes": peak, "growth_bytes": grown, "growth_reason": why})
            for n, (peak, grown, why) in enumerate(peaks)
        ]
    )
    assert (table["peak_memory_bytes"].item(), table["growth_bytes"].item()) == (100, 7)
    alone = frame([make_record(memory={**first, "growth_bytes": None, "growth_reason": "too slow"})]).iloc[0]
    assert (pd.isna(alone["growth_bytes"]), alone["growth_reason"]) == (True, "too slow")


def test_parts_of_a_training_step() -> None:
    parts = {"forward": [1.0, 2.0, 3.0], "backward": [4.0], "update": [0.5]}
    row = frame([make_record(latency={**latency([6.5] * 6), "parts_ms": parts})]).iloc[0]
    assert (row["forward_ms"], row["backward_ms"], row["update_ms"]) == (2.0, 4.0, 0.5)


def test_the_newest_record_of_a_cell_counts_and_devices_stay_apart() -> None:
    old, new = (
        make_record(wall_s=1.0),
        make_record(throughput={"batch": 2, "images_per_s": 9.0, "block_calls": 1, "blocks_ms": [222.0] * 2}),
    )
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
    """Those that are no fault of timing; `test_timing` has these."""
    assert frame([make_record(launch=n, protocol=asdict(Protocol())) for n in range(8)]).iloc[0]["flags"] == ""
    apart = {"macs_fvcore": 1, "agree": False, "reason": None}
    assert "counters_disagree" in frame([make_record(second_count=apart)]).iloc[0]["flags"]
    work = make_record().work
    assert work is not None
    assert "counters_disagree" in frame([make_record(work={**work, "closed_form_agrees": False})]).iloc[0]["flags"]
    assert "uncounted" in frame([make_record(work={**work, "unknown": {"aten::x": 1}})]).iloc[0]["flags"]


@pytest.mark.parametrize(
    ("launches", "wanted", "samples", "flags"),
    [
        (2, 8, [5.0, 5.1], ""),  # as many as its time allowed; the interval has its level
        (1, 8, [5.0, 5.01, 5.02] * 9, "few_samples"),  # the scatter of launches is that of other cells, or not known
        (1, 1, [5.0, 5.01, 5.02] * 9, ""),  # all that was asked for
        (1, 1, [5.0, 5.1], "few_samples"),  # a range
    ],
)
def test_few_samples_are_one_launch_of_several_or_a_range(
    launches: int, wanted: int, samples: list[float], flags: str
) -> None:
    protocol = asdict(replace(Protocol(), launches=wanted))
    records = [make_record(launch=n, protocol=protocol, latency=latency(samples)) for n in range(launches)]
    assert frame(records).iloc[0]["flags"] == flags


def test_one_launch_of_several_is_flagged_though_the_run_gives_it_an_interval() -> None:
    protocol = asdict(Protocol())
    others = [make_record(side=side, launch=n, protocol=protocol) for side in (256, 320, 384) for n in range(8)]
    table = frame([make_record(side=224, protocol=protocol), *others])
    alone = table[table["height"] == 224].iloc[0]
    assert (alone["latency_basis"], alone["latency_level"]) == ("launches of the run", 0.95)
    assert alone["flags"] == "few_samples"
    assert set(table[table["height"] > 224]["flags"]) == {""}


def test_accuracy_is_marked_as_published() -> None:
    row = frame([make_record("vig_t", 224)]).iloc[0]
    assert row["top1_published"] == 77.2
    assert "2405.18425" in row["top1_source"]
    assert pd.isna(frame([make_record("vig_t", 2048)]).iloc[0]["top1_published"])


@pytest.mark.parametrize("values", [[True, None], ["a", None], [1.5, None], [None, None]])
@pytest.mark.parametrize("dtype", ["object", None])
def test_what_is_missing_is_filled_and_no_type_is_guessed(values: list[Any], dtype: str | None) -> None:
    column = filled(pd.Series(values, dtype=dtype), "not known")
    assert list(column) == ["not known" if value is None else value for value in values]
    assert column.dtype == object


def test_a_record_of_before_an_axis_has_its_default() -> None:
    record = make_record()
    older = replace(record, case={key: value for key, value in record.case.items() if key != "layout"})
    assert frame([older]).equals(frame([record]))


def test_a_cell_of_one_launch_takes_its_interval_from_the_run() -> None:
    several = [make_record("vig_t", launch=n, latency=latency([10.0 + n] * 9)) for n in range(4)]
    slow = make_record("deit_t", side=512, latency=latency([99.0, 100.0, 101.0]))
    table = frame([*several, slow]).set_index("model")
    row = table.loc["deit_t"]
    assert (row["latency_basis"], row["latency_level"]) == ("launches of the run", 0.95)
    assert row["latency_freedom"] == 3
    assert row["latency_ms_lo"] < 80
    elsewhere = replace(slow, conditions="of another run")
    assert frame([*several, elsewhere]).set_index("model").loc["deit_t", "latency_basis"] == "range"


def test_throughput_has_an_interval_of_its_own() -> None:
    first = make_record()
    launches = [replace(first, launch=n, latency=latency([10.0 + n, 10.2 + n] * 9)) for n in range(4)]
    later = [launches[0], *(replace(record, throughput=None) for record in launches[1:])]
    row = frame(later).iloc[0]
    assert row["batch"] == 4
    assert (row["throughput_basis"], row["throughput_level"]) == ("launches of the run", 0.95)
    assert row["throughput_img_s_lo"] < 0.9 * row["throughput_img_s"] < row["throughput_img_s_hi"]
    single = {"batch": 1, "images_per_s": 100.0, "block_calls": 1, "blocks_ms": [10.0, 10.0]}
    row = frame([replace(later[0], throughput=single), *later[1:]]).iloc[0]
    assert (row["throughput_basis"], row["throughput_samples"]) == ("launches", 72)
    wide = [row[f"{cost}_hi"] / row[f"{cost}_lo"] for cost in ("throughput_img_s", "latency_ms")]
    assert wide[0] == pytest.approx(wide[1])
    assert row["throughput_img_s_lo"] < row["throughput_img_s"] < row["throughput_img_s_hi"]


def test_throughput_of_which_nothing_is_known_has_no_interval() -> None:
    block = {"batch": 4, "images_per_s": 100.0, "block_calls": 1, "blocks_ms": [40.0]}
    row = frame([make_record(throughput=block)]).iloc[0]
    assert row["throughput_img_s"] == 100
    assert row[["throughput_img_s_lo", "throughput_img_s_hi", "throughput_level", "throughput_basis"]].isna().all()


def test_percentiles_of_few_samples_are_missing() -> None:
    def at(count: int) -> pd.Series[Any]:
        return frame([make_record(latency=latency(10 + n / count for n in range(count)))]).iloc[0]

    assert at(63)[["latency_ms_p10", "latency_ms_p90", "latency_ms_p99"]].isna().all()
    assert at(64)["latency_ms_p90"] == pytest.approx(10.9, abs=0.02)
    assert pd.isna(at(661)["latency_ms_p99"])
    assert at(662)["latency_ms_p99"] == pytest.approx(10.99, abs=0.01)


def test_a_budget_on_a_percentile_of_few_samples_is_not_measured() -> None:
    def of(count: int) -> Any:
        row = frame([make_record(latency=latency(10 + n / count for n in range(count)))]).iloc[0].to_dict()
        (found,) = over_budget("a cell", row, [budget("latency_ms_p99<20", "here")])
        return found.verdict, found.note

    assert of(90) == ("UNMEASURED", "p99 needs 662 samples, there are 90")
    assert of(700)[0] == "SAME"
