"""The sizes that a search for the largest one has tried, for a terminal."""

from __future__ import annotations

from rich.table import Table

from vbench.results.text import bare_table
from vbench.sweeps.limits import MIB, Limit


def to_rich(limit: Limit) -> Table:
    """One row a probe, in order."""
    numbers = (limit.task.axis, "peak memory (MiB)", "seconds")
    heads = (numbers[0], "status", *numbers[1:], "reason")
    table = bare_table(heads, right=numbers, wrap=heads)
    for probe in limit.probes:
        table.add_row(
            str(probe.size),
            probe.status,
            "" if probe.peak_bytes is None else f"{probe.peak_bytes / MIB:,.1f}",
            "" if probe.seconds is None else f"{probe.seconds:.2f}",
            probe.reason or "",
        )
    return table
