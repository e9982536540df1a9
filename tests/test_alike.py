"""The comparison of committed tables, held against what it must let pass and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from alike import differences, same


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("0.1", "0.10000000000000002", True),
        ("43.05895159706416", "43.05895159706417", True),
        ("1e-05", "1.0000000000001e-05", True),
        ("-2.5", "-2.5000000000001", True),
        ("0.1", "0.1000000002", False),
        ("2.5", "-2.5", False),
        ("1253683200", "1253683201", False),  # a count
        ("0.0", "1e-300", False),
        ("", "0.0", False),
        ("deit_t", "deit_s", False),
        ("vig_t", "vig_t", True),
        ("1.0.20", "1.0.21", False),
    ],
)
def test_floats_within_a_billionth_and_texts_as_texts(one: str, other: str, alike: bool) -> None:
    assert same(one, other) is same(other, one) is alike


def test_each_difference_is_named(tmp_path: Path) -> None:
    committed, made = tmp_path / "committed.csv", tmp_path / "made.csv"
    committed.write_text('model,ms\nvig_t,1.5\n"a, b",2.5\n')
    made.write_text('model,ms\nvig_t,1.5000000000000002\n"a, b",2.5\n')
    assert differences(made, committed) == []
    made.write_text("model,ms\nvig_s,1.5\n")
    assert differences(made, committed) == [
        "row 1, model: 'vig_s' is not 'vig_t'",
        "row 2, model: '' is not 'a, b'",
        "row 2, ms: '' is not '2.5'",
    ]
