"""The measures that figures can draw: a column of the frame, its unit, and the label of its axis."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the frame. Its interval is in the columns with `_lo` and `_hi`, if the frame has them."""

    column: str
    unit: float  # by which it is divided
    label: str  # of an axis, unit included
    title: str
    batch: str | None = None  # the column that says at what batch
    walls: bool = True  # whether a cell that failed ends the curve

    def axis(self, table: pd.DataFrame) -> str:
        """The label, with the batch if all rows with a value share one. In training, latency is the time of a step."""
        label = self.label
        if self.column == "latency_ms" and set(table["phase"].dropna()) == {"train"}:
            label = label.replace("Latency", "Time of a training step")
        rows = table[table[self.column].notna()]
        batches = list(rows[self.batch].dropna().unique()) if self.batch else []
        return f"{label}, batch {batches[0]}" if len(batches) == 1 else label


MEASURES: dict[str, Measure] = {
    "macs": Measure("macs", 1e9, "GMACs per image", "Work", walls=False),
    "macs_executed": Measure("macs_executed", 1e9, "GMACs executed per image", "Work executed", walls=False),
    "flops_total": Measure("flops_total", 1e9, "GFLOPs per image", "FLOPs", walls=False),
    "params": Measure("params", 1e6, "Parameters (millions)", "Parameters", walls=False),
    "latency_ms": Measure("latency_ms", 1, "Latency (ms)", "Latency", "latency_batch"),
    "throughput_img_s": Measure("throughput_img_s", 1, "Throughput (images/s)", "Throughput", "batch"),
    "peak_memory_bytes": Measure("peak_memory_bytes", 2**20, "Peak memory (MiB)", "Memory", "memory_batch"),
    "activation_bytes": Measure("activation_bytes", 2**20, "Activations (MiB)", "Activations", "memory_batch"),
    "state_bytes": Measure("state_bytes", 2**10, "Recurrent state per image (KiB)", "State", walls=False),
    "energy_j_per_image": Measure("energy_j_per_image", 1, "Energy (J/image)", "Energy"),
}
