"""The table of `vbench suites`, and the generated page docs/suites.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from vbench import plan
from vbench.errors import UsageError
from vbench.results.text import bare_table
from vbench.suites.load import load, shipped

HEADER = """# Suites

A suite is a prepared sweep: a TOML file with a question, the time that it takes, and its cells. `make suites` makes
this page. `vbench sweep --suite NAME` runs a suite. `vbench plan --suite NAME` shows its cells and estimates time and
memory on your machine. An option beside `--suite` replaces the suite's own value, as in `--suite modes --res 224`.

You can write a suite of your own. Run it with `vbench sweep --suite mine.toml`; check it with `vbench suites
mine.toml`:

```toml
question = "Is ViG-T faster than Swin-T in bfloat16?"
time = "not known"
models = "vig_t,swin_t"
res = "224:1024"
dtype = "bfloat16"
```

`question`, `time`, `models` and `res` are required. The other [axes](reference/axes.md) have their usual
values if they are not given. `rigor`, `seconds`, `pairs`, `refine` and `budget` say how cells are measured. Values are
text, as in the options of `vbench sweep`. For several sets of axes write several `[[part]]` tables; what stands above
them applies to all.

The column *time* says whether the time was measured or estimated by `vbench plan`. It is for the default `--rigor`
unless it names another. Cells that a CPU cannot run, such as the recurrent mode of attention, are counted separately.

| suite | answers | time | cells |
| --- | --- | --- | ---: |
"""


def row(name: str) -> dict[str, Any]:
    """One suite, shipped or a .toml file, as a JSON-able dict; `unsupported` counts its cells that a CPU cannot run.

    Raises: UsageError, as `load` and `plan.parse`.
    """
    suite = load(name)
    try:
        cells = plan.union([plan.parse({**plan.USUAL, **axes}, "cpu") for axes in suite.sets])
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return {
        "suite": name,
        "question": suite.question,
        "time": suite.time,
        "cells": len(cells),
        "unsupported": sum(cell.unsupported is not None for cell in cells),
        "how": suite.how,
        "sets": suite.sets,
    }


def rows() -> list[dict[str, Any]]:
    """All shipped suites."""
    return [row(name) for name in shipped()]


def to_rich(suites: list[dict[str, Any]]) -> Table:
    """The rows for a terminal."""
    heads = ("suite", "cells", "question", "time")
    table = bare_table(heads, right=("cells",), wrap=("question", "time"))
    for each in suites:
        table.add_row(*(str(each[head]) for head in heads))
    return table


def page() -> str:
    """The whole of docs/suites.md."""
    lines = []
    for each in rows():
        unsupported = f" ({each['unsupported']} not on a CPU)" if each["unsupported"] else ""
        sets = [{**axes, **each["how"]} for axes in each["sets"]]
        axes = ["; ".join(f"`{key} = {value}`" for key, value in own.items()) for own in sets]
        question = "<br>".join([each["question"], *axes])
        lines.append(f"| `{each['suite']}` | {question} | {each['time']} | {each['cells']}{unsupported} |\n")
    return HEADER + "".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
