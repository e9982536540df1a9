"""The runtimes through which an exported model is called: one row of a table each, and one class each.

`RUNTIMES` says what a runtime takes, and neither torch nor the runtime is needed to ask it. `open_runtime` imports the
class, and the runtime's library with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vbench.runtimes.base import Runtime

File = Literal["aoti", "onnx"]  # a package of AOTInductor, or a model of ONNX


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a runtime before it is loaded.

    `modules` must be there to make its file and to run it, and `extra` of this project brings them; `packages` are
    names under which the runtime is installed, and a record has the versions of those that are there.
    """

    title: str  # what a message calls it
    runtime: str  # "module:class" of its `Runtime`
    file: File  # what it reads
    dtypes: Mapping[str, tuple[str, ...]]  # of weights and image, by kind of device
    builds: bool = False  # whether it makes a file of its own of the exported one, before it is run
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = ""


EXPORTER = ("onnx", "onnxscript")  # what torch writes ONNX with
HALVES = ("float32", "bfloat16", "float16")
RUNTIMES = {
    "aoti": About(
        title="AOTInductor",
        runtime="vbench.runtimes.aoti:Aoti",
        file="aoti",
        dtypes={"cpu": HALVES, "cuda": HALVES},
    ),
    "onnxruntime": About(
        title="ONNX Runtime",
        runtime="vbench.runtimes.onnx_runtime:OnnxRuntime",
        file="onnx",
        dtypes={"cpu": ("float32",), "cuda": ("float32", "float16")},
        modules=("onnxruntime", *EXPORTER),
        packages=("onnxruntime", "onnxruntime-gpu"),
        extra="onnx",
    ),
    "openvino": About(
        title="OpenVINO",
        runtime="vbench.runtimes.open_vino:OpenVino",
        file="onnx",
        dtypes={"cpu": ("float32",)},
        modules=("openvino", *EXPORTER),
        packages=("openvino",),
        extra="openvino",
    ),
    "tensorrt": About(
        title="TensorRT",
        runtime="vbench.runtimes.tensor_rt:TensorRt",
        file="onnx",
        dtypes={"cuda": HALVES},
        builds=True,
        modules=("tensorrt", *EXPORTER),
        packages=("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
        extra="tensorrt",
    ),
}


def missing(name: str, device: str, dtype: str) -> str | None:
    """Why a runtime cannot run on a device ("cpu", "cuda:0") with weights of `dtype`; None if it may."""
    about, kind = RUNTIMES[name], device.partition(":")[0]
    if kind not in about.dtypes:
        return f"{about.title} is used on {' or '.join(about.dtypes)} here, not on {kind}"
    if dtype not in about.dtypes[kind]:
        return f"{about.title} is used on {kind} in {', '.join(about.dtypes[kind])} here, not in {dtype}"
    lacking = [module for module in about.modules if not _there(module)]
    if lacking:
        extra = f"pip install 'vbench-backbones[{about.extra}]'"
        return f"{about.title} needs {' and '.join(lacking)}, which is not installed; {extra}"
    return None


def versions(backends: Iterable[str]) -> dict[str, str]:
    """The versions of the packages, of those that are installed, that make and run the files of these back ends."""
    found = {}
    for name in sorted(set(backends) & set(RUNTIMES)):
        about = RUNTIMES[name]
        for package in (*about.packages, *(EXPORTER if about.file == "onnx" else ())):
            with suppress(PackageNotFoundError):
                found[package] = version(package)
    return found


def open_runtime(name: str, device: str, threads: int, *, tf32: bool = False) -> Runtime:
    """Load a runtime's library for a device. Raises: UnsupportedError if it does not serve this one."""
    module, _, kind = RUNTIMES[name].runtime.partition(":")
    opened: Runtime = getattr(import_module(module), kind)(device, threads, tf32=tf32)
    return opened


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
