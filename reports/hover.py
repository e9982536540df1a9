"""What a point of the page's figures says when it is pointed at: lines of escaped text."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any


def origin(row: dict[str, Any]) -> list[str]:
    """The lines of a hover about the record."""
    facts = [row["mode"], row["form"] and f"form {row['form']}", row["dtype"], row["phase"], row["backend"]]
    return [
        *lines(", ".join(str(fact) for fact in facts if fact)),
        *lines(f"flags: {row['flags'] or 'none'}"),
        *lines(str(row["device_name"])),
        f"case {escape(row['case_id'])}",
    ]


def lines(text: str | None, width: int = 60) -> list[str]:
    """Escaped text of a record, in lines that fit a phone."""
    return [escape(line) for line in wrap(text or "", width)]
