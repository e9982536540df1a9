"""Suites of several parts: what they stand for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vbench.errors import UsageError
from vbench.plan import USUAL, parse, plan, union
from vbench.suites.load import load

PARTS = """
question = "?"
time = "seconds"
modes = "parallel"
batch = "1"

[[part]]
models = "vig_t,deit_t"
res = "224,512"

[[part]]
models = "deit_t"
res = "512,64"
attention = "fused,unfused"
batch = "1,2"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_what_stands_above_the_parts_is_common_to_them(tmp_path: Path) -> None:
    suite = load(written(tmp_path, PARTS))
    assert suite.axes == {"modes": "parallel", "batch": "1"}
    assert [axes["modes"] for axes in suite.sets] == ["parallel", "parallel"]
    assert [axes["batch"] for axes in suite.sets] == ["1", "1,2"]
    assert "attention" not in suite.sets[0]


def test_a_cell_of_two_parts_is_measured_once_and_small_images_come_first(tmp_path: Path) -> None:
    sweeps = [parse({**USUAL, **axes}, "cpu") for axes in load(written(tmp_path, PARTS)).sets]
    cases = union(sweeps)
    assert len({case.id for case in cases}) == len(cases) == 4 + 8 - 1
    assert set(cases) == {case for sweep in sweeps for case in plan(sweep)}
    assert [case.height for case in cases] == sorted(case.height for case in cases)
    assert cases[0].height == 64
    assert union(sweeps[:1]) == plan(sweeps[0])


def test_a_suite_without_parts_is_one_set() -> None:
    suite = load("resolution")
    assert suite.sets == [suite.axes]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'attention = "fused,unfused"',
            'attentoin = "fused"',
            "part 2: wrong, missing or non-text keys: attentoin; a part",
        ),
        ('models = "deit_t"\n', "", "part 2: wrong, missing or non-text keys: models"),
        ('res = "224,512"', "res = 224", "part 1: wrong, missing or non-text keys: res"),
        ('batch = "1,2"', 'time = "an hour"', "part 2: wrong, missing or non-text keys: time"),
        ('time = "seconds"\n', "", "mine.toml: wrong, missing or non-text keys: time; a suite has question, time"),
        ("[[part]]", "[[parts]]", "keys: parts, models, res"),
        ("[[part]]\n", "", "is not TOML"),
    ],
)
def test_a_wrong_part_is_one_line_that_names_it(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in PARTS
    with pytest.raises(UsageError, match=says) as caught:
        load(written(tmp_path, PARTS.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ['part = "x"', "part = []", "part = [1]"])
def test_what_is_no_table_is_refused(part: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"part is no table; write \[\[part\]\] above each set of axes"):
        load(written(tmp_path, f'question = "?"\ntime = "seconds"\nmodels = "deit_t"\nres = "64"\n{part}\n'))
