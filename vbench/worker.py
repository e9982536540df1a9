"""The jobs that children run: probe a device, verify a function, count a cell's work, measure a cell.

Each is a generator of (part, value); `launch` runs them and `sweep` makes records of what they yield.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vbench.errors import DeviceError
from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


def probe(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"device", "models"} -> "gpu", what CUDA says of the device. Raises: DeviceError, UnknownModelError."""
    import torch

    from vbench import host
    from vbench.models.baselines import check_name

    for name in argument["models"]:
        if name.startswith("timm/"):
            check_name(name.removeprefix("timm/"))
    device = argument["device"]
    if device == "cpu":
        yield "gpu", None
        return
    if torch.version.cuda is None:
        raise DeviceError(f"--device: this torch ({torch.__version__}) is built without CUDA. Take --device cpu")
    if not torch.cuda.is_available() or torch.device(device).index >= torch.cuda.device_count():
        raise DeviceError(f"--device: torch {torch.__version__} cannot use {device}; see 'vbench doctor'")
    about = torch.cuda.get_device_properties(device)
    yield (
        "gpu",
        {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "driver": next((gpu["driver"] for gpu in host.gpus()), None),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        },
    )


def verify(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"subject", "device", "seed", "weights"} -> "checks" of an operator or a model. Raises: UsageError."""
    from dataclasses import asdict

    import torch

    from vbench.kernels import OPS
    from vbench.verify import model_checks, operator_checks

    subject, device, seed = argument["subject"], argument["device"], argument["seed"]
    if subject in OPS:
        torch.set_num_threads(1)  # its tensors are too small to share
        found = operator_checks(subject, device, seed)
    else:
        found = model_checks(subject, device, seed, argument["weights"])
    yield "checks", [asdict(check) for check in found]


def count(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case"} -> "work" and "second_count": parameters and MACs of one image. Touches no device."""
    from vbench import flops

    case = Case(**argument["case"])
    work = flops.count(case)
    yield "work", work
    yield "second_count", flops.second_count(case, work["macs_executed"] - work["macs_elementwise"])


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol"} -> "memory", "latency", "throughput" of one cell, in this order."""
    import torch

    from vbench import memory, timing
    from vbench.build import build, images

    case, protocol = Case(**argument["case"]), Protocol(**argument["protocol"])
    device = torch.device(case.device)
    torch.set_num_threads(protocol.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = protocol.tf32
    torch.manual_seed(protocol.seed)

    baseline = memory.baseline(device)
    model = build(case).to(device, getattr(torch, case.dtype))
    with torch.inference_mode():
        image = images(case, 1, device)
        needed = memory.measure(model, image, baseline)
        yield "memory", needed
        memory.keep_freed()
        latency = timing.latency(lambda: model(image), device, protocol, pass_s=needed["pass_s"])
        yield "latency", latency
        yield (
            "throughput",
            timing.throughput(
                lambda batch: _caller(model, images(case, batch, device)),
                device,
                protocol,
                case.batch,
                first_ms=latency["samples_ms"],
                image_bytes=needed["input_bytes"] + needed["activation_bytes"],
            ),
        )


def _caller(model: nn.Module, batch: Tensor) -> Any:
    return lambda: model(batch)
