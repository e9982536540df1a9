"""The time of each module in a forward pass: its own, and that with all that it calls.

A mark is set wherever a pass enters or leaves a row of the table: by hooks on modules, and by a wrapper around each of
our operators, which are functions. The time from one mark to the next is the own time of the row that was entered last
and not left. So the own times of one call, that outside of any module among them, add up to the call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from vbench.kernels.registry import operator
from vbench.meters.build import takes_hooks
from vbench.plan import RIGORS, Case

if TYPE_CHECKING:
    from torch import nn

    from vbench.devices.base import Call, Device

LEVELS = 2
WHOLE, OUTSIDE = "(model)", "(outside any module)"
FEWEST, MOST = 5, 500  # rounds
FEWEST_SLOW = 2  # where `FEWEST` take more than twice the seconds that were asked for


def rows_of(model: nn.Module, depth: int = LEVELS) -> dict[str, str]:
    """Each module's path -> its row: the path `depth` levels down, with a `*` for the number of repeated blocks.

    Containers do not count as a level. Modules of one container are repeated if they are of one class, and the largest
    parameters of both have one shape: "layers.2.blocks.5.attn" -> "layers.2.blocks.*.attn".
    """
    from torch import nn

    kinds: dict[str, Counter[Any]] = {}  # of what has a number in each container
    modules = [(path, *_split(path), _kind(module), module) for path, module in model.named_modules() if path]
    for _, parent, name, kind, _ in modules:
        if name.isdecimal():
            kinds.setdefault(parent, Counter())[kind] += 1
    names = {"": ""}
    places: dict[str, tuple[str, int]] = {"": (WHOLE, 0)}  # row and level
    for path, parent, name, kind, module in modules:
        repeated = name.isdecimal() and kinds[parent][kind] > 1
        names[path] = f"{names[parent]}.{'*' if repeated else name}".lstrip(".")
        row, level = places[parent]
        if level < depth:
            row = names[path]
            level += not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        places[path] = (row, level)
    return {path: row for path, (row, _) in places.items()}


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition(".")
    return parent, name


def _kind(module: nn.Module) -> tuple[type, tuple[int, ...]]:
    """The class of a module, and the shape of its largest parameter."""
    from torch.nn.parameter import is_lazy

    shapes = [tuple(weight.shape) for weight in module.parameters() if not is_lazy(weight)]
    return type(module), max(shapes, key=prod, default=())


def operator_row(row: str, op: str) -> str:
    """The row of the calls of an operator by modules of a row: "blocks.*.attn" -> "blocks.*.attn.gla()"."""
    return f"{row}.{op}()"


@dataclass(slots=True)
class Shares:
    """One call: milliseconds by row, own and with all that the row calls; and how often each row was entered."""

    own_ms: dict[str, float] = field(default_factory=dict)
    total_ms: dict[str, float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)


def shares(marks: Sequence[str | None], gaps_ms: Sequence[float]) -> Shares:
    """The shares of a call, from its marks: the row that was entered, or None where the last one was left.

    Args:
        gaps_ms: the time from each mark to the next, one fewer than marks.
    """
    found, stack = Shares(), list[str]()
    for mark, gap in zip(marks, gaps_ms, strict=False):
        if mark is None:
            stack.pop()
        else:
            stack.append(mark)
            found.calls[mark] += 1
        found.own_ms[stack[-1]] = found.own_ms.get(stack[-1], 0.0) + gap
        for row in set(stack):
            found.total_ms[row] = found.total_ms.get(row, 0.0) + gap
    return found


class Marking:
    """Sets marks in the calls of a model. Make one call while it is `searching`, then `take` others.

    Args:
        rows: of its modules, as `rows_of` returns them.
        functions: our operators that its modules may hold, by name.
    """

    def __init__(
        self, model: nn.Module, rows: dict[str, str], device: Device, functions: dict[str, Callable[..., Any]]
    ) -> None:
        self._device = device
        self._modules = [(module, rows[path]) for path, module in model.named_modules() if takes_hooks(module)]
        self._operators = [
            (module, name, value, operator_row(row, op))
            for module, row in self._modules
            for name, value in vars(module).items()
            for op, function in functions.items()
            if value is function
        ]
        self._marks: list[str | None] = []
        self._moments: list[Any] = []  # of the last call, to be used again

    def search(self, call: Call) -> None:
        """Make a call, and find by it which modules are entered from another row: the others need no marks."""
        stack, borders = [OUTSIDE], set[int]()

        def enter(module: nn.Module, row: str) -> None:
            if row != stack[-1]:
                borders.add(id(module))
            stack.append(row)

        with _hooked(self._modules, enter, stack.pop):
            call()
        self._modules = [(module, row) for module, row in self._modules if id(module) in borders]

    def take(self, call: Call) -> Shares:
        """Make a call with marks, on an idle device; its shares."""
        self._marks = []
        with _hooked(self._modules, lambda _, row: self._mark(row), self._mark), self._wrapped():
            self._device.wait()
            self._mark(OUTSIDE)
            call()
            self._mark(None)
        self._device.wait()
        moments = self._moments[: len(self._marks)]
        gaps = [self._device.between_ms(*pair) for pair in pairwise(moments)]
        return shares(self._marks, gaps)

    def _mark(self, row: str | None = None) -> None:
        at = len(self._marks)
        self._marks.append(row)
        if at < len(self._moments):
            self._moments[at] = self._device.moment(self._moments[at])
        else:
            self._moments.append(self._device.moment())

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Within, operators set marks."""
        for module, name, function, row in self._operators:
            setattr(module, name, self._between_marks(function, row))
        try:
            yield
        finally:
            for module, name, function, _ in self._operators:
                setattr(module, name, function)

    def _between_marks(self, function: Callable[..., Any], row: str) -> Callable[..., Any]:
        @wraps(function)
        def marked(*inputs: Any, **options: Any) -> Any:
            self._mark(row)
            try:
                return function(*inputs, **options)
            finally:
                self._mark()

        return marked


@contextmanager
def _hooked(
    modules: Sequence[tuple[nn.Module, str]], enter: Callable[[nn.Module, str], None], leave: Callable[[], object]
) -> Iterator[None]:
    """Within, a module calls `enter` with itself and its row before all else, and `leave` after all else.

    Code that torch.compile compiles calls neither, and stays as it is.
    """
    from torch.compiler import is_compiling

    def entering(row: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any) -> None:
            if not is_compiling():
                enter(module, row)

        return hook

    def leaving(*_: Any) -> None:  # what a hook returns would replace the module's output
        if not is_compiling():
            leave()

    hooks = []
    for module, row in modules:
        hooks.append(module.register_forward_pre_hook(entering(row), prepend=True))
        hooks.append(module.register_forward_hook(leaving, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case", "depth", "batch", "seconds", "threads"} -> "times" of a cell's modules in inference, eager.

    Calls with marks and without take turns for that many seconds. "times" has `warmup`, as `timing.warm_up` returns
    it; `whole_ms`, the samples without marks; `rows`, for each row `calls` of one pass, and the samples `own_ms` and
    `total_ms`, in the same order.

    Raises: UnsupportedError if the model does not take what it is given, but takes something else.
    """
    import torch

    from vbench.devices import open_device, process
    from vbench.meters import aside, autocast, timing
    from vbench.meters.build import beside_complex, images
    from vbench.meters.refusals import explained

    case, batch, seconds = Case(**argument["case"]), argument["batch"], argument["seconds"]
    device, protocol = open_device(case.device), replace(RIGORS["quick"], threads=argument["threads"])
    torch.set_num_threads(protocol.threads)
    device.select()
    torch.manual_seed(protocol.seed)
    with explained(case, batch), torch.inference_mode():
        model = aside.placed(case)
        module, image = autocast.under(case, model), images(case, batch, torch.device(case.device))
        with beside_complex(model, case):
            module(image)

    def call() -> Any:
        return module(image)

    functions = {case.operator: operator(case.operator, case.form)} if case.operator and case.form else {}
    marking = Marking(model, rows_of(model, argument["depth"]), device, functions)
    process.keep_freed()
    with torch.inference_mode():
        marking.search(call)
        marking.take(call)
        warm = timing.warm_up(call, device, protocol)
        whole, taken = in_turn(call, marking, device, seconds)
    yield "times", {"warmup": warm, "whole_ms": whole, "rows": _by_row(taken)}


def in_turn(call: Call, marking: Marking, device: Device, seconds: float) -> tuple[list[float], list[Shares]]:
    """Calls without marks, in ms, and with marks, in turn; which is first changes from round to round."""
    whole: list[float] = []
    taken: list[Shares] = []
    begin = device.now()
    while len(taken) < MOST:
        if len(taken) % 2:
            taken.append(marking.take(call))
        whole += device.samples(call, 1)
        if len(taken) < len(whole):
            taken.append(marking.take(call))
        passed = device.now() - begin
        if passed >= seconds and (len(taken) >= FEWEST or (len(taken) >= FEWEST_SLOW and passed >= 2 * seconds)):
            break
    return whole, taken


def _by_row(taken: Sequence[Shares]) -> dict[str, dict[str, Any]]:
    """The samples of each row, in the order in which the rows are entered."""
    return {
        row: {
            "calls": calls,
            "own_ms": [one.own_ms.get(row, 0.0) for one in taken],
            "total_ms": [one.total_ms.get(row, 0.0) for one in taken],
        }
        for row, calls in taken[-1].calls.items()
    }
