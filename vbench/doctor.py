"""What this machine can measure, and what stands in the way."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Literal

import psutil
from rich.table import Table

import vbench
from vbench import host
from vbench.errors import DeviceError
from vbench.launch import Launcher

OPTIONAL = {"triton"}  # fused kernels need it; everything else runs without


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `verdict` is "ok", "note" (numbers may suffer) or "missing"."""

    topic: str
    verdict: Literal["ok", "note", "missing"]
    text: str


def examine() -> list[Finding]:
    """Look at versions, processors, memory, load and GPUs; CUDA is asked in a child."""
    found = [Finding("vbench", "ok", f"{vbench.__version__}, Python {platform.python_version()}")]
    about = host.fingerprint("cpu", None)
    for package, version in about["versions"].items():
        if package in host.PACKAGES:
            absent: Literal["note", "missing"] = "note" if package in OPTIONAL else "missing"
            found.append(
                Finding(package, "ok" if version else absent, version or f"not installed; pip install {package}")
            )
    commit = about["commit"]
    if commit:
        found.append(
            Finding(
                "commit",
                "note" if about["dirty"] else "ok",
                commit[:12] + (", with changes" if about["dirty"] else ""),
            )
        )
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found.append(
        Finding(
            "CPU",
            "ok",
            f"{host.cpu_name()}, {os.cpu_count()} cores, {usable} usable; a sweep takes 1 thread unless told otherwise",
        )
    )
    found.append(_load(usable or 1))
    memory = psutil.virtual_memory()
    found.append(Finding("memory", "ok", f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"))
    return found + _gpus()


def _load(usable: int) -> Finding:
    load = os.getloadavg()[0]
    if load > 0.5 * usable:
        return Finding(
            "load",
            "note",
            f"{load:.1f} over the last minute on {usable} cores: others are computing, timings will scatter",
        )
    return Finding("load", "ok", f"{load:.1f} over the last minute on {usable} cores")


def _gpus() -> list[Finding]:
    gpus = host.gpus()
    if not gpus:
        return [Finding("GPU", "note", "no NVIDIA driver found; sweeps run on the CPU")]
    found = []
    with Launcher() as launcher:
        for index, gpu in enumerate(gpus):
            memory = f"{gpu['free_bytes'] / 2**30:.1f} GiB free of {gpu['memory_bytes'] / 2**30:.1f}"
            text = f"{gpu['name']}, driver {gpu['driver']}, {memory}"
            try:
                ending = launcher.run("vbench.worker:probe", {"device": f"cuda:{index}", "models": []}, 120)
                usable = ending.status == "ok"
                text += "" if usable else f"; torch cannot use it: {ending.reason}"
            except DeviceError as error:
                usable, text = False, f"{text}; {error}"
            found.append(Finding(f"cuda:{index}", "ok" if usable else "missing", text))
    return found


def to_rich(findings: list[Finding]) -> Table:
    """The findings for a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.verdict]
        table.add_row(finding.topic, f"[{colour}]{finding.verdict}[/]", finding.text)
    return table
