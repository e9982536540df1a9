"""`vbench kernels list` and `check`: the forms of every operator, and whether each computes the right function."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from vbench import host, jobs
from vbench.devices import KINDS, on_host
from vbench.errors import DeviceError, UnsupportedError, UsageError
from vbench.jobs.launch import Runner, side_by_side
from vbench.jobs.memo import Memo
from vbench.kernels.fused import tuning
from vbench.kernels.registry import OPS, Mode, default_form, interpreted, missing
from vbench.kernels.registry import forms as forms_on
from vbench.options import choices
from vbench.verify import TOKENS, Extent, Verification, extents, joined

# The interpreter takes 20 ms a program. 40 tokens are a full chunk and a part of one; gradients have more.
INTERPRETED = Extent(tokens=40, cuts=1, brief=True)
STEPS = 20  # tokens of an interpreted form that takes them one by one: it has no chunks
LIMIT_S = 600.0  # for one child


def parse_ops(text: str | None) -> tuple[str, ...]:
    """ "gla,wkv6" -> operators, all if None. Raises: UsageError."""
    return tuple(OPS) if text is None else choices(text, "--op", tuple(OPS))


def parse_forms(text: str | None, ops: Iterable[str]) -> tuple[str, ...]:
    """ "fused,scan" -> forms that these operators have, all if None. Raises: UsageError."""
    forms = tuple(dict.fromkeys(form for op in ops for form in OPS[op]))
    return forms if text is None else choices(text, "--form", forms)


def interpret(device: str) -> bool:
    """Let the children of this process interpret Triton's kernels if the device has no compiler for them.

    Call it before the first child starts: Triton reads the environment when it is imported.
    """
    if on_host(device) and find_spec("triton") is not None:
        os.environ["TRITON_INTERPRET"] = "1"
    return interpreted()


def rows(device: str) -> list[dict[str, Any]]:
    """Every form of every operator: what it is, whether it can run on `device`, and where it is the default."""
    forms = []
    for op, table in OPS.items():
        defaults = {kind: {_default(op, mode, kind) for mode in ("parallel", "recurrent")} for kind in KINDS}
        for form, about in table.items():
            forms.append(
                {
                    "operator": op,
                    "form": form,
                    "mode": about.mode,
                    "summary": about.summary,
                    "devices": list(about.devices),
                    "dtypes": list(about.dtypes),
                    "default_on": [kind for kind, names in defaults.items() if form in names],
                    "missing": missing(op, form, device),
                    "tuning": [asdict(row) for row in tuning.table() if row.op == op] if form == "fused" else None,
                }
            )
    return forms


def _default(op: str, mode: Mode, kind: str) -> str | None:
    try:
        return default_form(op, mode, kind)
    except UnsupportedError:
        return None


def check(
    ops: Sequence[str], forms: Sequence[str], launcher: Runner, *, device: str, tokens: int | None, seed: int
) -> list[Verification]:
    """Compare forms with the recurrence in float64, in children; one verdict an operator.

    Args:
        tokens: of a trial. None means 133; for interpreted kernels 40, or 20 in recurrent forms.

    Raises: UsageError if none of the forms can run.
    """
    tried = []
    for op in ops:
        able = [form for form in OPS[op] if form in forms and missing(op, form, device) is None]
        slow = [form for form in able if OPS[op][form].package == "triton" and interpreted()]
        quick = [form for form in able if form not in slow]
        if quick == forms_on(op, device) and tokens is None:
            tried += [(op, extent) for extent in extents(op)]  # what a sweep verifies
        elif quick:
            tried.append((op, Extent(tuple(quick), tokens or TOKENS)))
        for form in slow:
            usual = STEPS if OPS[op][form].mode == "recurrent" else INTERPRETED.tokens
            tried.append((op, replace(INTERPRETED, forms=(form,), tokens=tokens or usual)))
    if not tried:
        why = next(reason for op in ops for form in OPS[op] if form in forms and (reason := missing(op, form, device)))
        raise UsageError(f"nothing to check: {why}")
    tried.sort(key=lambda each: not each[1].brief)  # interpreted forms take longest and start first
    asks = [jobs.verify(op, device, seed, extent, weights=None, image_size=(224, 224)) for op, extent in tried]
    endings = side_by_side(launcher, asks, LIMIT_S)
    return [
        joined(op, [ending for (other, _), ending in zip(tried, endings, strict=True) if other == op])
        for op in dict.fromkeys(op for op in ops if any(op == other for other, _ in tried))
    ]


def remembering(launcher: Runner, device: str) -> Runner:
    """Runs jobs as the launcher does, but not those that a sweep on this device has run, under the same conditions.

    Raises: DeviceError if torch cannot use the device.
    """
    asked = launcher.run(*jobs.probe(device), LIMIT_S)
    if asked.status != "ok":
        raise DeviceError(f"{device} could not be asked: {asked.reason}; see 'vbench doctor'")
    return Memo(launcher, host.conditions(host.fingerprint(device, asked.parts["gpu"]), {}))


def has_triton(verdicts: Iterable[Verification]) -> bool:
    """Whether a form made of Triton's kernels was checked."""
    return any(OPS[check.subject][check.form].package == "triton" for verdict in verdicts for check in verdict.checks)
