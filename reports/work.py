"""Work of a model at each size, for a terminal and as CSV, and estimates of what cells cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from vbench.reports.grid import csv_text
from vbench.results.axes import PARTS, unusual
from vbench.results.text import bare_table

if TYPE_CHECKING:
    from vbench.flops.estimate import Parts

NAMED = 3  # the most cells that a line names
COUNTS = {
    "GMACs": "macs",
    "GMACs executed": "macs_executed",
    "GMACs by hand": "macs_closed_form",
    "GMACs by fvcore": "macs_fvcore",
    "GFLOPs pointwise": "flops_elementwise",
    "GFLOPs total": "flops_total",
}
TIME = ("ms", "ms_lo", "ms_hi", "marked_ms", "overhead", "rounds")  # of a whole call, in CSV


def unknown_line(found: list[dict[str, Any]]) -> str | None:
    """One line with the operations that the ledger does not know; None if it knows all."""
    sums: dict[str, int] = {}
    for work in found:
        for op, each in work["unknown"].items():
            sums[op] = sums.get(op, 0) + each["bytes"]
    if not sums:
        return None
    said = ", ".join(f"{op} ({nbytes} bytes)" for op, nbytes in sums.items())
    total = "; no total of FLOPs, as they touch too much" if any(work["flops_total"] is None for work in found) else ""
    return (
        f"not in the ledger's tables: {said}{total}; register a formula "
        "(torch.utils.flop_counter.register_flop_formula)"
    )


def second_lines(found: list[dict[str, Any]]) -> list[str]:
    """Why fvcore has no count, a line a reason; and what its count leaves out."""
    reasons = dict.fromkeys(work["fvcore_reason"] for work in found if work["fvcore_reason"])
    lines = [f"no second count: {reason}" for reason in reasons]
    counted = [work for work in found if work.get("macs_fvcore") is not None and work["macs_elementwise"]]
    if counted:
        shares = dict.fromkeys(f"{work['macs_elementwise'] / work['macs_executed']:.1%}" for work in counted)
        lines.append(
            f"fvcore counts products of matrices alone: {', '.join(shares)} of the MACs executed are elementwise"
        )
    return lines


def notes(found: list[dict[str, Any]]) -> list[str]:
    """What was counted by a convention or by a registered formula, once each; each size has a line of its own."""
    several = len(found) > 1
    size_of = [f"{work['height']}x{work['width']}: " if several else "" for work in found]
    lines = {text: size for size, work in zip(size_of, found, strict=True) for text in work["notes"]}
    common = [text for text in lines if sum(text in work["notes"] for work in found) == len(found)]
    return [text if text in common else lines[text] + text for text in lines]


def to_rich(found: list[dict[str, Any]]) -> Table:
    """One row for each size."""
    numbers = ("size (px)", *COUNTS, "least MiB", "FLOPs/byte", "state (KiB)", "coverage")
    table = bare_table(("model", "mode", "form", *numbers), right=numbers, wrap=numbers)
    table.columns[0].min_width = max(len(name_of(work)) for work in found)
    for work in found:
        table.add_row(
            name_of(work),
            work["mode"],
            work["form"] or "",
            f"{work['height']}x{work['width']}",
            *(giga(work[key]) for key in COUNTS.values()),
            f"{work['bytes_min'] / 2**20:.1f}",
            "" if work["intensity"] is None else f"{work['intensity']:.1f}",
            "" if work["state_bytes"] is None else f"{work['state_bytes'] / 1024:.1f}",
            f"{100 * work['coverage']:.2f} %",
        )
    return table


def name_of(work: dict[str, Any]) -> str:
    """The model, and whether it was counted as deployed."""
    return f"{work['model']} reparam yes" if work.get("reparam") == "yes" else str(work["model"])


def to_json(work: dict[str, Any]) -> dict[str, Any]:
    """The work of one size, with the names of the columns of a run."""
    return {"flops_coverage" if name == "coverage" else name: value for name, value in work.items()}


def to_csv(found: list[dict[str, Any]]) -> str:
    """A line for each size; or for each of its modules, if these were counted, after the axes and the whole's time."""
    lines = []
    for work in map(to_json, found):
        flat = {key: value for key, value in work.items() if not isinstance(value, dict | list)}
        if "modules" not in work:
            lines.append(flat)
            continue
        about = {axis: flat[axis] for axis in ("model", "height", "width", "mode", "form", "dtype", "reparam")}
        time = {f"whole_{key}": work["time"][key] for key in TIME} if work.get("time") else {}
        where = {key: work["time"][key] for key in ("device", "device_name", "threads", "batch")} if time else {}
        lines += [{**about, **where, **row, **time} for row in work["modules"]]
    heads = list(dict.fromkeys(key for line in lines for key in line))
    return csv_text([heads, *(["" if line.get(key) is None else str(line[key]) for key in heads] for line in lines)])


def estimates_to_rich(rows: list[dict[str, Any]]) -> Table:
    """One row a cell of `flops.estimate.row`: its model with unusual settings. Launches are those beside the turns."""
    guesses = ("launches", "~time (s)", "~peak memory (MiB)")
    heads = ("model", "size (px)", "mode", "form", "batch", "dtype", *guesses, "remarks")
    table = bare_table(heads, right=guesses, wrap=heads)
    for cell in rows:
        lacking = "not estimated" if cell["not_estimated"] else cell["not_predicted"]
        table.add_row(
            " ".join([cell["model"], *unusual(cell, [name for name in PARTS if name != "dtype"])]),
            f"{cell['height']}x{cell['width']}",
            cell["mode"],
            cell["form"] or "",
            str(cell["batch"]),
            cell["dtype"],
            "" if cell["launches"] is None else str(cell["launches"]),
            "" if cell["seconds"] is None else f"{cell['seconds']:.0f}",
            "" if cell["peak_memory_bytes"] is None else f"{cell['peak_memory_bytes'] / 2**20:.0f}",
            cell["unsupported"] or lacking or cell["padding"] or "",
        )
    return table


def not_estimated(rows: list[dict[str, Any]]) -> list[str]:
    """How many cells have no estimate, and why: one line a reason, with the cells."""
    cells: dict[str, list[str]] = {}
    for cell in rows:
        if cell["not_estimated"]:
            named = f"{cell['model']} {cell['mode']} {cell['height']}x{cell['width']}"
            cells.setdefault(cell["not_estimated"], []).append(named)
    lines = []
    for reason, own in cells.items():
        more = f" and {len(own) - NAMED} more" if len(own) > NAMED else ""
        lines.append(f"{_cells(len(own))} could not be estimated: {reason} ({', '.join(own[:NAMED])}{more})")
    return lines


def whole(rows: list[dict[str, Any]], blocks: int, parts: Parts, device: str) -> str:
    """What all cells need together, in words; without those that could not be estimated, and said so."""
    lost = sum(1 for cell in rows if cell["not_estimated"])
    known = sum(1 for cell in rows if cell["seconds"] is not None)
    if not known:
        takes = "it takes" if len(rows) == 1 else "they take"
        why = f"how long {takes} is not known" if lost else "none can exist, so nothing would be measured"
        return f"{_cells(len(rows))} on {device}: {why}."
    beyond = f", and what the {_cells(lost)} without an estimate take{'s' * (lost == 1)}" if lost else ""
    return (
        f"{_cells(len(rows))}, {blocks} blocks of turns, roughly {parts.total / 60:.1f} minutes on {device}{beyond}: "
        f"{parts}. All figures are estimates."
    )


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def giga(number: int | None) -> str:
    return "" if number is None else f"{number / 1e9:,.4g}"
