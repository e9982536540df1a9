"""`vbench doctor`: what this machine can measure, how precisely, and what would disturb a measurement."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any, Literal

import psutil

import vbench
from vbench import host, jobs
from vbench.constraints import tested
from vbench.devices import KINDS, ROCM, kind_of, nvml, on_host
from vbench.doctor import installed, selftest
from vbench.errors import DeviceError
from vbench.jobs import scratch
from vbench.jobs.launch import Launcher
from vbench.meters import cpu, state

OPTIONAL = {"triton", "fvcore"}  # only fused kernels and the second count of MACs need them
JOB_LIMIT_S = 120.0
NONLINEAR = 0.05  # the share by which k calls may differ from k times one call
CLOCKS_APART = 0.01  # the share by which the clocks of host and device may differ over long work
LATE_MS = 1.0  # how much longer than asked a sleep may take
NOISY = 0.05  # the share by which runs of the same thing may differ
OTHERS = 0.05  # the share of the machine's processor time that other processes may use


@dataclass(frozen=True)
class Finding:
    """One line of the examination. The verdict "note" means that numbers may suffer."""

    topic: str
    verdict: Literal["ok", "note", "missing"]
    text: str


def _finding(topic: str, text: str, *, note: bool) -> Finding:
    return Finding(topic, "note" if note else "ok", text)


def examine(device: str, *, quick: bool = False, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at versions, processors, memory, load and GPUs; then test the timer, the peaks and the noise.

    Args:
        device: "cpu" or "cuda:N", what is tested.
        quick: only look; nothing is measured.
        tell: is told what is being done.
    """
    findings = _software() + _cpu() + cpu_findings()
    with Launcher() as launcher:
        findings += _gpus(launcher, tell)
        gpu = _nvml(device, launcher) if kind_of(device).watched else None
        if gpu is not None:
            findings += gpu_findings(gpu[1])
        if quick:
            return findings
        findings.append(_others(tell))
        tell("the timer")
        timed = launcher.run(*jobs.timer(device), JOB_LIMIT_S)
        findings += timer_findings(timed.parts)
        findings.append(energy_finding(timed.parts.get("energy"), device))
        if timed.status != "ok":
            findings.append(Finding("timer", "missing", f"could not be tried on {device}: {timed.reason}"))
        findings += _peaks(device, gpu, launcher, tell)
        findings.append(noise_finding(selftest.noise(launcher, device, tell)))
    return findings


def _software() -> list[Finding]:
    about = host.fingerprint("cpu", None)
    packages = [package_finding(*each) for each in about["versions"].items() if each[0] in host.PACKAGES]
    findings = [Finding("vbench", "ok", f"{vbench.__version__}, Python {platform.python_version()}"), *packages]
    if other := installed.rival():
        findings.append(Finding("installed", "note", other))
    if about["commit"]:
        text = about["commit"][:12] + (", with changes" if about["dirty"] else "")
        findings.append(_finding("commit", text, note=about["dirty"]))
    return [*findings, machine_code_finding()]


def machine_code_finding() -> Finding:
    """Where compiled loops are kept, or why each process compiles them anew."""
    from vbench.kernels import disk_cache

    if why := disk_cache.unusable():
        return Finding("machine code", "note", f"each process compiles it anew, for seconds: {why}")
    return Finding("machine code", "ok", f"compiled loops are kept in {disk_cache.folder()}")


def package_finding(package: str, version: str | None) -> Finding:
    """Whether a package is installed, and its version tested; `version` is None if it is not installed."""
    if version is None:
        return Finding(package, "note" if package in OPTIONAL else "missing", f"not installed; pip install {package}")
    untested = tested.outside(package, version)
    return _finding(package, f"{version}; {untested}" if untested else version, note=bool(untested))


def _cpu() -> list[Finding]:
    usable, cores, memory = cpu.usable_cores(), os.cpu_count() or 1, psutil.virtual_memory()
    about = f"{host.cpu_name()}, {cores} cores, {usable} usable; a sweep takes 1 thread unless told otherwise"
    load = os.getloadavg()[0]
    busy = load > 0.5 * usable
    text = f"{load:.1f} over the last minute on {usable} cores"
    return [
        _finding("CPU", about, note=usable < cores),
        _finding("load", text + (": others are computing, timings will scatter" if busy else ""), note=busy),
        Finding("memory", "ok", f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"),
        _swap(),
    ]


def _swap() -> Finding:
    used = psutil.swap_memory().used
    if used:
        return Finding("swap", "note", f"{used / 2**20:.0f} MiB lie on disk: memory was short, and may be again")
    return Finding("swap", "ok", "not in use")


def cpu_findings(root: Path = Path("/")) -> list[Finding]:
    """Clock, shared cores and limits of the CPU, as the kernel shows them under `root`."""
    cpus = root / "sys/devices/system/cpu"
    governors = sorted({file.read_text().strip() for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")})
    mhz = psutil.cpu_freq()
    clock = f", {mhz.current:.0f} MHz now" if mhz and mhz.current else ""
    held = f"held high by the governor 'performance'{clock}"
    if not governors:
        held = f"its control cannot be seen here: it may change unseen{clock}"
    elif governors != ["performance"]:
        held = f"the governor {' and '.join(governors)} changes it with the load{clock}; 'performance' holds it high"
    try:
        shared = (cpus / "smt/active").read_text().strip() == "1"
        smt = "on: two logical cores share one, and slow each other down" if shared else "off: no two cores share one"
    except OSError:
        shared, smt = True, "cannot be seen here: two of the cores may be one"
    quota = cpu.cgroup_quota_cores(root)
    limit = "none can be seen" if quota is None else "none"
    if quota is not None and not isinf(quota):
        limit = f"this process may use {quota:g} cores' time; beyond it the kernel stops it for moments"
    return [
        _finding("CPU clock", held, note=governors != ["performance"]),
        _finding("SMT", smt, note=shared),
        _finding("CPU quota", limit, note=quota is not None and quota < cpu.usable_cores()),
    ]


def _others(tell: Callable[[str], None]) -> Finding:
    """How busy others are during half a second in which this process does nothing."""
    tell("what others do")
    with cpu.CpuWatch(1) as watch:
        time.sleep(0.5)
    busy, stolen = watch.seen["others_busy_share"], watch.seen["stolen_share"]
    text = f"other processes use {busy:.0%} of this machine's {watch.seen['cores']} cores"
    if stolen:
        text += f", other virtual machines {stolen:.0%}"
    noisy = busy + (stolen or 0) > OTHERS
    return _finding("others", text + ("; timings will scatter" if noisy else ""), note=noisy)


def _gpus(launcher: Launcher, tell: Callable[[str], None]) -> list[Finding]:
    there = {
        f"{name}:{index}" if kind.numbered else name: about
        for name, kind in ((name, kind_of(name)) for name in KINDS if not on_host(name))
        for index, about in enumerate(kind.present())
    }
    if not there:
        none = "no NVIDIA driver found, and no GPU of AMD, Apple or Intel that this torch is built for"
        return [Finding("GPU", "note", f"{none}; sweeps run on the CPU")]
    findings = []
    for name, gpu in there.items():
        tell(name)
        free, whole = gpu["free_bytes"], gpu["memory_bytes"]
        known = free is not None and whole is not None
        memory = f"{free / 2**30:.1f} GiB free of {whole / 2**30:.1f}" if known else "memory not told by the driver"
        text = f"{gpu['name']}, driver {gpu['driver']}, {memory}{kind_words(name)}"
        try:
            ending = launcher.run(*jobs.probe(name), JOB_LIMIT_S)
            usable = ending.status == "ok"
            text += "" if usable else f"; torch cannot use it: {ending.reason}"
        except DeviceError as error:
            usable, text = False, f"{text}; {error}"
        tried = kind_of(name).tried
        findings.append(Finding(name, "missing" if not usable else "ok" if tried else "note", text))
    return findings


def kind_words(device: str) -> str:
    """What must be said of a kind of device beside its name: torch's name of it, and that we have not run on one."""
    kind = kind_of(device)
    through = "; torch, built for ROCm, calls it cuda" if kind is ROCM else ""
    untried = f"; vbench has not run on an {kind.title} yet: what it says here is untried, and 'auto' takes the CPU"
    return through + ("" if kind.tried else untried)


def energy_finding(energy: dict[str, Any] | None, device: str) -> Finding:
    """Whether the energy of a device can be counted: "counter", or the "reason" why not."""
    said = energy or {"reason": f"{device} could not be asked"}
    if "counter" in said:
        return Finding("energy", "ok", f"counted by {said['counter']}")
    return Finding("energy", "note", f"not known: {said['reason']}")


def _nvml(device: str, launcher: Launcher) -> tuple[str, dict[str, Any]] | None:
    """NVML's name of a GPU (as `nvml.gpus` finds it if CUDA does not tell) and its settings; None without NVML."""
    import pynvml

    ending = launcher.run(*jobs.identify(device), JOB_LIMIT_S)
    name = ending.parts.get("uuid")
    if name is None:
        seen, index = nvml.gpus(), int(device.partition(":")[2])
        name = seen[index]["uuid"] if index < len(seen) else None
    if name is None:
        return None
    try:
        return name, nvml.settings(pynvml, name)
    except pynvml.NVMLError:
        return None


def gpu_findings(settings: dict[str, Any]) -> list[Finding]:
    """The settings of a GPU, from `nvml.settings`, which ran while no process of ours used the GPU."""
    unknown = "the driver does not tell"

    def switch(topic: str, key: str, on: str, off: str, *, note: bool | None) -> Finding:
        value = settings[key]
        text = unknown if value is None else on if value else off
        return _finding(topic, text, note=value is not None and value is note)

    reloads = "off: the driver is loaded anew for each process; nvidia-smi -pm 1 (root) turns it on"
    others = settings["pids"]
    sharing = unknown if others is None else f"{others} other processes on it" if others else "nobody else on it"
    return [
        switch("persistence", "persistence", "on: the driver stays loaded", reloads, note=False),
        switch("ECC", "ecc", "on: it takes its share of memory bandwidth", "off", note=None),
        switch("MIG", "mig", "on: this is a slice of a GPU, and others may use the rest", "off", note=True),
        _finding("GPU shared", sharing, note=bool(others)),
    ]


def timer_findings(parts: dict[str, Any]) -> list[Finding]:
    """The results of `selftest.timer`, in words."""
    findings = []
    if sleep := parts.get("sleep"):
        asked, shortest, typical = sleep["asked_ms"], sleep["shortest_ms"], sleep["median_ms"]
        fault = ": this machine wakes late" if typical > asked + LATE_MS else ""
        if shortest < asked:
            fault = ": the clock is wrong, and so is every timing"
        text = f"a sleep of {asked:g} ms takes {typical:.2f} ms, never less than {shortest:.2f}{fault}"
        findings.append(_finding("clock", text, note=bool(fault)))
    if (empty := parts.get("empty_call_us")) is not None:
        findings.append(Finding("timer", "ok", f"timing a call that does nothing gives {empty:.2f} µs"))
    if line := parts.get("linear"):
        text = f"k calls take k times one call, within {line['worst']:.1%} for k up to {line['calls'][-1]}"
        far = line["worst"] > NONLINEAR
        findings.append(_finding("linear", text + ("; that is too far" if far else ""), note=far))
    if events := parts.get("events"):
        apart = events["host_ms"] / events["device_ms"] - 1
        text = f"{events['device_ms']:.1f} ms of the device are {events['host_ms']:.1f} ms of the host ({apart:+.2%})"
        findings.append(_finding("events", text, note=abs(apart) > CLOCKS_APART))
    return findings


def _peaks(
    device: str, gpu: tuple[str, dict[str, Any]] | None, launcher: Launcher, tell: Callable[[str], None]
) -> list[Finding]:
    """The peaks of the device; for a GPU (NVML's name, settings) also its clock during that time."""
    findings: list[Finding] = []
    with (
        scratch.folder("watch") as folder,
        nullcontext() if gpu is None else state.Sampler(gpu[0], folder) as sampler,
    ):
        busy = None
        for dtype in kind_of(device).peak_dtypes:
            tell(f"the peaks in {dtype}")
            ending = launcher.run(*jobs.peaks(device, dtype), JOB_LIMIT_S)
            findings.append(peak_finding(dtype, ending.parts, ending.reason))
            busy = ending.parts.get("busy")
        if gpu is not None and sampler is not None:
            findings.append(clock_finding(gpu[1], sampler.window(*busy) if busy else None, sampler.reason))
    if not on_host(device) and not kind_of(device).watched:
        unwatched = f"not known: vbench asks nothing that tells the clock of an {kind_of(device).title}"
        findings.append(Finding("GPU clock", "note", unwatched))
    return findings


def peak_finding(dtype: str, parts: dict[str, Any], reason: str | None) -> Finding:
    """The results of `peaks.measure`, in words."""
    product, copied = parts.get("gemm_flops_per_s"), parts.get("copy_bytes_per_s")
    if product is None or copied is None:
        return Finding(f"peak {dtype}", "missing", f"could not be measured: {reason}")
    text = f"{product / 1e9:,.0f} GFLOP/s in a matrix product, {copied / 1e9:,.1f} GB/s in a copy"
    limit = f"a model with less than {product / copied:.1f} FLOPs a byte waits for memory"
    return Finding(f"peak {dtype}", "ok", f"{text}; {limit}")


def clock_finding(settings: dict[str, Any], busy: dict[str, Any] | None, reason: str | None) -> Finding:
    """Whether the SM clock is held. The driver does not tell; the clocks when idle and when busy show it."""
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
    """The results of `selftest.noise`, in words."""
    if noise["latency_ms"] is None:
        return Finding("noise", "missing", f"{noise['cell']} could not be measured twice: {noise['reason']}")
    metrics = {"latency": "latency_ms", "throughput": "throughput_img_s", "peak memory": "peak_memory_bytes"}
    spreads = {name: noise[key] for name, key in metrics.items()}
    apart = ", ".join(f"{one['range']:.1%} (robust sd {one['sd']:.1%}) in {name}" for name, one in spreads.items())
    same = f"{noise['launches']} runs of the same thing ({noise['cell']})"
    text = f"{same} differ by up to {apart}: differences below that mean nothing here"
    if noise["reason"]:
        text += f"; a run failed: {noise['reason']}"
    noisy = max(one["range"] for one in spreads.values()) > NOISY
    return _finding("noise", text, note=noisy or bool(noise["reason"]))
