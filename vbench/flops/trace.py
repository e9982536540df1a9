"""What tensors of a pass were alive when its memory was fullest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Held:
    """Tensors that are alike and alive at the peak: where they were made, by what, and their bytes in all."""

    module: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int


@dataclass(slots=True)
class Made:
    """A block from the request that made it to the one before which it was given back."""

    module: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    begin: int
    end: int | None = None


@dataclass(slots=True)
class Trace:
    """All blocks of a pass, in the order of requests."""

    made: list[Made] = field(default_factory=list)
    peak_at: int = 0

    def held(self) -> tuple[Held, ...]:
        """What was alive at the peak, alike tensors as one."""
        alive = [
            each for each in self.made if each.begin <= self.peak_at and (each.end is None or each.end > self.peak_at)
        ]
        count: Counter[tuple[str, str, tuple[int, ...], str]] = Counter()
        nbytes: Counter[tuple[str, str, tuple[int, ...], str]] = Counter()
        for each in alive:
            key = (each.module, each.operation, each.shape, each.dtype)
            count[key] += 1
            nbytes[key] += each.bytes
        return tuple(Held(*key, count[key], total) for key, total in nbytes.most_common())
