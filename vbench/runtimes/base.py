"""What every runtime can be asked: to make its own file of an exported one, and to run that file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from vbench.devices import is_out_of_memory
from vbench.errors import UnsupportedError

WORDS = 300  # characters of a runtime's own error
PLACE = re.compile(r"^(Exception from|Check '.*' failed at) \S+:$")  # a line that only says where in its source

Session = Callable[[Tensor], Any]  # image -> its output, which the next call may overwrite


class Runtime:
    """A runtime whose library is loaded, and has run something tiny: what it keeps for itself is there by then.

    Args:
        device: as torch has it, "cpu" or "cuda:0".
        threads: of the processor, for one call.
        tf32: whether float32 products may be rounded to TF32, where the device can.

    Raises: UnsupportedError if the library does not serve the device.
    """

    title = ""

    def __init__(self, device: str, threads: int, *, tf32: bool = False) -> None:
        self.device, self.threads, self.tf32 = device, threads, tf32

    @property
    def name(self) -> str:
        """The runtime, its version, and what else decides how it computes."""
        raise NotImplementedError

    def compiled(self, file: Path) -> Path:
        """The runtime's own file, made of an exported one beside it; the exported one itself if it reads that.

        Raises: UnsupportedError with its words if it does not take the model.
        """
        return file

    def session(self, file: Path, image: Tensor) -> Session:
        """Load a file that `compiled` returned, for images like this one. Raises: UnsupportedError with its words."""
        raise NotImplementedError

    def computes_in(self) -> str:
        """The type in which the last session computes products, by torch's name, as the runtime tells it."""
        raise NotImplementedError

    def refused(self, error: Exception) -> Exception:
        """What to raise where a library does not take a model: an error of memory stays what it is."""
        if is_out_of_memory(error) or isinstance(error, UnsupportedError):
            return error
        return UnsupportedError(f"{self.title} does not take this model: {words(error)}")


def words(error: BaseException | str) -> str:
    """An error's text on one line, without lines that only say where in a library's source it was raised."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not PLACE.match(line))[:WORDS] or "no message"
