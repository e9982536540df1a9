"""The table of the kinds of device, and what its rows promise."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fake_nvml import FakeNvml

from vbench.devices import KINDS, NAMES, base, is_out_of_memory, kind_of, nvml, on_host, open_device, resolve
from vbench.errors import DeviceError, UnsupportedError, UsageError


def test_a_kind_gives_what_none_can_do_without() -> None:
    """Whatever the base class answers with NotImplementedError."""
    needed = {name for name, method in vars(base.Device).items() if "NotImplementedError" in code_of(method)}
    assert {"wait", "used_bytes", "peak_bytes", "about"} <= needed
    for name, kind in KINDS.items():
        opened = type(open_device(name))
        assert [method for method in needed if getattr(opened, method) is getattr(base.Device, method)] == [], name
        assert (opened.memory_meter, kind.title) != ("", "")
        assert (opened.captured is not base.Device.captured) == kind.graphs
        assert (opened.uuid is not base.Device.uuid) >= kind.watched


def code_of(method: object) -> str:
    return inspect.getsource(method) if inspect.isfunction(method) else ""


def test_what_a_kind_lacks_is_refused_in_words() -> None:
    device = base.Device("toy:0")
    for call, error in ((device.captured, UnsupportedError), (device.limit_memory, UsageError)):
        with pytest.raises(error, match="toy:0"):
            call(1)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="toy:0 has no UUID"):
        device.uuid()


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("cuda", 2), ("toy", 1)):
        row = replace(KINDS["cuda"], numbered=name == "cuda", present=lambda count=count: [{}] * count)
        monkeypatch.setitem(KINDS, name, row)
    assert NAMES.startswith("auto, cpu, cuda, cuda:N")
    names = ("cpu", "cuda", "cuda:1", "toy", "auto")
    assert [resolve(name) for name in names] == ["cpu", "cuda:0", "cuda:1", "toy", "toy"]
    for name in ("gpu", "cuda:x", "toy:0", "cpu:0", "cpu:"):
        with pytest.raises(DeviceError, match=f"'{name}' is not one of {NAMES}"):
            resolve(name)
    with pytest.raises(DeviceError, match="there is no cuda:2; this machine has 2 NVIDIA GPUs"):
        resolve("cuda:2")


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in KINDS.items():
        monkeypatch.setitem(KINDS, name, row if on_host(name) else replace(row, present=list))
    assert resolve("auto") == "cpu"
    with pytest.raises(DeviceError, match="there is no cuda; this machine has no NVIDIA GPU"):
        resolve("cuda")


def test_on_host() -> None:
    assert [on_host(name) for name in ("cpu", "cuda:0", "toy", "")] == [True, False, False, False]
    with pytest.raises(DeviceError):
        kind_of("toy")


@pytest.mark.parametrize(
    ("error", "oom"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"), True),
        (RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 700 'illegal address'"), False),
        (RuntimeError("out of resource: shared memory, Required: 262144, Hardware limit: 232448"), False),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: operation failed due to a previous error during capture"), False),
        (ValueError("out of memory"), False),
        (MemoryError(), True),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, oom: bool) -> None:
    assert is_out_of_memory(error) is oom


MASK = "CUDA error: operation failed due to a previous error during capture"


@pytest.mark.parametrize(
    ("first", "then", "oom"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(MASK), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), RuntimeError(MASK), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError(MASK), False),
        (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: illegal memory access"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), ValueError("a bug in what handles it"), False),
    ],
)
def test_an_error_that_only_follows_stands_for_the_first(first: Exception, then: Exception, oom: bool) -> None:
    """Python keeps the error that was being handled when another came."""

    def fails() -> None:
        try:
            raise first
        except Exception:
            raise then  # noqa: B904

    with pytest.raises(type(then)) as raised:
        fails()
    assert is_out_of_memory(raised.value) is oom


class TestWhatCudaShows:
    """The rows of `nvml.gpus`, which must be those of CUDA: `--device cuda:0` is the first of them."""

    def names(self, monkeypatch: pytest.MonkeyPatch, visible: str | None, driver: FakeNvml) -> list[str]:
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return [gpu["uuid"] for gpu in nvml.gpus()]

    @pytest.mark.parametrize(
        ("visible", "names"),
        [
            (None, ["GPU-0", "GPU-1", "GPU-22"]),
            ("", []),
            ("-1", []),
            ("2,0", ["GPU-22", "GPU-0"]),
            (" 1 , 0", ["GPU-1", "GPU-0"]),
            ("0,7,1", ["GPU-0"]),
            ("1,1", []),
            ("GPU-2", ["GPU-22"]),
            ("GPU-22,GPU-0", ["GPU-22", "GPU-0"]),
            ("GPU-", []),
            ("MIG-a", ["MIG-a"]),
        ],
    )
    def test_are_those_that_the_environment_names(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
    ) -> None:
        assert self.names(monkeypatch, visible, FakeNvml(uuids=("GPU-0", "GPU-1", "GPU-22"))) == names

    def test_auto_takes_the_cpu_where_no_gpu_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert resolve("auto") == "cpu"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert resolve("auto") == "cuda:0"

    def test_of_a_gpu_in_slices_is_one_slice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeNvml()
        driver.answers["mig"] = 1
        assert self.names(monkeypatch, None, driver) == ["MIG-a"]
        assert self.names(monkeypatch, "0", driver) == ["MIG-a"]
        assert self.names(monkeypatch, "MIG-b", driver) == ["MIG-b"]

    def test_may_have_no_memory_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeNvml()
        del driver.answers["memory"]
        assert self.names(monkeypatch, None, driver) == ["GPU-0"]
        assert (nvml.gpus()[0]["memory_bytes"], nvml.gpus()[0]["free_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "uuid"), [("NVIDIA H200", "GPU-7"), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-7"), ("MIGHTY", "GPU-7")]
)
def test_a_slice_of_a_gpu_has_a_name_of_its_kind(monkeypatch: pytest.MonkeyPatch, name: str, uuid: str) -> None:
    about = SimpleNamespace(name=name, uuid="7")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    assert open_device("cuda:0").uuid() == uuid
