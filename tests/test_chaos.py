"""A few random kills of a real sweep; `make chaos` makes more."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import Chaos


@pytest.mark.full
def test_no_row_is_lost_and_nothing_is_left(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed=3)
    chaos.run(6)
    assert sum(chaos.made.values()) == 6
