"""A stand-in for the module `pynvml`: one GPU whose every figure a test can set, or take away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    pass


class FakeNvml:
    """`answers` maps a question to its value; a question that is not in it is not supported.

    All GPUs answer alike. If the answer to "mig" is 1, they are in slices, `SLICES`.
    """

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_FEATURE_ENABLED = 1
    NVML_DEVICE_MIG_ENABLE = 1
    UUID = "GPU-0"
    SLICES = ("MIG-a", "MIG-b")

    def __init__(self, *, works: bool = True, uuids: tuple[str, ...] = (UUID,)) -> None:
        self.works, self.uuids = works, uuids
        self.answers: dict[str, Any] = {
            "clocks": {self.NVML_CLOCK_SM: 1500, self.NVML_CLOCK_MEM: 2600},
            "max_sm": 1980,
            "milliwatts": 250_500,
            "celsius": 61,
            "bits": 0x1,
            "percent": 93,
            "running": [],
            "millijoules": 5_000,
            "ecc": 1,
            "mig": 0,
            "persistence": 1,
            "limit": 700_000,
            "memory": SimpleNamespace(total=2**37, free=2**36),
            "driver": "580.1",
        }

    def _answer(self, key: str) -> Any:
        if key not in self.answers:
            raise NVMLError("Not Supported")
        return self.answers[key]

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.works:
            raise NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return self._answer("driver")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> list[str]:  # noqa: N802
        if index >= len(self.uuids):
            raise NVMLError("Invalid Argument")
        return [self.uuids[index]]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> list[str]:  # noqa: N802
        if uuid not in (*self.uuids, *self.SLICES):
            raise NVMLError("Not Found")
        return [uuid]

    def nvmlDeviceGetUUID(self, gpu: list[str]) -> str:  # noqa: N802
        return gpu[0]

    def nvmlDeviceGetName(self, gpu: list[str]) -> str:  # noqa: N802
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, _: list[str]) -> Any:  # noqa: N802
        return self._answer("memory")

    def nvmlDeviceGetMaxMigDeviceCount(self, _: list[str]) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _: list[str], index: int) -> list[str]:  # noqa: N802
        if not 1 <= index <= len(self.SLICES):  # the numbers of slices may have holes
            raise NVMLError("Not Found")
        return [self.SLICES[index - 1]]

    def nvmlDeviceGetClockInfo(self, _: str, clock: int) -> int:  # noqa: N802
        return self._answer("clocks")[clock]

    def nvmlDeviceGetMaxClockInfo(self, _: str, clock: int) -> int:  # noqa: N802
        assert clock == self.NVML_CLOCK_SM
        return self._answer("max_sm")

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:  # noqa: N802
        return self._answer("milliwatts")

    def nvmlDeviceGetTemperature(self, _: str, sensor: int) -> int:  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return self._answer("celsius")

    def nvmlDeviceGetCurrentClocksEventReasons(self, _: str) -> int:  # noqa: N802
        return self._answer("bits")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: str) -> int:  # noqa: N802
        return self._answer("old_bits")

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=self._answer("percent"))

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=nbytes) for pid, nbytes in self._answer("running")]

    def nvmlDeviceGetTotalEnergyConsumption(self, _: str) -> int:  # noqa: N802
        return self._answer("millijoules")

    def nvmlDeviceGetEccMode(self, _: str) -> list[int]:  # noqa: N802
        return [self._answer("ecc")] * 2

    def nvmlDeviceGetMigMode(self, _: str) -> list[int]:  # noqa: N802
        return [self._answer("mig")] * 2

    def nvmlDeviceGetPersistenceMode(self, _: str) -> int:  # noqa: N802
        return self._answer("persistence")

    def nvmlDeviceGetEnforcedPowerLimit(self, _: str) -> int:  # noqa: N802
        return self._answer("limit")


def as_module(fake: FakeNvml) -> dict[str, Any]:
    """What a module of that name would hold; for a process that imports it."""
    return {name: getattr(fake, name) for name in dir(fake) if name.lower().startswith("nvml")}
