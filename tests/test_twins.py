"""Sessions of a cell against itself, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from test_turns import CASES, block

from vbench.doctor import twins
from vbench.reports import calibration
from vbench.results.store import TurnBlock


def session(seed: int, apart: float = 0.0) -> list[TurnBlock]:
    """Four blocks of a cell and its twin, whose times differ by `apart`."""
    generator = np.random.default_rng(seed)
    twin = replace(CASES[0], attention=twins.TWIN)  # type: ignore[arg-type]
    found = []
    for number in range(4):
        made = block(number, [0.02 * generator.standard_normal(), apart], seed=seed)
        cases = [CASES[0], twin][:: -1 if number % 2 else 1]
        found.append(replace(made, cases=[asdict(c) for c in cases], case_ids=[c.id for c in cases]))
    return found


def test_a_cell_and_its_twin_are_told_apart() -> None:
    ratio = twins.ratio_of(session(0, apart=0.5))
    assert ratio.lo is not None
    assert ratio.hi is not None
    assert 1 < ratio.lo < np.exp(0.5) < ratio.hi


def test_the_page_says_how_often_the_interval_holds_1(tmp_path: Path) -> None:
    file = tmp_path / "twins.jsonl"
    assert "No session is recorded yet" in calibration.twins_markdown(file)
    with file.open("w") as lines:
        for seed in range(20):
            lines.write(json.dumps([asdict(one) for one in session(seed)]) + "\n")
    said = calibration.twins_markdown(file)
    assert said.startswith("20 sessions of a cell against itself, 4 blocks each")
    held = int(said.partition("holds 1 in ")[2].partition(" of 20")[0])
    assert 17 <= held <= 20
    assert [len(blocks) for blocks in twins.read(file)] == [4] * 20
