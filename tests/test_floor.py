"""No honest call is faster than the device can be: what is, is flagged, and proves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import latency, make_record

from vbench.doctor import peaks
from vbench.jobs.launch import Ending
from vbench.plan import Case
from vbench.reports.figures import draw
from vbench.reports.figures.style import Options
from vbench.results.answers import answers
from vbench.results.compare import compare, run_of
from vbench.results.frame import WRONG, frame, proves_nothing
from vbench.results.store import Record, Store, read
from vbench.sweeps.floor import AGAIN, RATES, ROOM, Roofs, floor_ms

CASE = Case("vig_t", 224, 224, "parallel", "fused", 1, "float32", "cpu")
WORK = {"macs_executed": 1_000_000_000, "bytes_min": 40_000_000}


def roofs(*rates: Any) -> tuple[Roofs, list[Any]]:
    """Roofs whose measurements give these FLOP/s, the last of them for ever; and what was asked."""
    asked: list[Any] = []

    def run(job: str, argument: dict[str, Any], _: float) -> Ending:
        asked.append((job, argument))
        flops = rates[min(len(asked), len(rates)) - 1]
        if flops is None:
            return Ending("error", "no product")
        return Ending("ok", None, {"flops_per_s": flops, "bytes_per_s": 40e9, "copy_bytes_per_s": 8e9})

    return Roofs(run, "cpu", 1, tf32=False), asked


def test_the_floor_is_the_larger_of_arithmetic_and_traffic_with_room() -> None:
    rates = {"flops_per_s": 100e9, "bytes_per_s": 40e9, "copy_bytes_per_s": 8e9}
    assert floor_ms(WORK, 1, rates) == pytest.approx(20 / ROOM)
    assert floor_ms(WORK, 8, rates) == pytest.approx(160 / ROOM)
    assert floor_ms({**WORK, "macs_executed": 1}, 8, rates) == pytest.approx(1 / ROOM)
    assert floor_ms(WORK, 1, {"reason": "unknown"}) is None
    assert floor_ms({}, 1, rates) is None


def test_a_dtype_is_measured_once_and_again_before_a_time_is_impossible() -> None:
    own, asked = roofs(100e9)
    assert own.floor(CASE, WORK, latency([30.0])) == pytest.approx(
        {"flops_per_s": 100e9, "bytes_per_s": 40e9, "copy_bytes_per_s": 8e9, "floor_ms": 20 / ROOM}
    )
    own.floor(CASE, WORK, latency([30.0]))
    assert len(asked) == 1
    own.floor(replace(CASE, dtype="bfloat16"), WORK, latency([30.0]))
    assert [argument["dtypes"] for _, argument in asked] == [["float32"], ["float32", "bfloat16"]]
    own.floor(CASE, WORK, latency([5.0]))
    assert len(asked) == 2 + AGAIN


def test_a_device_that_was_busy_when_it_was_measured_makes_no_honest_call_impossible() -> None:
    own, asked = roofs(20e9, 15e9, 200e9)
    found = own.floor(CASE, WORK, latency([30.0]))
    assert found is not None
    assert found["floor_ms"] == pytest.approx(10 / ROOM)
    assert len(asked) == 3


def test_what_is_not_known_makes_no_floor_and_says_why() -> None:
    own, _ = roofs(None)
    assert own.floor(CASE, WORK, None) is None
    assert own.floor(CASE, None, latency([1.0])) == {"floor_ms": None, "reason": "its work was not counted"}
    found = own.floor(CASE, WORK, latency([1.0]))
    assert found is not None
    assert (found["floor_ms"], found["reason"]) == (None, "the rates of the device could not be measured: no product")


def test_the_rates_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "BRIEF_S", 0.0)
    monkeypatch.setattr(peaks, "CACHED_BYTES", (2**18,))
    found = dict(peaks.roof({"device": "cpu", "dtypes": ["float32"], "threads": 1, "tf32": False}))
    assert list(found) == list(RATES)
    assert found["bytes_per_s"] >= found["copy_bytes_per_s"] > 0 < found["flops_per_s"]


def faulty(**parts: Any) -> Record:
    """A record with made-up parts; its launch took about 98 ms."""
    return make_record("vig_t", **parts)


OUTPUTS = {"checked": 9, "nonfinite": 0, "compared": 2, "differs": 0, "worst": 0.0, "bound": 1e-5, "reason": None}
FLOOR = {"flops_per_s": 1e11, "bytes_per_s": 4e10, "copy_bytes_per_s": 8e9, "floor_ms": 50.0}
FAULTS = [
    ("nonfinite", {"outputs": {**OUTPUTS, "nonfinite": 3, "reason": "3 of 9 outputs"}}),
    ("output_differs", {"outputs": {**OUTPUTS, "differs": 1, "reason": "equal outputs"}}),
    ("impossible", {"floor": {**FLOOR, "floor_ms": 500.0}}),
]


def test_a_row_has_its_floor_and_the_peaks() -> None:
    row = frame([faulty(outputs=OUTPUTS, floor=FLOOR)]).iloc[0]
    assert (row["floor_ms"], row["peak_flops_per_s"], row["peak_bytes_per_s"]) == (50.0, 1e11, 8e9)
    assert not set(row["flags"].split()) & set(WRONG)
    assert proves_nothing(row.to_dict()) is None


@pytest.mark.parametrize(("flag", "parts"), FAULTS)
def test_each_fault_has_its_flag_and_the_row_proves_nothing(flag: str, parts: dict[str, Any]) -> None:
    table = frame([faulty(**parts), make_record("deit_t")])
    flags = dict(zip(table["model"], table["flags"].str.split(), strict=True))
    assert set(flags["vig_t"]) & set(WRONG) == {flag}
    assert not set(flags["deit_t"]) & set(WRONG)
    said = [answer.text for answer in answers(table) if answer.kind == "ratio"]
    assert any("the time and the peak memory cannot be compared" in text for text in said)
    assert any("vig_t parallel ended in error" in text or "vig_t ended in error" in text for text in said)
    sound = [answer.text for answer in answers(frame([faulty(), make_record("deit_t")]))]
    assert not any("cannot be compared" in text for text in sound)


def test_one_impossible_launch_of_three_is_no_flag_and_one_wrong_output_is() -> None:
    def flags(**parts: Any) -> str:
        return str(frame([faulty(launch=0, **parts), faulty(launch=1), faulty(launch=2)])["flags"].iloc[0])

    assert "impossible" not in flags(**FAULTS[2][1])
    assert "output_differs" in flags(**FAULTS[1][1])


@pytest.mark.parametrize(("flag", "parts"), FAULTS)
def test_the_comparison_of_stored_runs_fails_on_each_fault_of_head(flag: str, parts: dict[str, Any]) -> None:
    sound, bad = run_of([faulty()], "base"), run_of([faulty(**parts)], "head")
    assert compare(sound, bad).exit_code() == 1
    (found,) = compare(sound, bad).of("WRONG")
    assert found.note is not None
    assert "vig_t" in found.note
    assert ("at least 500 ms" if flag == "impossible" else parts["outputs"]["reason"]) in found.note
    assert not compare(bad, sound).of("WRONG")


def test_records_keep_both_parts_and_older_ones_lack_them(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append(faulty(outputs=OUTPUTS, floor=FLOOR))
    assert (read(tmp_path)[0].outputs, read(tmp_path)[0].floor) == (OUTPUTS, FLOOR)
    assert make_record().outputs is make_record().floor is None


def test_the_roofline_has_the_roof_of_its_run() -> None:
    work = {**(make_record().work or {}), "flops_total": 2_000_000_000, "bytes_min": 10**8, "intensity": 20.0}
    records = [make_record("deit_t", side, work=work, floor=FLOOR) for side in (224, 512)]
    with draw.looking("paper"):
        found = draw.draw("roofline", frame(records), Options())
    roof = next(line for line in found.figure.axes[0].get_lines() if str(line.get_label()).startswith("_roof"))
    assert max(roof.get_ydata()) == pytest.approx(100)  # type: ignore[arg-type]
    assert min(roof.get_ydata()) == pytest.approx(min(100, 8 * 20 / 1.5))  # type: ignore[arg-type]
    assert any("float32 100 GFLOP/s, 8.0 GB/s" in note for note in found.notes)
