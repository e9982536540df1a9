"""The memory of one call, predicted without a device: the pass runs on tensors without data.

Every tensor of the pass asks an allocator for its bytes when it is made, and gives them back when Python or autograd
drops it. For a CUDA card that is a simulated `CachingAllocator`, with what is known of the libraries:

- cuBLAS keeps one workspace a thread, one for the forward pass and one for the backward pass, made before the call, as
  our meters do;
- where cuDNN uses tensor cores, it turns NCHW images of a dense convolution into NHWC and back, during the call;
- our operators run their host code, launches left out; a recurrent form without kernels holds its results alone.

Not predicted: what else cuDNN asks for, fragments of other streams, and what the user's own program holds.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vbench.devices import on_host
from vbench.errors import UnsupportedError, first_line
from vbench.flops.allocator import Block, CachingAllocator, ExactAllocator, OutOfMemoryError
from vbench.flops.autocast import Autocast
from vbench.flops.cards import Card, cards
from vbench.flops.dataless import Following, uncompiled, without_data
from vbench.flops.trace import Held, Made, Trace
from vbench.kernels.fused.launch import observed
from vbench.kernels.registry import OPS, computation, operator
from vbench.meters.attention import pinned
from vbench.meters.build import finish, replace_function, takes_hooks
from vbench.meters.loss import loss_of, ready_to_train
from vbench.plan import Case

CALLS = 2  # the second call finds the allocator as the first left it
SEEN_INSIDE = 16_384  # tokens of an operator's call; with more, a form of torch's is priced by its results alone
SAME_COST = {"reverse": "forward"}  # options of an operator that need as much memory as another


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one call of a cell needs on a card; bytes. All of it is predicted.

    Attributes:
        peak_bytes: the most that the allocator has given out: weights, input, gradients, optimiser, workspaces and
            activations.
        reserved_bytes: the most that it has taken from the driver.
        process_bytes: that and the CUDA context; what must fit on the card.
        held: what is alive at the peak, the largest first.
    """

    batch: int
    weights_bytes: int
    input_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    workspace_bytes: int
    activation_bytes: int
    peak_bytes: int
    reserved_bytes: int
    process_bytes: int
    held: tuple[Held, ...]


class Pass(TorchDispatchMode):
    """A pass on the meta device, whose tensors ask an allocator for memory.

    Args:
        allocator: asked at each new storage.
        card: whose libraries ask for workspaces.
        tf32: whether float32 convolutions run on tensor cores.
    """

    def __init__(self, allocator: CachingAllocator | ExactAllocator, card: Card | None, *, tf32: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocator, self.trace = allocator, Trace()
        self.place = ""  # the module that runs
        self.workspace_bytes = 0
        self._card, self._tf32 = card, tf32
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if host := host_code(name):
            with self:
                return host(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.meet(leaf, name)
        if self._card and name == "aten::convolution" and (nbytes := self._converted(args, out)):
            self._drop(*self._make(nbytes, "cuDNN workspace", (nbytes,), torch.uint8))
        return out

    def _converted(self, args: Any, out: Tensor) -> int:
        """Bytes of a dense convolution's images and weights in the layout that tensor cores take."""
        x, weight, groups = args[0], args[1], args[8]
        on_tensor_cores = x.dtype != torch.float64 and (x.dtype != torch.float32 or self._tf32)
        if groups != 1 or not on_tensor_cores or x.is_contiguous(memory_format=torch.channels_last):
            return 0
        return int(x.nbytes + weight.nbytes + out.nbytes)

    def meet(self, x: Tensor, operation: str, place: str | None = None) -> None:
        """Give a tensor memory, if its storage has none yet, until the storage is dropped."""
        storage = x.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        if place is not None:
            self.place = place
        if storage.nbytes():
            weakref.finalize(storage, self._drop, *self._make(storage.nbytes(), operation, tuple(x.shape), x.dtype))

    def _make(self, nbytes: int, operation: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Block, Made]:
        before = self.allocator.peak
        block = self.allocator.malloc(nbytes)
        made = self.trace.made
        made.append(Made(self.place, operation, shape, str(dtype).removeprefix("torch."), block.size, len(made)))
        if self.allocator.peak > before:
            self.trace.peak_at = len(made) - 1
        return block, made[-1]

    def _drop(self, block: Block, made: Made) -> None:
        self.allocator.free(block)
        made.end = len(self.trace.made)

    def serve(self, threads: int) -> None:
        """Make cuBLAS's workspaces, one for each thread that computes products."""
        if self._card is not None:
            self.place = "(libraries)"
            for _ in range(threads):
                self._make(self._card.cublas_bytes, "cuBLAS workspace", (self._card.cublas_bytes,), torch.uint8)
            self.workspace_bytes = threads * self._card.cublas_bytes

    def hold(self, nbytes: int) -> None:
        """Make and drop one block: what an operator holds for the time of a call."""
        self._drop(*self._make(nbytes, "inside an operator", (nbytes,), torch.uint8))


class Predictor:
    """Predicts what calls of one cell need. The model is built once, without data.

    Args:
        case: its phase says whether a call is a forward pass or a training step with AdamW. Its batch and its device
            do not matter; its form should be one of CUDA's.

    Raises: UnsupportedError if the cell asks for an attention that the model does not have; whatever the constructor of
        the model raises.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._dtype = getattr(torch, case.weights_dtype)
        self._model = without_data(case)
        with self._without_data():
            finish(self._model, torch.empty(1, 3, case.height, case.width, dtype=self._dtype))
        self._pass, self._cast = Pass(ExactAllocator(), None), Autocast(None)
        self._needed: dict[Any, int] = {}  # what a torch form of the operator holds, by the shapes of its inputs
        if case.operator and case.form:
            self._look_inside(case.operator, case.form)

    def predict(
        self,
        card: Card | None,
        *,
        batch: int = 1,
        tf32: bool = False,
        limited: bool = False,
    ) -> Prediction:
        """The memory of one call on a card, in eager mode.

        Args:
            batch: images in the call.
            tf32: whether float32 convolutions run on tensor cores.
            limited: whether the card's memory is the limit.

        Raises: OutOfMemoryError if limited and the call does not fit; UnsupportedError if a pinned kernel of attention
            cannot take the input.
        """
        case, model = self._case, self._model
        context = card.context_bytes if card else 0
        limit = card.memory_bytes - context if card and limited else None
        allocator = CachingAllocator(limit) if card else ExactAllocator()
        self._pass = watched = Pass(allocator, card, tf32=tf32)
        for path, weight in chain(model.named_parameters(), model.named_buffers()):
            watched.meet(weight, "weight", path)
        weights = allocator.allocated
        watched.serve(2 if case.phase == "train" else 1)
        layout = torch.channels_last if case.layout == "nhwc" else torch.contiguous_format
        image = torch.empty(batch, 3, case.height, case.width, dtype=self._dtype, device="meta", memory_format=layout)
        watched.meet(image, "input", "")
        moments: list[Tensor] = []
        gradients, train = 0, case.phase == "train"
        whole = case.attention == "math"
        half = getattr(torch, case.autocast) if case.autocast else None
        kernel = case.attention if card or whole else None  # what CUDA's kernels take
        cast = self._cast = Autocast(half, host=on_host(case.device), attention=kernel)
        with (
            pinned("math" if whole else None),
            warnings.catch_warnings(action="ignore"),  # torch warns of what autocast makes slow
            observed(lambda _: None),
            self._without_data(),
            _named(model, watched),
            torch.set_grad_enabled(train),
            watched,
        ):
            for _ in range(CALLS):
                if train:
                    gradients = _step(model, image, cast, watched, moments)
                else:
                    with cast:
                        model(image)
        optimizer = sum(x.nbytes for x in moments)
        known = weights + image.nbytes + gradients + optimizer + watched.workspace_bytes
        return Prediction(
            batch=batch,
            weights_bytes=weights,
            input_bytes=image.nbytes,
            gradients_bytes=gradients,
            optimizer_bytes=optimizer,
            workspace_bytes=watched.workspace_bytes,
            activation_bytes=max(0, allocator.peak - known),
            peak_bytes=allocator.peak,
            reserved_bytes=allocator.peak_reserved,
            process_bytes=allocator.peak_reserved + context,
            held=watched.trace.held(),
        )

    @staticmethod
    @contextmanager
    def _without_data() -> Iterator[None]:
        """Within, new tensors have no data, and those that have some follow."""
        with torch.device("meta"), Following(), uncompiled():
            yield

    def fits(self, card: Card, *, batch: int) -> bool:
        """Whether a call fits on a card."""
        try:
            self.predict(card, batch=batch, limited=True)
        except OutOfMemoryError:
            return False
        return True

    def _look_inside(self, op: str, form: str) -> None:
        """Have the operator run its form; a recurrent form without kernels holds its results alone."""
        about, entry = OPS[op][form], operator(op, form)
        if about.package == "triton":
            replace_function(self._model, entry, self._uncast(computation(op, form)))
        elif about.mode == "parallel" and about.package is None:
            replace_function(self._model, entry, self._priced(entry, self._uncast(computation(op, form))))

    def _uncast(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """A form, which leaves autocast as `kernels.entry` does."""

        def call(*args: Any, **options: Any) -> Any:
            with self._cast.paused():
                return compute(*args, **options)

        return call

    def _priced(self, entry: Callable[..., Any], compute: Callable[..., Any]) -> Callable[..., Any]:
        """A form of torch's: its first call on some shapes and types is run, a later one holds as much, as one block.

        In training every call is run, because backward needs what it keeps.
        """

        def call(*args: Any, **options: Any) -> Any:
            watched = self._pass
            allocator = watched.allocator
            if torch.is_grad_enabled():
                return compute(*args, **options)
            if args[0].shape[-2] > SEEN_INSIDE:
                return entry(*args, **options)
            given = chain(args, options.values())
            key = tuple((tuple(x.shape), x.dtype) if isinstance(x, Tensor) else SAME_COST.get(x, x) for x in given)
            if key in self._needed:
                watched.hold(self._needed[key])
                return entry(*args, **options)
            before, peak = allocator.allocated, allocator.peak
            allocator.peak = before
            out = compute(*args, **options)
            self._needed[key] = max(1, allocator.peak - before)
            allocator.peak = max(peak, allocator.peak)
            return out

        return call


def _step(model: nn.Module, image: Tensor, cast: Autocast, watched: Pass, moments: list[Tensor]) -> int:
    """A training step; the first one makes AdamW's two moments. Returns: bytes of the gradients."""
    ready_to_train(model)
    with cast:
        output = model(image)
    watched.place = "(loss)"
    loss = loss_of(output, len(image), lambda logits: torch.empty(logits.shape[:1], dtype=torch.long)).value
    del output
    watched.place = "(backward)"
    loss.backward()
    watched.place = "(optimiser)"
    weights = [p for p in model.parameters() if p.grad is not None]
    if not moments:
        moments += [torch.zeros_like(p) for p in weights for _ in range(2)]
        moments += [torch.zeros((), dtype=torch.float32) for _ in weights]  # the number of the step, each on its own
    gradients = sum(p.grad.nbytes for p in weights if p.grad is not None)
    model.zero_grad(set_to_none=True)
    return gradients


@contextmanager
def _named(model: nn.Module, watched: Pass) -> Iterator[None]:
    """Within, `watched.place` is the path of the module that runs."""
    stack: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            stack.append(watched.place)
            watched.place = path

        return hook

    def leave(*_: Any) -> None:
        watched.place = stack.pop()

    watched.place = "(model)"
    named = [(path or "(model)", module) for path, module in model.named_modules() if takes_hooks(module)]
    handles = [module.register_forward_pre_hook(enter(path)) for path, module in named]
    handles += [module.register_forward_hook(leave) for _, module in named]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def host_code(name: str) -> Callable[..., Any] | None:
    """What an operator made of Triton's kernels does beside launching them; None for other operations."""
    from torch._library.custom_ops import OPDEFS

    if not name.startswith("vbench::") or name == "vbench::operator":
        return None
    return getattr(OPDEFS.get(name), "_init_fn", None)


def prediction(case: Case) -> tuple[int | None, list[str]]:
    """`predicted_peak`, or None and a sentence that says why the memory is not predicted.

    Raises: UnsupportedError, as `Predictor.predict`.
    """
    try:
        return predicted_peak(case), []
    except UnsupportedError:
        raise
    except Exception as error:  # whatever a model raises on tensors without data
        return None, [f"peak memory not predicted: {first_line(error, named=True)}"]


def predicted_peak(case: Case) -> int:
    """Predicted peak, in bytes, of one timed call of a cell: a pass at batch 1, or a training step at the cell's batch.

    Weights and input are part of it, workspaces of libraries are not. For a cell on CUDA requests are rounded as CUDA's
    allocator rounds them.
    """
    card = None if on_host(case.device) else next(iter(cards().values()))
    found = Predictor(case).predict(card, batch=timed_images(case))
    return found.peak_bytes - found.workspace_bytes


def timed_images(case: Case) -> int:
    """The images of a timed call: the batch asked for in a training step, 1 in all else."""
    return case.batch if case.phase == "train" and isinstance(case.batch, int) else 1
