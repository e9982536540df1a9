"""A model's pass on CUDA without CUDA: all host code runs on fake tensors of cuda:0, and kernels are checked, not run.

What it finds: a tensor left on another device, a value that the host waits for, a launch that no device takes, a form
that refuses a type or a layout. What it does not: wrong numbers, races, what libraries refuse, time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vbench.flops.peak import host_code
from vbench.kernels.fused.launch import Launch, observed

GRID = (2**31 - 1, 65535, 65535)  # programs that CUDA takes in each dimension
THREADS = 1024  # of a program


class HostCode(TorchDispatchMode):
    """Runs what our operators do beside launching kernels, in place of their answers for fake tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (host := host_code(func._schema.name)) is None:
            return func(*args, **(kwargs or {}))
        with self:
            return host(*args, **(kwargs or {}))


@dataclass
class Checker:
    """Keeps launches, and says what is wrong with each. `device` is where all tensors must be."""

    device: str = "cuda:0"
    launches: list[Launch] = field(default_factory=list)

    def __call__(self, launch: Launch) -> None:
        name = launch.kernel.fn.__name__
        places = {str(value.device) for value in launch.args.values() if isinstance(value, Tensor)}
        assert places == {self.device}, f"{name} has tensors on {', '.join(sorted(places))}"
        for size, most, axis in zip(launch.grid, GRID, "xyz", strict=False):
            assert 1 <= size <= most, f"{name} has {size} programs in {axis}, and CUDA takes 1 to {most}"
        assert launch.warps in (1, 2, 4, 8, 16, 32), f"{name} has {launch.warps} warps"
        assert 32 * launch.warps <= THREADS
        self.launches.append(launch)


def dry_run(
    model: nn.Module,
    image_size: tuple[int, int],
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
    train: bool = False,
    device: str = "cuda:0",
) -> list[Launch]:
    """The launches of a forward pass; with `train` on the CPU (fake too) of forward and backward.

    Args:
        model: built on the meta device; its parameters and buffers are put on `device`.

    Raises: AssertionError for a launch that CUDA does not take; torch's errors for all else.
    """
    checker = Checker(device)
    model = model.to(dtype).train(train)
    with FakeTensorMode() as fake, observed(checker), HostCode(), torch.set_grad_enabled(train):
        state = {
            name: torch.empty(x.shape, dtype=x.dtype, device=device).requires_grad_(
                isinstance(x, nn.Parameter) and train
            )
            for name, x in chain(model.named_parameters(), model.named_buffers())
        }
        image = torch.empty(batch, 3, *image_size, dtype=dtype, device=device).to(memory_format=layout)
        with fake:
            logits = torch.func.functional_call(model, state, (image,))
            assert logits.device == torch.device(device)
            assert logits.dtype == dtype
            if train and device == "cpu":
                F.cross_entropy(logits.float(), torch.zeros(batch, dtype=torch.long)).backward()
    return checker.launches
