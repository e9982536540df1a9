"""The gate: are the modes and forms that we time the same function?

An operator is tried on inputs of its own (`kernels/OP/trials.py`): its forms against the recurrence in
float64, float32 and half types, cut in two at random places, probed for tokens that it must not see, and
differentiated. A model is built in every form with the same random weights, and its logits are compared.

One file over 400 lines: every check of an operator and of a model stands here, and they share their helpers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.jobs.launch import Runner
from vbench.kernels.registry import OPS, default_form, forms, operator, trials, truth
from vbench.models import create, load_published, spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vbench.kernels.trials import Inputs, Trial

BOUNDS = {"float64": 1e-10, "float32": 1e-5}  # relative, of a form against the recurrence
GRAD_BOUNDS = {"float64": 1e-9, "float32": 1e-4}  # likewise, of the gradient of any of its inputs
HALF = 2.0  # in half types a form's error may be this many times the best form's
TOKENS = 133  # of a trial: two whole chunks and a ragged one
TOKENS_BRIEF = 70  # a whole chunk and a ragged one
CUTS = 2  # places where a trial is cut in two
SIDES = (160, 144)  # px; more tokens than a chunk has, and no square
KINDS = ("float64", "float32", "half", "split", "causal", "grad")
LIMIT_S = 600.0  # for all checks of an operator or of a model


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. `error` is relative (‖found − wanted‖ / ‖wanted‖) and passes up to `bound`."""

    subject: str  # an operator or a model
    kind: str  # one of `KINDS`
    form: str
    where: str  # the trial, or the image
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{self.subject} {self.form}, {self.kind}, {self.where}: error {self.error:.1e}, bound {self.bound:.1e}"

    def to_json(self) -> dict[str, Any]:
        """Its fields, and whether it passed; an error that is not finite is None."""
        return {**asdict(self), "error": self.error if isfinite(self.error) else None, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of all checks of an operator or a model; `reason` says why there are none, or not all."""

    subject: str
    checks: tuple[Check, ...]
    complete: bool = True
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.complete and all(check.ok for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """A line for each failure."""
        unfinished = [] if self.complete else [f"{self.subject}: not verified, {self.reason}"]
        return unfinished + [str(check) for check in self.checks if not check.ok]


def verify(
    subject: str,
    launcher: Runner,
    *,
    device: str = "cpu",
    seed: int = 0,
    weights: str | None = None,
    gradients: bool = True,
    brief: bool = False,
    image_size: tuple[int, int] = (224, 224),
) -> Verification:
    """All checks of an operator ("gla") or a model ("vig_t"), in a child; without `gradients`, of values alone.

    Args:
        brief: on half the tokens, in fewer regimes, without gradients (`BRIEF`).
        image_size: (height, width) in px, at which a model of a user's own is tried; ours have a size for it.

    Raises: UnknownModelError; UsageError for `weights` that cannot be read or do not fit.
    """
    if subject not in OPS and spec(subject).baseline:
        return Verification(subject, (), reason="one form of attention: nothing to compare")
    extent = BRIEF if brief else Extent(gradients=gradients)
    ask = jobs.verify(subject, device, seed, extent, weights=weights, image_size=image_size)
    ending = launcher.run(*ask, LIMIT_S)
    found = tuple(Check(**fields) for fields in ending.parts.get("checks", ()))
    return Verification(subject, found, ending.status == "ok", ending.reason)


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"subject", "device", "seed", "weights", "extent", "image_size"} -> "checks" of an operator or a model.

    Raises: UsageError.
    """
    import torch

    subject, device, seed = argument["subject"], argument["device"], argument["seed"]
    if subject in OPS:
        torch.set_num_threads(1)  # its tensors are too small to share
        found = operator_checks(subject, device, seed, Extent(**argument.get("extent", {})))
    elif spec(subject).external:
        found = own_checks(subject, device, seed, tuple(argument["image_size"]))
    else:
        found = model_checks(subject, device, seed, argument["weights"])
    yield "checks", [asdict(check) for check in found]


def subjects(models: Iterable[str]) -> list[str]:
    """The operators of these models, then the models."""
    models = list(models)
    return [*dict.fromkeys(op for op in (spec(model).operator for model in models) if op), *models]


def stamp(verdicts: Sequence[Verification]) -> dict[str, Any] | None:
    """What a record keeps: `ok`, the number of `checks`, and which `failed`; None if there was nothing to compare."""
    if all(verdict.ok and not verdict.checks for verdict in verdicts):
        return None
    return {
        "ok": all(verdict.ok for verdict in verdicts),
        "checks": sum(len(verdict.checks) for verdict in verdicts),
        "failed": [line for verdict in verdicts for line in verdict.failed],
    }


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of an operator is tried: which `forms` (all that can run, if none is named), `tokens` of a trial, and
    at how many places it is cut in two. If `brief`, half types, cuts and causality are tried in the first regime of
    each direction alone, and in all of them values in float32 and gradients of parallel forms (those of Triton's
    recurrent forms are the same kernels). `gradients` are left out where nothing is trained."""

    forms: tuple[str, ...] = ()
    tokens: int = TOKENS
    cuts: int = CUTS
    brief: bool = False
    gradients: bool = True


WHOLE = Extent()
BRIEF = Extent(tokens=TOKENS_BRIEF, cuts=1, brief=True, gradients=False)


def operator_checks(op: str, device: str = "cpu", seed: int = 0, extent: Extent = WHOLE) -> Iterator[Check]:
    """Forms of an operator, in every trial."""
    import torch

    from vbench.kernels.trials import cast

    tried = [form for form in forms(op, device) if not extent.forms or form in extent.forms]
    met: set[str] = set()
    for trial in trials(op):
        whole = not extent.brief or trial.direction not in met
        met.add(trial.direction)
        generator = torch.Generator().manual_seed(seed)
        inputs = {name: value.to(device) for name, value in trial.draw(extent.tokens, generator).items()}
        cuts = torch.randint(1, extent.tokens, (extent.cuts,), generator=generator).tolist()
        yield from _equality(op, tried, trial, inputs, device, halves=whole)
        if extent.gradients:
            differentiated = [form for form in tried if whole or OPS[op][form].mode == "parallel"]
            yield from _gradients(op, differentiated, trial, inputs, seed)
        for form in tried if whole else ():
            exact = finest(op, form)
            finely = cast(inputs, getattr(torch, exact))
            if trial.initial:
                yield from _split(op, form, trial, finely, cuts, BOUNDS[exact])
            if trial.direction != "both":
                yield _causality(op, form, trial, finely, BOUNDS[exact])


def finest(op: str, form: str) -> str:
    """The most exact type that a form takes: float64, or float32 for kernels that accumulate in it."""
    return OPS[op][form].dtypes[0]


def _equality(
    op: str, tried: Sequence[str], trial: Trial, inputs: Inputs, device: str, *, halves: bool
) -> Iterator[Check]:
    import torch

    from vbench.kernels.trials import cast, relative, tensors

    exact = operator(op, truth(op))
    for kind, dtypes in (
        ("float64", [torch.float64]),
        ("float32", [torch.float32]),
        ("half", [torch.bfloat16, torch.float16] if halves else []),
    ):
        for dtype in dtypes:
            rounded = cast(inputs, dtype)
            wanted, state = trial.run(exact, cast(rounded, torch.float64))
            errors, states = {}, {}
            able = forms(op, device, dtype=str(dtype).removeprefix("torch."))
            for form in [form for form in able if form in tried or (kind == "half" and form == truth(op))]:
                o, s = trial.run(operator(op, form), rounded)
                errors[form] = relative(o, wanted)
                states[form] = max(
                    (relative(*pair) for pair in zip(tensors(s), tensors(state), strict=True)), default=0
                )
            for form, error in errors.items():
                if form not in tried:  # it is there to say what can be reached
                    continue
                if kind == "half":  # the state is not rounded to the inputs' type
                    yield Check(op, kind, form, f"{trial.name}, {dtype}", error, HALF * min(errors.values()))
                    yield Check(op, kind, form, f"{trial.name}, {dtype}, state", states[form], BOUNDS["float32"])
                else:
                    yield Check(op, kind, form, trial.name, error, BOUNDS[kind])
                    yield Check(op, kind, form, f"{trial.name}, state", states[form], BOUNDS[kind])


def _gradients(op: str, tried: Sequence[str], trial: Trial, inputs: Inputs, seed: int) -> Iterator[Check]:
    """Gradients of every input, through output and final state, against the recurrence's in float64.

    In float32 the bound is the larger of 1e-4 and twice the recurrence's own error in float32.
    """
    import torch

    from vbench.kernels.trials import cast, relative

    def errors(form: str, dtype: str) -> dict[str, float]:
        rounded = cast(inputs, getattr(torch, dtype))
        wanted = exactly if dtype == "float64" else _gradient(op, truth(op), trial, cast(rounded, torch.float64), seed)
        found = _gradient(op, form, trial, rounded, seed)
        return {name: relative(found[name], wanted[name]) for name in inputs}

    exactly = _gradient(op, truth(op), trial, inputs, seed)
    reached: dict[str, float] | None = None
    for form in tried:
        exact = finest(op, form)
        if exact != "float64" and reached is None:
            reached = errors(truth(op), exact)
        for name, error in errors(form, exact).items():
            bound = GRAD_BOUNDS[exact]
            if exact != "float64" and reached is not None:
                bound = max(bound, HALF * reached[name])
            yield Check(op, "grad", form, f"{trial.name}, of {name}", error, bound)


def _gradient(op: str, form: str, trial: Trial, inputs: Inputs, seed: int) -> Inputs:
    """The gradient of a random sum over output and final state by each input."""
    import torch

    from vbench.kernels.trials import tensors

    generator = torch.Generator().manual_seed(seed)
    x = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    o, state = trial.run(operator(op, form), x, trial.initial(x) if trial.initial else None)
    loss = torch.zeros((), dtype=torch.float64, device=o.device)
    for part in (o, *tensors(state)):
        weights = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.device)
        if part.requires_grad:
            loss = loss + (weights * part).sum()
    found = torch.autograd.grad(loss, list(x.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(x, found, strict=True))


def _split(op: str, form: str, trial: Trial, inputs: Inputs, cuts: Iterable[int], bound: float) -> Iterator[Check]:
    from vbench.kernels.trials import hand_off, relative, tensors

    whole, final = trial.run(operator(op, form), inputs)
    for at in cuts:
        o, state = hand_off(trial, operator(op, form), inputs, at)
        pairs = zip((o, *tensors(state)), (whole, *tensors(final)), strict=True)
        error = max(relative(*pair) for pair in pairs)
        yield Check(op, "split", form, f"{trial.name}, cut before token {at}", error, bound)


def _causality(op: str, form: str, trial: Trial, inputs: Inputs, bound: float) -> Check:
    """What a token reads must not change with the tokens behind it, seen in the trial's direction."""
    from vbench.kernels.trials import relative

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


def model_checks(name: str, device: str = "cpu", seed: int = 0, weights: str | None = None) -> Iterator[Check]:
    """A model's logits in the forms that are timed; for a network that streams, what its tokens see too.

    In float32 the bound is the larger of 1e-5 and twice the best form's error, for some of these networks
    amplify rounding a thousandfold.

    Args:
        weights: a checkpoint for `load_published`; random ones if None.
    """
    import torch

    from vbench.kernels.trials import relative

    row = spec(name)
    if row.operator is None:
        return
    height, width = (-(-side // row.multiple) * row.multiple for side in SIDES)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64).to(device)
    where = f"{height}x{width} px"
    state: dict[str, Tensor] | None = None
    logits: dict[str, dict[str, Tensor]] = {"float32": {}, "float64": {}}
    able = forms(row.operator, device)
    timed = {default_form(row.operator, mode, device) for mode in row.modes}
    first = next(form for form in forms(row.operator, device, "parallel", "float64"))
    wanted_forms = {first, *timed} if len(timed) > 1 else set(able)
    for form in able:
        if form not in wanted_forms:
            continue
        about = OPS[row.operator][form]
        with _blank():
            model = create(name, (height, width), about.mode, form=form)
        if state is None and weights:
            load_published(model, weights)
        if state is None:
            state = model.state_dict() if weights else _random(model, generator)
        model.load_state_dict(state)
        model = model.to(device)
        with torch.inference_mode():
            logits["float32"][form] = model(image.float())
            exact = finest(row.operator, form)
            if exact == "float64":
                logits["float64"][form] = model.double()(image)
            if row.streams:
                yield _looks_ahead(name, form, model, image.to(getattr(torch, exact)), where, BOUNDS[exact])
    wanted = logits["float64"][first]
    for form, found in logits["float64"].items():
        if form != first:
            yield Check(name, "float64", form, where, relative(found, wanted), BOUNDS["float64"])
    errors = {form: relative(found, wanted) for form, found in logits["float32"].items()}
    for form, error in errors.items():
        yield Check(name, "float32", form, where, error, max(BOUNDS["float32"], HALF * min(errors.values())))


def own_checks(name: str, device: str, seed: int, image_size: tuple[int, int]) -> Iterator[Check]:
    """The logits of a user's model in both its modes, with the same random weights; nothing if it has one mode.

    In float64; in float32 if the model cannot be computed in that.
    """
    import torch

    from vbench.kernels.trials import relative
    from vbench.models.external import has_modes

    if not has_modes(name):
        return
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, *image_size, generator=generator, dtype=torch.float64).to(device)
    models = {mode: create(name, image_size, mode) for mode in spec(name).modes}
    state = _random(models["parallel"], generator)
    for model in models.values():
        model.load_state_dict(state)
        model.to(device)
    for dtype in (torch.float64, torch.float32):
        try:
            with torch.inference_mode():
                found = {mode: model.to(dtype)(image.to(dtype)) for mode, model in models.items()}
        except Exception:
            if dtype == torch.float32:
                raise
            continue
        kind, where = str(dtype).removeprefix("torch."), f"{image_size[0]}x{image_size[1]} px"
        error = relative(found["recurrent"], found["parallel"])
        yield Check(name, kind, "recurrent", where, error, BOUNDS[kind])
        return


def _looks_ahead(name: str, form: str, model: Any, image: Tensor, where: str, bound: float) -> Check:
    """The features of a causal network's earlier tokens must not change with the image's last rows."""
    from vbench.kernels.trials import relative

    height = image.shape[2]
    changed = image.clone()
    changed[:, :, height // 2 :] *= 0.5
    before, after = model.forward_features(image), model.forward_features(changed)
    kept = before.shape[1] // 2 - before.shape[1] // 8  # well above the changed rows
    error = relative(after[:, :kept], before[:, :kept])
    return Check(name, "causal", form, f"{where}, lower half changed", error, bound)


def _random(model: torch.nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights for a trial: matrices and kernels N(0, 1/fan_in), vectors U[0.1, 1)."""
    import torch

    state = {}
    for key, value in model.state_dict().items():
        fresh = torch.empty_like(value)
        if not value.is_floating_point():
            fresh.copy_(value)
        elif value.ndim < 2:
            fresh.uniform_(0.1, 1.0, generator=generator)
        else:
            fresh.normal_(std=(value.numel() / value.shape[0]) ** -0.5, generator=generator)
        state[key] = fresh
    return state


def _blank() -> Any:
    """A context in which tensors are filled with zeros instead of at random: other weights are about to come.

    Zeros and not nothing, for torch draws some distributions until all numbers are within bounds.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Blank(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
                return (args[0] if args else kwargs["tensor"]).detach().zero_()
            return func(*args, **kwargs)

    return Blank()
