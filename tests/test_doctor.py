"""What the doctor finds, where it is known what there is to find; peaks by a clock that calls move."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import psutil
import pytest
import torch
from command import vbench as command
from fake_nvml import FakeNvml

import vbench
from vbench.devices import KINDS, nvml, open_device
from vbench.doctor import examine as doctor
from vbench.doctor import installed, peaks, selftest
from vbench.doctor.examine import Finding
from vbench.jobs.launch import Ending
from vbench.meters import cpu

CPU = open_device("cpu")


def by_topic(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.topic: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def test_the_whole_examination_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "LAUNCHES", 2)
    told: list[str] = []
    found = by_topic(doctor.examine("cpu", tell=told.append))
    assert {"torch", "CPU", "load", "memory", "swap", "CPU clock", "SMT", "CPU quota"} <= set(found)
    assert {"others", "clock", "timer", "linear", "peak float32", "noise"} <= set(found)
    assert "GFLOP/s in a matrix product" in found["peak float32"].text
    assert "2 runs of the same thing (deit_t 96 parallel float32) differ by up to" in found["noise"].text
    assert {"the timer", "the peaks in float32", "the same cell again, 2 of 2"} <= set(told)


def test_a_quick_examination_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], present=list))
    monkeypatch.setattr(doctor.Launcher, "run", lambda *_: pytest.fail("a child was started"))
    found = by_topic(doctor.examine("cpu", quick=True))
    assert not {"others", "clock", "timer", "linear", "peak float32", "noise"} & set(found)
    assert found["GPU"].text.startswith("no NVIDIA driver found, and no GPU of AMD, Apple or Intel")


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("governors", "verdict", "words"),
    [
        (["performance", "performance"], "ok", "held high"),
        (["performance", "powersave"], "note", "performance and powersave"),
        (["schedutil"], "note", "the governor schedutil changes it"),
        ([], "note", "cannot be seen"),
    ],
)
def test_the_governor(tmp_path: Path, governors: list[str], verdict: str, words: str) -> None:
    for core, governor in enumerate(governors):
        put(tmp_path, {f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor": governor + "\n"})
    found = by_topic(doctor.cpu_findings(tmp_path))["CPU clock"]
    assert found.verdict == verdict
    assert words in found.text


@pytest.mark.parametrize(("smt", "verdict"), [("1\n", "note"), ("0\n", "ok"), (None, "note")])
def test_cores_that_are_shared(tmp_path: Path, smt: str | None, verdict: str) -> None:
    put(tmp_path, {} if smt is None else {"sys/devices/system/cpu/smt/active": smt})
    assert by_topic(doctor.cpu_findings(tmp_path))["SMT"].verdict == verdict


@pytest.mark.parametrize(
    ("limit", "verdict", "words"),
    [("max 100000", "ok", "none"), ("150000 100000", "note", "1.5 cores"), ("900000 100000", "ok", "9 cores")],
)
def test_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, verdict: str, words: str) -> None:
    monkeypatch.setattr(cpu, "usable_cores", lambda: 4)
    put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": limit + "\n"})
    found = by_topic(doctor.cpu_findings(tmp_path))["CPU quota"]
    assert found.verdict == verdict
    assert words in found.text


@pytest.mark.parametrize(("used", "verdict"), [(0, "ok"), (3 * 2**20, "note")])
def test_swap_in_use(monkeypatch: pytest.MonkeyPatch, used: int, verdict: str) -> None:
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(used=used))
    assert doctor._swap().verdict == verdict


GOOD = {
    "sleep": {"asked_ms": 5.0, "shortest_ms": 5.05, "median_ms": 5.1},
    "empty_call_us": 0.2,
    "linear": {"calls": [10, 20], "ms": [1.0, 2.0], "worst": 0.004},
    "events": {"host_ms": 100.1, "device_ms": 100.0},
}


def test_a_timer_that_tells_the_truth() -> None:
    found = by_topic(doctor.timer_findings(GOOD))
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert found["linear"].text == "k calls take k times one call, within 0.4% for k up to 20"
    assert found["events"].text == "100.0 ms of the device are 100.1 ms of the host (+0.10%)"
    assert doctor.timer_findings({}) == []


@pytest.mark.parametrize(
    ("part", "value", "topic", "words"),
    [
        ("sleep", {"asked_ms": 5.0, "shortest_ms": 4.9, "median_ms": 5.1}, "clock", "the clock is wrong"),
        ("sleep", {"asked_ms": 5.0, "shortest_ms": 5.1, "median_ms": 9.0}, "clock", "wakes late"),
        ("linear", {"calls": [10, 20], "ms": [1.0, 3.0], "worst": 0.3}, "linear", "too far"),
        ("events", {"host_ms": 90.0, "device_ms": 100.0}, "events", "-10.00%"),
        ("events", {"host_ms": 110.0, "device_ms": 100.0}, "events", "+10.00%"),
    ],
)
def test_a_timer_that_does_not(part: str, value: Any, topic: str, words: str) -> None:
    found = by_topic(doctor.timer_findings({**GOOD, part: value}))[topic]
    assert found.verdict == "note"
    assert words in found.text


def test_times_on_a_line_through_zero_are_linear_and_others_are_not() -> None:
    assert selftest.linear(lambda calls: 0.25 * calls)["worst"] == pytest.approx(0.0, abs=1e-12)
    assert selftest.linear(lambda calls: 0.25 * calls + 2.5)["worst"] > 0.5  # a cost that is not a call's
    assert selftest.linear(lambda calls: 0.01 * calls**2)["worst"] > 0.5
    assert selftest.linear(lambda _: 1.0)["worst"] > 0.5  # a clock that does not wait


def test_what_others_take_now_and_then_does_not_bend_the_line() -> None:
    taken = iter(range(10_000))
    found = selftest.linear(lambda calls: 0.25 * calls + (50.0 if next(taken) % 3 == 0 else 0.0))
    assert found["worst"] == pytest.approx(0.0, abs=1e-12)


def test_spread_is_of_the_median() -> None:
    found = selftest.spread([10.0, 10.1, 9.9, 10.2, 9.0])
    assert found is not None
    assert found["range"] == pytest.approx(0.12)
    assert found["sd"] == pytest.approx(1.4826 * 0.01)
    assert selftest.spread([1.0, 1.0]) == {"values": [1.0, 1.0], "range": 0.0, "sd": 0.0}
    assert selftest.spread([1.0]) is None


class Launches:
    """A launcher whose measurements are given."""

    def __init__(self, *endings: Ending) -> None:
        self._left = list(endings)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        self.asked.append((job, argument))
        return self._left.pop(0)


def measured(ms: float) -> Ending:
    parts = {
        "memory": {"peak_bytes": 1000},
        "latency": {"samples_ms": [ms, ms, 9 * ms]},
        "throughput": {"images_per_s": 1000 / ms},
    }
    return Ending("ok", None, parts)


def scatter(*endings: Ending) -> dict[str, Any]:
    return selftest.noise(Launches(*endings), "cpu", lambda _: None)  # type: ignore[arg-type]


def test_the_noise_of_equal_measurements() -> None:
    launches, told = Launches(*map(measured, [10.0, 10.1, 9.9, 10.2, 9.8])), list[str]()
    found = selftest.noise(launches, "cpu", told.append)  # type: ignore[arg-type]
    assert found["latency_ms"]["values"] == [10.0, 10.1, 9.9, 10.2, 9.8]
    assert found["latency_ms"]["range"] == pytest.approx(0.04)
    assert found["peak_memory_bytes"]["range"] == 0.0
    assert len(told) == 5
    assert {job for job, _ in launches.asked} == {"measure"}
    assert all(argument == launches.asked[0][1] for _, argument in launches.asked)  # the same thing
    finding = doctor.noise_finding(found)
    assert finding.verdict == "ok"
    assert "up to 4.0% (robust sd 1.5%) in latency" in finding.text
    assert "0.0% (robust sd 0.0%) in peak memory" in finding.text


def test_much_noise_is_noted() -> None:
    assert doctor.noise_finding(scatter(*map(measured, [10.0, 10.0, 10.0, 10.0, 11.0]))).verdict == "note"


def test_launches_that_fail_are_said_so() -> None:
    dead = Ending("error", "it died")
    some = doctor.noise_finding(scatter(measured(1.0), dead, measured(1.0), dead, measured(1.0)))
    assert (some.verdict, some.text.partition(" ")[0]) == ("note", "3")
    assert some.text.endswith("a run failed: error, it died")
    one = doctor.noise_finding(scatter(measured(1.0), *[dead] * 4))
    assert (one.verdict, one.text.endswith("could not be measured twice: error, it died")) == ("missing", True)


def test_peaks_in_words() -> None:
    found = doctor.peak_finding("float32", {"gemm_flops_per_s": 9e10, "copy_bytes_per_s": 1.8e10}, None)
    assert found.text.startswith("90 GFLOP/s in a matrix product, 18.0 GB/s in a copy; ")
    assert found.text.endswith("a model with less than 5.0 FLOPs a byte waits for memory")
    assert doctor.peak_finding("float32", {}, "out of memory").verdict == "missing"


def test_how_a_gpu_is_set_up() -> None:
    driver = FakeNvml()
    found = by_topic(doctor.gpu_findings(nvml.settings(driver, 0)))
    assert {finding.verdict for finding in found.values()} == {"ok"}
    driver.answers |= {"persistence": 0, "mig": 1, "ecc": 0, "running": [(1, 5), (2, 5)]}
    found = by_topic(doctor.gpu_findings(nvml.settings(driver, 0)))
    assert {topic for topic, finding in found.items() if finding.verdict == "note"} == {
        "persistence",
        "MIG",
        "GPU shared",
    }
    assert found["GPU shared"].text == "2 other processes on it"
    driver.answers.clear()
    assert {finding.text for finding in doctor.gpu_findings(nvml.settings(driver, 0))} == {"the driver does not tell"}


@pytest.mark.parametrize(
    ("idle", "busy", "throttle", "verdict", "words"),
    [
        (1500, 1500.0, [], "ok", "it is held"),
        (345, 1980.0, [], "note", "it moves"),
        (345, 1700.0, ["power"], "note", "held back by: power"),
        (1500, 1500.0, ["thermal"], "note", "it was throttled"),
        (1400, 1400.0, [], "note", "it was throttled"),
        (None, 1400.0, [], "note", "not known"),
        (345, None, [], "note", "not known"),
    ],
)
def test_the_clock_of_a_gpu(
    idle: int | None, busy: float | None, throttle: list[str], verdict: str, words: str
) -> None:
    settings = {"sm_mhz": idle, "max_sm_mhz": 1980}
    found = doctor.clock_finding(settings, {"sm_mhz_median": busy, "throttle": throttle}, None)
    assert found.verdict == verdict
    assert words in found.text


def test_a_gpu_that_could_not_be_watched() -> None:
    found = doctor.clock_finding({"sm_mhz": 1, "max_sm_mhz": 2}, None, "Driver Not Loaded")
    assert found == Finding("GPU clock", "note", "not known: Driver Not Loaded")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still but for the calls made under it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


@pytest.mark.parametrize("seconds", [1e-5, 0.004, 0.7])
def test_a_calls_time_is_the_clocks(call: Callable[[float], None], seconds: float) -> None:
    assert peaks._seconds(lambda: call(seconds), CPU) == pytest.approx(seconds)


def test_the_first_call_and_slow_windows_do_not_count(call: Callable[[float], None]) -> None:
    calls = iter(range(1000))

    def warming() -> None:
        number = next(calls)
        call(1.0 if number == 0 or 20 < number < 40 else 0.004)

    assert peaks._seconds(warming, CPU) == pytest.approx(0.004)


def test_peaks_are_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], peak_sides=(16, 32, 64), peak_copied_bytes=4096))
    times = iter([1e-3, 2e-3, 32e-3, 5e-6, 0.5])
    monkeypatch.setattr(peaks, "_seconds", lambda *_: next(times))
    threads = torch.get_num_threads()
    try:
        found = dict(peaks.measure({"device": "cpu", "dtype": "bfloat16", "threads": 1}))
    finally:
        torch.set_num_threads(threads)
    assert found["gemm_flops_per_s"] == 2 * 32**3 / 2e-3
    assert found["operator_s"] == 5e-6
    assert found["copy_bytes_per_s"] == 2 * 4096 / 0.5
    begin, end = found["busy"]
    assert begin <= end


def test_a_product_that_would_take_long_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], peak_sides=(16, 32, 64)))
    times = iter([peaks.SLOWEST_S / 10, peaks.SLOWEST_S / 4])
    monkeypatch.setattr(peaks, "_seconds", lambda *_: next(times))
    assert peaks._gemm_flops_per_s(CPU, torch.float32) == 2 * 32**3 / (peaks.SLOWEST_S / 4)


@pytest.mark.gpu
def test_the_whole_examination_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "LAUNCHES", 2)
    found = by_topic(doctor.examine("cuda:0"))
    assert {"events", "linear", "peak bfloat16", "GPU clock", "noise", "persistence"} <= set(found)
    assert found["events"].verdict == "ok"


class TestInstalled:
    """The package index has another project of our name, and both install a folder `vbench`."""

    def other(self, tmp_path: Path, file: Path) -> PathDistribution:
        about = tmp_path / "vbench-0.1.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vbench\nVersion: 0.1.5\n")
        (about / "RECORD").write_text(f"{os.path.relpath(file, tmp_path)},,\n")
        return PathDistribution(about)

    def test_the_other_project_in_our_folder_is_one_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.other(tmp_path, Path(vbench.__file__))
        said = installed.rival(found)
        assert said
        assert said.startswith("another project, vbench 0.1.5, has files in the same folder")
        assert f"pip uninstall vbench {vbench.DISTRIBUTION}" in said
        monkeypatch.setattr(installed, "distribution", lambda _: found)
        findings = doctor.examine("cpu", quick=True)
        assert [finding for finding in findings if finding.topic == "installed"] == [Finding("installed", "note", said)]

    def test_one_that_lies_elsewhere_is_none_of_ours(self, tmp_path: Path) -> None:
        assert installed.rival(self.other(tmp_path, tmp_path / "vbench" / "__init__.py")) is None

    def test_a_package_that_was_overwritten_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = f"pip uninstall vbench {vbench.DISTRIBUTION}"
        monkeypatch.delattr(vbench, "DISTRIBUTION")
        done = command("models")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert said in done.stderr


def test_it_says_where_compiled_loops_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert doctor.machine_code_finding().text == f"compiled loops are kept in {tmp_path / 'vbench'}"
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    assert doctor.machine_code_finding().verdict == "note"
