"""`vbench kernels list` and `check`: the forms of every operator, and whether each computes what it should."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from rich.table import Table

from vbench import jobs
from vbench.devices import KINDS, on_host
from vbench.errors import UnsupportedError, UsageError
from vbench.jobs.launch import Runner, side_by_side
from vbench.kernels.fused import tuning
from vbench.kernels.registry import OPS, Mode, default_form, interpreted, missing
from vbench.verify import TOKENS, Check, Extent, Verdict

# The interpreter takes 20 ms a program; these are one whole chunk and a ragged one, more in gradients.
INTERPRETED = Extent(tokens=40, cuts=1, brief=True)
STEPS = 20  # tokens of an interpreted form that walks them one by one: no border lies among them
LIMIT_S = 600.0  # for one child


def parse_ops(text: str | None) -> tuple[str, ...]:
    """ "gla,wkv6" -> operators, all if None. Raises: UsageError."""
    return _among("--op", text, tuple(OPS))


def parse_forms(text: str | None, ops: Iterable[str]) -> tuple[str, ...]:
    """ "fused,scan" -> forms that these operators have, all if None. Raises: UsageError."""
    return _among("--form", text, tuple(dict.fromkeys(form for op in ops for form in OPS[op])))


def _among(option: str, text: str | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return allowed
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if item not in allowed:
            raise UsageError(f"{option}: '{item}' is not one of {', '.join(allowed)}")
    return tuple(dict.fromkeys(items))


def interpret(device: str) -> bool:
    """Have Triton's kernels interpreted by this process's children, if the device has no compiler for them.

    To be called before the first child starts: Triton reads the environment when it is imported.
    """
    if on_host(device) and find_spec("triton") is not None:
        os.environ["TRITON_INTERPRET"] = "1"
    return interpreted()


def rows(device: str) -> list[dict[str, Any]]:
    """Every form of every operator: what it is, why it cannot run on `device` if so, and where it is the default."""
    found = []
    for op, table in OPS.items():
        defaults = {kind: {_default(op, mode, kind) for mode in ("parallel", "recurrent")} for kind in KINDS}
        for form, about in table.items():
            found.append(
                {
                    "operator": op,
                    "form": form,
                    "mode": about.mode,
                    "summary": about.summary,
                    "devices": list(about.devices),
                    "dtypes": list(about.dtypes),
                    "default_on": [kind for kind, names in defaults.items() if form in names],
                    "missing": missing(op, form, device),
                    "tuning": [asdict(row) for row in tuning.table() if row.op == op] if _tuned(form) else None,
                }
            )
    return found


def _default(op: str, mode: Mode, kind: str) -> str | None:
    try:
        return default_form(op, mode, kind)
    except UnsupportedError:
        return None


def _tuned(form: str) -> bool:
    return form == "fused"


def to_rich(found: Sequence[dict[str, Any]], device: str) -> Table:
    """One row a form."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("operator", "form", "mode", "devices", "dtypes", "default on", f"on {device}", "how"):
        table.add_column(name)
    for row in found:
        table.add_row(
            row["operator"],
            row["form"],
            row["mode"],
            ", ".join(row["devices"]),
            ", ".join(row["dtypes"]),
            ", ".join(row["default_on"]),
            row["missing"] or "runs",
            row["summary"] + "".join(f"; {said}" for said in map(_choice, row["tuning"] or [])),
        )
    return table


def _choice(row: dict[str, Any]) -> str:
    tokens = f" to {row['tokens_max']} tokens" if row["tokens_max"] < tuning.ANY_TOKENS else ""
    rows_min = f" from {row['rows_min']} rows" if row["rows_min"] else ""
    how = "sequential" if row["choice"]["sequential"] else f"chunk {row['choice']['chunk']}"
    return f"{row['device']}{tokens}{rows_min}: {how}, {row['choice']['warps']} warps ({row['source']})"


def check(
    ops: Sequence[str], forms: Sequence[str], launcher: Runner, *, device: str, tokens: int | None, seed: int
) -> list[Verdict]:
    """Hold forms against the recurrence in float64, in children; a verdict an operator.

    Args:
        tokens: of a trial; if None, 133, and where kernels are interpreted 40, or 20 in recurrent forms.
    Raises: UsageError if none of the forms can run.
    """
    tried = []
    for op in ops:
        able = [form for form in OPS[op] if form in forms and missing(op, form, device) is None]
        slow = [form for form in able if OPS[op][form].package == "triton" and interpreted()]
        if quick := [form for form in able if form not in slow]:
            tried.append((op, Extent(tuple(quick), tokens or TOKENS)))
        for form in slow:
            usual = STEPS if OPS[op][form].mode == "recurrent" else INTERPRETED.tokens
            tried.append((op, replace(INTERPRETED, forms=(form,), tokens=tokens or usual)))
    if not tried:
        why = next(reason for op in ops for form in OPS[op] if form in forms and (reason := missing(op, form, device)))
        raise UsageError(f"nothing to check: {why}")
    tried.sort(key=lambda each: not each[1].brief)  # what is interpreted takes longest and starts first
    asks = [jobs.verify(op, device, seed, extent, weights=None, image_size=(224, 224)) for op, extent in tried]
    endings = side_by_side(launcher, asks, LIMIT_S)
    verdicts = []
    for op in dict.fromkeys(op for op in ops if any(op == other for other, _ in tried)):
        own = [ending for (other, _), ending in zip(tried, endings, strict=True) if other == op]
        checks = tuple(Check(**fields) for ending in own for fields in ending.parts.get("checks", ()))
        broken = [ending.reason for ending in own if ending.status != "ok"]
        verdicts.append(Verdict(op, checks, not broken, "; ".join(filter(None, broken)) or None))
    return verdicts


def has_triton(verdicts: Iterable[Verdict]) -> bool:
    """Whether a form made of Triton's kernels is among what was checked."""
    return any(OPS[check.subject][check.form].package == "triton" for verdict in verdicts for check in verdict.checks)
