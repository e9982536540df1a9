"""What a reader of records knows of a model: what the record says, or else the zoo.

A model may have left the zoo since, or have another name there. Its records are read all the same: whatever neither of
both says is not known. No other reader of records asks the zoo for a row by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from vbench.errors import ResolutionError, UnknownModelError
from vbench.models.registry import spec
from vbench.models.row import ModelSpec

NOT_KNOWN = "not known"


def row_of(model: str) -> ModelSpec | None:
    """The zoo's row of a model; None if the zoo has no such name, or no longer has it."""
    try:
        return spec(model)
    except UnknownModelError:
        return None


def of_zoo(model: str, height: int, width: int) -> dict[str, Any]:
    """What the zoo says of a model at this size, in px: the part `zoo` of a record. JSON-able.

    `family`, `caveat` (None without one) and `padded_share`, as in `ModelSpec`.
    """
    row, share = row_of(model), None
    if row is None:
        return {"family": NOT_KNOWN, "caveat": None, "padded_share": None}
    with suppress(ResolutionError):  # a size that the model of today does not take
        share = row.padded_share(height, width)
    return {"family": row.family, "caveat": row.caveat, "padded_share": share}


def padding(model: str, height: int, width: int) -> str | None:
    """What a model adds to an image of this size, or cuts off, in words; None if nothing, or if it is not known."""
    row = row_of(model)
    try:
        return row.padding(height, width) if row else None
    except ResolutionError:
        return None


def known_params(model: str) -> int | None:
    """The parameters of a model at 224 px, as the zoo has them; None if it has none."""
    row = row_of(model)
    return row.params if row else None


def is_attention(cell: Mapping[Any, Any]) -> bool:
    """Whether a row of a frame, or the case of a record, is of an attention model, with which others are compared.

    Of a model that the zoo does not have, the row tells: one with an operator of ours has a form, and any other one has
    an attention.
    """
    row = row_of(str(cell["model"]))
    if row is not None:
        return row.baseline
    return isinstance(cell.get("attention"), str) and not isinstance(cell.get("form"), str)


def attention_models(table: pd.DataFrame) -> set[str]:
    """The models of a frame that are attention models, as `is_attention` has them."""
    cells = table[["model", "form", "attention"]].drop_duplicates().to_dict("records")
    return {str(cell["model"]) for cell in cells if is_attention(cell)}
