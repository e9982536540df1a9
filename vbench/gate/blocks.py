"""How long a session of the gate measures, and the times of its blocks of alternating calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median, stdev
from typing import Any, Literal, get_args

from vbench.errors import UsageError
from vbench.plan import RIGORS, Case, Protocol
from vbench.results import judge

Role = Literal["base", "twin", "head"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Design:
    """How long a session measures: `blocks` of each kind in a pass, and the protocol of a launch."""

    blocks: int
    protocol: Protocol


_LAUNCH = replace(
    RIGORS["quick"],
    rigor="gate",
    window=3,
    warmup_s=0.05,
    warmup_max_s=0.5,
    agree=0.05,
    sample_s=1.0,
    sample_max_s=3.0,
    samples_min=16,
)
DESIGNS: dict[str, Design] = {
    "quick": Design(4, replace(_LAUNCH, sample_s=0.5, samples_min=8)),
    "default": Design(6, _LAUNCH),
    "paper": Design(12, replace(_LAUNCH, sample_s=2.0, sample_max_s=10.0)),
}


def design(rigor: str, threads: int, seed: int) -> Design:
    """The named design, with these threads and this seed. Raises: UsageError if the name is unknown."""
    if rigor not in DESIGNS:
        raise UsageError(f"--rigor: '{rigor}' is not one of {', '.join(DESIGNS)}")
    named = DESIGNS[rigor]
    return replace(named, protocol=replace(named.protocol, threads=threads, seed=seed))


@dataclass(frozen=True, slots=True)
class Block:
    """Two processes that took turns. `outer` had the first and the last call. Times of every call in ms."""

    outer: Role
    inner: Role
    outer_ms: tuple[float, ...]
    inner_ms: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """The log of the other role's time over base's."""
        ratio = judge.block(self.outer_ms, self.inner_ms)
        return ratio if self.outer == "base" else -ratio

    def has(self, role: Role) -> bool:
        return role in (self.outer, self.inner)


@dataclass(slots=True)
class Blocks:
    """The blocks of a cell so far, how many were lost to a failed launch, and the reason of the last loss."""

    whole: list[Block] = field(default_factory=list)
    lost: int = 0
    reason: str | None = None

    @property
    def head(self) -> list[float]:
        """Logs of head over base."""
        return [block.log_ratio for block in self.whole if block.has("head")]

    def middle(self, role: Role) -> float:
        """The median of a role's medians over the blocks of base and head, ms."""
        own = [block for block in self.whole if block.has("head")]
        return median(median(block.outer_ms if block.outer == role else block.inner_ms) for block in own)

    @property
    def twin(self) -> list[float]:
        """Logs of base's twin over base."""
        return [block.log_ratio for block in self.whole if block.has("twin")]


def raw(blocks: Mapping[Case, Blocks]) -> dict[str, list[dict[str, Any]]]:
    """Every block of every cell, JSON-able."""
    return {str(case): [asdict(block) for block in own.whole] for case, own in blocks.items()}


def noise(blocks: Blocks) -> dict[str, float | int]:
    """The noise floor from twin against base, and `spread`, the standard deviation of a block; both are logs."""
    twin = blocks.twin
    spread = stdev(twin) if len(twin) > 1 else 0.0
    return {"floor": judge.floor(twin), "spread": spread, "blocks": len(twin)}
