"""Figures that others measured on a named device, in words of ours: what our own figures can be set beside.

They are the rows of `published/independent_efficiency.csv`, and those of `published/efficiency.csv` that name a device.
vbench measured none of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import log

from vbench.results.published import table as published

CARDS = {  # a device as the sources name it -> how torch or the system names it
    "A100": r"\bA100\b",
    "H100 SXM": r"\bH100\b(?!.*\b(PCIe|NVL)\b)",
    "RTX 3090": r"\bRTX 3090\b(?! Ti)",
    "RTX 4090": r"\bRTX 4090\b(?! (D|Laptop)\b)",
    "RTX 5090": r"\bRTX 5090\b(?! (D|Laptop)\b)",
    "RTX PRO 6000 Max-Q": r"\bRTX PRO 6000\b.*\bMax-Q\b",
    "Core i7-12700H": r"\bi7-12700H\b",
    "Core i9-10940X": r"\bi9-10940X\b",
}
COSTS = ("throughput_img_s", "latency_ms", "peak_memory_mib")
TABLE_9 = "arXiv:2401.10166v4 Table 9"  # of VMamba: eight models at six sizes, inference and training, on an A100
_DEVICES = {
    **{"a100": "A100", "rtx3090": "RTX 3090", "rtx4090": "RTX 4090", "rtx5090": "RTX 5090"},
    "rtxpro6000maxq": "RTX PRO 6000 Max-Q",
    **{"cpu-i7_12700h": "Core i7-12700H", "cpu-i9_10940x": "Core i9-10940X"},
}
_DTYPES = {"fp32": "float32", "amp": "amp", "amp_bf16": "amp-bf16", "bf16": "bfloat16", "": ""}
_QUANTITIES = {
    "throughput_img_s": "throughput_img_s",
    "peak_memory_mb": "peak_memory_mib",  # torch's allocator over 2**20, in all rows that name a device
}


@dataclass(frozen=True, slots=True)
class Witness:
    """A figure that somebody else printed. A text is empty, and `batch` None, if the source does not say.

    Args:
        model: as vbench names it; empty for a model that vbench does not build.
        printed: the model in the words of the source.
        res: px, of a square image.
        dtype: a dtype of vbench's, "tf32", or "amp" for autocast to a type that is not stated.
        device: a key of `CARDS`, or the words of the source for any other device.
        quantity: a key of `COSTS`, "flops_g" (giga multiply-accumulates) or "top1" (percent).
        conditions: what else is known of the measurement.
    """

    model: str
    printed: str
    res: int
    batch: int | None
    dtype: str
    phase: str
    device: str
    backend: str
    layout: str
    torch: str
    quantity: str
    value: float
    conditions: tuple[str, ...]
    source: str

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost that was measured on a device that is known by name."""
        return self.quantity in COSTS and self.device in CARDS and bool(self.model)


def card_of(device_name: str) -> str | None:
    """The key of `CARDS` of a device by its own name, "NVIDIA A100-SXM4-80GB" -> "A100"; None for any other.

    A slice of a GPU (MIG) is another device.
    """
    if "MIG" in device_name:
        return None
    return next((card for card, pattern in CARDS.items() if re.search(pattern, device_name)), None)


@cache
def independent() -> tuple[Witness, ...]:
    """All rows of `independent_efficiency.csv`, in the order of the file."""
    return tuple(_independent(row) for row in published("independent_efficiency"))


@cache
def witnesses() -> tuple[Witness, ...]:
    """All measured costs of models of ours on devices known by name; those of authors' own tables come last.

    A figure that both tables have, at as many digits, is listed once.
    """
    rows = [row for row in independent() if row.is_cost]
    rows += [row for row in map(_of_authors, published("efficiency")) if row is not None and row.is_cost]
    first: dict[tuple[object, ...], Witness] = {}
    for row in rows:
        key = (row.model, row.res, row.batch, precision(row.dtype), row.phase, row.device, row.backend or "eager")
        first.setdefault((*key, row.quantity, row.value), row)
    return tuple(first.values())


def precision(dtype: str) -> str:
    """The class of a dtype within which figures are set side by side: "float32", "tf32", "half"; "" if not stated."""
    return dtype if dtype in ("float32", "tf32", "") else "half"


def _independent(row: Mapping[str, str]) -> Witness:
    texts = ("model", "printed", "dtype", "phase", "device", "backend", "layout", "torch", "quantity", "source")
    return Witness(
        res=int(row["res"]),
        batch=int(row["batch"]) if row["batch"] else None,
        value=float(row["value"]),
        conditions=tuple(filter(None, row["conditions"].split("; "))),
        **{key: row[key] for key in texts},
    )


def _of_authors(row: Mapping[str, str]) -> Witness | None:
    """A row of `efficiency.csv` that names its device and its size; None for any other."""
    quantity, device = _QUANTITIES.get(row["metric"]), _DEVICES.get(row["device"])
    if quantity is None or device is None or not row["res"]:
        return None
    phase, _, compiled = row["mode"].partition("-")
    dtype = _DTYPES[row["dtype"]]
    told: tuple[str, ...] = ()
    of_timm = row["source"].startswith("timm results")
    made = re.search(r"\((nchw|nhwc), pt(\d)(\d+?)(\d)\)", row["locator"])
    if of_timm:
        dtype = "amp-fp16" if dtype == "amp" else dtype
    elif dtype == "amp":
        told = ("the type of mixed precision is not stated",)
    if phase == "train":
        told = (*told, "with the update" if of_timm else "without the update")
    return Witness(
        model=row["model"],
        printed=row["model"],
        res=int(row["res"]),
        batch=int(row["batch"]) if row["batch"] else None,
        dtype=dtype,
        phase=phase,
        device=device,
        backend="compile" if compiled else "eager",
        layout=made[1] if made else "",
        torch=f"{made[2]}.{made[3]}" if made else "",
        quantity=quantity,
        value=float(row["value"]),
        conditions=told,
        source=f"{row['source']}: {row['locator']}",
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """How the time of an image grows in a table that others printed: the exponent in tokens over its sizes."""

    model: str
    phase: str
    sides: tuple[int, int]  # px, the least and the largest
    exponent: float


@cache
def growths(source: str = TABLE_9) -> tuple[Growth, ...]:
    """The exponents of time an image in tokens between the least and the largest size, model by model.

    Computed from the throughputs that the source prints: log(t1/t0) / log(n1/n0). Tokens grow as the area.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in independent():
        if row.source.startswith(source) and row.quantity == "throughput_img_s" and row.model:
            found.setdefault((row.model, row.phase), {})[row.res] = row.value
    rows = []
    for (model, phase), speeds in found.items():
        least, largest = min(speeds), max(speeds)
        exponent = log(speeds[least] / speeds[largest]) / (2 * log(largest / least))
        rows.append(Growth(model, phase, (least, largest), exponent))
    return tuple(rows)
