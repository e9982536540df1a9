"""Operators for a terminal: their forms, what their kernels take, their timings, and what stands out of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vbench.kernels.fused.tuning import ANY_TOKENS
from vbench.results.text import bare_table

if TYPE_CHECKING:
    from vbench.operators.compile import Resources

BUSY = 0.5  # processes that run beside a measurement, by the load of the last minute


def forms_to_rich(rows: Sequence[Mapping[str, Any]], device: str) -> Table:
    """One row a form of `operators.check.rows`."""
    heads = ("operator", "form", "mode", "devices", "dtypes", "default on", f"on {device}", "how")
    table = bare_table(heads, wrap=heads)
    for row in rows:
        table.add_row(
            row["operator"],
            row["form"],
            row["mode"],
            ", ".join(row["devices"]),
            ", ".join(row["dtypes"]),
            ", ".join(row["default_on"]),
            row["missing"] or "runs",
            "; ".join([row["summary"], *map(_choice, row["tuning"] or [])]),
        )
    return table


def _choice(row: Mapping[str, Any]) -> str:
    """A row of the tuning table in words."""
    tokens = f" to {row['tokens_max']} tokens" if row["tokens_max"] < ANY_TOKENS else ""
    rows_min = f" from {row['rows_min']} rows" if row["rows_min"] else ""
    how = "sequential" if row["choice"]["sequential"] else f"chunk {row['choice']['chunk']}"
    return f"{row['device']}{tokens}{rows_min}: {how}, {row['choice']['warps']} warps ({row['source']})"


def resources_to_rich(rows: Iterable[Resources]) -> Table:
    """One row a kernel and architecture: how many variants there are, and the most that any of them takes."""
    numbers = ("sm", "variants", "registers", "stack (B)", "shared (KiB)")
    heads = ("operator", "kernel", *numbers, "products")
    table = bare_table(heads, right=numbers, wrap=heads)
    groups: dict[tuple[str, str, int], list[Resources]] = {}
    for row in rows:
        groups.setdefault((row.op, row.kernel, row.arch), []).append(row)
    for (op, kernel, arch), group in groups.items():
        registers, stack, shared = (
            max(getattr(row, what) for row in group) for what in ("registers", "stack", "shared")
        )
        kinds = ", ".join(sorted({row.mma for row in group}))
        table.add_row(op, kernel, str(arch), str(len(group)), str(registers), str(stack), f"{shared / 1024:.1f}", kinds)
    return table


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings that must be equal in rows that are compared."""
    return tuple(row[key] for key in ("op", "tokens", "batch", "dtype", "backend", "l2"))


def to_rich(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each timing. `remarks` tells what was not timed."""
    timed = [row for row in rows if row["ms"] is not None]
    aims = ("target",) if any(row.get("target") for row in timed) else ()
    numbers = ("ms", "interval", "x floor", *aims, "x fastest", "error")
    table = bare_table(
        ("operator", "tokens", "batch", "setting", "form", *numbers), right=("tokens", "batch", *numbers)
    )
    fastest: dict[tuple[Any, ...], float] = {}
    for row in timed:
        fastest[_setting(row)] = min(row["ms"], fastest.get(_setting(row), math.inf))
    for row in timed:
        table.add_row(
            row["op"],
            str(row["tokens"]),
            str(row["batch"]),
            f"{row['dtype']} {row['backend']} {row['l2']}",
            row["form"],
            f"{row['ms']:.4g}",
            "1 call" if row["samples"] == 1 else f"{row['ms_lo']:.4g}–{row['ms_hi']:.4g}",
            f"{row['floor_ratio']:.3g}",
            *(f"{row['target']:g}, {_met(row)}" if row.get("target") else "" for _ in aims),
            f"{row['ms'] / fastest[_setting(row)]:.3g}",
            "" if row["error"] is None else f"{row['error']:.0e}",
        )
    return table


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each form that was not timed, and why. Equal reasons share a line."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            where = f"N={row['tokens']} B={row['batch']}" if row["tokens"] else ""
            said = row["reason"] if row["status"] != "skipped" else "would take too long"
            alike.setdefault((row["op"], str(row["form"]), row["status"], str(said)), []).append(where)
    return [
        f"{op} {form}: {status}, {reason}"
        + "".join(f" ({'; '.join(dict.fromkeys(where))})" for _ in where[:1] if where[0])
        for (op, form, status, reason), where in alike.items()
    ]


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each peer and setting: our fastest form beside it, on the longest sequence that has times of both."""
    lines = []
    timed = [row for row in rows if row["ms"] is not None]
    pairs: dict[tuple[Any, ...], dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for peer in (row for row in timed if row["peer"]):
        ours = [row for row in timed if not row["peer"] and _setting(row) == _setting(peer)]
        if ours:
            key = (peer["op"], peer["form"], peer["batch"], peer["dtype"], peer["backend"], peer["l2"])
            pairs.setdefault(key, {})[peer["tokens"]] = min(ours, key=lambda row: row["ms"]), peer
    for (op, name, batch, dtype, backend, cache), found in pairs.items():
        tokens = max(found)
        best, peer = found[tokens]
        times = peer["ms"] / best["ms"]
        said = f"{times:.1f} times faster than" if times >= 1 else f"{1 / times:.1f} times slower than"
        lines.append(
            f"{op} {best['form']} is {said} {name} at N={tokens}, batch {batch} "
            f"({best['ms']:.4g} against {peer['ms']:.4g} ms; {dtype}, {backend}, {cache})"
        )
    return lines


def _met(row: Mapping[str, Any]) -> str:
    """Of a row with a target as a factor of the floor."""
    return "met" if row["floor_ratio"] <= row["target"] else "not met"


def targets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each call with a target, a line: whether it is met, and if not, what its arithmetic takes at least."""
    lines = []
    for row in rows:
        what = f"{row['op']} {row['form']} at N={row['tokens']}"
        if row["ms"] is not None and row.get("target"):
            line = (
                f"{what} takes {row['floor_ratio']:.3g} times its floor; target: at most {row['target']:g}, {_met(row)}"
            )
            lines.append(line if row["floor_ratio"] <= row["target"] else f"{line}: {_arithmetic(row)}")
        elif row["ms"] is not None and row.get("target_peer"):
            lines.append(f"{what}: {_faster(row, rows)}; it takes {row['floor_ratio']:.3g} times its floor")
    return lines


def _arithmetic(row: Mapping[str, Any]) -> str:
    """Why a call is far from its floor, as far as counts and measured rates tell."""
    exponentials, others = row["exponentials_ms"], row["operations_ms"]
    known = (exponentials + others) / row["floor_ms"]
    said = [f"the floor is the time of its {row['floor_of']} alone"]
    if row["exponentials"]:
        rate = f"{row['exponentials_per_s'] / 1e9:.3g} G/s"
        said.append(f"{row['exponentials'] / 1e6:.3g} M exponentials at {rate} take {exponentials:.3g} ms")
    said.append(
        f"{row['operations'] / 1e9:.3g} G other operations at the rate of a product of matrices {others:.3g} ms"
    )
    end = "more than the target" if known > row["target"] else "the rest is not explained by counts"
    busy = row["load"]["load_1min"]
    heavy = f"; other processes were running (load {busy:.1f}): measure again" if busy > BUSY + row["threads"] else ""
    return f"{', '.join(said)}; together {known:.3g} times the floor, {end}{heavy}"


def _faster(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether a call is as many times as fast as a peer as it should be."""
    peer, wanted = row["target_peer"], row["target_faster"]
    beside = [
        each for each in rows if each["form"] == peer and each["ms"] is not None and _setting(each) == _setting(row)
    ]
    if not beside:
        return f"target: {wanted:g} times as fast as {peer}, not known, it was not timed"
    times = beside[0]["ms"] / row["ms"]
    return (
        f"{times:.3g} times as fast as {peer}; target: at least {wanted:g}, {'met' if times >= wanted else 'not met'}"
    )
