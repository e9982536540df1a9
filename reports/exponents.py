"""The table of `vbench fit`: how costs grow with the image size."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from vbench.results.axes import SETTING, differing
from vbench.results.frame import apart
from vbench.results.scaling import COSTS
from vbench.results.text import bare_table


def to_rich(found: pd.DataFrame) -> Table:
    """The rows of `scaling.exponents` for a terminal, with the settings in which they differ."""
    also = [*apart(found), *differing(found, SETTING)]
    numbers = ("sizes", "exponent", "interval", "at the top")
    out = bare_table(["model", "mode", *also, "cost", *numbers, "verdict"], numbers)
    for row in found.to_dict("records"):
        out.add_row(
            row["model"],
            row["mode"],
            *("" if pd.isna(row[key]) else str(row[key]) for key in also),
            COSTS[row["cost"]],
            str(row["points"]),
            f"{row['exponent']:.2f}",
            "" if pd.isna(row["exponent_lo"]) else f"{row['exponent_lo']:.2f}–{row['exponent_hi']:.2f}",
            "" if pd.isna(row["local_exponent"]) else f"{row['local_exponent']:.2f}",
            row["verdict"],
        )
    return out
