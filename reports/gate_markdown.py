"""The outcome of a gate as Markdown, for the page of a job or a comment on a pull request: short, the worst first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
from vbench.reports.grid import escaped, pipes, tame
from vbench.results.causes import CellFinding, by_cell, ordered
from vbench.results.outcome import FAILS, Outcome

LIMIT = 30_000  # characters, so that the pages of both gates fit into one comment of GitHub, which takes 65,536
ROWS = 10  # cells that are shown; the rest are counted
WIDTH, SENTENCE = 300, 600  # characters of a cell of a table, and of a sentence; a longer one is cut
TABLE = 12_000  # characters of a folded table
INSIDE = 1_000  # for the line that says how many rows a table lacks, and for the end of the page


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
    changed = [_quantity(row(one)) for one in every if one.verdict != "SAME"]
    same = [_quantity(row(one)) for one in every if one.verdict == "SAME"]
    facts = flat({key: value for key, value in outcome.facts.items() if key not in ("note", "warnings", "code")})
    for summary, heads, rows in (
        (f"{len(changed)} quantities that changed", QUANTITIES, changed),
        (f"{len(same)} quantities that are the same", QUANTITIES, same),
        ("How it was done", ("fact", "value"), [[_code(name), _code(text)] for name, text in facts]),
    ):
        left = min(TABLE, LIMIT - sum(len(line) + 1 for line in lines) - INSIDE)
        lines += _fold(summary, heads, rows, left) if rows else []
    return "\n".join(lines)


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


def _quantity(texts: Sequence[str]) -> list[str]:
    cell, what, *figures, verdict, note = texts
    word = f"**{verdict}**" if verdict in FAILS else verdict
    return [_code(cell), _code(what), *(_md(text) for text in figures), word, _code(note)]


def _fold(summary: str, heads: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> list[str]:
    """A table folded away, with as many rows as fit into `left` characters, and the number of the others."""
    top, line, *body = pipes(heads, list(rows), RIGHT)
    shown, size = [], len(top) + len(line) + len(summary) + 60
    for one in body:
        size += len(one) + 1
        if size > left:
            break
        shown.append(one)
    rest = [f"{len(body) - len(shown)} more are in gate.json.", ""] if len(shown) < len(body) else []
    table = [top, line, *shown, ""] if shown else []
    return ["<details>", f"<summary>{summary}</summary>", "", *table, *rest, "</details>", ""]


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
