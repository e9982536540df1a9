"""ROCm, Apple's mps and Intel's xpu on stand-ins: what each is called, counts, lacks and refuses."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from fake_gpus import GIB, FakeMps, FakeXpu, be_rocm
from torch import nn

import vbench
from vbench.cluster import local
from vbench.devices import (
    KINDS,
    ROCM,
    amd,
    every_kind,
    is_device,
    is_lacking,
    is_lost,
    is_out_of_memory,
    kind_of,
    open_device,
    resolve,
    shown,
    torch_build,
)
from vbench.devices.mps import Mps
from vbench.devices.xpu import Xpu
from vbench.doctor import examine as doctor
from vbench.errors import DeviceError, UnsupportedError, UsageError
from vbench.kernels.fused import launch
from vbench.kernels.registry import forms, missing
from vbench.meters import memory
from vbench.plan import Case
from vbench.reports import devices
from vbench.verify import Extent, checks

DEVICES = Path(vbench.__file__).parent / "devices"


@pytest.mark.parametrize("file", ["mps.py", "xpu.py", "rocm.py", "amd.py", "queued.py", "cuda.py"])
def test_only_functions_of_torch_are_called_that_exist(file: str) -> None:
    """`torch.mps` and `torch.xpu` can be imported without such a device."""
    asked = set()
    for node in ast.walk(ast.parse((DEVICES / file).read_text())):
        if isinstance(node, ast.Attribute) and (match := re.match(r"torch(\.\w+)+", ast.unparse(node))):
            asked.add(match[0])
    for name in asked:
        found: Any = torch
        for part in name.split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)
    assert asked


class TestRocm:
    """Torch's name is "cuda"; nothing else is CUDA's."""

    def test_is_called_what_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        be_rocm(monkeypatch)
        monkeypatch.setitem(sys.modules, "pynvml", None)  # asking it would be an ImportError
        assert kind_of("cuda:0") is ROCM
        device = open_device("cuda:0")
        about = device.about()
        assert (about["name"], about["vendor"], about["hip"]) == ("AMD Instinct MI300X", "AMD", "6.4.43482")
        assert "cuda" not in about
        assert device.tf32() is None
        with pytest.raises(DeviceError, match="has no UUID"):
            device.uuid()
        assert "CUDA" not in f"{device.memory_meter}{device.process_bytes(0)}{ROCM.title}"
        monkeypatch.setattr(amd, "NODES", "nowhere")
        with pytest.raises(DeviceError, match="there is no cuda; this machine has no AMD GPU"):
            resolve("cuda")

    def test_counts_memory_and_time_as_torch_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from vbench.devices.rocm import Rocm

        with be_rocm(monkeypatch):
            monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: pytest.fail("its clock differs between GPUs"))
            device = Rocm("cpu")
            assert device.begin_memory() > 0
            assert all(ms >= 0 for ms in device.samples(lambda: torch.ones(4), 3))
            assert device.sample_after(lambda: None, lambda: torch.ones(4)) >= 0
            device.worker()(1)

    def test_energy_is_amdsmis(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = {"energy_accumulator": 2_000_000, "counter_resolution": 15.3, "timestamp": 1}
        smi: Any = SimpleNamespace(amdsmi_get_energy_count=lambda gpu: said if gpu == "handle of cuda:0" else None)
        be_rocm(monkeypatch, amdsmi=smi)
        counter = open_device("cuda:0").energy_counter()
        assert (counter.read_j(), counter.name) == (pytest.approx(30.6), "amdsmi, the whole GPU")

        def refuses(gpu: str) -> None:
            raise RuntimeError("AMDSMI_STATUS_NOT_SUPPORTED")

        smi.amdsmi_get_energy_count = refuses
        with pytest.raises(OSError, match="counts no energy on this GPU: AMDSMI_STATUS_NOT_SUPPORTED"):
            counter.read_j()

    def test_energy_is_unknown_without_amdsmi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        be_rocm(monkeypatch)
        with pytest.raises(OSError, match="known by amdsmi alone, which is not installed"):
            open_device("cuda:0").energy_counter()

    def test_kernels_run_without_what_its_compiler_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.ones(1)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        assert (launch.options(4, 1, 255).get("maxnreg"), launch.precision(x)) == (255, "tf32x3")
        be_rocm(monkeypatch)
        assert (launch.options(4, 1, 255).get("maxnreg"), launch.precision(x)) == (None, "ieee")
        assert (
            Case("vig_t", 224, 224, "parallel", None, 1, "float32", "cuda:0", backend="cudagraph").unsupported is None
        )

    @pytest.mark.parametrize(
        ("given", "places"),
        [
            ({}, ["0", "1"]),
            ({"HIP_VISIBLE_DEVICES": "1"}, ["1"]),
            ({"CUDA_VISIBLE_DEVICES": "1,0"}, ["1", "0"]),
            ({"HIP_VISIBLE_DEVICES": "0,7,1"}, ["0"]),
            ({"ROCR_VISIBLE_DEVICES": "GPU-00000000000000ff"}, ["0"]),
            ({"HIP_VISIBLE_DEVICES": ""}, []),
        ],
    )
    def test_the_kernel_lists_the_gpus(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], places: list[str]
    ) -> None:
        for variable in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in given.items():
            monkeypatch.setenv(variable, value)
        for node, simds in enumerate((0, 1216, 384)):
            folder = tmp_path / amd.NODES / str(node)
            (folder / "mem_banks/0").mkdir(parents=True)
            version = 90402 if node == 1 else 110000
            lines = f"simd_count {simds}\ngfx_target_version {version}\nunique_id {254 + node}\n"
            (folder / "properties").write_text(lines)
            (folder / "mem_banks/0/properties").write_text(f"size_in_bytes {2**30 * node}\nflags x\n")
        found = amd.gpus(tmp_path)
        assert [gpu["uuid"] for gpu in found] == places
        if not given:
            names = [(gpu["name"], gpu["memory_bytes"], gpu["free_bytes"]) for gpu in found]
            assert names == [("AMD gfx942", GIB, None), ("AMD gfx1100", 2 * GIB, None)]


class TestMps:
    def test_the_peak_is_the_most_that_was_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = FakeMps(monkeypatch)
        device = Mps("mps")
        monkeypatch.setattr(device, "begin_memory", lambda: 0)
        fake.used = GIB
        base = memory.baseline(device)
        seen = memory.watch(lambda: fake.take(3 * GIB), device, base, peak_call=3, repeat_below_s=60.0)
        assert (seen.peak_bytes, seen.alive_bytes, seen.growth_bytes) == (3 * GIB, 0, 0)
        assert seen.reserved_bytes == 4 * GIB
        assert "a shorter peak is missed" in seen.method
        assert fake.emptied == 3
        assert seen.process_bytes is None

    def test_what_may_still_be_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake, device = FakeMps(monkeypatch), Mps("mps")
        fake.used, fake.held = 2 * GIB, 3 * GIB
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * GIB))
        assert device.free_bytes() == 5 * GIB
        device.limit_memory(5 * GIB)
        assert fake.fraction == 0.5
        with pytest.raises(UsageError, match="mps has 16 GiB in all; give less"):
            device.limit_memory(40 * GIB)
        assert len(device.samples(lambda: None, 2)) == 2

    def test_is_named_or_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeMps(monkeypatch)
        assert Mps("mps").about()["name"] == "Apple M4"
        FakeMps(monkeypatch, available=False)
        with pytest.raises(DeviceError, match="is built without Apple's MPS"):
            Mps("mps").about()

    def test_a_mac_has_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert shown.apple() == []
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(shown.platform, "machine", lambda: "arm64")
        monkeypatch.setattr(shown.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
        assert [gpu["driver"] for gpu in shown.apple()] == ["of macOS 15.1"]
        monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], present=list))
        assert (resolve("mps"), resolve("auto")) == ("mps", "cpu")  # we have not run on one

    def test_checks_compare_with_the_truth_of_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], float64=False))
        placed: list[torch.dtype] = []
        put = checks.on

        def on(device: str, inputs: Any) -> Any:
            placed.extend(value.dtype for value in inputs.values())
            return put(device, inputs)

        monkeypatch.setattr(checks, "on", on)
        made = list(checks.operator_checks("mingru", extent=Extent(tokens=20, brief=True)))
        assert {check.kind for check in made} >= {"float32", "half", "grad", "split"}
        assert "float64" not in {check.kind for check in made}
        assert torch.float64 not in placed
        assert [check for check in made if not check.error <= check.bound] == []


class TestXpu:
    def test_counts_memory_and_time_as_torch_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "xpu", "20250101")
        with FakeXpu(monkeypatch) as fake:
            device = Xpu("cpu")
            monkeypatch.setattr(memory, "open_device", lambda name: device)
            device.select()
            base = memory.baseline(device)
            net = nn.Linear(256, 256, bias=False).requires_grad_(False)
            found = memory.measure(net, torch.ones(256, 256), base)
            assert found["weights_bytes"] == 2**18
            assert found["peak_bytes"] >= 3 * 2**18
            assert found["reserved_bytes"] >= found["peak_bytes"]
            assert found["method"] == "torch's allocator on XPU; peak of call 3"
            assert len(device.samples(lambda: None, 3)) == 3
            assert device.free_bytes() >= 10 * GIB
            device.limit_memory(3 * GIB)
            assert fake.fraction is not None
            assert 0.25 <= fake.fraction < 0.26
            with pytest.raises(UsageError, match="has 12 GiB in all"):
                device.limit_memory(13 * GIB)
            about = Xpu("xpu:0").about()
            assert (about["vendor"], about["xpu"]) == ("Intel", "20250101")
            with pytest.raises(DeviceError, match="cannot use xpu:1"):
                Xpu("xpu:1").about()

    def test_is_there_where_torch_is_built_for_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for place, vendor, kind in (
            ("0", "0x8086", "0x030000"),
            ("1", "0x10de", "0x030000"),
            ("2", "0x8086", "0x0c0330"),
        ):
            folder = tmp_path / shown.PCI / f"0000:0{place}:00.0"
            folder.mkdir(parents=True)
            for name, text in (("vendor", vendor), ("class", kind), ("device", "0xe20b")):
                (folder / name).write_text(text + "\n")
        assert shown.intel(tmp_path) == []
        with pytest.raises(DeviceError, match="this torch is built without xpu"):
            resolve("xpu")
        monkeypatch.setattr(torch.version, "xpu", "20250101")
        assert [(gpu["name"], gpu["uuid"]) for gpu in shown.intel(tmp_path)] == [("Intel GPU 0xe20b", "0")]


def test_torch_need_not_be_imported_to_know_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert torch_build.built_for("cuda") == torch.version.cuda
    assert torch_build.built_for("hip") is None


@pytest.mark.parametrize("name", ["mps", "xpu:0"])
def test_what_they_lack_is_said_without_cudas_words(name: str) -> None:
    device, kind = open_device(name), kind_of(name)
    said = []
    for call, error in (
        (device.captured, UnsupportedError),
        (device.uuid, DeviceError),
        (device.energy_counter, OSError),
    ):
        with pytest.raises(error) as raised:
            call(*[len] * (call == device.captured))
        said.append(str(raised.value))
    case = Case("vig_t", 224, 224, "parallel", None, 1, "float32", name, backend="cudagraph")
    said += [case.unsupported or "", device.memory_meter, device.process_bytes(0)[1] or "", kind.title, kind.memory]
    assert not any(word in text for text in said for word in ("CUDA", "NVIDIA", "NVML")), said
    assert missing("gla", "fused", name) == f"gla fused runs on cuda, not on {name.partition(':')[0]}"
    assert forms("gla", name) == [form for form in forms("gla", "cpu") if form != "compiled"]


OUT_OF_MEMORY = (
    "MPS backend out of memory (MPS allocated: 20.14 GiB, other allocations: 384.00 KiB, max allowed: 20.13 GiB)",
    "Invalid buffer size: 67.50 GiB",
    "XPU out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 16.50 GiB",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "HIP error: out of memory",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "Triton Error [HIP]:  Code: 2, Messsage: out of memory",
)
LOST = ("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)", "HIP error: an illegal memory access")
LACKING = (
    "The operator 'aten::foo' is not currently implemented for the MPS device.",
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please use float32",
    "Could not run 'aten::foo' with arguments from the 'XPU' backend.",
    "Required aspect fp64 is not supported on the device",
)


@pytest.mark.parametrize("words", [*OUT_OF_MEMORY, *LOST, *LACKING])
def test_errors_mean_what_their_words_say(words: str) -> None:
    error = RuntimeError(words)
    found = is_out_of_memory(error), is_lost(error), is_lacking(error)
    assert found[0] == (words in OUT_OF_MEMORY)
    assert found[2] == (words in LACKING)
    assert found[1] >= (words in LOST)
    assert not is_lacking(ValueError(words))


def test_names_that_people_give() -> None:
    for name, meant in (
        ("rocm", "cuda"),
        ("HIP:1", "cuda:1"),
        ("metal", "mps"),
        ("intel:1", "xpu:1"),
        ("mps:0", "mps"),
    ):
        assert is_device(name)
        with pytest.raises(DeviceError, match=f"did you mean {meant}"):
            resolve(name)


def test_a_slot_sees_its_gpu_by_the_variable_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    be_rocm(monkeypatch)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("vbench.devices.ROCM", replace(ROCM, present=lambda: [{"uuid": "3"}]))
    assert local.slots(1, "cuda:0", 1) == [local.Slot((0, 1), "3", "HIP_VISIBLE_DEVICES")]


def test_the_doctor_says_what_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "vbench has not run on an Intel GPU yet" in doctor.kind_words("xpu:0")
    assert doctor.kind_words("cuda:0") == ""
    be_rocm(monkeypatch)
    assert doctor.kind_words("cuda:0").startswith(
        "; torch, built for ROCm, calls it cuda; vbench has not run on an AMD"
    )
    assert doctor.energy_finding({"counter": "RAPL"}, "cpu").text == "counted by RAPL"
    assert doctor.energy_finding({"reason": "nothing"}, "mps").verdict == "note"


def test_each_kind_says_what_its_class_does() -> None:
    """The columns of the table of devices, held to the classes."""
    from vbench.devices import base

    for title, kind in every_kind().items():
        module, _, name = kind.device.partition(":")
        of = getattr(__import__(module, fromlist=[name]), name)
        assert (of.captured is not base.Device.captured) == kind.graphs, title
        assert (of.limit_memory is not base.Device.limit_memory) == bool(kind.limited), title
        assert (of.energy_counter is not base.Device.energy_counter) == bool(kind.energy), title
        assert (of.samples is base.Device.samples) == (kind.clock == "the clock of the host"), title


def test_the_page_of_devices_is_what_the_tables_say_now() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "devices.md").read_text(encoding="utf-8")
    assert text == devices.page()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    for title in ("AMD GPU (ROCm)", "Apple GPU", "Intel GPU"):
        assert lines[title].endswith("| not run by us yet |")
        assert "NVML" not in lines[title]
    assert "Triton" in lines["AMD GPU (ROCm)"]
    assert "Triton" not in lines["Apple GPU"] + lines["Intel GPU"]
