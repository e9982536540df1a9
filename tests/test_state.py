"""What is said of a device's state, from an NVML, a kernel and a file system whose truth is known."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fake_nvml import FakeNvml, NVMLError

from vbench.devices import nvml
from vbench.meters import cpu, state

TESTS = Path(__file__).resolve().parent


def looked(driver: FakeNvml, parent: int = -1) -> dict[str, Any]:
    return nvml.sample(driver, "handle", set(), parent)


def test_a_sample_holds_what_the_driver_says() -> None:
    assert looked(FakeNvml()) == {
        "sm_mhz": 1500,
        "mem_mhz": 2600,
        "power_w": 250.5,
        "temp_c": 61,
        "throttle_bits": 1,
        "gpu_percent": 93,
        "own_pids": 0,
        "foreign_pids": 0,
        "foreign_bytes": 0,
    }


@pytest.mark.parametrize(
    ("question", "keys"),
    [
        ("clocks", {"sm_mhz", "mem_mhz"}),
        ("milliwatts", {"power_w"}),
        ("celsius", {"temp_c"}),
        ("bits", {"throttle_bits"}),
        ("percent", {"gpu_percent"}),
        ("running", {"own_pids", "foreign_pids", "foreign_bytes"}),
    ],
)
def test_what_the_driver_does_not_say_is_none_and_the_rest_stays(question: str, keys: set[str]) -> None:
    driver = FakeNvml()
    whole = looked(driver)
    del driver.answers[question]
    assert looked(driver) == {**whole, **dict.fromkeys(keys)}


def test_an_old_driver_is_asked_for_throttling_by_its_own_name() -> None:
    driver = FakeNvml()
    del driver.answers["bits"]
    driver.answers["old_bits"] = 0x40
    assert looked(driver)["throttle_bits"] == 0x40


@contextmanager
def stranger() -> Iterator[int]:
    """A process that is not below this one's child."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def test_processes_below_ours_are_ours_and_others_are_counted_without_a_name() -> None:
    driver = FakeNvml()
    with stranger() as child, stranger() as other:
        driver.answers["running"] = [(child, 100), (other, 2000), (1, None)]
        seen = looked(driver, parent=child)
        assert (seen["own_pids"], seen["foreign_pids"], seen["foreign_bytes"]) == (1, 2, 2000)
        seen = looked(driver, parent=os.getpid())  # both are its children
        assert (seen["own_pids"], seen["foreign_pids"], seen["foreign_bytes"]) == (2, 1, 0)
        assert str(other) not in json.dumps(seen)


def test_a_process_of_ours_that_has_just_ended_is_not_a_stranger() -> None:
    driver, ours = FakeNvml(), set[int]()
    with stranger() as child:
        driver.answers["running"] = [(child, 100)]
        assert nvml.sample(driver, "handle", ours, os.getpid())["own_pids"] == 1
    assert nvml.sample(driver, "handle", ours, os.getpid())["foreign_pids"] == 0


def sample(t: float, **changes: Any) -> dict[str, Any]:
    base = {"t": t, "max_sm_mhz": 1980, **looked(FakeNvml()), "own_pids": 1}
    return {**base, **changes}


def written(file: Path, samples: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in samples))
    return file


def test_a_window_is_the_statistics_of_its_samples(tmp_path: Path) -> None:
    samples = [
        sample(1.0, sm_mhz=300, temp_c=90, throttle_bits=0x40, foreign_pids=5),  # before
        sample(2.0, sm_mhz=1400, temp_c=60, power_w=100.0),
        sample(2.1, sm_mhz=1500, temp_c=65, power_w=None, throttle_bits=0x4, foreign_pids=2, foreign_bytes=7),
        sample(2.2, sm_mhz=1900, temp_c=61, power_w=300.0, throttle_bits=0x1 | 0x2),
        sample(3.0, sm_mhz=300, temp_c=90, throttle_bits=0x40),  # after
    ]
    assert state.window(written(tmp_path / "state", samples), 2.0, 2.2) == {
        "samples": 3,
        "sm_mhz_median": 1500,
        "sm_mhz_min": 1400,
        "max_sm_mhz": 1980,
        "mem_mhz": 2600,
        "temp_c_max": 65,
        "power_w_mean": 200.0,
        "gpu_percent_mean": 93,
        "throttle": ["power"],
        "foreign_pids": 2,
        "foreign_bytes": 7,
        "foreign_reason": None,
    }


def test_every_window_of_a_long_file_holds_its_samples_and_no_other(tmp_path: Path) -> None:
    moments = [i * 0.1 + (i % 7) * 0.01 for i in range(57)]
    # Lines of very different lengths: the bisection goes by bytes.
    file = written(tmp_path / "state", [sample(t, note="x" * (i * i % 301)) for i, t in enumerate(moments)])
    bounds = [-1.0, 0.0, 0.05, 1.0, 2.71, moments[30], moments[-1], 99.0]
    for begin in bounds:
        for end in bounds:
            inside = [t for t in moments if begin <= t <= end]
            assert [each["t"] for each in state._between(file, begin, end)] == inside
    assert state.window(file, 99.0, 100.0) is None
    assert state.window(tmp_path / "nothing", 0.0, 100.0) is None


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = written(tmp_path / "state", [sample(1.0), sample(2.0)])
    with file.open("a") as more:
        more.write(json.dumps(sample(3.0))[:-20])
    found = state.window(file, 0.0, 9.0)
    assert found is not None
    assert found["samples"] == 2


@pytest.mark.parametrize(
    ("bits", "names", "slowed"),
    [
        (0x0, [], False),
        (0x1 | 0x2, [], False),  # idle, and clocks that somebody set
        (0x4, ["power"], False),
        (0x8, ["hw_slowdown"], True),
        (0x10, ["sync_boost"], False),
        (0x20, ["thermal"], True),
        (0x40, ["thermal"], True),
        (0x80, ["power_brake"], True),
        (0x1FF, ["power", "hw_slowdown", "sync_boost", "thermal", "power_brake", "display_clock"], True),
        (None, None, None),
    ],
)
def test_throttling_by_name(tmp_path: Path, bits: int | None, names: list[str] | None, slowed: bool | None) -> None:
    found = state.window(written(tmp_path / "state", [sample(1.0, throttle_bits=bits)]), 0.0, 2.0)
    assert found is not None
    assert found["throttle"] == names
    assert state.throttled(found, None) is slowed
    assert state.throttled(found, 1500 / 0.75) is (slowed or False)  # the clock tells, where the bits do not
    assert state.throttled(found, 1500 / 0.74) is True


def test_nothing_is_said_of_a_window_that_was_not_seen() -> None:
    assert state.throttled(None, 1500.0) is None


@pytest.mark.parametrize(
    ("own", "others", "pids", "nbytes", "reason"),
    [
        (1, 2, 2, 7, None),
        (1, 0, 0, 7, None),
        (0, 0, None, None, "shows no process"),
        (0, 3, 2, None, "lower bound"),
        (None, None, None, None, "shows no process"),
    ],
)
def test_a_container_that_hides_processes_is_not_taken_for_an_empty_gpu(
    tmp_path: Path, own: int | None, others: int | None, pids: int | None, nbytes: int | None, reason: str | None
) -> None:
    lines = [sample(1.0, own_pids=own, foreign_pids=others, foreign_bytes=7 if own else None)]
    found = state.window(written(tmp_path / "state", lines), 0.0, 2.0)
    assert found is not None
    assert (found["foreign_pids"], found["foreign_bytes"]) == (pids, nbytes)
    assert (found["foreign_reason"] is None) == (reason is None)
    assert reason is None or reason in found["foreign_reason"]


def test_watching_writes_until_it_is_told_to_end(tmp_path: Path) -> None:
    left = [True, False, False, False]
    begin = time.monotonic()
    nvml.watch(FakeNvml(), FakeNvml.UUID, tmp_path / "state", lambda _: left.pop(), parent=-1)
    found = state.window(tmp_path / "state", begin, time.monotonic())
    assert found is not None
    assert (found["samples"], found["max_sm_mhz"]) == (4, 1980)


@pytest.mark.parametrize(("works", "device"), [(False, "0"), (True, "1"), (True, "GPU-1")])
def test_a_gpu_that_is_not_there_is_said_so(tmp_path: Path, works: bool, device: str) -> None:
    nvml.watch(FakeNvml(works=works), device, tmp_path / "state", lambda _: True, parent=-1)
    assert state.window(tmp_path / "state", 0.0, time.monotonic()) is None
    assert json.loads((tmp_path / "state").read_text())["error"]


@pytest.fixture
def fake_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `pynvml` child processes import instead of the real one."""
    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "pynvml.py").write_text("from fake_nvml import *\nglobals().update(as_module(FakeNvml()))\n")
    path = os.pathsep.join([str(folder), str(TESTS), str(TESTS.parent)])
    monkeypatch.setenv("PYTHONPATH", path)
    return folder


def wait_for(file: Path, samples: int) -> None:
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_bytes().count(b"\n") >= samples):
        assert time.monotonic() < deadline, "no samples came"
        time.sleep(0.02)


@pytest.mark.usefixtures("fake_driver")
def test_a_process_of_its_own_watches_and_ends(tmp_path: Path) -> None:
    begin = time.monotonic()
    with state.Sampler(FakeNvml.UUID, tmp_path) as sampler:
        wait_for(sampler.file, 3)
        found = sampler.window(begin, time.monotonic())
        assert sampler.reason is None
        process = sampler._process
        assert process.poll() is None
    assert process.returncode == 0
    assert found is not None
    assert found["samples"] >= 3
    assert found["power_w_mean"] == pytest.approx(250.5)


def test_without_a_driver_there_is_a_reason(tmp_path: Path, fake_driver: Path) -> None:
    (fake_driver / "pynvml.py").write_text(
        "from fake_nvml import *\nglobals().update(as_module(FakeNvml(works=False)))"
    )
    with state.Sampler(0, tmp_path) as sampler:
        wait_for(sampler.file, 1)
        assert sampler.window(0.0, time.monotonic()) is None
        assert sampler.reason == "Driver Not Loaded"


def test_a_watcher_that_cannot_start_is_a_reason_too(tmp_path: Path, fake_driver: Path) -> None:
    (fake_driver / "pynvml.py").write_text("raise SystemExit(7)\n")
    with state.Sampler(0, tmp_path) as sampler:
        sampler._process.wait(20)
        assert sampler.reason is not None
        assert "exit code 7" in sampler.reason


@pytest.mark.usefixtures("fake_driver")
def test_the_watcher_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vbench.meters.state import Sampler\n"
        f"with Sampler(0, Path({str(tmp_path)!r})) as sampler:\n"
        "    print(sampler._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    watcher = psutil.Process(int(parent.stdout.readline()))
    wait_for(tmp_path / "gpu-state.jsonl", 1)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):  # it may end between two looks
        while watcher.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the watcher outlived its parent"
            time.sleep(0.02)


def test_the_watching_process_imports_nothing_heavy() -> None:
    code = (
        "import sys, vbench.devices.nvml\n"
        "heavy = {'torch', 'timm', 'pandas', 'numpy', 'scipy', 'psutil', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_settings_of_a_gpu() -> None:
    driver = FakeNvml()
    driver.answers["running"] = [(1, 5)]
    assert nvml.settings(driver, 0) == {
        "persistence": True,
        "ecc": True,
        "mig": False,
        "sm_mhz": 1500,
        "max_sm_mhz": 1980,
        "power_limit_w": 700.0,
        "pids": 1,
    }
    driver.answers.clear()
    assert set(nvml.settings(driver, 0).values()) == {None}
    with pytest.raises(NVMLError):
        nvml.settings(driver, "GPU-1")


class Kernel:
    """Counters of a machine with four cores, that stand still but for what a test adds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.own = 100.0
        self.times = {"user": 50.0, "nice": 0.0, "system": 5.0, "irq": 0.0, "softirq": 0.0, "idle": 9.0, "steal": 1.0}
        self.switches = (3, 4)
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        monkeypatch.setattr(cpu, "monotonic", lambda: self.wall)
        monkeypatch.setattr(cpu, "process_time", lambda: self.own)
        monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**self.times))
        monkeypatch.setattr(
            resource, "getrusage", lambda _: SimpleNamespace(ru_nvcsw=self.switches[0], ru_nivcsw=self.switches[1])
        )


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_a_window_of_the_cpu_tells_own_time_from_others(kernel: Kernel, tmp_path: Path) -> None:
    with cpu.CpuWatch(2, root=tmp_path) as watch:
        kernel.wall += 10.0
        kernel.own += 15.0
        kernel.times = {**kernel.times, "user": 65.0, "system": 14.0, "steal": 3.0, "idle": 100.0}
        kernel.switches = (10, 6)
    found = watch.seen
    assert found["wall_s"] == pytest.approx(10.0)
    assert found["cpu_s"] == pytest.approx(15.0)
    assert found["others_busy_share"] == pytest.approx((15 + 9 - 15) / 40)
    assert found["stolen_share"] == pytest.approx(2 / 40)
    assert (found["threads"], found["cores"]) == (2, 4)
    assert (found["voluntary_switches"], found["involuntary_switches"]) == (7, 2)
    assert found == json.loads(json.dumps(found))


def test_coarse_counters_do_not_make_others_negative(kernel: Kernel, tmp_path: Path) -> None:
    with cpu.CpuWatch(1, root=tmp_path) as watch:
        kernel.wall += 1.0
        kernel.own += 1.0
        kernel.times = {**kernel.times, "user": kernel.times["user"] + 0.99}
    assert watch.seen["others_busy_share"] == 0.0


def test_what_a_cpu_does_not_tell_has_its_reason(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del kernel.times["steal"]
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    with cpu.CpuWatch(1, root=tmp_path) as watch:
        kernel.wall += 1.0
    missing = {key for key, value in watch.seen.items() if value is None}
    assert missing == {"stolen_share", "cgroup_throttled_s", "thermal_throttle_events", "cpu_mhz"}
    assert set(watch.seen["unknown"]) == missing


def test_the_real_counters_are_read() -> None:
    with cpu.CpuWatch(1) as watch:
        time.sleep(0.05)
    found = watch.seen
    assert found["wall_s"] >= 0.05
    assert 0 <= found["others_busy_share"] <= 1
    assert found["voluntary_switches"] >= 1  # the sleep
    assert 1 <= found["usable_cores"] <= found["cores"]
    unknown = {key for key, value in found.items() if value is None}
    assert unknown == set(found["unknown"])


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_quota_is_the_least_of_all_groups_above(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/outer/cpu.stat": "usage_usec 9\nnr_throttled 4\nthrottled_usec 2000000\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
            "sys/fs/cgroup/outer/inner/cpu.stat": "throttled_usec 500000\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 9\n",
        },
    )
    assert cpu.cgroup_quota_cores(tmp_path) == 1.5
    assert cpu.cgroup_throttled_s(tmp_path) == 2.5


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/job\n0::/\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/job/cpu.stat": "nr_periods 1\nthrottled_time 3000000000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu.cgroup_quota_cores(tmp_path) == 0.5
    assert cpu.cgroup_throttled_s(tmp_path) == 3.0


def test_no_quota_and_no_answer_are_two_things(tmp_path: Path) -> None:
    assert cpu.cgroup_quota_cores(tmp_path) is None
    assert cpu.cgroup_throttled_s(tmp_path) is None
    put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert cpu.cgroup_quota_cores(tmp_path) == float("inf")


def test_throttling_during_the_window_is_what_the_counters_grew_by(tmp_path: Path) -> None:
    stat = "sys/fs/cgroup/cpu.stat"
    heat = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    put(tmp_path, {"proc/self/cgroup": "0::/\n", stat: "throttled_usec 1000000\n", heat: "7\n"})
    with cpu.CpuWatch(1, root=tmp_path) as watch:
        put(tmp_path, {stat: "throttled_usec 1250000\n", heat: "9\n"})
    assert watch.seen["cgroup_throttled_s"] == pytest.approx(0.25)
    assert watch.seen["thermal_throttle_events"] == 2


@pytest.mark.gpu
def test_a_gpu_at_work_is_seen(tmp_path: Path) -> None:
    import torch

    uuid = dict(state.identify({"device": "cuda:0"}))["uuid"]
    with state.Sampler(uuid, tmp_path) as sampler:
        wait_for(sampler.file, 1)
        begin = time.monotonic()
        matrix = torch.randn(4096, 4096, device="cuda:0")
        while time.monotonic() - begin < 1.0:
            matrix @ matrix
            torch.cuda.synchronize()
        found = sampler.window(begin, time.monotonic())
    assert found is not None
    assert found["samples"] >= 3
    assert 0 < found["sm_mhz_median"] <= found["max_sm_mhz"]
    assert found["power_w_mean"] > 0
