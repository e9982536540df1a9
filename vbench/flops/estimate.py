"""What a cell will cost, before it is measured: a rough guess, and labelled as one wherever it is shown.

A pass is priced by its MACs at half the rate of a large matrix product on this device, and by its steps at
the price of a small operator; memory by the tensors alive at once in a pass on the meta device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.kernels.registry import computation, operator
from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    import torch

    from vbench.jobs.launch import Launcher

EFFICIENCY = 0.5  # of a model, against a large matrix product
OPERATORS_A_STEP = 3  # of the step form: decay, outer product, read-out
LAUNCH_OVERHEAD_S = 0.5  # a process, and the building of a model
COUNT_S = 1.0
MEMORY_CALLS = 3  # of a call that is not slow
CALLS_AT_BATCH = 3  # warm, to size a block, and a block
TRAINING = 3  # a step against its forward pass
SEEN_INSIDE = 16_384  # tokens of an operator's call; with more its blocks are many, and small beside the image
_ALIKE = {"reverse": "forward"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """`seconds` to measure a cell and `peak_bytes` of one pass; both guesses."""

    seconds: float
    peak_bytes: int


def count_cells(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"cases"} -> for each, under its id, "work" and "second_count", or "unsupported", why it cannot be built.

    Parameters, MACs, FLOPs, bytes and a predicted peak; touches no device. Many cases share a process because its first
    pass on the meta device costs as much as the next three. A case is yielded before the second count and after it: if
    that count ends the process, the first one is not lost.
    """
    from vbench.errors import UnsupportedError
    from vbench.flops import count as flops
    from vbench.flops.second import no_opinion, second_count

    for case in (Case(**fields) for fields in argument["cases"]):
        try:
            work = flops.count(case) | {"predicted_peak_bytes": predicted_peak(case)}
            yield case.id, {"work": work, "second_count": no_opinion("fvcore's count ended the process")}
            yield case.id, {"work": work, "second_count": second_count(case, work["macs_matmul"])}
        except UnsupportedError as error:
            yield case.id, {"unsupported": str(error)}


def foresee(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case"} -> "macs" and "steps" in sequence of a timed call, "queued", how often its work is done again for
    throughput at a batch that was given, or None; and "peak_bytes" of one call. Without a device.

    A training step is timed at the batch asked for, all else at batch 1.
    """
    from vbench.flops import count as flops

    case = Case(**argument["case"])
    work = flops.count(case)
    given, images = case.batch if isinstance(case.batch, int) else None, _images(case)
    passes = TRAINING if case.phase == "train" else 1
    yield "macs", passes * images * work["macs_executed"]
    layers_and_directions = 24 if case.operator else 0
    yield "steps", passes * (work["tokens"] or 0) * layers_and_directions if case.mode == "recurrent" else 0
    yield "queued", given and CALLS_AT_BATCH * (given - images)
    yield "peak_bytes", predicted_peak(case)


def _images(case: Case) -> int:
    """Of a timed call: a training step is at the batch asked for, all else at 1."""
    return case.batch if case.phase == "train" and isinstance(case.batch, int) else 1


def predicted_peak(case: Case) -> int:
    """Predicted peak, in bytes, of one pass at batch 1, or of one training step at the case's batch.

    It is that of the tensors alive at once in a pass on the meta device, weights and input included. In parallel
    mode an operator of ours is run as it is at its first call on tensors of some shapes, up to `SEEN_INSIDE` tokens;
    its other calls are taken to need as much. Attention is taken as fused: its scores are never whole. A training
    step adds AdamW's two moments, and has at its peak either what the pass keeps for backward or all gradients.
    Not known are the workspaces of libraries and, in recurrent mode, what an operator needs beside its results.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from vbench.meters.build import build, replace_function

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for leaf in torch.utils._pytree.tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    self.add(leaf.untyped_storage())
            return out

        def add(self, storage: torch.UntypedStorage) -> None:
            if storage in seen:
                return
            seen.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, storage.nbytes())

        def drop(self, nbytes: int) -> None:
            self.now -= nbytes

    def inside(form: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., Any]:
        """The form, seen inside: its first call on some shapes computes, later ones are answered and priced alike."""
        priced: dict[Any, tuple[int, int]] = {}  # bytes at the peak and bytes kept, above those before the call

        def call(*args: Any, **options: Any) -> Any:
            if args[0].shape[-2] > SEEN_INSIDE:
                return form(*args, **options)
            given = [*args, *options.values()]
            key = tuple(tuple(x.shape) if isinstance(x, torch.Tensor) else _ALIKE.get(x, x) for x in given)
            before = live.now
            if key in priced:
                live.peak = max(live.peak, before + priced[key][0])
                out = form(*args, **options)
                live.now = before + priced[key][1]
                return out
            peak, live.peak = live.peak, before
            out = compute(*args, **options)
            priced[key] = live.peak - before, live.now - before
            live.peak = max(peak, live.peak)
            return out

        return call

    seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
    train = case.phase == "train"
    dtype = getattr(torch, case.dtype)
    fused = torch.nn.functional.scaled_dot_product_attention
    live = Live()
    try:
        torch.nn.functional.scaled_dot_product_attention = lambda q, *_, **__: torch.empty_like(q)
        with torch.device("meta"), torch.set_grad_enabled(train), live:
            model = build(case).to(dtype).train(train)
            weights = sum(p.nbytes for p in model.parameters())
            row = case.spec
            if row.operator and case.form and case.mode == "parallel":
                form = operator(row.operator, case.form)
                replace_function(model, form, inside(form, computation(row.operator, case.form)))
            logits = model(torch.empty(_images(case), 3, case.height, case.width, dtype=dtype))
            del logits
    finally:
        torch.nn.functional.scaled_dot_product_attention = fused
    return int(2 * weights + max(live.peak, 2 * weights) if train else live.peak)


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
    found: list[Estimate | None] = []
    for case in cases:
        if case.unsupported:
            found.append(None)
            continue
        if case.dtype not in rates:
            rates[case.dtype] = launcher.run(*jobs.peaks(case.device, case.dtype, protocol.threads), 60).parts
        parts = launcher.run(*jobs.foresee(case), 120).parts
        complete = "peak_bytes" in parts and "operator_s" in rates[case.dtype]
        found.append(estimate(parts, rates[case.dtype], protocol) if complete else None)
    return found


def row(case: Case, guess: Estimate | None) -> dict[str, Any]:
    """A case and its estimate as one JSON-able dict."""
    return {
        **asdict(case),
        "padding": case.spec.padding(case.height, case.width),
        "unsupported": case.unsupported,
        "seconds": None if guess is None else round(guess.seconds, 1),
        "peak_bytes": None if guess is None else guess.peak_bytes,
    }
