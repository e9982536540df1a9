"""Records survive whatever happens to the process that writes them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vbench.errors import OutputError, SchemaError
from vbench.results.lines import DamagedLineWarning
from vbench.results.store import Record, Store, check, current, read, recordable

RECORD = Record(
    case_id="0123",
    case={
        **{"model": "vig_t", "height": 224, "width": 224, "mode": "parallel", "form": "chunkwise"},
        **{"batch": "knee", "dtype": "float32", "device": "cpu"},
    },
    launch=0,
    order=0,
    status="ok",
    reason=None,
    conditions="abcd",
    protocol={"threads": 1, "launches": 1},
    host={"device_name": "a CPU"},
    started_at="2026-01-01T00:00:00+00:00",
    wall_s=1.5,
    timeout_s=300.0,
)
TEXT = st.text(st.characters(categories=None), max_size=20)  # with half surrogate pairs
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    reason=st.none() | TEXT,
    work=st.none() | st.dictionaries(TEXT | st.sampled_from(["macs", "coverage", "unknown"]), JSON, max_size=3),
    latency=st.none() | st.fixed_dictionaries({"batch": JSON, "samples_ms": st.lists(st.floats(), max_size=3) | JSON}),
)
def test_any_record_comes_back_as_it_was_written(tmp_path: Path, reason: Any, work: Any, latency: Any) -> None:
    with Store(tmp_path, fresh=True) as store:
        written = store.append(replace(RECORD, reason=reason, work=work, latency=latency))
    assert read(tmp_path) == [written]
    assert recordable(written) == written
    assert (written.status, written.reason) != ("ok", None) or written.latency == latency


def test_appending_goes_on_where_it_ended(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Store(tmp_path) as store:
            store.append(replace(RECORD, case_id=name))
    assert [record.case_id for record in read(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_cut_last_line_is_dropped_with_a_warning_and_nothing_else(tmp_path: Path, cut: int) -> None:
    with Store(tmp_path) as store:
        for name in ("a", "b", "c"):
            store.append(replace(RECORD, case_id=name))
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 1 - cut])
    with pytest.warns(DamagedLineWarning):
        assert [record.case_id for record in read(tmp_path)] == ["a", "b"]
    with pytest.warns(DamagedLineWarning), Store(tmp_path) as store:
        store.append(replace(RECORD, case_id="d"))
    assert [record.case_id for record in read(tmp_path)] == ["a", "b", "d"]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(asdict(RECORD)))
    with Store(tmp_path) as store:
        store.append(replace(RECORD, case_id="b"))
    assert [record.case_id for record in read(tmp_path)] == ["0123", "b"]


@pytest.mark.parametrize("schema", [1, "2", None])
def test_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps({**asdict(RECORD), "schema": schema}) + "\n")
    with pytest.raises(SchemaError, match=r"line 1 has schema .* reads 2"):
        check(tmp_path)


def test_foreign_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"schema": 2}\n')
    with pytest.raises(SchemaError, match="lacks case, case_id"):
        check(tmp_path)


def test_the_newest_record_of_a_launch_counts_as_long_as_conditions_last() -> None:
    def record(case: str, launch: int, conditions: str, wall_s: float) -> Record:
        return replace(RECORD, case_id=case, launch=launch, conditions=conditions, wall_s=wall_s)

    records = [
        *(record("a", launch, "old", 1.0) for launch in range(3)),
        record("a", 0, "new", 2.0),
        record("b", 0, "old", 3.0),
        record("a", 1, "new", 4.0),
        record("a", 0, "new", 5.0),
    ]
    found = {case: {n: r.wall_s for n, r in launches.items()} for case, launches in current(records).items()}
    assert found == {"a": {0: 5.0, 1: 4.0}, "b": {0: 3.0}}


def test_one_sweep_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(OutputError, match="another sweep"):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_fresh_sets_the_old_records_aside(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append(RECORD)
        store.add_run({"wall_s": 1.0})
    with Store(tmp_path, fresh=True) as store:
        assert store.records == []
        store.add_run({"wall_s": 2.0})
    assert read(tmp_path) == []
    assert json.loads((tmp_path / "run.json").read_text())["runs"] == [{"wall_s": 2.0}]
    assert json.loads((tmp_path / "run.previous.json").read_text())["runs"] == [{"wall_s": 1.0}]
    assert json.loads((tmp_path / "records.previous.jsonl").read_text())["case_id"] == RECORD.case_id


def test_a_folder_that_cannot_be_is_refused_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        check(tmp_path / "file" / "run")
    check(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
