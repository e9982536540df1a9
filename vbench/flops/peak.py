"""The memory that a pass needs at most, predicted from the tensors alive at once in a pass on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vbench.kernels.registry import computation, operator
from vbench.meters.attention import pinned
from vbench.meters.build import build, replace_function
from vbench.plan import Case

SEEN_INSIDE = 16_384  # tokens of an operator's call; with more its blocks are many, and small beside the image
SAME_COST = {"reverse": "forward"}  # options of an operator that need as much memory as another


def predicted_peak(case: Case) -> int:
    """Predicted peak, in bytes, of one pass at batch 1, or of one training step at the case's batch.

    It is the peak of the tensors alive at once in a pass on the meta device, weights and input included. In parallel
    mode an operator of ours runs as it is at its first call on tensors of some shapes, up to `SEEN_INSIDE` tokens; its
    other calls are taken to need as much. Attention is taken as fused: its scores are never whole, unless the math
    kernel is pinned. A training step adds AdamW's two moments, and has at its peak either what the pass keeps for
    backward or all gradients. Not known are the workspaces of libraries and, in recurrent mode, what an operator needs
    beside its results.
    """
    train = case.phase == "train"
    dtype = getattr(torch, case.dtype)
    live = _Live()
    fused = nullcontext() if case.attention == "math" else _FusedAttention()  # which keeps all scores
    with (
        fused,
        pinned(case.attention if case.attention == "math" else None),
        torch.device("meta"),
        torch.set_grad_enabled(train),
        live,
    ):
        model = build(case).to(dtype).train(train)
        weights = sum(p.nbytes for p in model.parameters())
        if case.operator and case.form and case.mode == "parallel":
            form = operator(case.operator, case.form)
            replace_function(model, form, _seen_inside(form, computation(case.operator, case.form), live))
        model(torch.empty(timed_images(case), 3, case.height, case.width, dtype=dtype))
    return 2 * weights + max(live.peak, 2 * weights) if train else live.peak


def timed_images(case: Case) -> int:
    """The images of a timed call: the batch asked for in a training step, 1 in all else."""
    return case.batch if case.phase == "train" and isinstance(case.batch, int) else 1


class _FusedAttention(TorchFunctionMode):
    """Attention allocates its output and nothing else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else kwargs["query"])
        return func(*args, **(kwargs or {}))


class _Live(TorchDispatchMode):
    """The bytes of the storages that are alive `now`, and their `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, nbytes: int) -> None:
        self.now -= nbytes


def _seen_inside(form: Callable[..., Any], compute: Callable[..., Any], live: _Live) -> Callable[..., Any]:
    """The form of an operator: its first call on some shapes computes, later calls only add what that one needed."""
    needed: dict[Any, tuple[int, int]] = {}  # bytes at the peak and bytes kept, above those before the call

    def call(*args: Any, **options: Any) -> Any:
        if args[0].shape[-2] > SEEN_INSIDE:
            return form(*args, **options)
        given = [*args, *options.values()]
        key = tuple(tuple(x.shape) if isinstance(x, torch.Tensor) else SAME_COST.get(x, x) for x in given)
        before = live.now
        if key in needed:
            at_peak, kept = needed[key]
            live.peak = max(live.peak, before + at_peak)
            out = form(*args, **options)
            live.now = before + kept
            return out
        peak, live.peak = live.peak, before
        out = compute(*args, **options)
        needed[key] = live.peak - before, live.now - before
        live.peak = max(peak, live.peak)
        return out

    return call
