"""A bad line costs its own record and nothing else: it is named, left where it is, and measured anew."""

from __future__ import annotations

import copy
import json
import random
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fakes import make_record

from vbench.errors import SchemaError
from vbench.reports import runs, tables
from vbench.results import lines, scaling
from vbench.results.compare import compare, load
from vbench.results.frame import of_folders
from vbench.results.lines import DamagedLineWarning
from vbench.results.store import Record, Store, TurnBlock, read, read_turns, reading

ROOT = Path(__file__).resolve().parent.parent
GOOD = make_record()
OTHER = replace(make_record(side=512), launch=1)


def line(record: Record | TurnBlock = GOOD, **parts: Any) -> str:
    return json.dumps({**asdict(record), **parts})


BAD = {  # what stands on the line -> what is said of it
    "half a line": (line()[:200], "is no JSON"),
    "nan": (line(latency={**GOOD.latency, "samples_ms": [1.0, float("nan")]}), "is no JSON"),  # type: ignore[dict-item]
    "infinity": (line(wall_s=float("inf")), "is no JSON"),
    "a number that overflows": (line(wall_s=123.5).replace("123.5", "1e999"), "out of range"),
    "5,000 digits": (line().replace('"launch": 0', f'"launch": {"9" * 5000}'), "out of range"),
    "more than 63 bits": (line().replace('"params": 5000000', f'"params": {10**30}'), "work.params"),
    "text for a number": (line(wall_s="2.0"), "wall_s: expected float, got str"),
    "text among samples": (
        line(latency={**GOOD.latency, "samples_ms": [1.0, "2"]}),
        r"samples_ms\[1\]: expected float, got str",
    ),  # type: ignore[dict-item]
    "a negative time": (line(latency={**GOOD.latency, "samples_ms": [1.0, -2.0]}), "samples_ms"),  # type: ignore[dict-item]
    "100,000 brackets": (line(load={"x": 1}).replace('{"x": 1}', "[" * 100_000), "nested too deeply"),
    "half a surrogate pair": (line(reason="x").replace('"x"', r'"\ud800"'), "is no JSON"),
    "bytes that are no text": (line(reason="x").replace('"x"', '"\xff"'), "is no JSON"),
    "zeros": ("\0" * 300, "is no JSON"),
    "a list": ("[1, 2]", "is no record"),
    "a foreign record": ('{"schema": 2}', "lacks case, case_id"),
    "another schema": (line(schema=1), "has schema 1; this vbench reads 2"),
    "an unknown status": (line(status="fine"), "status"),
    "a size of 0": (line(case={**GOOD.case, "height": 0}), "case.height"),
    "a record beyond all size": (line(stop="x" * 70_000), "has more than"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    if what == "a record beyond all size":
        monkeypatch.setattr(lines, "LONGEST", 2**16)
    bad, says = BAD[what]
    file = tmp_path / "records.jsonl"
    before = f"{line()}\n{bad}\n{line(OTHER)}\n".encode("latin-1")
    file.write_bytes(before)
    with pytest.warns(DamagedLineWarning, match=rf"records.jsonl: line 2 \(it .*{says}"):
        assert read(tmp_path) == [GOOD, OTHER]
    with pytest.warns(DamagedLineWarning):
        store = Store(tmp_path)  # a resume measures that launch anew
    with store:
        assert store.records == [GOOD, OTHER]
        store.append(replace(GOOD, launch=2))
    assert file.read_bytes().startswith(before)
    with pytest.warns(DamagedLineWarning):
        assert [record.launch for record in read(tmp_path)] == [0, 1, 2]


def test_of_a_key_that_stands_twice_the_last_counts(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(line().replace('"launch": 0', '"launch": 0, "launch": 7') + "\n")
    assert [record.launch for record in read(tmp_path)] == [7]


def test_a_last_line_that_is_whole_but_wrong_is_not_cut_off(tmp_path: Path) -> None:
    """Nor is one that is not ours. Only what was cut as it was written is."""
    file = tmp_path / "records.jsonl"
    for last in (line(wall_s="2"), '{"mine": [1, 2'):
        file.write_text(f"{line()}\n{last}")
        with pytest.warns(DamagedLineWarning), Store(tmp_path) as store:
            store.append(OTHER)
        assert file.read_text().splitlines()[1] == last
        with pytest.warns(DamagedLineWarning):
            assert read(tmp_path) == [GOOD, OTHER]


def test_a_file_of_which_no_line_can_be_read_is_refused(tmp_path: Path) -> None:
    before = '{"schema": 2}\nmy notes\n'
    (tmp_path / "records.jsonl").write_text(before)
    for opening in (Store, read, reading):
        with pytest.raises(SchemaError, match="no line can be read: line 1 lacks case"):
            opening(tmp_path)
    assert (tmp_path / "records.jsonl").read_text() == before


BLOCK = json.loads((ROOT / "results" / "cpu" / "turns.jsonl").read_text().splitlines()[0])
WRONG_BLOCKS = {
    "a cell too few": ({"case_ids": BLOCK["case_ids"][:-1]}, "entries for"),
    "times of another cell": ({"samples_ms": [*BLOCK["samples_ms"], [1.0]]}, "samples_ms has"),
    "rounds of different length": ({"samples_ms": [[1.0, 2.0], *([1.0] for _ in BLOCK["cases"][1:])]}, "rounds"),
    "batches that are none": ({"batches": [1.5] * len(BLOCK["case_ids"])}, "batches"),
}


def test_a_refusal_does_not_repeat_a_value_without_end(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps({**json.loads(line()), "status": "x" * 9000}) + "\n")
    with pytest.raises(SchemaError, match="line 1 is wrong at status") as refused:
        read(tmp_path)
    assert len(str(refused.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize("what", WRONG_BLOCKS)
def test_a_block_of_turns_whose_lists_do_not_agree_is_named(tmp_path: Path, what: str) -> None:
    changes, says = WRONG_BLOCKS[what]
    (tmp_path / "turns.jsonl").write_text(f"{json.dumps(BLOCK)}\n{json.dumps({**BLOCK, **changes})}\n")
    with pytest.warns(DamagedLineWarning, match=f"turns.jsonl: line 2 .*{says}"):
        assert len(read_turns(tmp_path)) == 1


def test_a_report_shows_the_bad_lines_of_its_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "records.jsonl").write_text(f"{line()}\n{line(wall_s='x')}\n{line(make_record('deit_t'))}\nnot mine\n")
    said = vbench("report", str(run))
    assert said.returncode == 0
    shown = "damaged: line 2 of"
    assert shown in said.stdout
    assert "wall_s: expected float, got str" in said.stdout
    assert "damaged: line 4 of" in said.stdout
    assert "Traceback" not in said.stderr
    assert shown in (run / "table.md").read_text()
    with pytest.warns(DamagedLineWarning):
        assert len(tables.damaged(runs.table_of(runs.runs_of([run])))) == 2  # which the page lists


HARD: list[Any] = [
    *(None, True, 0, -1, 1.5, -0.0, 1e-320, 1e308, -1e308, 2**62, 2**63, 10**400, float("nan"), float("inf")),
    *("", "x", "nan", "knee", "cpu", "[/b]", "\ud800", "\0", [], [None], [[]], [0.0], ["x"], {}, {"a": None}),
]


def mutated(rng: random.Random, source: list[dict[str, Any]]) -> dict[str, Any]:
    """A record in which one to three values are other ones, or gone."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
        return [path, *(place for key, one in inner for place in places(one, (*path, key)))]

    made = copy.deepcopy(rng.choice(source))
    *path, last = rng.choice([place for place in places(made) if place])
    inside = made
    for key in path:
        inside = inside[key]
    if rng.random() < 0.2:
        del inside[last]
    else:
        inside[last] = rng.choice(HARD)
    return made


def try_damage(folder: Path, seed: int) -> None:
    """Read and compare a run of whose records some are damaged at random: nothing but our own errors may come."""
    rng = random.Random(seed)
    for name in ("records.jsonl", "turns.jsonl"):
        good = [json.loads(text) for text in (ROOT / "results" / "cpu" / name).read_text().splitlines()]
        made = [*rng.sample(good, 4), *(mutated(rng, good) for _ in range(12))]
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in made))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = of_folders([folder])
        compare(load(folder), load(folder), allow_mismatch=True)
        scaling.exponents(table, ("latency_ms", "macs_executed"))


def test_no_damage_is_a_traceback(tmp_path: Path) -> None:
    for seed in range(3):
        try_damage(tmp_path, seed)


@pytest.mark.full
def test_no_damage_of_thousands_is_a_traceback(tmp_path: Path) -> None:
    for seed in range(3, 300):
        try_damage(tmp_path, seed)
