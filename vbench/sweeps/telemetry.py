"""What watches the GPU while a sweep lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vbench import jobs
from vbench.devices import kind_of
from vbench.errors import DeviceError
from vbench.jobs import scratch
from vbench.jobs.launch import Runner
from vbench.meters import state
from vbench.sweeps.prepare import COUNT_LIMIT_S


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What watches the GPU while a run lasts: NVML's name of it, and the file that a sibling process writes."""

    uuid: str
    file: Path


@contextmanager
def watched(device: str, launcher: Runner) -> Iterator[Telemetry | None]:
    """A `state.Sampler` of the GPU, while the run lasts; None for a device that nothing watches."""
    if not kind_of(device).watched:
        yield None
        return
    asked = launcher.run(*jobs.identify(device), COUNT_LIMIT_S)
    if asked.status != "ok":
        raise DeviceError(f"{device} could not be asked for its name: {asked.reason}; see 'vbench doctor'")
    uuid = asked.parts["uuid"]
    with scratch.folder("watch") as folder, state.Sampler(uuid, folder) as sampler:
        yield Telemetry(uuid, sampler.file)
