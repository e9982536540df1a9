"""The table of faults in the docs: each row names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "faults.md"
ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<promise>[^|]+) \| `(?P<file>test_\w+)::(?P<test>test_\w+)` \|$")


def rows() -> list[str]:
    """The rows of all tables of faults; there are others on the page."""
    tables = re.findall(r"^\| fault .*\n\| ---.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line for table in tables for line in table.splitlines()]


def test_each_row_names_a_test_that_is_there() -> None:
    for line in rows():
        row = ROW.match(line)
        assert row is not None, f"not `| fault | promise | `file::test` |`: {line}"
        source = (ROOT / "tests" / f"{row['file']}.py").read_text(encoding="utf-8")
        assert re.search(rf"^def {row['test']}\(", source, re.MULTILINE), line


def test_no_fault_stands_twice() -> None:
    faults = [line.split("|")[1].strip() for line in rows()]
    assert len(faults) == len(set(faults))
