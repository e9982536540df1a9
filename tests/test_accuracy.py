"""The table of errors in every operator's README.md, against a fresh run of its smallest size."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from vbench.kernels import OPS, accuracy
from vbench.kernels.registry import missing

KERNELS = Path(__file__).parents[1] / "kernels"
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (\S+) \| (\S+) \|$", re.MULTILINE)


def rows(op: str) -> dict[tuple[int, str], tuple[float, ...]]:
    block = accuracy.BLOCK.search((KERNELS / op / "README.md").read_text(encoding="utf-8"))
    assert block is not None
    return {(int(N), form): (float(single), float(half)) for N, form, single, half in ROW.findall(block.group())}


@pytest.mark.parametrize("op", OPS)
def test_the_published_errors_are_those_of_this_code(op: str) -> None:
    published, size = rows(op), accuracy.TOKENS[0]
    found = accuracy.errors(op, size)
    on_cpu = {form for form, about in OPS[op].items() if "cpu" in about.devices}
    assert {form for N, form in published if size == N} == on_cpu
    assert set(found) == {form for form in on_cpu if missing(op, form) is None}
    for form, errors in found.items():
        for error, known in zip(errors, published[size, form], strict=True):
            assert known / 2 < error < known * 2, form


@pytest.mark.parametrize("op", OPS)
def test_no_published_error_is_large_at_any_size(op: str) -> None:
    published = rows(op)
    assert {N for N, _ in published} == {N for N in accuracy.TOKENS if accuracy.farthest(op, accuracy.truth(op)) >= N}
    for single, half in published.values():
        assert single < 5e-6
        assert half < 4e-3


def test_the_command_prints_a_table_or_writes_it_between_its_markers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(accuracy, "TOKENS", (5, 6, 7, 8))
    monkeypatch.setattr(sys, "argv", ["accuracy", "gla"])
    with torch.inference_mode():
        accuracy.main()
    printed = capsys.readouterr().out
    assert printed == accuracy.table("gla")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["accuracy", "gla", str(readme)])
    accuracy.main()
    assert readme.read_text() == f"before\n<!-- accuracy -->\n{printed}<!-- /accuracy -->\nafter\n"
    with pytest.raises(ValueError, match="no <!-- accuracy -->"):
        accuracy.fill("nothing here", printed)
