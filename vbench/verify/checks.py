"""The checks of operators and models; see `vbench.verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vbench.devices import kind_of, on_host
from vbench.kernels.registry import OPS, default_form, forms, missing, operator, trials, truth
from vbench.kernels.trials import Inputs, Trial, cast, hand_off, relative, tensors
from vbench.meters import autocast
from vbench.meters.build import cast as cast_model
from vbench.models import create, drawn, load_published, spec
from vbench.models.external import has_modes
from vbench.plan import AUTOCAST, weights_dtype
from vbench.verify import HALF, Check, Extent

BOUNDS = {"float64": 1e-10, "float32": 1e-5}  # relative, of a form against the recurrence
GRAD_BOUNDS = {"float64": 1e-9, "float32": 1e-4}  # likewise, of the gradient of any of its inputs
ELSEWHERE = 8.0  # times the error in float32 on the CPU: another device adds in another order, and rounds no coarser
MOST = 0.5  # in a half type, or under autocast: more says that nothing of the logits is left
SIDES = (160, 144)  # px of an image: not square, and with more tokens than a chunk
WHOLE = Extent()


def operator_checks(op: str, device: str = "cpu", seed: int = 0, extent: Extent = WHOLE) -> Iterator[Check]:
    """Check the forms of an operator in every trial."""
    tried = [form for form in forms(op, device) if not extent.forms or form in extent.forms]
    directions: set[str] = set()
    for trial in trials(op):
        whole = not extent.brief or trial.direction not in directions
        directions.add(trial.direction)
        generator = torch.Generator().manual_seed(seed)
        inputs = {name: value.to(home(device)) for name, value in trial.draw(extent.tokens, generator).items()}
        cuts = torch.randint(1, extent.tokens, (extent.cuts,), generator=generator).tolist()
        if extent.values:
            yield from _equality(op, tried, trial, inputs, device, halves=whole)
        if extent.gradients:
            differentiated = [form for form in tried if whole or OPS[op][form].mode == "parallel"]
            yield from _gradients(op, differentiated, trial, inputs, device, seed)
        for form in tried if whole and extent.values else ():
            exact = finest(op, form, device)
            finely = on(device, cast(inputs, getattr(torch, exact)))
            if trial.divisible:
                yield from _split(op, form, trial, finely, cuts, BOUNDS[exact])
            elif trial.initial:
                yield from _started(op, form, trial, finely, device, BOUNDS[exact])
            if trial.one_way:
                yield _causality(op, form, trial, finely, BOUNDS[exact])


def finest(op: str, form: str, device: str) -> str:
    """The most exact dtype of a form: float64, or float32 where its kernels or the device have no float64."""
    return OPS[op][form].dtypes[0] if kind_of(device).float64 else "float32"


def home(device: str) -> str:
    """Where the truth is computed, in float64: on the device, or on the CPU for a device that has no float64."""
    return device if kind_of(device).float64 else "cpu"


def on(device: str, inputs: Inputs) -> Inputs:
    """The inputs, on a device."""
    return {name: value.to(device) for name, value in inputs.items()}


def _equality(
    op: str, tried: Sequence[str], trial: Trial, inputs: Inputs, device: str, *, halves: bool
) -> Iterator[Check]:
    exact = operator(op, truth(op))
    for kind, dtypes in (
        ("float64", [torch.float64]),
        ("float32", [torch.float32]),
        ("half", [torch.bfloat16, torch.float16] if halves else []),
    ):
        for dtype in dtypes:
            rounded = cast(inputs, dtype)
            wanted, state = trial.run(exact, cast(rounded, torch.float64))
            errors, state_errors = {}, {}
            able = forms(op, device, dtype=str(dtype).removeprefix("torch."))
            if kind == "float64" and not kind_of(device).float64:
                able = []
            for form in [form for form in able if form in tried or (kind == "half" and form == truth(op))]:
                o, s = trial.run(operator(op, form), on(device, rounded))
                errors[form] = relative(o, wanted)
                pairs = zip(tensors(s), tensors(state), strict=True)
                state_errors[form] = max((relative(*pair) for pair in pairs), default=0)
            for form, error in errors.items():
                if form not in tried:  # it only gives the least error that is possible
                    continue
                if kind == "half":  # the state is not rounded to the inputs' type
                    yield Check(op, kind, form, f"{trial.name}, {dtype}", error, HALF * min(errors.values()))
                    yield Check(op, kind, form, f"{trial.name}, {dtype}, state", state_errors[form], BOUNDS["float32"])
                else:
                    yield Check(op, kind, form, trial.name, error, BOUNDS[kind])
                    yield Check(op, kind, form, f"{trial.name}, state", state_errors[form], BOUNDS[kind])


def _gradients(op: str, tried: Sequence[str], trial: Trial, inputs: Inputs, device: str, seed: int) -> Iterator[Check]:
    """Check the gradients of every input, through output and final state, against the recurrence in float64.

    In float32 the bound is the larger of 1e-4 and twice the error of the recurrence itself in float32.
    """

    def errors(form: str, dtype: str) -> dict[str, float]:
        rounded = cast(inputs, getattr(torch, dtype))
        wanted = exactly if dtype == "float64" else _gradient(op, truth(op), trial, cast(rounded, torch.float64), seed)
        gradient = _gradient(op, form, trial, on(device, rounded), seed)
        return {name: relative(gradient[name], wanted[name]) for name in inputs}

    exactly = _gradient(op, truth(op), trial, inputs, seed)
    reached: dict[str, float] | None = None
    for form in tried:
        exact = finest(op, form, device)
        if exact != "float64" and reached is None:
            reached = errors(truth(op), exact)
        for name, error in errors(form, exact).items():
            bound = GRAD_BOUNDS[exact]
            if exact != "float64" and reached is not None:
                bound = max(bound, HALF * reached[name])
            yield Check(op, "grad", form, f"{trial.name}, of {name}", error, bound)


def _gradient(op: str, form: str, trial: Trial, inputs: Inputs, seed: int) -> Inputs:
    """The gradient of a randomly weighted sum of output and final state, with respect to each input."""
    generator = torch.Generator().manual_seed(seed)
    x = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    o, state = trial.run(operator(op, form), x, trial.initial(x) if trial.initial else None)
    exact = torch.float64 if kind_of(o.device.type).float64 else torch.float32
    loss = torch.zeros((), dtype=exact, device=o.device)
    for part in (o, *tensors(state)):
        weights = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.device, exact)
        if part.requires_grad:
            loss = loss + (weights * part).sum()
    gradients = torch.autograd.grad(loss, list(x.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(x, gradients, strict=True))


def _split(op: str, form: str, trial: Trial, inputs: Inputs, cuts: Iterable[int], bound: float) -> Iterator[Check]:
    """Check that two parts, with the state handed over, give what the whole gives."""
    whole, final = trial.run(operator(op, form), inputs)
    for at in cuts:
        o, state = hand_off(trial, operator(op, form), inputs, at)
        pairs = zip((o, *tensors(state)), (whole, *tensors(final)), strict=True)
        error = max(relative(*pair) for pair in pairs)
        yield Check(op, "split", form, f"{trial.name}, cut before token {at}", error, bound)


def _started(op: str, form: str, trial: Trial, inputs: Inputs, device: str, bound: float) -> Iterator[Check]:
    """Check what a form makes of another first state than none, where a sequence cannot be cut: in several walks that
    meet the tokens in orders of their own."""
    exact = {name: value.to(home(device), torch.float64) for name, value in inputs.items()}
    _, start = trial.run(operator(op, truth(op)), exact)
    wanted, state = trial.run(operator(op, truth(op)), exact, start)
    given = tuple(part.to(device, next(iter(inputs.values())).dtype) for part in tensors(start))
    o, s = trial.run(operator(op, form), inputs, given if isinstance(start, tuple) else given[0])
    yield Check(op, "split", form, f"{trial.name}, from a state", relative(o, wanted), bound)
    error = max(relative(*pair) for pair in zip(tensors(s), tensors(state), strict=True))
    yield Check(op, "split", form, f"{trial.name}, from a state, the last one", error, bound)


def _causality(op: str, form: str, trial: Trial, inputs: Inputs, bound: float) -> Check:
    """Check that the output of a token does not depend on later tokens, in the trial's direction."""
    name, dim = next(iter(trial.token_dims.items()))
    tokens = inputs[name].shape[dim]
    at = tokens // 2
    beyond, kept = ((at, tokens - at), slice(None, at)) if trial.direction == "forward" else ((0, at), slice(at, None))
    changed = dict(inputs)
    for name, dim in trial.token_dims.items():
        changed[name] = inputs[name].clone()
        changed[name].narrow(dim, *beyond).mul_(0.5)
    before, _ = trial.run(operator(op, form), inputs)
    after, _ = trial.run(operator(op, form), changed)
    error = relative(after[..., kept, :], before[..., kept, :])
    return Check(op, "causal", form, f"{trial.name}, tokens beyond {at} changed", error, bound)


def model_checks(
    name: str,
    device: str = "cpu",
    seed: int = 0,
    weights: str | None = None,
    dtype: str = "float32",
    tell: Callable[[str], object] = lambda note: None,
) -> Iterator[Check]:
    """Check the logits of a model in the forms that are timed, and the causality of a network that streams.

    In float32 the bound is the larger of 1e-5 and twice the error of the best form: some networks amplify rounding a
    thousandfold. On another device than the CPU it is also at most 8 times the error on the CPU: if that device rounds
    the products of all forms, to TF32 say, no form passes for exact. In another `dtype` a
    form's error may be twice that of the best form in it, and no more than `MOST`.

    Args:
        weights: a checkpoint for `load_published`; random weights if None.
        dtype: as `Case.dtype`.
        tell: is called with what `load_published` notes of the checkpoint.
    """
    row = spec(name)
    if row.operator is None:
        return
    height, width = (-(-side // row.multiple) * row.multiple for side in SIDES)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64).to(home(device))
    where = f"{height}x{width} px"
    state: dict[str, Tensor] | None = None
    on_cpu: Tensor | None = None
    logits: dict[str, dict[str, Tensor]] = {each: {} for each in ("float64", "float32", dtype)}
    able = forms(row.operator, device)
    timed = {default_form(row.operator, mode, device) for mode in row.modes}
    first = forms(row.operator, device, "parallel", "float64")[0]
    if len(timed) > 1:
        able = [form for form in able if form in {first, *timed}]
    for form in able:
        with _Zeros():
            model = create(name, (height, width), OPS[row.operator][form].mode, form=form)
        if state is None:
            if weights:
                for note in load_published(model, weights).notes:
                    tell(note)
            state = model.state_dict() if weights else drawn.weights(model, generator)
        model.load_state_dict(state)
        if form == first and not on_host(device):
            with torch.inference_mode():
                on_cpu = model(image.cpu().float())
        model = model.to(device)
        with torch.inference_mode():
            logits["float32"][form] = model(image.float().to(device))
            if dtype != "float32" and missing(row.operator, form, device, weights_dtype(dtype)) is None:
                logits[dtype][form] = _as_timed(model, image, dtype)
                model.load_state_dict(state)  # as it was before it was rounded
            exact = finest(row.operator, form, device)
            if row.streams and exact == "float32":
                yield _model_causality(name, form, model, image.float().to(device), where, BOUNDS[exact])
            if exact == "float64" or form == first:
                logits["float64"][form] = model.to(image.device).double()(image)
            if row.streams and exact == "float64":
                yield _model_causality(name, form, model, image, where, BOUNDS[exact])
    wanted = logits["float64"][first]
    yield from _model_equality(name, first, logits, where, None if on_cpu is None else relative(on_cpu, wanted.cpu()))


def _model_equality(
    name: str, first: str, logits: dict[str, dict[str, Tensor]], where: str, on_cpu: float | None
) -> Iterator[Check]:
    """Check the logits by dtype and form against those of the form `first` in float64; `on_cpu`: its float32 error."""
    wanted = logits["float64"][first]
    for dtype, found in logits.items():
        errors = {form: relative(values, wanted) for form, values in found.items()}
        reached = HALF * min(errors.values(), default=0.0)
        if dtype == "float32" and on_cpu is not None:
            reached = min(reached, ELSEWHERE * on_cpu)
        for form, error in errors.items():
            if dtype == "float64" and form != first:
                yield Check(name, dtype, form, where, error, BOUNDS[dtype])
            if dtype == "float32":
                yield Check(name, dtype, form, where, error, max(BOUNDS[dtype], reached))
            if dtype not in BOUNDS:
                yield Check(name, "timed", form, f"{where}, {dtype}", error, min(MOST, reached))


def _as_timed(model: torch.nn.Module, image: Tensor, dtype: str) -> Tensor:
    """The logits in a type, or under autocast. The model's weights are float32 afterwards, rounded to the type."""
    kept = getattr(torch, weights_dtype(dtype))
    cast_model(model, kept)
    called = model
    if dtype in AUTOCAST:
        called = autocast.UnderAutocast(model, image.device.type, getattr(torch, AUTOCAST[dtype]))
    found: Tensor = called(image.to(kept).to(next(model.parameters()).device))
    model.float()
    return found


def own_checks(
    name: str,
    device: str,
    seed: int,
    image_size: tuple[int, int],
    dtype: str = "float32",
    weights: str | None = None,
    tell: Callable[[str], object] = lambda note: None,
) -> Iterator[Check]:
    """Check the logits of a user's model in both modes with the same weights; no check if it has one mode.

    In float64, or in float32 if the model cannot compute in float64; and in `dtype`, where the recurrent mode's error
    against that may be twice the parallel mode's.
    `weights` and `tell` are those of `model_checks`; a checkpoint is loaded even where there is nothing to compare.
    """
    modes = spec(name).modes if has_modes(name) else ("parallel",)
    if len(modes) == 1 and not weights:
        return
    generator = torch.Generator().manual_seed(seed)
    exacts = (torch.float64, torch.float32)[not kind_of(device).float64 :]
    image = torch.randn(1, 3, *image_size, generator=generator, dtype=torch.float64).to(exacts[0]).to(device)
    models = {mode: create(name, image_size, mode) for mode in modes}
    if weights:
        for note in load_published(models["parallel"], weights).notes:
            tell(note)
    state = models["parallel"].state_dict() if weights else drawn.weights(models["parallel"], generator)
    if len(models) == 1:
        return
    for model in models.values():
        model.load_state_dict(state)
        model.to(device)
    where = f"{image_size[0]}x{image_size[1]} px"
    for exact in exacts:
        try:
            with torch.inference_mode():
                logits = {mode: cast_model(model, exact)(image.to(exact)) for mode, model in models.items()}
        except Exception:
            if exact == torch.float32:
                raise
            continue
        break
    kind, wanted = str(exact).removeprefix("torch."), logits["parallel"]
    yield Check(name, kind, "recurrent", where, relative(logits["recurrent"], wanted), BOUNDS[kind])
    if dtype != "float32":
        for model in models.values():
            model.float().load_state_dict(state)
        with torch.inference_mode():
            errors = {mode: relative(_as_timed(model, image, dtype), wanted) for mode, model in models.items()}
        bound = min(MOST, HALF * errors["parallel"])
        yield Check(name, "timed", "recurrent", f"{where}, {dtype}", errors["recurrent"], bound)


def _model_causality(name: str, form: str, model: Any, image: Tensor, where: str, bound: float) -> Check:
    """Check that the features of earlier tokens of a causal network do not depend on the last rows of the image."""
    height = image.shape[2]
    changed = image.clone()
    changed[:, :, height // 2 :] *= 0.5
    before, after = model.forward_features(image), model.forward_features(changed)
    kept = before.shape[1] // 2 - before.shape[1] // 8  # well above the changed rows
    error = relative(after[:, :kept], before[:, :kept])
    return Check(name, "causal", form, f"{where}, lower half changed", error, bound)


class _Zeros(TorchFunctionMode):
    """A context that fills tensors with zeros instead of random numbers, because weights are loaded afterwards.

    It does fill them: torch draws from some distributions until all numbers are within bounds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return (args[0] if args else kwargs["tensor"]).detach().zero_()
        return func(*args, **kwargs)
