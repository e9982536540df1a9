"""What a cell will cost, before it is measured: a rough guess, and labelled as one wherever it is shown.

A pass is priced by its MACs at half the rate of a large matrix product on this device, and by its steps at
the price of a small operator; memory by `peak.predicted_peak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.plan import Case, Protocol, product_dtype

if TYPE_CHECKING:
    from vbench.jobs.launch import Launcher

EFFICIENCY = 0.5  # of a model, against a large matrix product
OPERATORS_A_STEP = 3  # of the step form: decay, outer product, read-out
LAUNCH_OVERHEAD_S = 0.5  # a process, and the building of a model
COUNT_S = 1.0
MEMORY_CALLS = 3  # of a call that is not slow
CALLS_AT_BATCH = 3  # warm, to size a block, and a block
TRAINING = 3  # a step against its forward pass
LAYERS_AND_DIRECTIONS = 24  # of a model with an operator of ours: how often it walks the tokens


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` to measure a cell and `peak_bytes` of one pass; both guesses."""

    seconds: float
    peak_bytes: int


def foresee(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case"} -> "macs" and sequential "steps" of a timed call, "queued" and "peak_bytes". It needs no device.

    "queued" is how many images more are computed for throughput at a batch that was given, or None. A training step is
    timed at the batch asked for, all else at batch 1.
    """
    from vbench.flops.count import count
    from vbench.flops.peak import predicted_peak, timed_images

    case = Case(**argument["case"])
    work = count(case)
    given, images = case.batch if isinstance(case.batch, int) else None, timed_images(case)
    passes = TRAINING if case.phase == "train" else 1
    walks = LAYERS_AND_DIRECTIONS if case.operator and case.mode == "recurrent" else 0
    yield "macs", passes * images * work["macs_executed"]
    yield "steps", passes * (work["tokens"] or 0) * walks
    yield "queued", given and CALLS_AT_BATCH * (given - images)
    yield "peak_bytes", predicted_peak(case)


def estimate(parts: dict[str, Any], rates: dict[str, Any], protocol: Protocol) -> Estimate:
    """From what `foresee` and `peaks.measure` yielded."""
    call = 2 * parts["macs"] / (rates["gemm_flops_per_s"] * EFFICIENCY)
    call += parts["steps"] * OPERATORS_A_STEP * rates["operator_s"]
    slow = call > protocol.warmup_max_s
    memory = call * (1 if slow else MEMORY_CALLS)
    warmup = 0.0 if slow else min(max(2 * protocol.window * call, protocol.warmup_s), protocol.warmup_max_s)
    sampling = max(min(protocol.samples_min * call, max(protocol.sample_max_s, 2 * call)), protocol.sample_s)
    again = LAUNCH_OVERHEAD_S + memory + warmup + sampling + call * (parts["queued"] or 0)
    searches = parts["queued"] is None and 4 * call < protocol.throughput_s
    batches = min(protocol.throughput_s, 6 * call + protocol.sample_s) if searches else 0.0
    first = COUNT_S + again + batches
    others = protocol.launches - 1 if first * protocol.launches <= protocol.cell_s else 0
    return Estimate(first + others * again, parts["peak_bytes"])


def run(cases: list[Case], protocol: Protocol, launcher: Launcher) -> list[Estimate | None]:
    """An estimate for each case, None for one that cannot exist or cannot be counted."""
    rates: dict[str, dict[str, Any]] = {}
    estimates: list[Estimate | None] = []
    for case in cases:
        if case.unsupported:
            estimates.append(None)
            continue
        dtype = product_dtype(case.dtype)
        if dtype not in rates:
            rates[dtype] = launcher.run(*jobs.peaks(case.device, dtype, protocol.threads), 60).parts
        parts = launcher.run(*jobs.foresee(case), 120).parts
        complete = "peak_bytes" in parts and "operator_s" in rates[dtype]
        estimates.append(estimate(parts, rates[dtype], protocol) if complete else None)
    return estimates


def row(case: Case, guess: Estimate | None) -> dict[str, Any]:
    """A case and its estimate as one JSON-able dict."""
    return {
        **asdict(case),
        "padding": case.spec.padding(case.height, case.width),
        "unsupported": case.unsupported,
        "seconds": None if guess is None else round(guess.seconds, 1),
        "peak_bytes": None if guess is None else guess.peak_bytes,
    }
