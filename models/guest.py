"""A user's code as a guest of this process: what it gets to see, and what it may not leave changed.

Importing a module and building a model run all that its author wrote beside it: the parsing of a command line, a number
of threads, a default type. Such settings hold for the whole process and would change what is measured, so they are set
back. `changes` names those that cannot be set back, and those that a model sets while it computes.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

from vbench.errors import first_line

Values = dict[str, Any]  # of all settings, by name

VARIABLES = (  # of the environment; libraries read them as they begin to work
    *("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES"),
    *("DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA"),
    *("KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the whole process. `write` sets it; it raises if that is not possible."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


@contextmanager
def guest(program: str) -> Iterator[None]:
    """Within this block a user's code runs. Its command line is `program` alone.

    After it, warnings are filtered as before, and each setting has its value again if it can be set back.
    """
    argv, sys.argv = sys.argv, [program]
    before = read()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.argv = argv
        _set_back(before)


def read() -> Values:
    """The values of all settings now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its older settings when they are read
        return {name: _value(setting) for name, setting in _settings().items()}


def changes(before: Values) -> list[str]:
    """What differs now, in words: "CPU threads: 4, not 1"."""
    return [f"{name}: {now}, not {before[name]}" for name, now in read().items() if now != before[name]]


def exit_words(error: SystemExit) -> str:
    """How a user's code ended the process: "SystemExit: 2"."""
    return first_line(SystemExit(0 if error.code is None else error.code), named=True)


def _set_back(before: Values) -> None:
    for _ in range(2):  # torch's older and newer settings of precision move each other
        now = read()
        for name in (name for name, value in before.items() if now[name] != value):
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _settings()[name].write(before[name])


def _value(setting: Setting) -> Any:
    try:
        return setting.read()
    except Exception as error:  # older and newer settings of precision contradict each other
        return f"not readable, {first_line(error)}"


@cache
def _settings() -> dict[str, Setting]:
    """All settings, by name. The functions are taken before a user's code can replace them."""
    return {**_of_torch(), **_of_precision(), **_of_autocast(), **_of_process()}


def _attribute(holder: Any, name: str) -> Setting:
    return Setting(partial(getattr, holder, name), partial(setattr, holder, name))


def _of_torch() -> dict[str, Setting]:
    import torch
    from torch.backends import cuda, cudnn, mha, mkldnn

    return {
        "CPU threads": Setting(torch.get_num_threads, torch.set_num_threads),
        "threads for operations side by side": Setting(torch.get_num_interop_threads, torch.set_num_interop_threads),
        "default dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
        "default device": Setting(_default_device, torch.set_default_device),
        "gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        "inference mode": Setting(torch.is_inference_mode_enabled, _cannot),
        "detection of anomalies": Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        "deterministic algorithms": Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        "flushing of denormal numbers": Setting(_flushes_denormal, torch.set_flush_denormal),
        "fast path of nn.MultiheadAttention": Setting(mha.get_fastpath_enabled, mha.set_fastpath_enabled),
        "flash attention": Setting(cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        "memory-efficient attention": Setting(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        "cuDNN's attention": Setting(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
        "attention by plain products": Setting(cuda.math_sdp_enabled, cuda.enable_math_sdp),
        "torch.compile's suppress_errors": Setting(_suppressed, _suppress),
        **{f"cudnn.{name}": _attribute(cudnn, name) for name in ("enabled", "benchmark", "deterministic")},
        **{f"mkldnn.{name}": _attribute(mkldnn, name) for name in ("enabled", "deterministic")},
    }


def _of_precision() -> dict[str, Setting]:
    """Of float32 products. The older settings come first: each of them sets some of the newer ones."""
    import torch
    from torch import backends

    cuda, cudnn, mkldnn = map(import_module, ("torch.backends.cuda", "torch.backends.cudnn", "torch.backends.mkldnn"))
    reduced = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    parts = {"cuda.matmul": cuda.matmul, "cudnn.conv": cudnn.conv, "mkldnn.matmul": mkldnn.matmul}
    parts |= {"mkldnn.conv": mkldnn.conv, "mkldnn.rnn": mkldnn.rnn}
    return {
        "float32_matmul_precision": Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "cudnn.allow_tf32": _attribute(cudnn, "allow_tf32"),
        "mkldnn.allow_tf32": _attribute(mkldnn, "allow_tf32"),
        **{f"cuda.matmul.{name}": _attribute(cuda.matmul, name) for name in (*reduced, "allow_fp16_accumulation")},
        "backends.fp32_precision": _attribute(backends, "fp32_precision"),
        "cudnn.fp32_precision": _attribute(cudnn, "fp32_precision"),
        "mkldnn.fp32_precision": Setting(  # whose own attribute sets that of all back ends
            partial(getattr, mkldnn, "fp32_precision"), lambda value: mkldnn.set_flags(_fp32_precision=value)
        ),
        **{f"{name}.fp32_precision": _attribute(part, "fp32_precision") for name, part in parts.items()},
    }


def _of_autocast() -> dict[str, Setting]:
    import torch

    found = {
        "autocast's cache": Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        "autocast's nesting": Setting(_nesting, _nest),
    }
    for kind in ("cpu", "cuda"):
        found[f"autocast on {kind}"] = Setting(
            partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)
        )
        found[f"autocast's type on {kind}"] = Setting(
            partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)
        )
    return found


def _of_process() -> dict[str, Setting]:
    found = {
        "garbage collection": Setting(lambda: (gc.isenabled(), gc.get_threshold()), _collect_garbage),
        "the trace function": Setting(sys.gettrace, sys.settrace),
        "the profile function": Setting(sys.getprofile, sys.setprofile),
        "tracemalloc": Setting(tracemalloc.is_tracing, lambda on: tracemalloc.start() if on else tracemalloc.stop()),
        "the switch interval": Setting(sys.getswitchinterval, sys.setswitchinterval),
        "the handler of Ctrl-C": Setting(
            partial(signal.getsignal, signal.SIGINT), partial(signal.signal, signal.SIGINT)
        ),
        "the priority": Setting(
            partial(os.getpriority, os.PRIO_PROCESS, 0), partial(os.setpriority, os.PRIO_PROCESS, 0)
        ),
        **{f"${name}": Setting(partial(os.environ.get, name), partial(_set_variable, name)) for name in VARIABLES},
    }
    if hasattr(os, "sched_getaffinity"):
        found["processors"] = Setting(partial(os.sched_getaffinity, 0), partial(os.sched_setaffinity, 0))
    return found


def _default_device() -> Any:
    """The device of `torch.set_default_device`; None if it was not called. Blocks `with torch.device` do not count."""
    import torch

    context = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    return None if context is None else context.device


def _cannot(value: Any) -> None:
    raise ValueError("it cannot be set from outside")


def _nesting() -> int:
    """How many blocks of autocast are open; the last that closes drops the weights that were cast."""
    import torch

    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _nest(blocks: int) -> None:
    import torch

    for _ in range(_nesting() - blocks):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()


def _flushes_denormal() -> bool:
    return sys.float_info.min / 2 == 0.0


def _suppressed() -> bool:
    """Whether torch.compile hides its errors; as long as it is not imported, it does not."""
    config = sys.modules.get("torch._dynamo.config")
    return config is not None and bool(config.suppress_errors)


def _suppress(value: bool) -> None:
    config = sys.modules.get("torch._dynamo.config")
    if config is not None:
        setattr(config, "suppress_errors", value)  # noqa: B010 - an attribute that is made as it is read


def _collect_garbage(value: tuple[bool, tuple[int, int, int]]) -> None:
    on, threshold = value
    (gc.enable if on else gc.disable)()
    gc.set_threshold(*threshold)


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
