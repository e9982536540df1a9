"""The table of the kinds of device, and what its rows promise."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from vbench.devices import KINDS, NAMES, base, is_out_of_memory, kind_of, on_host, open_device, resolve
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
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
        (MemoryError(), True),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, oom: bool) -> None:
    assert is_out_of_memory(error) is oom
