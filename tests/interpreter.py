"""Triton's interpreter, which prepares the language once a launch, not once more at each call within a kernel.

Each function that a kernel calls makes the interpreter replace some hundred members of `triton.language`, all of which
the launch has replaced already: a quarter of its time. Numbers and errors are what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

ROOMS = (tl, tl.core)  # the modules whose members are replaced


def prepare_once() -> None:
    """Let all launches of this process do so."""
    prepare, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    prepared: set[int] | None = None  # rooms that this launch has seen to

    def prepare_new(fn: Callable[..., Any]) -> Any:
        seen = _rooms(fn)
        if prepared is None:
            return prepare(fn)
        if seen <= prepared:
            return None  # a call within the kernel, which asks for nothing
        prepared.update(seen)
        return prepare(fn)

    def launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal prepared
        prepared = set()
        try:
            return launch(self, *args, **kwargs)
        finally:
            prepared = None

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = prepare_new, launched
    interpreter._get_np_dtype = _remembering(interpreter._get_np_dtype)


@lru_cache(maxsize=1000)
def _rooms(fn: Callable[..., Any]) -> frozenset[int]:
    """Those that the globals of a function hold."""
    return frozenset(id(room) for room in ROOMS for value in fn.__globals__.values() if value is room)


def _remembering(numpys: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The type that numpy has for one of Triton's, looked up once; a block's is that of its numbers."""
    known: dict[str, Any] = {}

    def found(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in known:
            known[name] = numpys(dtype)
        return known[name]

    return found
