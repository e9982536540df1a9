"""Runs are joined: nothing twice, nothing lost, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command import vbench as command
from fakes import HOST, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vbench
from vbench.cluster.merge import merge
from vbench.errors import OutputError, SchemaError, UsageError
from vbench.results.store import DamagedLineWarning, Record, Store, TurnBlock, read, read_turns


def run_of(folder: Path, records: Iterable[Record], blocks: Iterable[TurnBlock] = ()) -> Path:
    with Store(folder) as store:
        for record in records:
            store.append(record)
        for one in blocks:
            store.append_turns(one)
    return folder


def written(folder: Path, records: Iterable[Record]) -> Path:
    """As `run_of`, without waiting for the disk."""
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
    return folder


def block(number: int) -> TurnBlock:
    one = at(number)
    about = {"conditions": "c0ffee", "protocol": one.protocol, "host": HOST, "started_at": one.started_at}
    cases = [{**one.case, "mode": mode} for mode in ("parallel", "recurrent")]
    return TurnBlock("company", number, ["a", "b"], cases, number, "ok", None, wall_s=1.0, timeout_s=300.0, **about)  # type: ignore[arg-type]


def at(minute: int, **changes: object) -> Record:
    return replace(make_record("vig_t", 224), started_at=f"2026-01-01T00:{minute:02d}:00+00:00", **changes)  # type: ignore[arg-type]


ONE = replace(make_record("vig_t", 224), host={}, protocol={}, memory=None, latency=None, throughput=None, work=None)
RECORDS = st.builds(
    lambda minute, launch, conditions, status: replace(
        ONE, started_at=f"2026-01-01T00:{minute:02d}:00+00:00", launch=launch, conditions=conditions, status=status
    ),
    st.integers(0, 3),
    st.integers(0, 1),
    st.sampled_from("ab"),
    st.sampled_from(("ok", "error")),
)
RUNS = st.lists(RECORDS, max_size=4, unique_by=repr)
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)


def lines(folder: Path) -> list[bytes]:
    return (folder / "records.jsonl").read_bytes().splitlines()


@MANY
@given(st.tuples(RUNS, RUNS, RUNS))
def test_joining_is_a_union(tmp_path_factory: pytest.TempPathFactory, runs: tuple[list[Record], ...]) -> None:
    """Idempotent, commutative and associative, up to the order of lines of one time; nothing is lost, nothing twice."""
    place = tmp_path_factory.mktemp("runs")
    a, b, c = (written(place / name, own) for name, own in zip("abc", runs, strict=True))
    of = {name: Path(place / name) for name in ("ab", "ba", "ab_c", "bc", "a_bc", "aa")}
    merge([a, b], of["ab"], "newest")
    merge([b, a], of["ba"], "newest")
    merge([of["ab"], c], of["ab_c"], "newest")
    merge([b, c], of["bc"], "newest")
    merge([a, of["bc"]], of["a_bc"], "newest")
    assert sorted(lines(of["ab"])) == sorted(lines(of["ba"]))
    assert sorted(lines(of["ab_c"])) == sorted(lines(of["a_bc"]))
    assert sorted(lines(of["ab_c"])) == sorted({*lines(a), *lines(b), *lines(c)})
    before = (of["ab_c"] / "records.jsonl").read_bytes()
    assert merge([c, b, a, of["ab"]], of["ab_c"], "newest").new == 0
    assert (of["ab_c"] / "records.jsonl").read_bytes() == before
    merge([a, a], of["aa"])
    assert lines(of["aa"]) == lines(a)


def test_order_is_that_of_time_and_each_run_keeps_its_own(tmp_path: Path) -> None:
    """A clock that was set back does not make an older record of a run the valid one."""
    back = [at(5, launch=0, status="error"), at(1, launch=0)]
    a, b = run_of(tmp_path / "a", back), run_of(tmp_path / "b", [at(3, launch=1), at(7, launch=2)])
    merge([b, a], tmp_path / "out")
    assert [record.launch for record in read(tmp_path / "out")] == [1, 0, 0, 2]
    assert [record.status for record in read(tmp_path / "out") if record.launch == 0] == ["error", "ok"]


def test_a_continued_run_is_no_conflict(tmp_path: Path) -> None:
    first = [at(1, status="error", reason="no memory")]
    a = run_of(tmp_path / "a", first)
    b = run_of(tmp_path / "b", [*first, at(2)])  # its copy, resumed with --retry
    assert merge([a, b], tmp_path / "out").records == 2
    assert lines(tmp_path / "out") == lines(b)


def test_a_conflict_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", [at(1), at(1, launch=1)])
    b = run_of(tmp_path / "b", [at(2), at(2, launch=1)])
    done = command("merge", "a", "b", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "a and b both measured launch 0 of vig_t at 224x224 under the same conditions" in done.stderr
    assert "and 1 more; give --keep newest" in done.stderr
    assert not (tmp_path / "out").exists()
    assert command("merge", "a", "b", "-o", "out", "--keep", "newest", cwd=tmp_path).returncode == 0
    assert len(lines(tmp_path / "out")) == 4
    assert {record.started_at[14:16] for record in read(tmp_path / "out")[-2:]} == {"02"}  # and these count
    assert len(lines(a)) == len(lines(b)) == 2


def test_runs_under_other_conditions_are_both_kept(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", [at(launch, launch=launch, conditions="old") for launch in range(3)])
    b = run_of(tmp_path / "b", [at(launch, launch=launch, conditions="new") for launch in range(1, 4)])
    merge([a, b], tmp_path / "out")
    assert len(read(tmp_path / "out")) == 6
    (row,) = vbench.read(tmp_path / "out").to_dict("records")  # the newest conditions count, with all their launches
    assert (row["conditions"], row["latency_launches"]) == ("new", 3)


def test_two_gpus_stay_apart(tmp_path: Path) -> None:
    def of(card: str, ms: float) -> list[Record]:
        host = {**HOST, "device_name": card}
        latency = {"batch": 1, "samples_ms": [ms] * 7, "throttled": None, "host_ms": None}
        return [at(n, launch=n, host=host, conditions=card, latency=latency) for n in range(2)]

    runs = [run_of(tmp_path / card, of(card, ms)) for card, ms in (("A100", 3.0), ("H100", 2.0))]
    done = command("merge", *map(str, runs), "-o", "both", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = vbench.read(tmp_path / "both")
    assert dict(zip(table["device_name"], table["latency_ms"], strict=True)) == {"A100": 3.0, "H100": 2.0}


def test_turns_and_the_facts_of_runs_come_along(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", [at(1)], [block(0)])
    b = run_of(tmp_path / "b", [at(1)], [block(0), block(1)])
    for folder, minute in ((a, 1), (b, 2)):
        run = {"started_at": f"2026-01-01T00:0{minute}:00+00:00", "complete": True}
        (folder / "run.json").write_text(json.dumps({"runs": [run]}))
    found = vbench.merge([a, str(b)], out=tmp_path / "out")
    assert (found.records, found.turns, found.new) == (1, 2, 3)
    assert [one.block for one in read_turns(tmp_path / "out")] == [0, 1]
    runs = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert [run["started_at"][14:16] for run in runs] == ["01", "02"]


def test_lines_that_cannot_be_read(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", [at(1)]), run_of(tmp_path / "b", [at(2, launch=1)])
    whole = (b / "records.jsonl").read_bytes()
    (b / "records.jsonl").write_bytes(whole + whole[:50])
    with pytest.warns(DamagedLineWarning, match="the last line is incomplete"):
        assert merge([a, b], tmp_path / "out").records == 2
    for number, (bad, why) in enumerate(
        (
            (b"{half\n", "is no JSON of a record"),
            (b"[" * 100_000 + b"\n", "is no record"),
            (b'{"schema": ' + b"[" * 100_000 + b"\n", "is nested too deeply"),
            (b'{"schema": 1}\n', "is no record of schema 2"),
            (b'{"schema": 2}\n', "lacks case_id, launch, conditions, started_at"),
            (json.dumps({**asdict(at(1)), "started_at": "soon"}).encode() + b"\n", "which is not a time"),
        )
    ):
        out = tmp_path / str(number)
        (b / "records.jsonl").write_bytes(bad + whole)
        for _ in range(2):  # the second time nothing is new
            with pytest.warns(DamagedLineWarning, match=f"line 1 is joined as it is, though it .*{why}"):
                merge([a, b], out)
            assert sorted((out / "records.jsonl").read_bytes().splitlines()) == sorted(
                [bad.strip(), whole.strip(), (a / "records.jsonl").read_bytes().strip()]
            )
    (b / "records.jsonl").write_bytes(b"{half\n")
    with pytest.raises(SchemaError, match="no line can be read: line 1 is no JSON"):
        merge([a, b], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_folders_that_cannot_be_joined(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", [at(1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"none has no records\.jsonl"):
        merge([a, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be written"):
        merge([a], tmp_path / "file")
    with pytest.raises(UsageError, match="--keep: 'oldest' is not newest"):
        merge([a], tmp_path / "out", "oldest")
    with Store(tmp_path / "busy"), pytest.raises(OutputError, match="another sweep is writing"):
        merge([a], tmp_path / "busy")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk: the new file does not fit."""
    a = run_of(tmp_path / "a", [at(1)])
    run_of(tmp_path / "out", [at(2, launch=1)])
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom vbench.cluster.merge import merge\n"
        "from vbench.errors import OutputError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)}, {len(before)}))\n"
        "try:\n    merge([Path('a')], Path('out'))\nexcept OutputError as error:\n    sys.exit(f'one line: {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("one line: out cannot be written: "), done.stderr
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "records.jsonl"}
    assert len(lines(a)) == 1
