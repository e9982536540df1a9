"""Joules of an image, on devices whose power is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_nvml import FakeNvml

from vbench.devices import base, nvml, open_device
from vbench.devices.cpu import RaplCounter
from vbench.meters import energy
from vbench.sweeps.loop import ENERGY_LIMIT_S


class Device:
    """Draws 100 W idle and 300 W at work; its counter moves once a step, and time passes only when told."""

    name = "made up"

    def __init__(self, step_s: float = 0.01) -> None:
        self.now = self.joules = self.shown = 0.0
        self._step_s, self._steps = step_s, 0

    def read_j(self) -> float:
        return self.shown

    def clock(self) -> float:
        return self.now

    def idle(self, seconds: float) -> None:
        self._pass(seconds, 100.0)

    def work(self, seconds: float) -> int:
        """300 W, 50 images a second."""
        self._pass(seconds, 300.0)
        return round(50 * seconds)

    def _pass(self, seconds: float, watts: float) -> None:
        end = self.now + seconds
        while (edge := (self._steps + 1) * self._step_s) <= end + 1e-12:
            self.joules += watts * (edge - self.now)
            self.now, self.shown, self._steps = edge, self.joules, self._steps + 1
        self.joules += watts * max(0.0, end - self.now)
        self.now = end


def measured(device: Device, run_for: Callable[[float], int] | None = None) -> dict[str, object]:
    return energy.measure(run_for or device.work, device, device.clock, device.idle)


@pytest.mark.parametrize(("step_s", "least_s"), [(0.01, 2.0), (0.002, 2.0), (0.05, 5.0)])
def test_known_power_gives_known_joules(step_s: float, least_s: float) -> None:
    found = measured(Device(step_s))
    assert found["reason"] is None
    assert found["counter_step_s"] == pytest.approx(step_s)
    assert found["idle_w"] == pytest.approx(100.0)
    assert found["window_s"] == pytest.approx(1.05 * least_s)
    assert found["gross_j_per_image"] == pytest.approx(300 / 50, rel=0.02)  # images are whole
    gross = 300 * 1.05 * least_s / found["images"]  # type: ignore[operator]
    assert found["gross_j_per_image"] == pytest.approx(gross)
    assert found["net_j_per_image"] == pytest.approx(gross * 200 / 300)


def test_a_counter_of_100_ms_needs_less_than_what_a_sweep_allows_for_energy() -> None:
    """NVML's counter: 20 steps to time it, 2 s idle, and 105 steps of work."""
    device = Device(0.1)
    found = measured(device)
    assert (found["reason"], found["window_s"]) == (None, pytest.approx(10.5))
    assert 14 < device.now < ENERGY_LIMIT_S


def test_a_counter_that_is_too_coarse_is_a_reason() -> None:
    device = Device(1.0)
    found = measured(device, lambda _: pytest.fail("it ran"))
    assert found["reason"] == "this counter moves every 1 s: 100 steps take 100 s"
    assert device.now < ENERGY_LIMIT_S


def test_work_that_ends_between_two_steps_is_not_rounded_to_one() -> None:
    device = Device(0.01)
    found = measured(device, lambda seconds: device.work(seconds + 0.0037))
    assert found["window_s"] == pytest.approx(2.1037)
    exact = 300 * 2.1037 / found["images"]  # type: ignore[operator]
    assert found["gross_j_per_image"] == pytest.approx(exact, rel=2e-4)  # a step is 5e-3, a look at it 5e-5


def test_a_window_that_is_too_short_is_no_result() -> None:
    device = Device(0.05)
    found = measured(device, lambda _: device.work(4.9))
    assert (found["gross_j_per_image"], found["net_j_per_image"]) == (None, None)
    assert found["reason"] == "the work took 4.90 s; this counter needs 5.00 s"
    assert found["idle_w"] == pytest.approx(100.0)


def test_no_image_is_no_result() -> None:
    device = Device()
    found = measured(device, lambda seconds: device.work(seconds) * 0)
    assert found["gross_j_per_image"] is None
    assert found["reason"] == "no image was finished in the window"


def test_without_a_counter_nothing_is_run() -> None:
    found = energy.measure(lambda _: pytest.fail("it ran"), "there is none")
    assert set(found) == set(energy.FIELDS)
    assert found.pop("reason") == "there is none"
    assert set(found.values()) == {None}


def test_a_counter_that_stands_still_is_no_result() -> None:
    device = Device(1e9)
    found = measured(device)
    assert found["reason"] == "the energy counter did not move in 2 s"
    assert found["gross_j_per_image"] is None


def test_a_counter_that_runs_backwards_or_breaks_is_no_result() -> None:
    class Reset(Device):
        def work(self, seconds: float) -> int:
            images = super().work(seconds)
            self.joules = self.shown = 0.0
            return images

    class ResetInAStep(Reset):
        def work(self, seconds: float) -> int:
            shown = self.shown + super().work(seconds)
            self.shown = shown
            return round(shown)

    assert measured(Reset())["reason"] == "the energy counter ran backwards"
    assert measured(ResetInAStep())["reason"] == "the energy counter ran backwards"

    class Broken(Device):
        def read_j(self) -> float:
            if self.now > 3:
                raise OSError("it broke")
            return super().read_j()

    assert measured(Broken())["reason"] == "it broke"


def test_nvml_counts_in_millijoules() -> None:
    driver = FakeNvml()
    counter = nvml.EnergyCounter(FakeNvml.UUID, driver)
    assert counter.read_j() == 5.0
    del driver.answers["millijoules"]
    with pytest.raises(OSError, match="counts no energy on this GPU: Not Supported"):
        counter.read_j()


@pytest.mark.parametrize(
    ("works", "uuid", "reason"), [(False, FakeNvml.UUID, "Driver Not Loaded"), (True, "GPU-1", "Not Found")]
)
def test_a_gpu_that_cannot_be_asked_is_a_reason(works: bool, uuid: str, reason: str) -> None:
    with pytest.raises(OSError, match=f"NVML: {reason}"):
        nvml.EnergyCounter(uuid, FakeNvml(works=works))


def test_a_gpu_without_a_counter_is_a_reason() -> None:
    driver = FakeNvml()
    del driver.answers["millijoules"]
    with pytest.raises(OSError, match="NVML counts no energy on this GPU: Not Supported"):
        nvml.EnergyCounter(FakeNvml.UUID, driver)


def test_a_device_without_a_counter_is_a_reason() -> None:
    assert energy.counter_for(base.Device("made up")) == "no energy counter is known for this kind of device"


def domain(powercap: Path, folder: str, name: str, uj: int, end: int = 1_000_000) -> Path:
    here = powercap / folder
    here.mkdir(parents=True, exist_ok=True)
    (here / "name").write_text(name + "\n")
    (here / "max_energy_range_uj").write_text(f"{end}\n")
    (here / "energy_uj").write_text(f"{uj}\n")
    return here / "energy_uj"


def test_rapl_adds_packages_and_follows_a_register_that_starts_over(tmp_path: Path) -> None:
    one = domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    two = domain(tmp_path, "intel-rapl:1", "package-1", 100, end=5_000_000)
    part = domain(tmp_path, "intel-rapl:0:0", "core", 0)
    whole = domain(tmp_path, "intel-rapl:2", "psys", 0)
    counter = RaplCounter(tmp_path)
    assert counter.read_j() == 0.0
    for file, uj in ((one, 950_000), (two, 200_100), (part, 77), (whole, 88)):
        file.write_text(str(uj))
    assert counter.read_j() == pytest.approx(0.25)
    one.write_text("30000")  # past its end: 50 000 to the end, 30 000 beyond
    assert counter.read_j() == pytest.approx(0.33)
    assert counter.read_j() == pytest.approx(0.33)


def test_a_machine_without_rapl_is_a_reason(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0:0", "core", 5)
    with pytest.raises(OSError, match="this machine shows no RAPL energy counter of its CPU packages"):
        RaplCounter(tmp_path)


def test_counters_for_root_only_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = domain(tmp_path, "intel-rapl:0", "package-0", 5), Path.read_text

    def guarded(path: Path) -> str:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_text", guarded)  # the tests may run as root, to whom nothing is forbidden
    with pytest.raises(OSError, match="the RAPL energy counters may be read by root only"):
        RaplCounter(tmp_path)


@pytest.mark.gpu
def test_joules_on_the_device() -> None:
    import torch

    matrix = torch.randn(4096, 4096, device="cuda:0")

    def run_for(seconds: float) -> int:
        begin, done = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            matrix @ matrix
            torch.cuda.synchronize()
            done += 1
        return done

    found = energy.measure(run_for, energy.counter_for(open_device("cuda:0")))
    assert found["reason"] is None
    assert 0 < found["net_j_per_image"] < found["gross_j_per_image"]
