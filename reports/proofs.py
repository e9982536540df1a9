"""What the page says of how its rows came about: the modes, the count of the work, the machines and their load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vbench.reports.runs import Run, origin, where
from vbench.results.code import own_code
from vbench.results.frame import uncounted
from vbench.results.models import is_attention
from vbench.results.store import Record


def verified(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """One row for each model and verdict of the check before its cells were measured."""
    found: dict[tuple[str, ...], None] = {}
    for record in records:
        model, said = record.case["model"], record.verified
        if said is None:
            continue
        verdict, failed = "one function" if said.get("ok") else "THE MODES DIFFER", said.get("failed") or ["none"]
        found[model, verdict, str(said.get("checks", "not known")), "; ".join(map(str, failed))] = None
    there = {row[0] for row in found}
    untried = {record.case["model"]: is_attention(record.case) for record in records}
    for model in sorted(untried.keys() - there):
        found[model, "has one mode" if untried[model] else "not tried", "0", "none"] = None
    return sorted(found)


def ledger(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """One row for each model, mode and form: whether its MAC counts agree, and what is not counted."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.work or uncounted(record):
            case = record.case
            named = " ".join(part for part in (case["model"], case["mode"], case["form"]) if part)
            groups.setdefault(named, []).append(record)
    found: list[tuple[str, ...]] = []
    for named, group in sorted(groups.items()):
        works = [record.work for record in group if record.work]
        second = [record.second_count or {} for record in group if record.work]
        lost = sorted({uncounted(record) or "" for record in group if not record.work})
        unknown = sorted({str(op) for work in works for op in work.get("unknown") or {}})
        coverage = [work["coverage"] for work in works if work.get("coverage") is not None]
        by_hand = _votes([work.get("closed_form_agrees") for work in works], ["no formula for this model"])
        by_fvcore = _votes([count.get("agree") for count in second], [count.get("reason") for count in second])
        known = f"{min(coverage):.2%}" if coverage else "not recorded"
        lacks = ", ".join(unknown) or ("" if lost else "nothing")
        found.append((named, str(len(group)), by_hand, by_fvcore, "; ".join(filter(None, [lacks, *lost])), known))
    return found


def _votes(votes: Sequence[bool | None], reasons: Iterable[str | None]) -> str:
    """ "agrees at 3 of 3; 15 not asked (why)"."""
    asked = [vote for vote in votes if vote is not None]
    parts = [f"agrees at {sum(asked)} of {len(asked)}"] if asked else []
    if len(asked) < len(votes):
        why = "; ".join(dict.fromkeys(str(reason) for reason in reasons if reason))
        parts.append(f"{len(votes) - len(asked)} not asked" + (f" ({why})" if why else ""))
    return "; ".join(parts) or "not counted"


def facts(run: Run, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """On what a run was measured, and how busy the machine was."""
    records, newest = run.records, origin(runs)
    hosts = [record.host for record in records]
    own = {where(record) for record in records}
    shown = sum(newest[each] == run.name for each in own)
    states = [record.state for record in records if record.state]
    loads = [record.load["load_1min"] for record in records if record.load and "load_1min" in record.load]
    starts = sorted(record.started_at for record in records)
    again = f", of which {len(own) - shown} measured again in a later run" if shown < len(own) else ""
    commits = [(host["commit"], " with changes" * bool(host.get("dirty"))) for host in hosts if host.get("commit")]
    users = own_code(hosts)
    load = f"{min(loads):.2f} to {max(loads):.2f} runnable processes before a launch" if loads else ""
    facts = [
        ("cells", f"{len(own)}{again}"),
        ("launches", str(len(records))),
        ("measured", f"{starts[0]} to {starts[-1]}"),
        ("time that launches took", f"{sum(record.wall_s for record in records) / 60:.1f} minutes"),
        ("device", _distinct(host.get("device_name") for host in hosts)),
        ("processor", _distinct(f"{host['cpu']}, {host.get('cpu_count')} cores" for host in hosts if host.get("cpu"))),
        ("memory", _distinct(f"{host['ram_bytes'] / 2**30:.1f} GiB" for host in hosts if host.get("ram_bytes"))),
        ("GPU", _distinct(_pairs(host["gpu"]) for host in hosts if host.get("gpu")) or "none"),
        ("system", _distinct(host.get("os") for host in hosts)),
        ("versions", _distinct(_pairs(host.get("versions") or {}) for host in hosts)),
        ("commit", _distinct(map("".join, commits))),
        *([("models of users", "; ".join(users))] if users else []),
        ("conditions", _distinct(record.conditions for record in records)),
        ("protocol", _distinct(_pairs(record.protocol) for record in records)),
        ("load of the host", load),
        ("processors kept busy by others", _most(states, "others_busy_share")),
        ("processor time stolen", _most(states, "stolen_share")),
    ]
    return [(name, value or "not recorded") for name, value in facts]


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _pairs(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _most(states: Sequence[dict[str, Any]], key: str) -> str:
    known = [state[key] for state in states if state.get(key) is not None]
    return f"{max(known):.1%} at most" if known else ""
