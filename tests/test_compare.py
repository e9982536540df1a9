"""Two stored runs: a slowdown is told from noise, and what cannot be told is called so."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import HOST, failed, latency, make_record, of_case
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.results.compare import StoredRun, compare, load, run_of
from vbench.results.holm import holm
from vbench.results.outcome import Finding, Outcome
from vbench.results.store import Record, Store

RUNS = sorted((Path(__file__).resolve().parent.parent / "results/calibration/cpu").glob("aa-*"))
GPU = {"name": "a test GPU", "memory_bytes": 2**36, "capability": "9.0", "multiprocessors": 132, "driver": "580.1"}
ON_GPU = {**HOST, "device": "cuda:0", "device_name": "a test GPU", "gpu": GPU}


def cell(
    ms: float = 10.0, launches: int = 5, noise: float = 0.001, peak: int = 30_000_000, **changes: Any
) -> list[Record]:
    """The launches of one cell, their medians scattered alike in every call, their peaks a byte apart."""
    record = make_record(**{key: changes.pop(key) for key in ("model", "side", "mode") if key in changes})
    middle = (launches - 1) / 2
    return [
        replace(
            record,
            launch=n,
            **{
                "latency": latency(ms * (1 + noise * (n - middle)) * (1 + share) for share in (-1e-4, 1e-4) * 15),
                "memory": {**(record.memory or {}), "peak_bytes": peak + n},
                **changes,
            },
        )
        for n in range(launches)
    ]


def found(base: list[Record], head: list[Record], **how: Any) -> Outcome:
    return compare(run_of(base, "A"), run_of(head, "B"), **how)


def one(outcome: Outcome, what: str) -> Finding:
    (finding,) = [finding for finding in outcome.findings if finding.what == what]
    return finding


class TestLatency:
    @pytest.mark.parametrize(
        ("base", "head", "verdict", "note"),
        [
            ({}, {"ms": 10.1}, "SAME", None),
            ({}, {"ms": 11.0}, "SLOW", None),
            ({}, {"ms": 9.0}, "FAST", None),
            ({"noise": 0.05}, {"ms": 11.0}, "AMBIGUOUS", None),
            ({}, {"ms": 10.3}, "AMBIGUOUS", None),
            ({}, {"ms": 30.0, "launches": 1}, "AMBIGUOUS", "1 launch in head; measure with more"),
            ({"launches": 1}, {"ms": 10.1, "launches": 1}, "AMBIGUOUS", "1 launch in base and 1 launch in head"),
            ({}, {"latency": {**latency([10.0] * 9), "batch": 8}}, "UNMEASURED", "at batch 1 in base and 8 in head"),
            ({}, {"latency": None}, "UNMEASURED", "not measured in head"),
        ],
    )
    def test_the_verdict(self, base: Any, head: Any, verdict: str, note: str | None) -> None:
        told = one(found(cell(**base), cell(**head)), "latency_ms")
        assert told.verdict == verdict
        assert (note or "") in (told.note or "")
        assert bool(note) or told.note is None

    @pytest.mark.parametrize("launches", [1, 2, 5])
    def test_a_run_is_the_same_as_itself(self, launches: int) -> None:
        records = cell(launches=launches, noise=0.2)
        told = one(found(records, records), "latency_ms")
        assert (told.verdict, told.ratio, told.lo, told.hi) == ("SAME", 1.0, 1.0, 1.0)
        assert "the records are the same in both runs" in (told.note or "")
        again = [replace(record, started_at="2026-01-02T00:00:00+00:00") for record in records]
        assert one(found(records, again), "latency_ms").verdict == "AMBIGUOUS"

    def test_a_cell_of_one_launch_is_judged_by_the_scatter_of_its_run(self) -> None:
        slow = cell(20.0, launches=1, side=512)
        told = found([*cell(), *slow], [*cell(), *cell(40.0, launches=1, side=512)])
        (of_slow,) = [each for each in told.findings if each.what == "latency_ms" and "512" in each.cell]
        assert of_slow.verdict == "SLOW"

    def test_the_threshold_is_the_callers(self) -> None:
        assert one(found(cell(), cell(ms=11.0), threshold=0.2), "latency_ms").verdict == "SAME"
        with pytest.raises(UsageError, match=r"--threshold: 1\.5 is not between 0 and 1"):
            found(cell(), cell(), threshold=1.5)

    def test_what_is_slow_by_itself_is_ambiguous_among_many_cells(self) -> None:
        """Its 95 % interval lies beyond the threshold; one in twenty such cells does by chance."""
        sides = range(32, 32 * 21, 32)
        base = [record for side in sides for record in cell(side=side)]
        head = [record for side in sides for record in cell(10.35 if side == 32 else 10.0, side=side)]
        among = found(base, head).findings[0]
        assert among.verdict == "AMBIGUOUS"
        assert among.lo is not None
        assert among.lo > 1.03
        assert "Holm" in (among.note or "")
        assert one(found(base[:5], cell(10.4, side=32)), "latency_ms").verdict == "SLOW"

    def test_equal_runs_are_rarely_called_anything_and_a_slowdown_is_caught(self) -> None:
        random = np.random.default_rng(0)

        def run(slower: float = 1.0) -> StoredRun:
            levels = slower * np.exp(random.normal(0, 0.01, 5))
            return run_of(
                [
                    replace(record, latency=latency(10 * level * np.exp(random.normal(0, 0.002, 12))))
                    for record, level in zip(cell(), levels, strict=True)
                ],
                "a run",
            )

        equal, slow = [run() for _ in range(20)], [run(1.1) for _ in range(5)]
        alarms = [bool(compare(*pair).of("SLOW", "FAST")) for pair in combinations(equal, 2)]
        caught = [bool(compare(base, head).of("SLOW")) for base in equal for head in slow]
        assert sum(alarms) <= 0.01 * len(alarms)
        assert sum(caught) >= 0.95 * len(caught)

    def test_a_batch_that_differs_for_throughput_is_said(self) -> None:
        head = cell(throughput={"batch": 8, "images_per_s": 100.0, "block_calls": 1, "blocks_ms": [80.0] * 3})
        assert one(found(cell(), head), "latency_ms").note == "throughput is at batch 4 → 8"

    @pytest.mark.parametrize(
        ("mhz", "ms", "verdict", "note"),
        [
            (1400, 11.0, "SLOW", None),
            (1380, 11.0, "SLOW", None),  # within 2 %
            (1273, 11.0, "AMBIGUOUS", "1400 → 1273 MHz, in cycles 1.000×; SLOW in time, not in cycles"),
            (1273, 13.0, "SLOW", "in cycles 1.182×"),
            (1540, 9.09, "AMBIGUOUS", "FAST in time, not in cycles"),
        ],
    )
    def test_a_slowdown_is_confirmed_in_cycles_where_clocks_differ(
        self, mhz: int, ms: float, verdict: str, note: str | None
    ) -> None:
        def at(clock: int) -> dict[str, Any]:
            return {"host": ON_GPU, "state": {**(make_record().state or {}), "gpu": {"sm_mhz_median": clock}}}

        told = one(found(cell(**at(1400)), cell(ms=ms, **at(mhz))), "latency_ms")
        assert told.verdict == verdict
        assert (note or "") in (told.note or "")
        assert bool(note) or told.note is None


class TestOtherQuantities:
    @pytest.mark.parametrize(
        ("peak", "verdict"), [(30_000_000, "SAME"), (30_800_000, "SAME"), (33_000_000, "MORE"), (27_000_000, "LESS")]
    )
    def test_memory(self, peak: int, verdict: str) -> None:
        assert one(found(cell(), cell(peak=peak)), "peak_memory_bytes").verdict == verdict

    def test_memory_whose_launches_overlap_is_ambiguous(self) -> None:
        base = cell()
        base[0] = replace(base[0], memory={**(base[0].memory or {}), "peak_bytes": 40_000_000})
        assert one(found(base, cell(peak=33_000_000)), "peak_memory_bytes").verdict == "AMBIGUOUS"

    def test_a_count_must_be_equal(self) -> None:
        work = make_record().work or {}
        told = found(cell(), cell(work={**work, "macs_executed": work["macs_executed"] + 1, "params": None}))
        assert one(told, "macs_executed").verdict == "CHANGED"
        assert one(told, "macs").verdict == "SAME"
        assert (one(told, "params").verdict, one(told, "params").note) == ("UNMEASURED", "not counted in head")

    @pytest.mark.parametrize(
        ("base", "head", "verdict"),
        [
            ("ok", "oom", "BROKEN"),
            ("ok", "error", "BROKEN"),
            ("ok", "timeout", "BROKEN"),
            ("ok", "unsupported", "BROKEN"),
            ("oom", "ok", "MENDED"),
            ("oom", "timeout", "UNMEASURED"),
            ("unsupported", "unsupported", None),
            ("ok", None, "GONE"),
            (None, "ok", "NEW"),
            ("unsupported", None, None),
        ],
    )
    def test_cells_that_are_not_measured_on_both_sides(
        self, base: str | None, head: str | None, verdict: str | None
    ) -> None:
        def run(status: str | None) -> list[Record]:
            other = cell(side=512)
            return other + ([] if status is None else cell() if status == "ok" else [failed(status, "so it was")])

        told = [finding for finding in found(run(base), run(head)).findings if finding.cell.startswith("vig_t 224")]
        assert [(finding.what, finding.verdict) for finding in told] == [("status", verdict)] * (verdict is not None)
        assert all("so it was" in (finding.note or "") for finding in told if verdict not in ("GONE", "NEW"))

    def test_one_launch_that_fails_breaks_a_cell(self) -> None:
        head = [*cell()[:4], replace(failed("oom", "out of memory"), launch=4)]
        assert one(found(cell(), head), "status").note == "ok → oom: out of memory"

    def test_modes_that_are_no_longer_one_function_exit_with_5(self) -> None:
        told = found(cell(verified={"ok": True}), cell(verified={"ok": False}))
        assert told.exit_code() == 5
        assert not found(cell(verified={"ok": False}), cell(verified={"ok": False})).of("UNEQUAL")

    def test_cells_that_differ_in_the_batch_alone_are_told_apart(self) -> None:
        both = cell() + [of_case(record, batch=8) for record in cell()]
        assert {finding.cell for finding in found(both, both).findings} == {
            "vig_t 224 parallel float32 batch knee cpu",
            "vig_t 224 parallel float32 batch 8 cpu",
        }


class TestMachines:
    @pytest.mark.parametrize(
        ("other", "says"),
        [
            ({"cpu_count": 4}, "cpu_count is 2 and 4"),
            ({"ram_bytes": 2**34}, "ram_bytes is 17000000000 and 17179869184"),
            ({"device_name": "another"}, "device_name is a test GPU and another"),
            ({"gpu": {**GPU, "driver": "590.2"}}, "driver is 580.1 and 590.2"),
        ],
    )
    def test_another_machine_is_refused_unless_it_is_allowed(self, other: dict[str, Any], says: str) -> None:
        here = {**ON_GPU, "cpu_count": 2, "ram_bytes": 17_000_000_000}
        base, head = cell(host=here), cell(host={**here, **other})
        if "ram_bytes" in other:  # a kernel keeps some of it for itself
            assert found(base, head).findings
            head = cell(host={**here, "ram_bytes": 2**35})
            says = says.replace(str(2**34), str(2**35))
        with pytest.raises(UsageError, match=f"A and B are of two machines: {says}; .*--allow-mismatch"):
            found(base, head)
        told = found(base, head, allow_mismatch=True)
        assert one(told, "latency_ms").verdict == "SAME"
        assert told.unlike == (f"A and B are of two machines: {says}",)
        mixed = [*base, *(of_case(record, batch=8) for record in head)]
        with pytest.raises(UsageError, match="B holds records of several machines"):
            found(base, mixed)

    def test_versions_protocols_and_commits_may_differ_and_are_named(self) -> None:
        newer = {**HOST, "versions": {**HOST["versions"], "torch": "2.12.0"}, "commit": "fedc", "dirty": True}  # type: ignore[dict-item]
        head = cell(host=newer)
        head = [replace(record, protocol={**record.protocol, "threads": 4, "seed": 7}) for record in head]
        told = compare(run_of(cell(), "A", complete=False), run_of(head, "B"))
        assert one(told, "latency_ms").verdict == "SAME"
        assert told.facts["differ"] == {"torch": ["2.11.0", "2.12.0"]}
        assert told.facts["head"]["commits"] == ["fedc-dirty"]
        assert told.unlike == ("torch 2.11.0 → 2.12.0", "threads 1 → 4")
        assert (told.base, told.head) == ("A (vbench at 0123456789ab)", "B (vbench at fedc with changes)")
        assert told.facts["warnings"] == ["A was interrupted: its plan was not measured to the end"]
        assert "not interleaved" in told.facts["note"]


class TestCommand:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        for name, ms in (("a", 10.0), ("b", 12.0)):
            with Store(tmp_path / name) as store:
                for record in [*cell(ms), failed("oom", "[bold]out", model="deit_t")]:
                    store.append(record)
        (tmp_path / "b" / "run.json").write_text('{"runs": [{"complete": true}, {"complete": false}]}')
        return tmp_path / "a", tmp_path / "b"

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["compare", *map(str, words)])
        return done.exit_code, done.stdout, done.stderr if done.exception is None else str(done.exception)

    def test_exit_codes_and_files(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        a, b = folders
        code, said, _ = self.run(a, b)
        assert code == 1
        assert "SLOW" in said
        assert "[bold]out" in said
        assert self.run(a, a)[0] == 0
        assert self.run(a, a, "--strict")[0] == 4
        code, said, _ = self.run(a, b, "--json", "--threshold", "0.5", "-o", tmp_path / "found")
        assert code == 0
        assert json.loads(said)["facts"]["head"]["complete"] is False
        assert len(list((tmp_path / "found").iterdir())) >= 1

    def test_nothing_in_common_and_nothing_at_all_exit_with_3(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        for name, records in (("other", cell(side=512)), ("none", []), ("failing", [failed("oom", "out of memory")])):
            with Store(tmp_path / name) as store:
                for record in records:
                    store.append(record)
        assert self.run(folders[0], tmp_path / "other")[0] == 3
        assert self.run(tmp_path / "none", tmp_path / "none")[0] == 3
        assert self.run(tmp_path / "failing", tmp_path / "failing")[0] == 3

    def test_a_folder_without_records_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"nowhere has no records\.jsonl"):
            load(tmp_path / "nowhere")


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_real_sweeps_of_the_same_code_cry_wolf_in_at_most_one_pair_of_a_hundred() -> None:
    """Twenty sweeps of four cells, every pair of them, in the order of time."""
    runs: list[StoredRun] = [load(folder) for folder in RUNS]
    pairs = [compare(*pair) for pair in combinations(runs, 2)]
    assert len(pairs) == 190
    assert all(len(pair.of("AMBIGUOUS", "SAME")) == 20 for pair in pairs[:5])
    assert sum(bool(pair.of("SLOW", "FAST", "MORE", "LESS", "CHANGED")) for pair in pairs) <= len(pairs) / 100
