"""When an error costs a process its device: CUDA keeps some errors, and every later call of the process raises them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbench.devices.base import Device

SAID = "the device answered nothing after it, so the process ended, and the rest was timed in a fresh one"


class LostDeviceError(Exception):
    """The device answers this process no more; `rest` says what a fresh process needs to go on, JSON-able."""

    def __init__(self, rest: Mapping[str, Any]) -> None:
        super().__init__(SAID)
        self.rest = dict(rest)


def answers(device: Device) -> bool:
    """Whether the device still answers this process, after an error: a call that fails cleanly costs only itself."""
    try:
        device.wait()
    except Exception:
        return False
    return True
