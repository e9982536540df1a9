"""The model and the input with which a case is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from vbench.devices import is_out_of_memory
from vbench.errors import UnsupportedError, first_line
from vbench.models import MODELS, create
from vbench.plan import PINNED, Case

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HALVES = ("bfloat16", "float16")


def build(case: Case) -> nn.Module:
    """The model of a cell, with random weights, on torch's current default device. In training it drops no path.

    Raises: UnsupportedError if the case asks for a deployed form, for unfused attention, or for one kernel of fused
        attention, and the model has none that timm can compute so. A model of the user's own may call torch's attention
        without timm.
    """
    import torch

    # timm's Swin drops paths in training unless told otherwise; the cost is that of all paths.
    ours = case.model in MODELS
    options = {"drop_path_rate": 0.0} if case.phase == "train" and ours else {}
    model = create(case.model, (case.height, case.width), case.mode, form=case.form, **options)
    if case.reparam == "yes":
        from vbench.models.deployed import deployed

        model = deployed(model, case.model)
    if case.attention == "unfused" and not unfuse(model):
        raise UnsupportedError(f"{case.model} has no attention that timm can compute unfused")
    if case.attention in PINNED and not case.spec.external and "fused" not in (attention_of(model) or "").split("+"):
        raise UnsupportedError(f"{case.model} has no attention that timm fuses, so there is no kernel to choose")
    return model.to(memory_format=torch.channels_last) if case.layout == "nhwc" else model


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give the floating-point parameters and buffers of a model a type. Complex ones stay as they are."""
    # Scripted and lazy modules take this too.
    found: nn.Module = model._apply(lambda x: x.to(dtype) if x.is_floating_point() else x)
    return found


def weights_of(model: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a model, without lazy ones that no call has given a shape."""
    from torch.nn.parameter import is_lazy

    return [x for x in chain(model.parameters(), model.buffers()) if not is_lazy(x)]


def finish(model: nn.Module, image: Tensor) -> bool:
    """Let lazy modules take their shapes from a first pass. Returns: whether there are any."""
    import torch
    from torch.nn.parameter import is_lazy

    lazy = any(is_lazy(x) for x in chain(model.parameters(), model.buffers()))
    if lazy:
        with torch.no_grad():
            model(image)
    return lazy


@contextmanager
def beside_complex(model: nn.Module, case: Case) -> Iterator[None]:
    """Within, the model is called. In a half type its complex parameters stay as they are: there is none for them.

    Raises: UnsupportedError in place of an error by which torch, or the model, refuses to compute with both.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        wide = {
            str(x.dtype).removeprefix("torch.") for x in chain(model.parameters(), model.buffers()) if x.is_complex()
        }
        if case.weights_dtype not in HALVES or not wide or is_out_of_memory(error):
            raise
        raise UnsupportedError(
            f"{case.model} has complex parameters, which stay {' and '.join(sorted(wide))} in {case.dtype}, "
            f"and it does not compute with both: {first_line(error)}"
        ) from error


def images(case: Case, batch: int, device: torch.device) -> Tensor:
    """A batch of noise of the cell's size, layout and type of weights: (batch, 3, height, width)."""
    import torch

    noise = torch.randn(batch, 3, case.height, case.width, device=device, dtype=getattr(torch, case.weights_dtype))
    return noise.to(memory_format=torch.channels_last) if case.layout == "nhwc" else noise


def unfuse(model: nn.Module) -> bool:
    """Make timm's attention compute all its scores at once; True if the model has such attention."""
    able = _attentions(model)
    for module in able:
        setattr(module, "fused_attn", False)  # noqa: B010 - a plain attribute, which nn.Module's types do not know
    return bool(able)


def attention_of(model: nn.Module) -> str | None:
    """How timm computes a model's attention: "fused", "unfused", "fused+unfused", or None if it has none."""
    kinds = {"fused" if module.fused_attn else "unfused" for module in _attentions(model)}
    return "+".join(sorted(kinds)) or None


def _attentions(model: nn.Module) -> list[nn.Module]:
    """Its modules that compute attention as timm's do. They are not asked: a module may answer to every name."""
    return [module for module in model.modules() if "fused_attn" in vars(module)]


def takes_hooks(module: nn.Module) -> bool:
    """Whether a module takes hooks; one that torch.jit has scripted takes none."""
    import torch

    return not isinstance(module, torch.jit.ScriptModule)


def replace_function(model: nn.Module, old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Replace the function `old` by `new` in every module of `model` that holds it."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)
