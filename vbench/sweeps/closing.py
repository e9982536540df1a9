"""Closing what was opened, without hiding the error that ended the work within."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeVar

Opened = TypeVar("Opened")


@contextmanager
def first_error(of: AbstractContextManager[Opened]) -> Iterator[Opened]:
    """As `with of`, but an error within is the one that is raised, even if closing raises another."""
    opened = of.__enter__()
    try:
        yield opened
    except BaseException as error:
        with suppress(Exception):
            of.__exit__(type(error), error, error.__traceback__)
        raise
    of.__exit__(None, None, None)
