"""Jobs for `vbench.jobs.launch` that end in every way a child can end."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vbench.devices import open_device
from vbench.errors import ResolutionError, UnsupportedError

Job = Iterator[tuple[str, Any]]


def fine(argument: dict[str, Any]) -> Job:
    yield "first", argument["x"]
    yield "second", {"pid": os.getpid()}


def slow(argument: dict[str, Any]) -> Job:
    yield "first", 1
    time.sleep(argument["s"])
    yield "second", 2


def endless(argument: dict[str, Any]) -> Job:
    with Path(argument["pids"]).open("a") as file:
        file.write(f"{os.getpid()} ")
    time.sleep(600)
    yield "never", 1


def modules(argument: dict[str, Any]) -> Job:
    """The files of this package that these launches import."""
    from vbench.sweeps.measure import measure

    for launch in argument["launches"]:
        dict(measure(launch))
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    yield "files", [file for name, file in files.items() if name.startswith("vbench.") and file]


def exits(argument: dict[str, Any]) -> Job:
    yield "first", 1
    os._exit(3)


def segfault(argument: dict[str, Any]) -> Job:
    yield "first", 1
    os.kill(os.getpid(), signal.SIGSEGV)


def killed_once(argument: dict[str, Any]) -> Job:
    """Dies of signal 9 the first time it runs, and lives the second."""
    mark = Path(argument["mark"])
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    yield "first", 1


def killed(argument: dict[str, Any]) -> Job:
    yield "first", 1
    os.kill(os.getpid(), signal.SIGKILL)


def raises(argument: dict[str, Any]) -> Job:
    yield "first", 1
    raise {
        "value": ValueError("a wrong\nvalue"),
        "memory": MemoryError("none left"),
        "unsupported": UnsupportedError("no such mode"),
        "usage": ResolutionError("no such size"),
    }[argument["kind"]]


def allocates_too_much(argument: dict[str, Any]) -> Job:
    yield "first", 1
    torch.empty(2**50)


def shape_bug(argument: dict[str, Any]) -> Job:
    yield "first", torch.zeros(2, 3).matmul(torch.zeros(2, 3)).shape


def peak(argument: dict[str, Any]) -> Job:
    """The memory meter on a module whose forward pass needs `mib` MiB at once and keeps `leak` MiB of each call."""
    from vbench.meters import memory

    class Hungry(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8 * 2**18))  # 8 MiB
            self.kept: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if "leak" in argument:
                self.kept.append(torch.ones(argument["leak"] * 2**18))
            time.sleep(argument.get("s", 0))
            return torch.ones(argument["mib"] * 2**18).sum() + x.sum()

    baseline = memory.baseline(open_device("cpu"))
    model, image = Hungry(), torch.ones(1, 4 * 2**18)  # 4 MiB
    with torch.inference_mode():
        yield "memory", memory.measure(model, image, baseline, repeat_below_s=argument.get("repeat_below_s", 60))


def holes(argument: dict[str, Any]) -> Job:
    """A module that frees every second of its blocks before it takes one that fits in none of the holes."""
    from vbench.meters import memory

    class Holed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            del x
            torch.ones(16 * 2**18)  # freed at once: from here on glibc would take smaller blocks from its heap
            blocks = [torch.ones(2**18) for _ in range(64)]  # 64 MiB
            del blocks[::2]
            return torch.ones(32 * 2**18).sum()

    baseline = memory.baseline(open_device("cpu"))
    with torch.inference_mode():
        yield "memory", memory.measure(Holed(), torch.ones(1), baseline)


def late_library(argument: dict[str, Any]) -> Job:
    """A call that needs 64 MiB, and then reads 16 MiB of a mapped file, of which it keeps every mapping."""
    from vbench.meters import memory

    class Late(torch.nn.Module):
        kept: list[mmap.mmap]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = torch.ones(64 * 2**18).sum() + x.sum()
            if not argument["once"] or not self.kept:
                with Path(argument["file"]).open("rb") as file:
                    self.kept.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
            sum(self.kept[-1][::4096])
            return found

    baseline = memory.baseline(open_device("cpu"))
    model = Late()
    model.kept = []
    with torch.inference_mode():
        yield "memory", memory.measure(model, torch.ones(1), baseline, repeat_below_s=argument["repeat_below_s"])


def weights_elsewhere(argument: dict[str, Any]) -> Job:
    """A model of 32 MiB of weights "mapped" from a file or "shared"; a call needs 16 MiB, building more for a while."""
    from vbench.meters import memory

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(32 * 2**18))
            if argument["where"] == "mapped":
                file = argument["file"]
                torch.save(self.state_dict(), file)
                self.load_state_dict(torch.load(file, mmap=True, weights_only=True), assign=True)
            if argument["where"] == "shared":
                self.share_memory()
            if argument["where"] == "built":  # 64 MiB in blocks that are not handed back, with one above them
                blocks = [torch.ones(2**12) for _ in range(2**12)]
                self.kept = torch.ones(8)
                del blocks

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(16 * 2**18).sum() + self.weight.sum() + x.sum()

    baseline = memory.baseline(open_device("cpu"))
    model = Net()
    with torch.inference_mode():
        yield "memory", memory.measure(model, torch.ones(1), baseline)


def training_peak(argument: dict[str, Any]) -> Job:
    """A training step that keeps `kept` activations of 8 MiB for backward, and has 2 MiB of weights."""
    from vbench.meters import memory
    from vbench.meters.training import Trainer, measure

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2 * 2**18))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * self.weight.mean()
            for _ in range(argument["kept"]):
                y = y.sigmoid()
            return y.view(len(x), -1)[:, :1000]

    baseline = memory.baseline(open_device("cpu"))
    trainer = Trainer(Chain(), torch.ones(2, 1, 1024, 1024))  # 8 MiB
    yield "memory", measure(trainer, baseline, repeat_below_s=argument.get("repeat_below_s", 60))


def rationed(argument: dict[str, Any]) -> Job:
    """A call that fails as oneDNN does where `mib` MiB are not enough for it."""
    from vbench.sweeps.limits import unmasked

    def call() -> None:
        try:
            torch.ones(64 * 2**18)
        except RuntimeError:
            raise RuntimeError("could not create a primitive") from None

    open_device("cpu").limit_memory(argument["mib"] * 2**20)
    with unmasked(call):
        call()
    yield "first", 1


def waits_for_ever(argument: dict[str, Any]) -> Job:
    Path(argument["mark"]).write_text(str(os.getpid()))
    time.sleep(600)
    yield "first", 1
