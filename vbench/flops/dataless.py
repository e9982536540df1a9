"""Models on torch's meta device, where a pass computes shapes and types, and no values.

Most constructors run there. One that reads values, as `.item()` does, runs on the CPU, and its model is moved. Tensors
that are left on the CPU, such as a constant of a module, follow into the operations that need them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from vbench.meters.build import build, cast
from vbench.models.external import load
from vbench.plan import Case

Result = TypeVar("Result")


def without_data(case: Case) -> nn.Module:
    """The model of a cell, in its type, without data. Raises: whatever its constructor raises on the CPU."""
    if case.spec.external:
        load(case.model)  # what a module makes while it is imported keeps its data
    try:
        with torch.device("meta"):
            model = cast(build(case), getattr(torch, case.weights_dtype))
    except Exception:
        model = afresh(case, lambda: with_data(case))
    return to_meta(model)


def with_data(case: Case) -> nn.Module:
    """The model of a cell, in its type, on the CPU."""
    with torch.device("cpu"):
        return cast(build(case), getattr(torch, case.weights_dtype))


def afresh(case: Case, do: Callable[[], Result]) -> Result:
    """What `do` returns. If it meets a tensor without data, it is done again with the user's package imported anew.

    A package may keep tensors from one call to the next: in a cache, or in a model that it builds only once.
    """
    try:
        return do()
    except Exception as error:
        if not case.spec.external or "meta" not in str(error):
            raise
    package = case.model.partition(":")[0].partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    return do()


def to_meta(model: nn.Module) -> nn.Module:
    """Move the parameters and buffers of a model to the meta device, in place. Tied weights stay tied."""
    twins: dict[int, tuple[Tensor, Tensor]] = {}  # by identity: a tensor that has data, and its twin
    for module in model.modules():
        stores: tuple[Any, ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, x in list(store.items()):
                if x is not None and not x.is_meta:
                    twins.setdefault(id(x), (x, _twin(x)))
                    store[name] = twins[id(x)][1]
    for module in model.modules() if twins else ():
        for value in vars(module).values():
            if type(value) is list:  # torch's LSTM keeps a list of its weights
                value[:] = [twins[id(x)][1] if id(x) in twins else x for x in value]
    return model


def _twin(x: Tensor) -> Tensor:
    """A tensor of the same kind, shape, strides and type, without data."""
    if is_lazy(x):
        kind: Any = UninitializedParameter if isinstance(x, nn.Parameter) else UninitializedBuffer
        found: Tensor = kind(requires_grad=x.requires_grad, device="meta", dtype=x.dtype)
        return found
    if x.layout is torch.strided and type(x) in (Tensor, nn.Parameter):
        found = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    else:
        found = x.detach().to("meta")
    return nn.Parameter(found, requires_grad=x.requires_grad) if isinstance(x, nn.Parameter) else found


class Following(TorchFunctionMode):
    """Where an operation gets tensors with and without data, those with data are replaced by twins without."""

    def __init__(self) -> None:
        super().__init__()
        self._twins: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        without = {x.is_meta for x in tree_leaves((tuple(args), kwargs)) if isinstance(x, Tensor)}
        if len(without) == 2:
            args, kwargs = tree_map_only(Tensor, self._follow, (tuple(args), kwargs))
        return func(*args, **kwargs)

    def _follow(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x
        if id(x) not in self._twins:
            with _disable_current_modes():  # nothing that a ledger should enter
                self._twins[id(x)] = x, _twin(x)
        return self._twins[id(x)][1]


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, what torch.compile has wrapped runs as it is written."""
    if "torch._dynamo" not in sys.modules:  # nothing is wrapped
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
