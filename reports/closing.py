"""The last lines of a sweep, and of its report: what was asked, an answer a sentence, and where the figure is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vbench.reports.labels import Labels
from vbench.reports.tables import PRINTED
from vbench.results.answers import ratios

MOST = 6  # answers that are printed; a page of the run has them all
PICTURE = "resolution.png"


def lines(table: pd.DataFrame, folder: Path, question: str | None = None, labels: Labels | None = None) -> list[str]:
    """The question of a suite, if there is one, how much a recurrent model needs of what attention needs, and files.

    Empty if there is no answer, and for a table of more rows than a terminal shows. `labels`: names of models that a
    reader is shown.
    """
    labels = labels or Labels()
    found = [labels.within(answer.text) for answer in ratios(table)] if len(table) <= PRINTED else []
    asked = [f"Asked: {labels.within(question)}"] if question else []
    if asked and not table.empty and not (table["status"] == "ok").any():
        return [*asked, "- No answer: no cell was measured; the lines below the table say why."]
    if not found:
        return []
    more = len(found) - MOST
    rest = [f"- {more} more answers: vbench report {folder} -o report.html"] if more > 0 else []
    picture = [f"Figure: {folder / PICTURE}"] if (folder / PICTURE).is_file() else []
    meaning = "1.00× is equal, less is cheaper. In parentheses: the 95 % interval; peak memory has none."
    return [*asked, *(f"- {text}" for text in found[:MOST]), *rest, meaning, *picture]
