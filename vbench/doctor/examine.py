"""What this machine can measure, how finely, and what stands in the way."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.table import Table
from rich.text import Text

import vbench
from vbench import host, jobs
from vbench.constraints import tested
from vbench.devices import KINDS, kind_of, nvml, on_host
from vbench.doctor import selftest
from vbench.errors import DeviceError
from vbench.jobs.launch import Launcher
from vbench.meters import cpu, state

OPTIONAL = {"triton", "fvcore"}  # fused kernels, and a second count of MACs, need them; everything else runs without
JOB_LIMIT_S = 120.0
CROOKED = 0.05  # of a time: how far k calls may be from k times one
CLOCKS_APART = 0.01  # of a time: how far host and device may disagree over long work
LATE_MS = 1.0  # how much longer than asked a sleep may be
NOISY = 0.05  # of a figure: how far apart two runs of the same thing may be
OTHERS = 0.05  # of the machine's processor time

Verdict = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `verdict` is "ok", "note" (numbers may suffer) or "missing"."""

    topic: str
    verdict: Verdict
    text: str


def examine(device: str, *, quick: bool = False, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at versions, processors, memory, load and GPUs, then try the timer, the peaks and the scatter.

    Args:
        device: "cpu" or "cuda:N", what is tried.
        quick: only look; nothing is measured.
        tell: is told what is being done.
    """
    found = _software() + _cpu() + cpu_findings()
    with Launcher() as launcher:
        found += _gpus(launcher, tell)
        gpu = _nvml(device, launcher) if kind_of(device).watched else None
        if gpu is not None:
            found += gpu_findings(gpu[1])
        if quick:
            return found
        found.append(_others(tell))
        tell("the timer")
        timed = launcher.run(*jobs.timer(device), JOB_LIMIT_S)
        found += timer_findings(timed.parts)
        if timed.status != "ok":
            found.append(Finding("timer", "missing", f"could not be tried on {device}: {timed.reason}"))
        found += _peaks(device, gpu, launcher, tell)
        found.append(noise_finding(selftest.noise(launcher, device, tell)))
    return found


def _software() -> list[Finding]:
    found = [Finding("vbench", "ok", f"{vbench.__version__}, Python {platform.python_version()}")]
    about = host.fingerprint("cpu", None)
    for package, version in about["versions"].items():
        if package in host.PACKAGES:
            found.append(package_finding(package, version))
    commit = about["commit"]
    if commit:
        found.append(
            Finding(
                "commit",
                "note" if about["dirty"] else "ok",
                commit[:12] + (", with changes" if about["dirty"] else ""),
            )
        )
    return found


def package_finding(package: str, version: str | None) -> Finding:
    """Whether a package is there, and lies in what the project was tested with; `version` is None if it is not."""
    if version is None:
        return Finding(package, "note" if package in OPTIONAL else "missing", f"not installed; pip install {package}")
    untested = tested.outside(package, version)
    return Finding(package, "note" if untested else "ok", f"{version}; {untested}" if untested else version)


def _cpu() -> list[Finding]:
    usable, cores = cpu.usable_cores(), os.cpu_count() or 1
    memory = psutil.virtual_memory()
    return [
        Finding(
            "CPU",
            "note" if usable < cores else "ok",
            f"{host.cpu_name()}, {cores} cores, {usable} usable; a sweep takes 1 thread unless told otherwise",
        ),
        _load(usable),
        Finding("memory", "ok", f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"),
        _swap(),
    ]


def _load(usable: int) -> Finding:
    load = os.getloadavg()[0]
    if load > 0.5 * usable:
        return Finding(
            "load",
            "note",
            f"{load:.1f} over the last minute on {usable} cores: others are computing, timings will scatter",
        )
    return Finding("load", "ok", f"{load:.1f} over the last minute on {usable} cores")


def _swap() -> Finding:
    used = psutil.swap_memory().used
    if used:
        return Finding("swap", "note", f"{used / 2**20:.0f} MiB lie on disk: memory was short, and may be again")
    return Finding("swap", "ok", "not in use")


def cpu_findings(root: Path = Path("/")) -> list[Finding]:
    """Clocks, shared cores and limits of the CPU, as the kernel shows them under `root`."""
    cpus = root / "sys/devices/system/cpu"
    governors = sorted({file.read_text().strip() for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")})
    mhz = psutil.cpu_freq()
    clock = f", {mhz.current:.0f} MHz now" if mhz and mhz.current else ""
    if not governors:
        clocks = Finding("CPU clock", "note", f"its control cannot be seen here: it may change unseen{clock}")
    elif governors == ["performance"]:
        clocks = Finding("CPU clock", "ok", f"held high by the governor 'performance'{clock}")
    else:
        text = f"the governor {' and '.join(governors)} changes it with the load{clock}; 'performance' holds it high"
        clocks = Finding("CPU clock", "note", text)
    try:
        shared = (cpus / "smt/active").read_text().strip() == "1"
    except OSError:
        smt = Finding("SMT", "note", "cannot be seen here: two of the cores may be one")
    else:
        smt = Finding(
            "SMT",
            "note" if shared else "ok",
            "on: two logical cores share one, and slow each other down" if shared else "off: each core is one",
        )
    quota, usable = cpu.cgroup_quota_cores(root), cpu.usable_cores()
    if quota is None:
        limit = Finding("CPU quota", "ok", "none can be seen")
    elif isinf(quota):
        limit = Finding("CPU quota", "ok", "none")
    else:
        limit = Finding(
            "CPU quota",
            "note" if quota < usable else "ok",
            f"this process may use {quota:g} cores' time; beyond it the kernel stops it for moments",
        )
    return [clocks, smt, limit]


def _others(tell: Callable[[str], None]) -> Finding:
    """Half a second of doing nothing: whatever is busy is somebody else's."""
    tell("what others do")
    with cpu.CpuWatch(1) as watch:
        time.sleep(0.5)
    busy, stolen = watch.seen["others_busy_share"], watch.seen["stolen_share"]
    text = f"other processes use {busy:.0%} of this machine's {watch.seen['cores']} cores"
    if stolen:
        text += f", other virtual machines {stolen:.0%}"
    noisy = busy + (stolen or 0) > OTHERS
    return Finding("others", "note" if noisy else "ok", text + ("; timings will scatter" if noisy else ""))


def _gpus(launcher: Launcher, tell: Callable[[str], None]) -> list[Finding]:
    there = {
        f"{name}:{index}" if kind.numbered else name: about
        for name, kind in KINDS.items()
        if not on_host(name)
        for index, about in enumerate(kind.present())
    }
    if not there:
        return [Finding("GPU", "note", "no NVIDIA driver found; sweeps run on the CPU")]
    found = []
    for name, gpu in there.items():
        tell(name)
        memory = f"{gpu['free_bytes'] / 2**30:.1f} GiB free of {gpu['memory_bytes'] / 2**30:.1f}"
        text = f"{gpu['name']}, driver {gpu['driver']}, {memory}"
        try:
            ending = launcher.run(*jobs.probe(name), JOB_LIMIT_S)
            usable = ending.status == "ok"
            text += "" if usable else f"; torch cannot use it: {ending.reason}"
        except DeviceError as error:
            usable, text = False, f"{text}; {error}"
        found.append(Finding(name, "ok" if usable else "missing", text))
    return found


def _nvml(device: str, launcher: Launcher) -> tuple[str, dict[str, Any]] | None:
    """NVML's name of a GPU (its index where CUDA cannot be asked for the UUID) and its settings; None without NVML."""
    import pynvml

    ending = launcher.run(*jobs.identify(device), JOB_LIMIT_S)
    name = str(ending.parts.get("uuid", device.partition(":")[2]))
    try:
        return name, nvml.settings(pynvml, name)
    except pynvml.NVMLError:
        return None


def gpu_findings(settings: dict[str, Any]) -> list[Finding]:
    """How a GPU is set up, from `nvml.settings`; it was asked while nothing of ours was on it."""
    unknown = "the driver does not tell"

    def switch(topic: str, key: str, on: str, off: str, *, note: bool | None) -> Finding:
        value = settings[key]
        text = unknown if value is None else on if value else off
        return Finding(topic, "note" if value is not None and value is note else "ok", text)

    others = settings["pids"]
    return [
        switch(
            "persistence",
            "persistence",
            "on: the driver stays loaded",
            "off: the driver is loaded anew for each process; nvidia-smi -pm 1 (root) turns it on",
            note=False,
        ),
        switch("ECC", "ecc", "on: it takes its share of memory bandwidth", "off", note=None),
        switch("MIG", "mig", "on: this is a slice of a GPU, and others may use the rest", "off", note=True),
        Finding(
            "GPU shared",
            "note" if others else "ok",
            unknown if others is None else f"{others} other processes on it" if others else "nobody else on it",
        ),
    ]


def timer_findings(parts: dict[str, Any]) -> list[Finding]:
    """What `selftest.timer` yielded, in words."""
    found = []
    if sleep := parts.get("sleep"):
        asked, shortest, typical = sleep["asked_ms"], sleep["shortest_ms"], sleep["median_ms"]
        text = f"a sleep of {asked:g} ms takes {typical:.2f} ms, never less than {shortest:.2f}"
        if shortest < asked:
            found.append(Finding("clock", "note", f"{text}: the clock is wrong, and so is every timing"))
        elif typical > asked + LATE_MS:
            found.append(Finding("clock", "note", f"{text}: this machine wakes late"))
        else:
            found.append(Finding("clock", "ok", text))
    if (empty := parts.get("empty_call_us")) is not None:
        found.append(Finding("timer", "ok", f"timing a call that does nothing gives {empty:.2f} µs"))
    if line := parts.get("linear"):
        text = f"k calls take k times one call, within {line['worst']:.1%} for k up to {line['calls'][-1]}"
        crooked = line["worst"] > CROOKED
        found.append(Finding("linear", "note" if crooked else "ok", text + ("; that is too far" if crooked else "")))
    if events := parts.get("events"):
        apart = events["host_ms"] / events["device_ms"] - 1
        text = f"{events['device_ms']:.1f} ms of the device are {events['host_ms']:.1f} ms of the host ({apart:+.2%})"
        found.append(Finding("events", "note" if abs(apart) > CLOCKS_APART else "ok", text))
    return found


def _peaks(
    device: str, gpu: tuple[str, dict[str, Any]] | None, launcher: Launcher, tell: Callable[[str], None]
) -> list[Finding]:
    """The device's peaks; of a GPU, given as NVML's name and settings, the clock that it held meanwhile too."""
    found: list[Finding] = []
    with (
        tempfile.TemporaryDirectory(prefix="vbench-") as folder,
        nullcontext() if gpu is None else state.Sampler(gpu[0], Path(folder)) as sampler,
    ):
        busy = None
        for dtype in kind_of(device).peak_dtypes:
            tell(f"the peaks in {dtype}")
            ending = launcher.run(*jobs.peaks(device, dtype), JOB_LIMIT_S)
            found.append(peak_finding(dtype, ending.parts, ending.reason))
            busy = ending.parts.get("busy")
        if gpu is not None and sampler is not None:
            found.append(clock_finding(gpu[1], sampler.window(*busy) if busy else None, sampler.reason))
    return found


def peak_finding(dtype: str, parts: dict[str, Any], reason: str | None) -> Finding:
    """What `peaks.measure` yielded, in words."""
    product, copied = parts.get("gemm_flops_per_s"), parts.get("copy_bytes_per_s")
    if product is None or copied is None:
        return Finding(f"peak {dtype}", "missing", f"could not be measured: {reason}")
    text = f"{product / 1e9:,.0f} GFLOP/s in a matrix product, {copied / 1e9:,.1f} GB/s in a copy; "
    return Finding(
        f"peak {dtype}", "ok", text + f"below {product / copied:.1f} FLOPs a byte, memory is what a model waits for"
    )


def clock_finding(settings: dict[str, Any], busy: dict[str, Any] | None, reason: str | None) -> Finding:
    """Whether the SM clock is held: the driver does not say, but idle and busy clocks show it."""
    idle, fastest = settings["sm_mhz"], settings["max_sm_mhz"]
    if busy is None or busy["sm_mhz_median"] is None or idle is None or fastest is None:
        return Finding("GPU clock", "note", f"not known: {reason or 'the driver does not tell'}")
    text = f"{idle} MHz idle, {busy['sm_mhz_median']:.0f} under load, {fastest} at most"
    if busy["throttle"]:
        text += f"; held back by: {', '.join(busy['throttle'])}"
    if state.throttled(busy, fastest):
        return Finding("GPU clock", "note", f"{text}: it was throttled while the peaks were measured")
    if abs(busy["sm_mhz_median"] - idle) <= 0.01 * fastest:
        return Finding("GPU clock", "ok", f"{text}: it is held")
    return Finding("GPU clock", "note", f"{text}: it moves; nvidia-smi -lgc MHZ (root) holds it")


def noise_finding(noise: dict[str, Any]) -> Finding:
    """What `selftest.noise` found, in words."""
    if noise["latency_ms"] is None:
        return Finding("noise", "missing", f"{noise['cell']} could not be measured twice: {noise['reason']}")
    metrics = {"latency": "latency_ms", "throughput": "throughput_img_s", "peak memory": "peak_memory_bytes"}
    ranges = {name: noise[key]["range"] for name, key in metrics.items()}
    apart = ", ".join(
        f"{noise[key]['range']:.1%} (robust sd {noise[key]['sd']:.1%}) in {name}" for name, key in metrics.items()
    )
    text = (
        f"{noise['launches']} runs of the same thing ({noise['cell']}) differ by up to {apart}: "
        "differences below that mean nothing here"
    )
    if noise["reason"]:
        text += f"; a run failed: {noise['reason']}"
    return Finding("noise", "note" if noise["reason"] or max(ranges.values()) > NOISY else "ok", text)


def to_rich(findings: list[Finding]) -> Table:
    """The findings for a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.verdict]
        table.add_row(finding.topic, f"[{colour}]{finding.verdict}[/]", Text(finding.text))
    return table
