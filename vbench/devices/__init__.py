"""The kinds of device that cells run on: one row of a table each, and one class each that uses such a device.

`KINDS` says what a kind can do, and no torch is needed to ask it. `open_device` imports the class, and torch with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vbench.devices import amd, nvml, shown
from vbench.devices.torch_build import built_for
from vbench.errors import DeviceError

if TYPE_CHECKING:
    from vbench.devices.base import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of a kind of device before one is used; sizes and times that suit most accelerators are given."""

    device: str  # "module:class" of its `Device`
    title: str  # what a message calls one such device
    present: Callable[[], list[dict[str, Any]]]  # those of this machine, each as `nvml.gpus` describes it
    library: str | None = None  # as in `built_for`: what torch must be built for before one counts as present
    numbered: bool = True  # whether there may be several: "cuda:1" is the second
    watched: bool = False  # whether `nvml` can watch its clocks, its power and who else uses it
    graphs: bool = False  # whether calls can be recorded and replayed: the back end "cudagraph"
    tf32: bool = False  # whether float32 products can be rounded to TF32
    float64: bool = True  # whether it computes in float64, in which the truth of a check is
    tried: bool = True  # whether we have run on one; `auto` takes no other
    visible: str | None = None  # the variable that shows a process one of several: "uuid" of `present` is its value

    # In the table of what each can do.
    clock: str = "events of the device"
    memory: str = "torch's allocator"
    limited: str = "torch's allocator"  # what keeps --memory; empty: it cannot be limited
    energy: str = ""  # what counts it; empty: nothing that we ask

    out_of_memory: tuple[tuple[str, ...], ...] = ()  # words of errors by which libraries say that memory ran out
    masking: tuple[str, ...] = ()  # words of errors that only follow from the one that was being handled
    lost: tuple[str, ...] = ()  # words of errors after which the device answers this process no more
    lacking: tuple[tuple[str, ...], ...] = ()  # words by which torch says that it cannot do something there

    # What `vbench kernels bench` takes unless told otherwise.
    bench_tokens: tuple[int, ...] = (196, 1024, 4096, 16384, 65536)
    bench_batches: tuple[int, ...] = (1, 8, 64)
    bench_dtype: str = "bfloat16"
    bench_caches: tuple[str, ...] = ("warm", "cold")
    bench_sample_s: float = 0.04  # of samples, for each call and setting
    bench_call_s: float = 0.25  # the longest call that is timed

    # What `vbench doctor` takes.
    noise_px: int = 224  # the image of the cell that is measured again and again; small: only the scatter is wanted
    peak_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    peak_window_s: float = 0.05  # of calls that are timed as one
    peak_sides: tuple[int, ...] = (2048, 4096, 8192)  # of the square matrices
    peak_copied_bytes: int = 2**30  # far larger than any cache


KINDS = {  # `auto` takes the last kind that this machine has
    "cpu": Kind(
        device="vbench.devices.cpu:Cpu",
        title="CPU",
        present=lambda: [{}],
        numbered=False,
        clock="the clock of the host",
        memory="resident set of the process",
        limited="Linux (RLIMIT_DATA)",
        energy="RAPL, all packages",
        out_of_memory=(("DefaultCPUAllocator: ", "memory"), ("std::bad_alloc",)),
        bench_tokens=(196, 1024, 4096, 16384),
        bench_batches=(1,),
        bench_dtype="float32",
        bench_caches=("warm",),
        bench_sample_s=0.3,
        bench_call_s=15.0,
        noise_px=96,
        peak_dtypes=("float32",),
        peak_window_s=0.002,  # so short that some lie between two turns of the scheduler
        peak_sides=(512, 1024, 2048, 4096),
        peak_copied_bytes=2**28,
    ),
    "cuda": Kind(
        device="vbench.devices.cuda:Cuda",
        title="NVIDIA GPU",
        present=nvml.gpus,
        watched=True,
        graphs=True,
        tf32=True,
        visible="CUDA_VISIBLE_DEVICES",
        energy="NVML, the whole GPU",
        lost=("CUDA error",),
        out_of_memory=(
            ("CUDA error: out of memory",),
            ("CUDA driver error: out of memory",),
            ("CUBLAS_STATUS_ALLOC_FAILED",),
            ("CUSOLVER_STATUS_ALLOC_FAILED",),
            ("CUDNN_STATUS_ALLOC_FAILED",),  # until cuDNN 8
            ("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",),  # from cuDNN 9 on
            ("CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",),
            ("Triton Error [CUDA]: out of memory",),
            ("Cuda failure", "out of memory"),  # NCCL
        ),
        masking=("captur",),  # the end of a recording that failed: "... due to a previous error during capture"
    ),
    "mps": Kind(
        device="vbench.devices.mps:Mps",
        title="Apple GPU",
        present=shown.apple,
        numbered=False,
        float64=False,
        tried=False,
        memory="torch's allocator, looked at every ms",
        out_of_memory=(("MPS backend out of memory",), ("Invalid buffer size: ",)),  # larger than Metal's largest
        lost=("command buffer exited with error",),
        lacking=(("is not currently implemented for the MPS device",), ("MPS framework doesn't support",)),
        peak_dtypes=("float32", "float16"),
    ),
    "xpu": Kind(
        device="vbench.devices.xpu:Xpu",
        title="Intel GPU",
        present=shown.intel,
        library="xpu",
        tried=False,
        visible="ZE_AFFINITY_MASK",
        out_of_memory=(
            ("XPU out of memory",),
            ("UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",),
            ("UR_RESULT_ERROR_OUT_OF_HOST_MEMORY",),
        ),
        lost=("UR_RESULT_ERROR_DEVICE_LOST",),
        lacking=(("Could not run 'aten::", "'XPU' backend"), ("Required aspect fp64 is not supported",)),
    ),
}
ROCM = Kind(  # what torch built for ROCm calls "cuda"
    device="vbench.devices.rocm:Rocm",
    title="AMD GPU",
    present=amd.gpus,
    graphs=True,
    tried=False,
    visible="HIP_VISIBLE_DEVICES",
    energy="amdsmi, the whole GPU",
    out_of_memory=(
        ("HIP error: out of memory",),
        ("hipErrorOutOfMemory",),
        ("HIPBLAS_STATUS_ALLOC_FAILED",),
        ("miopenStatusAllocFailed",),
        ("Triton Error [HIP]", "out of memory"),
    ),
    masking=("captur",),
    lost=("HIP error",),
)
MEANT = {"rocm": "cuda", "hip": "cuda", "amd": "cuda", "metal": "mps", "apple": "mps", "intel": "xpu", "sycl": "xpu"}
NAMES = ", ".join(["auto", *(name for kind, row in KINDS.items() for name in (kind, f"{kind}:N")[: 1 + row.numbered])])


def kind_of(device: str) -> Kind:
    """The row of a device's kind, "cuda" or "cuda:0". Raises: DeviceError for a kind that is not in the table."""
    name = device.partition(":")[0]
    if name not in KINDS:
        raise _no_device(device)
    return ROCM if name == "cuda" and built_for("hip") else KINDS[name]


def every_kind() -> dict[str, Kind]:
    """Every row, by torch's name; two rows are "cuda"."""
    both = {"cuda": KINDS["cuda"], "cuda (ROCm)": ROCM}
    return {title: row for name in KINDS for title, row in (both if name == "cuda" else {name: KINDS[name]}).items()}


def is_device(word: str) -> bool:
    """Whether a word means a device, of this machine or not: "cpu", "CUDA:1"; or what else people call a GPU."""
    word = word.strip().lower()
    return word.partition(":")[0] in KINDS or _gpu_meant(word) is not None


def _no_device(device: str) -> DeviceError:
    meant = _gpu_meant(device)
    return DeviceError(f"--device: '{device}' is not one of {NAMES}" + (f"; did you mean {meant}?" if meant else ""))


def _gpu_meant(word: str) -> str | None:
    """The device that is meant by "gpu", "gpu:1", "cuda1", "rocm" or "0"; None for any other word."""
    match = re.fullmatch(rf"(gpu|nvidia|{'|'.join([*KINDS, *MEANT])})?:?(\d*)", word)
    if match is None or not word or match[1] == "cpu":
        return None
    kind = MEANT.get(match[1], match[1] if match[1] in KINDS else "cuda")
    if match[1] in (None, "gpu") and not kind_of(kind).present():
        kind = next((name for name in KINDS if not on_host(name) and kind_of(name).present()), kind)
    return f"{kind}:{match[2]}" if match[2] and KINDS[kind].numbered else kind


def on_host(device: str) -> bool:
    """Whether a device is the processor that runs this program: "cpu"."""
    return device.partition(":")[0] == "cpu"


def resolve(device: str) -> str:
    """The name that torch takes for a name that a user gives: "auto" or "cuda" -> "cuda:0".

    Raises: DeviceError for a device that this machine does not have.
    """
    if device.strip().lower() == "auto":
        usual = (name for name in reversed(KINDS) if kind_of(name).tried and kind_of(name).present())
        return resolve(next(usual))
    name, row = named(device), kind_of(device.strip().lower())
    count = len(row.present())
    if row.library and not built_for(row.library):
        raise DeviceError(f"--device: this torch is built without {row.library}. Take --device cpu")
    if int(name.partition(":")[2] or 0) >= count:
        has = f"{count} {row.title}{'s'[: count != 1]}" if count else f"no {row.title}"
        raise DeviceError(f"--device: there is no {device.strip()}; this machine has {has}. Take --device cpu")
    return name


def named(device: str) -> str:
    """As `resolve`, for a device of another machine. Raises: DeviceError for a name that no kind has."""
    device = device.strip().lower()
    row, (name, colon, index) = kind_of(device), device.partition(":")
    if (colon and not row.numbered) or (colon and not index.isdecimal()):
        raise _no_device(device)
    return f"{name}:{int(index or 0)}" if row.numbered else name


def open_device(device: str) -> Device:
    """What uses a device, "cpu" or "cuda:0". Raises: DeviceError for a kind that is not in the table."""
    module, _, name = kind_of(device).device.partition(":")
    opened: Device = getattr(import_module(module), name)(device)
    return opened


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device of any kind. No other error passes for it.

    An error that only follows from another (`Kind.masking`) stands for the one that was being handled when it came.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    rows = every_kind().values()
    if any(_says(error, words) for row in rows for words in row.out_of_memory):
        return True
    masks = any(word in str(error) for row in rows for word in row.masking)
    return masks and error.__context__ is not None and is_out_of_memory(error.__context__)


def is_lacking(error: BaseException) -> bool:
    """Whether torch says that a kind of device lacks an operator or a type: the cell is unsupported there."""
    said = isinstance(error, RuntimeError | TypeError)  # NotImplementedError is one
    return said and any(_says(error, words) for row in every_kind().values() for words in row.lacking)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return all(word in str(error) for word in words)


def is_lost(error: BaseException) -> bool:
    """Whether an error costs this process its device: the device keeps some errors, and later calls raise them."""
    import torch

    said = str(error)
    return isinstance(error, torch.AcceleratorError) or any(
        w in said for row in every_kind().values() for w in row.lost
    )
