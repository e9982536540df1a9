"""Which cells of a sweep are measured together, and how long that takes: the shards of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from vbench.devices import KINDS, kind_of
from vbench.flops import estimate
from vbench.jobs.launch import Launcher
from vbench.plan import Case, Protocol
from vbench.results.pairs import alike
from vbench.sweeps.companies import Company, companies
from vbench.sweeps.rehearse import rehearse

UNKNOWN_S = 30.0  # for a cell that cannot be estimated
TYPICAL = {  # of an accelerator that this machine lacks; only the ratios of shards follow from it
    "gemm_flops_per_s": 5e13,
    "copy_bytes_per_s": 1e12,
    "operator_s": 1e-5,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """Cells that one job measures; the seconds that it may take, and how many launches and blocks of turns it has."""

    cases: tuple[Case, ...]
    seconds: float
    rows: int


def groups(cases: Sequence[Case], together: Sequence[Company]) -> list[list[Case]]:
    """The cells that must stay together, in the order of the cells: those of a company, of companies that share a
    cell, and those that differ in the batch for throughput alone, since they share their turns."""
    parents = {case: case for case in cases}

    def root(case: Case) -> Case:
        while parents[case] != case:
            parents[case] = case = parents[parents[case]]
        return case

    same: dict[str, Case] = {}
    for case in cases:
        parents[root(case)] = root(same.setdefault(alike(asdict(case)), case))
    for company in together:
        first, *others = company.cases
        for other in others:
            parents[root(other)] = root(first)
    found: dict[Case, list[Case]] = {}
    for case in cases:
        found.setdefault(root(case), []).append(case)
    return list(found.values())


def parted(cases: Sequence[Case], pairs: str, protocol: Protocol, launcher: Launcher, count: int) -> list[Shard]:
    """At most `count` shards of about equal time, by the estimate of `vbench plan`.

    Where this machine lacks the device, rates of a typical one take the place of measured ones.

    Args:
        pairs: as of `companies`.
    """
    device = cases[0].device
    guessed = None if kind_of(device) is KINDS["cpu"] or kind_of(device).present() else TYPICAL
    estimates, _ = estimate.run(list(cases), protocol, launcher, guessed=guessed)
    known = {case: one for case, one in zip(cases, estimates, strict=True) if isinstance(one, estimate.Estimate)}
    together = companies(cases, pairs)
    found = balanced([weighed(group, together, known, protocol) for group in groups(cases, together)], count)
    if Counter(one.id for shard in found for one in companies(shard.cases, pairs)) != Counter(c.id for c in together):
        alike_ones: dict[Case, list[Case]] = {}  # whom a cell is compared with may depend on all cells of its size
        for case in cases:
            like = replace(case, model="", mode="parallel", form=None, attention=None, batch=1)
            alike_ones.setdefault(like, []).append(case)
        found = balanced([weighed(group, together, known, protocol) for group in alike_ones.values()], count)
    return found


def weighed(
    group: Sequence[Case], together: Sequence[Company], known: Mapping[Case, estimate.Estimate], protocol: Protocol
) -> Shard:
    """A shard of these cells. `known` lacks the cells that cannot be estimated."""
    own = set(group)
    inside = [company for company in together if company.cases[0] in own]
    gone = rehearse({case: known[case] for case in group if case in known}, inside, protocol)
    rows = sum(gone.launches.values()) + gone.blocks + sum(case not in known for case in own)
    unknown_s = sum(UNKNOWN_S for case in own if case not in known and not case.unsupported)
    seconds = gone.spent_s + estimate.LAUNCH_OVERHEAD_S * rows + unknown_s
    return Shard(tuple(group), round(seconds, 3), rows)


def balanced(small: Sequence[Shard], count: int) -> list[Shard]:
    """At most `count` shards of about equal time: the longest group goes where there is least so far."""
    bins: list[list[Shard]] = [[] for _ in range(min(count, len(small)))]
    for group in sorted(small, key=lambda one: -one.seconds):
        min(bins, key=lambda own: (sum(one.seconds for one in own), len(own))).append(group)
    return [
        Shard(
            tuple(case for one in own for case in one.cases),
            round(sum(one.seconds for one in own), 3),
            sum(one.rows for one in own),
        )
        for own in bins
    ]
