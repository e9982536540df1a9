"""A frame of records as curves over the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from vbench.reports.appearance import BRANDS, MODE_LINES, member
from vbench.results.axes import PARTS, SETTING, SUBJECT, differing, said
from vbench.results.frame import STATED, batch_asked, filled

MOST_CURVES = 30  # in one figure; of more nobody can tell one from another


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: rows of a frame that differ only in image size, and how they are drawn."""

    label: str
    colour: str  # "#RRGGBB"
    marker: str
    line: str
    model: str
    mode: str
    cells: pd.DataFrame  # sorted by `side`, the root of height · width in px

    @property
    def setting(self) -> tuple[str, ...]:
        """The settings that two curves must share to be compared. A missing value counts as a setting."""
        return tuple(str(self.cells[key].iloc[0]) for key in SETTING)


def series_of(table: pd.DataFrame) -> list[Series]:
    """The curves of a frame, in the order of families, models and modes. Unsupported cells are left out.

    A range is no interval: cells that have only one have no `_lo` and `_hi` here.
    """
    table = table[table["status"] != "unsupported"].copy()
    table["side"] = (table["height"].astype(float) * table["width"].astype(float)) ** 0.5
    table["batch_asked"] = batch_asked(table)
    for cost, about in STATED.items():
        if f"{cost}_lo" in table and f"{about}_basis" in table:
            table.loc[filled(table[f"{about}_basis"], "") == "range", [f"{cost}_lo", f"{cost}_hi"]] = pd.NA
    modes = table.groupby("model")["mode"].nunique().to_dict()
    told = differing(table, PARTS)  # settings that a label must name
    forms = ["form"] if (table.groupby(["model", "mode"])["form"].nunique() > 1).any() else []
    members = {str(family): sorted(group["model"].unique()) for family, group in table.groupby("family")}
    found: list[Series] = []
    keys = ["family", "model", "mode", *told, *forms]
    for _, cells in table.groupby(keys, dropna=False):
        first: dict[str, Any] = {key: None if pd.isna(cells[key].iloc[0]) else cells[key].iloc[0] for key in keys}
        family, model, mode = (str(first[key]) for key in keys[:3])
        flags = {flag for text in cells["flags"].dropna() for flag in text.split()}
        brand = [text for flag, text in BRANDS.items() if flag in flags]
        settings = [said(key, first[key]) for key in keys[3:] if first[key] is not None]
        parts = [model, mode if modes[model] > 1 else "", *settings, *brand]
        like = sum(one.model == model and one.mode == mode for one in found)
        lines, others = MODE_LINES[mode], members[family]
        rank = others.index(model) + like // len(lines) * len(others)  # as a further model, if lines are used up
        colour, marker = member(family, rank)
        found.append(
            Series(
                label=" ".join(part for part in parts if part),
                colour=colour,
                marker=marker,
                line=lines[like % len(lines)],
                model=model,
                mode=mode,
                cells=cells.sort_values("side"),
            )
        )
    return found


def few(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of at most `MOST_CURVES` curves, and a line that says which they are, if there are more.

    Curves under one setting are compared with each other, so they are kept together: those of the setting of the most
    curves first, and as many settings as there is room for. Of a setting with more curves the first models are kept.
    """
    supported = rows[rows["status"] != "unsupported"].assign(batch_asked=batch_asked(rows))
    settings = [key for key in SETTING if key in supported]
    curves = supported[[*settings, *SUBJECT]].drop_duplicates()
    if len(curves) <= MOST_CURVES:
        return rows, []
    sizes = curves.groupby(settings, dropna=False).size().sort_values(ascending=False, kind="stable")
    fit = max(1, int((sizes.cumsum() <= MOST_CURVES).sum()))
    kept = sizes.index[:fit].to_frame(index=False)
    first = curves.merge(kept, on=settings).head(MOST_CURVES)
    drawn = rows.assign(batch_asked=batch_asked(rows)).merge(first, on=[*settings, *SUBJECT])[list(rows.columns)]
    drawn.attrs = rows.attrs
    told = [key for key in differing(curves, settings) if key != "device"]
    under = " or ".join(", ".join(said(key, row[key]) for key in told) for row in kept.head(3).to_dict("records"))
    more = f" and {fit - 3} more settings" if fit > 3 else ""
    line = f"{len(first)} of {len(curves):,} curves are drawn" + (f": those of {under}{more}" if told else "")
    return drawn, [
        f"{line}. 'vbench figures --dtype' and a run of fewer settings draw others; summary.csv has all rows."
    ]
