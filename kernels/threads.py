"""Loops in machine code on as many threads as torch has."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch


def split(work: Callable[[int, int], None], length: int, least: int = 1) -> None:
    """Call work(first, stop) for parts of range(length), on `torch.get_num_threads()` threads at once.

    The calls run at the same time only as far as they leave the interpreter's lock, as loops in machine code do. A
    part has `least` items or more, unless there are fewer. An exception of a part is raised when all have ended.
    """
    parts = max(1, min(torch.get_num_threads(), length // least))
    if parts == 1:
        work(0, length)
        return
    edges = [length * part // parts for part in range(parts + 1)]
    workers = _workers(parts - 1)
    others = [workers.submit(work, *pair) for pair in pairwise(edges[1:])]
    try:
        work(*edges[:2])
    finally:
        errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error


_kept: tuple[int, int, ThreadPoolExecutor] | None = None  # process, threads; a fork has none of its parent's threads


def _workers(threads: int) -> ThreadPoolExecutor:
    """At least as many threads beside this one; they wait for work and use no time."""
    global _kept  # noqa: PLW0603
    if _kept is None or _kept[0] != os.getpid() or _kept[1] < threads:
        _kept = os.getpid(), threads, ThreadPoolExecutor(threads, thread_name_prefix="vbench-loop")
    return _kept[2]


WORTH = 1 << 19  # multiplications that take as long as to start a thread, about a tenth of a millisecond


def least_items(work: int) -> int:
    """The least items a thread should have, if each takes that many multiplications."""
    return -(-WORTH // max(work, 1))


def shares(rows: int, columns: int) -> int:
    """The parts that each of some rows is cut into, so that all threads have as much to do; a part has a column."""
    threads = torch.get_num_threads()
    return min(range(1, min(columns, threads) + 1), key=lambda parts: (-(-rows * parts // threads) / parts, parts))
