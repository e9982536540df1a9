"""Batches of images, read ahead by threads. Pillow decodes and resizes without Python's lock, so threads are enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vbench.accuracy.images import Data, ReadError, pixels
from vbench.errors import first_line

AHEAD = 2  # batches that wait for the model at most
Transform = Callable[[Any], Tensor]


@dataclass(slots=True)
class Seen:
    """What reading has shown, by the place of an image: why it cannot be read, and what is unusual in it.

    `seconds` are those of all threads together.
    """

    unread: dict[int, str] = field(default_factory=dict)
    odd: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _One:
    place: int
    image: Tensor | None
    odd: str
    why: str
    seconds: float


class Batches:
    """The images of some places: (images, places), uint8 (B, 3, height, width) and int64 (B,).

    An image that cannot be read is black; `seen` tells why. Batches are in the order of the places, but in a data set
    that is read in parts (`Listing.bounds`) what cannot be read comes last.

    Args:
        transform: an RGB image -> uint8 (3, height, width).
        workers: threads; of a data set that is read in parts there is one.
    """

    def __init__(
        self, data: Data, places: Sequence[int], transform: Transform, size: tuple[int, int], batch: int, workers: int
    ) -> None:
        self._data, self._places, self._transform = data, places, transform
        self._black = torch.zeros(3, *size, dtype=torch.uint8)
        self._batch = batch
        self._in_parts = bool(data.listing().bounds)
        self.workers = 1 if self._in_parts else max(1, workers)
        self.seen = Seen()

    def __len__(self) -> int:
        return (len(self._places) + self._batch - 1) // self._batch

    def __iter__(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield from self._in_turn(pool) if self._in_parts else self._each(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _each(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image is a task."""
        rest = iter(self._places)
        waiting: deque[Future[list[_One]]] = deque()
        ready: list[_One] = []
        for place in islice(rest, AHEAD * self._batch + self.workers):
            waiting.append(pool.submit(self._read, [place]))
        while waiting:
            ready += waiting.popleft().result()
            for place in islice(rest, 1):
                waiting.append(pool.submit(self._read, [place]))
            if len(ready) == self._batch or not waiting:
                yield self._batched(ready)
                ready = []

    def _in_turn(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Tensor, Tensor]]:
        """Every batch is a task of the one thread."""
        source = self._ones(self._places)

        def take() -> list[_One]:
            return list(islice(source, self._batch))

        waiting = deque(pool.submit(take) for _ in range(AHEAD))
        while ready := waiting.popleft().result():
            waiting.append(pool.submit(take))
            yield self._batched(ready)

    def _read(self, places: Sequence[int]) -> list[_One]:
        return list(self._ones(places))

    def _ones(self, places: Sequence[int]) -> Iterator[_One]:
        begin = perf_counter()
        for place, source in self._data.read(places):
            image, odd, why = None, "", source if isinstance(source, str) else ""
            if not why:
                try:
                    picture, odd = pixels(source)
                    image = self._transform(picture)
                except ReadError as error:
                    why = str(error)
                except Exception as error:  # an image a pixel high cannot be resized in every way
                    why = first_line(error, named=True)
            now = perf_counter()
            yield _One(place, image, odd, why, now - begin)
            begin = perf_counter()

    def _batched(self, ones: Sequence[_One]) -> tuple[Tensor, Tensor]:
        for one in ones:
            self.seen.seconds += one.seconds
            if one.image is None:
                self.seen.unread[one.place] = one.why or "no message"
            elif one.odd:
                self.seen.odd[one.place] = one.odd
        images = torch.stack([self._black if one.image is None else one.image for one in ones])
        return images, torch.tensor([one.place for one in ones])
