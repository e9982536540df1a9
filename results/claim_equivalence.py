"""Claims that the modes of a model compute one function: judged by the stamps of records, or by a verification.

A stamp (`Record.verified`) says what `vbench verify` found on the device of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from vbench.models import MODELS
from vbench.results.claim_judgement import FAILS, HOLDS, UNKNOWN, Judgement, OurValue
from vbench.results.claims import Claim
from vbench.results.text import tame

Verify = Callable[[str], Mapping[str, Any] | None]  # a model -> "ok", "checks" and "failed"; None if it has one mode


def by_records(claim: Claim, table: pd.DataFrame) -> Judgement:
    """The verdict of the stamps in a frame: every one must say that the modes are one function."""
    rows = table[(table["model"] == claim.subject) & table["verified"].notna()]
    if rows.empty:
        how = f"'vbench sweep --models {claim.subject} --modes parallel,recurrent' stamps them"
        return Judgement(claim, UNKNOWN, f"needs records of {claim.subject}; {how}")
    alike, ids = bool(rows["verified"].all()), tuple(rows["case_id"].astype(str))
    share = OurValue(float(rows["verified"].mean()), None, None, "stamps that say so", ids, " of stamps", exact=True)
    devices = ", ".join(map(tame, rows["device_name"].drop_duplicates()))
    reason = f"the modes {'are' if alike else 'are not'} one function: {len(rows)} stamped records of {devices}"
    return Judgement(claim, HOLDS if alike else FAILS, reason, None, share)


def judged(one: Judgement, verify: Verify) -> Judgement:
    """The judgement itself, or one by verification if it is a claim of equivalence that no record decides."""
    claim = one.claim
    if one.verdict != UNKNOWN or claim.quantity != "equivalence" or claim.subject not in MODELS:
        return one
    stamp = verify(claim.subject)
    if stamp is None:
        return one
    checks, failed = int(stamp["checks"]), [tame(line) for line in stamp["failed"]]
    value = OurValue((checks - len(failed)) / checks if checks else 0.0, None, None, "checks", (), " of checks", True)
    if stamp["ok"]:
        words = f"the modes are one function: all {checks} checks of 'vbench verify --models {claim.subject}' pass"
        return Judgement(claim, HOLDS, words, None, value)
    return Judgement(claim, FAILS, f"the modes are not one function: {'; '.join(failed)}", None, value)
