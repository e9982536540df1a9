"""The outcome of a gate as Markdown, for the page of a job or a comment on a pull request: short, the worst first."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from vbench.reports.gate import (
    CELLS,
    QUANTITIES,
    RIGHT,
    WORDS,
    counted,
    flat,
    remarks,
    row,
    sentences,
    unlike,
)
from vbench.reports.grid import escaped, pipes
from vbench.results.causes import CellFinding, by_cell, ordered
from vbench.results.outcome import FAILS, Finding, Outcome
from vbench.results.text import tame

LIMIT = 30_000  # characters, so that the pages of both gates fit into one comment of GitHub, which takes 65,536
ROWS = 10  # cells that are shown; the rest are counted
WIDTH, SENTENCE = 300, 600  # characters of a cell of a table, and of a sentence; a longer one is cut
TABLE = 12_000  # characters of a folded table
INSIDE = 1_000  # for the line that says how many rows a table lacks, and for the end of the page


Item = TypeVar("Item")


def to_markdown(outcome: Outcome, *, strict: bool = False) -> str:
    """What is not alike, the verdict, and the worst cells with their causes. Quantities and facts are folded away.

    It has at most `LIMIT` characters; gate.json has everything.
    """
    code = outcome.exit_code(strict=strict)
    first, *rest = sentences(outcome, strict=strict)
    differs = unlike(outcome)
    lines = [f"## vbench {outcome.command}: {WORDS[code]}", ""]
    lines += [f"**{_md(differs)}**", ""] if differs else []
    lines += [f"**{_md(first)}**", ""]
    lines += [line for text in [*rest, *remarks(outcome)] for line in (_md(text), "")]
    found = by_cell(outcome.findings)
    lines += _cells([one for one in found if one.verdict != "SAME"])
    every = ordered(outcome.findings)
    changed, same = ([one for one in every if (one.verdict == "SAME") == equal] for equal in (False, True))
    facts = flat({key: value for key, value in outcome.facts.items() if key not in ("note", "warnings", "code")})
    lines += _fold(f"{len(changed)} quantities that changed", QUANTITIES, changed, _quantity, _left(lines))
    lines += _fold(f"{len(same)} quantities that are the same", QUANTITIES, same, _quantity, _left(lines))
    lines += _fold(
        "How it was done", ("fact", "value"), facts, lambda fact: [_code(text) for text in fact], _left(lines)
    )
    return "\n".join(lines)


def _left(lines: Sequence[str]) -> int:
    """The characters that the next folded table may have."""
    return min(TABLE, LIMIT - sum(len(line) + 1 for line in lines) - INSIDE)


def _cells(found: Sequence[CellFinding]) -> list[str]:
    """The table of the worst cells, and the number of the others."""
    if not found:
        return []
    rows = [
        [_code(one.cell), f"**{one.verdict}**" if one.verdict in FAILS else one.verdict, _code(one.cause)]
        for one in found[:ROWS]
    ]
    rest = [one.verdict for one in found[ROWS:]]
    more = [f"{len(rest)} more, in gate.json: {counted(rest)}.", ""] if rest else []
    return [*pipes(CELLS, rows), "", *more]


def _quantity(finding: Finding) -> list[str]:
    cell, what, *figures, verdict, note = row(finding)
    word = f"**{verdict}**" if verdict in FAILS else verdict
    return [_code(cell), _code(what), *(_md(text) for text in figures), word, _code(note)]


def _fold(
    summary: str, heads: Sequence[str], items: Sequence[Item], texts: Callable[[Item], Sequence[str]], left: int
) -> list[str]:
    """A table folded away, with as many rows as fit into `left` characters, and the number of the others."""
    if not items:
        return []
    table = pipes(heads, [], RIGHT)
    size, shown = sum(map(len, table)) + len(summary) + 60, 0
    for item in items:
        *_, line = pipes(heads, [texts(item)])
        size += len(line) + 1
        if size > left:
            break
        table.append(line)
        shown += 1
    rest = [f"{len(items) - shown} more are in gate.json.", ""] if shown < len(items) else []
    return ["<details>", f"<summary>{summary}</summary>", "", *([*table, ""] if shown else []), *rest, "</details>", ""]


def _short(text: str, most: int = WIDTH) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _code(text: str) -> str:
    """Text of a table cell as a code span, in which nothing becomes a link, a mention or HTML."""
    text = _short(tame(text))
    if not text.strip():
        return ""
    text = text.replace("|", "¦")  # | ends a cell in some renderers, even if it is escaped
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def _md(text: str, most: int = SENTENCE) -> str:
    """A sentence escaped for Markdown, in which nothing becomes a link or a mention."""
    text = escaped(_short(text, most).replace("|", "¦")).replace("#", "\\#")
    return text.replace("@", "@\u200b").replace("://", ":\u200b//")  # no mentions, no links
