"""Published weights: fetch a file, read it, find the model's weights in it, make them fit, and load them.

fetch    a path, a URL or a hub id -> a file on this machine
formats  what a file is, by its bytes
read     a file -> its contents, on the CPU, without running code of it
unwrap   contents -> the places in them that may hold the model's weights
adapt    older keys and other position tables -> those of the model, by the rule of the model's family
load     choose one place, compare it with the model, load it
words    how sources and keys are written in messages
"""

from __future__ import annotations

from vbench.models.checkpoint.load import Loaded, load
from vbench.models.checkpoint.read import read

__all__ = ["Loaded", "load", "read"]
