"""What a sweep measures, as plain values: Sweep -> list of Case. Pure; imports no torch.

One file: the axes, the protocol, the cell that both lead to, and how all are written on the command line.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from itertools import product
from math import prod
from typing import Any, Literal, get_args

from vbench.devices import kind_of
from vbench.errors import ResolutionError, UsageError, VbenchError
from vbench.kernels.registry import OPS, Mode, default_form, exportable_form, missing
from vbench.models import field
from vbench.models.registry import names, ours, spec
from vbench.models.row import ModelSpec
from vbench.options import choices, items, shown, whole
from vbench.runtimes import RUNTIMES
from vbench.runtimes import missing as no_runtime

GRID = (224, 384, 512, 640, 768, 1024, 1280, 1536, 2048)  # px; where the papers' curves have their points
MODES: tuple[Mode, ...] = get_args(Mode)
Dtype = Literal["float32", "bfloat16", "float16", "amp-bf16", "amp-fp16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
DTYPE_WORDS: dict[str, Dtype] = {  # other names that people give a dtype
    **{"fp32": "float32", "f32": "float32", "float": "float32", "single": "float32"},
    **{"fp16": "float16", "f16": "float16", "half": "float16", "bf16": "bfloat16"},
    **{"amp-bfloat16": "amp-bf16", "amp-float16": "amp-fp16", "amp-half": "amp-fp16"},
}
AUTOCAST = {"amp-bf16": "bfloat16", "amp-fp16": "float16"}  # the type of products; weights and image are float32
PLAIN = tuple(dtype for dtype in DTYPES if dtype not in AUTOCAST)  # of torch, as they stand
Phase = Literal["infer", "train"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Backend = Literal["eager", "compile", "cudagraph", "aoti", "onnxruntime", "openvino", "tensorrt"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Layout = Literal["nchw", "nhwc"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Attention = Literal["fused", "unfused", "flash", "cudnn", "efficient", "math"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
PINNED: tuple[Attention, ...] = ("flash", "cudnn", "efficient", "math")  # fused, by this kernel of torch alone
Reparam = Literal["no", "yes"]
REPARAMS: tuple[Reparam, ...] = get_args(Reparam)


@dataclass(frozen=True, slots=True)
class Choice:
    """An axis whose values are the words of a list: the list, the usual value, and the help of its option."""

    values: tuple[str, ...]
    usual: str
    help: str
    words: str = "{}"  # a value in a line that does not name the axis


CHOICES = {  # by the name of the option and of the field of `Case`
    "phase": Choice(PHASES, "infer", "infer, train (forward, backward, AdamW step), or both."),
    "backend": Choice(BACKENDS, "eager", f"{', '.join(BACKENDS)}; {', '.join(RUNTIMES)} run the exported model."),
    "layout": Choice(LAYOUTS, "nchw", "Memory layout: nchw, nhwc."),
    "attention": Choice(
        ATTENTIONS,
        "fused",
        "Attention of timm's models: fused, unfused, or one kernel of fused attention: flash, cudnn, efficient, math.",
    ),
    "reparam": Choice(
        REPARAMS,
        "no",
        "Branches and norms merged, as re-parameterised models (RepVGG, MobileOne ...) are deployed: no, yes, or both.",
        words="reparam {}",
    ),
}
AUTO = "auto"  # the form that is the default of its mode on the device
Batch = int | Literal["knee", "max"]
LARGEST = 65_536  # px; a longer side is a typing error
LARGEST_BATCH = 10**9  # images in a call
CELLS = 10_000  # of a plan, unless more are asked for


@dataclass(frozen=True, slots=True)
class Protocol:
    """How long a cell is measured, and under which settings. Part of a record's conditions; times in seconds.

    A cell is measured in as many fresh processes as fit into `cell_s`, at most `launches`, spread over the sweep. The
    first one measures all; later ones time single calls only. In each, calls are repeated until two windows of `window`
    calls agree, for `warmup_s` at least and `warmup_max_s` at most. Then single calls are timed: `samples_min` and
    `sample_s` at least; until the half-width of the median's interval is within `precision` or no longer shrinks;
    `sample_max_s` at most. A slower call gets 5 samples, 3 after twice and 2 after four times `sample_max_s`.

    Cells that are compared take turns, call by call, in blocks of `turns_s` and `rounds` at least (one round, if that
    is longer). There are as many blocks as cells, and as many again, until the interval of each ratio is within
    `ratio_within`, or `company_s` have passed.
    """

    rigor: str = "default"
    launches: int = 8
    cell_s: float = 36.0
    threads: int = 1
    window: int = 5
    warmup_s: float = 0.5
    warmup_max_s: float = 3.0
    agree: float = 0.01  # by how much two windows of the warm-up may differ, beyond their own scatter
    sample_s: float = 1.0
    sample_max_s: float = 1.5
    samples_min: int = 5
    precision: float = 0.005
    throughput_s: float = 5.0  # for the search for the knee; a batch for which it is too short is not tried
    batch_gain: float = 0.03  # the knee is where a batch of twice the size does not surely gain more than this share
    batch_max: int = 1024
    energy_s: float = 2.0  # 0: no energy is measured
    tf32: bool = False  # on CUDA, whether float32 products may be rounded to TF32
    seed: int = 0  # of the order of the cells, the noise and the weights
    turns_s: float = 4.0  # of a block of turns
    rounds: int = 40  # of a block, if they take no longer than twice `turns_s`
    cell_within: float = 0.1  # the wanted half-width of a latency's interval, for which a budget is spent
    ratio_within: float = 0.03  # the wanted half-width of a ratio's interval
    company_s: float = 45.0  # for cells that take turns; each has each place once in any case


RIGORS: dict[str, Protocol] = {
    "quick": Protocol(
        rigor="quick",
        launches=1,
        sample_s=0.5,
        sample_max_s=2.0,
        samples_min=10,
        precision=0.02,
        throughput_s=2.0,
        energy_s=0.0,
        turns_s=0.5,
        rounds=8,
        ratio_within=0.1,
        company_s=0.0,
    ),
    "default": Protocol(),
    "paper": Protocol(
        rigor="paper",
        launches=16,
        cell_s=1800.0,
        warmup_s=1.0,
        warmup_max_s=60.0,
        sample_s=1.5,
        sample_max_s=6.0,
        samples_min=30,
        energy_s=10.0,
        turns_s=15.0,
        ratio_within=0.01,
        company_s=900.0,
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: what is measured. A model with an operator of ours has a `form`, any other has an `attention`."""

    model: str
    height: int  # px
    width: int  # px
    mode: Mode
    form: str | None
    batch: Batch  # images a call for throughput, and in training for all; latency and memory of inference are at 1
    dtype: Dtype  # of the weights and the image; under autocast (amp-...) of products
    device: str
    phase: Phase = "infer"
    backend: Backend = "eager"
    layout: Layout = "nchw"
    attention: Attention | None = None
    reparam: Reparam = "no"

    @property
    def id(self) -> str:
        """A digest by which a sweep resumes: of the fields of `to_json`, so that older records keep theirs."""
        return _id(self)

    def to_json(self) -> dict[str, Any]:
        """All fields. One that came later is left out where it has its default: an older release does not know it."""
        later = {field.name: field.default for field in fields(self)[_FIRST_FIELDS:]}
        return {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}

    @property
    def spec(self) -> ModelSpec:
        """The model's row of the table: its modes, its operator, its sizes, whether it is the user's own."""
        return spec(self.model)

    @property
    def operator(self) -> str | None:
        """The model's operator of ours, or None."""
        return self.spec.operator

    @property
    def autocast(self) -> str | None:
        """Torch's name of the type to which autocast casts what enters products; None without autocast."""
        return AUTOCAST.get(self.dtype)

    @property
    def weights_dtype(self) -> str:
        """Torch's name of the type of the weights and the image."""
        return weights_dtype(self.dtype)

    @property
    def deployed(self) -> bool:
        """Whether a runtime calls the model, from a file that it was exported to."""
        return self.backend in RUNTIMES

    @property
    def compiles(self) -> bool:
        """Whether a compiler of the whole model runs before its calls, which may take minutes."""
        return self.backend == "compile" or self.deployed

    @property
    def unsupported(self) -> str | None:
        """Why this cell cannot exist, or None."""
        if self.mode not in self.spec.modes:
            return f"{self.model} has no {self.mode} mode: attention keeps no state of fixed size"
        if self.form and (reason := _no_form(self)):
            return reason
        if self.reparam == "yes" and (self.operator or self.phase == "train"):
            none = f"{self.model} has no deployed form: it has no branches to merge"
            return none if self.operator else "a deployed form does not train; leave out --reparam yes"
        if self.backend == "cudagraph" and not kind_of(self.device).graphs:
            return f"{self.device} replays no recorded calls, as the back end cudagraph does"
        captured = self.backend == "cudagraph" and self.phase == "train"
        return "a training step is not captured as a CUDA graph" if captured else _no_runtime(self)

    def __str__(self) -> str:
        size = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        own = {name: getattr(self, name) for name in CHOICES}
        unusual = {name: value for name, value in own.items() if value not in (CHOICES[name].usual, None)}
        rest = [CHOICES[name].words.format(value) for name, value in unusual.items()]
        form = self.form if self.form and self.form != _usual_form(self) else None
        return " ".join(filter(None, [self.model, size, self.mode, form, self.dtype, *rest]))


def case_of(record: Mapping[str, Any]) -> Case:
    """The case of a record, whose later axes an older record lacks; those of a newer release are left out."""
    return Case(**{key: value for key, value in record.items() if key in _FIELDS})


_FIRST_FIELDS = 12  # of `Case`, as the first release had them
_FIELDS = frozenset(field.name for field in fields(Case))
CASE_DEFAULTS = {field.name: field.default for field in fields(Case) if field.default is not MISSING}


@cache
def _id(case: Case) -> str:
    return hashlib.sha256(json.dumps(case.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _no_form(case: Case) -> str | None:
    """Why the model of a case cannot be computed by its form, in its mode, on its device; or None."""
    op, form = case.operator, case.form
    if op is None or form is None:
        return f"{case.model} has no form '{form}': it has no operator of ours"
    of_mode = [name for name, about in OPS[op].items() if about.mode == case.mode]
    if form not in of_mode:
        return f"{op} has no {case.mode} form '{form}'; it has {', '.join(of_mode)}"
    seen = filter(None, (case.weights_dtype, case.autocast))  # an operator may get both
    return next(filter(None, (missing(op, form, case.device, dtype) for dtype in seen)), None)


def form_for(op: str, mode: Mode, device: str, backend: Backend) -> str:
    """The form of an operator that a cell has unless the user names one: a runtime takes what can be exported.

    Raises: UnsupportedError if there is none of that mode.
    """
    return exportable_form(op, mode) if backend in RUNTIMES else default_form(op, mode, device)


def _no_runtime(case: Case) -> str | None:
    """Why a cell cannot be measured through the runtime that it asks for; None if it may, or asks for none."""
    if not case.deployed:
        return None
    title = RUNTIMES[case.backend].title
    refused = {
        "--phase train": case.phase == "train",
        f"--dtype {case.dtype}": case.autocast is not None,
        f"--layout {case.layout}": case.layout != "nchw",
        f"--attention {case.attention}": case.attention in PINNED,
        "--batch max": case.batch == "max",
    }
    if asked := [option for option, is_asked in refused.items() if is_asked]:
        return f"{title} runs an exported forward pass, for which there is no {', '.join(asked)}"
    if case.operator and case.form and (package := OPS[case.operator][case.form].package):
        return f"{case.operator} {case.form} is made with {package} and cannot be exported; leave out --form"
    return no_runtime(case.backend, case.device, case.dtype)


def weights_dtype(dtype: str) -> str:
    """Torch's name of the type of weights and image: "amp-bf16" -> "float32", "bfloat16" -> "bfloat16"."""
    return "float32" if dtype in AUTOCAST else dtype


def product_dtype(dtype: str) -> str:
    """Torch's name of the type of matrix products: "amp-bf16" -> "bfloat16", "float32" -> "float32"."""
    return AUTOCAST.get(dtype, dtype)


def _usual_form(case: Case) -> str | None:
    try:
        op = case.operator
        return form_for(op, case.mode, case.device, case.backend) if op and case.mode in case.spec.modes else None
    except VbenchError:  # of a record: the zoo does not have the model, or no such kind of device is known
        return None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The axes of a plan."""

    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # (height, width) in px
    modes: tuple[Mode, ...] = MODES
    batches: tuple[Batch, ...] = ("knee",)
    dtypes: tuple[Dtype, ...] = ("float32",)
    phases: tuple[Phase, ...] = ("infer",)
    backends: tuple[Backend, ...] = ("eager",)
    layouts: tuple[Layout, ...] = ("nchw",)
    attentions: tuple[Attention, ...] = ("fused",)
    reparams: tuple[Reparam, ...] = ("no",)
    forms: tuple[str, ...] = (AUTO,)
    device: str = "cpu"


def plan(sweep: Sweep) -> list[Case]:
    """Every cell once, from small images to large.

    Raises: UnknownModelError; ResolutionError for a size that a model cannot take.
    """
    cases: dict[Case, None] = {}
    sizes = sorted(sweep.sizes, key=lambda size: (size[0] * size[1], size))
    common = (sweep.modes, sweep.batches, sweep.dtypes, sweep.phases, sweep.backends, sweep.layouts, sweep.reparams)
    for (height, width), model in product(sizes, sweep.models):
        row = spec(model)
        try:
            row.grid(height, width)
        except ResolutionError as error:
            raise ResolutionError(f"{model} cannot take {height}x{width}: {error}") from None
        attentions, forms = ([None], sweep.forms) if row.operator else (sweep.attentions, [None])
        for mode, batch, dtype, phase, backend, layout, reparam, attention, asked in product(
            *common, attentions, forms
        ):
            form = asked if mode in row.modes else None
            if form == AUTO and row.operator:
                form = form_for(row.operator, mode, sweep.device, backend)
            way = (phase, backend, layout, attention, reparam)
            case = Case(model, height, width, mode, form, batch, dtype, sweep.device, *way)
            cases[case] = None
    return list(cases)


def size(sweep: Sweep) -> int:
    """How many cells a plan has at most; those that differ in an axis that a model lacks count once each."""
    common = (sweep.modes, sweep.batches, sweep.dtypes, sweep.phases, sweep.backends, sweep.layouts, sweep.reparams)
    own = sum(len(sweep.forms if spec(model).operator else sweep.attentions) for model in sweep.models)
    return own * len(sweep.sizes) * prod(map(len, common))


def union(sweeps: Sequence[Sweep]) -> list[Case]:
    """Every cell of several sweeps once, from small images to large. Raises: as `plan`."""
    cases = dict.fromkeys(case for sweep in sweeps for case in plan(sweep))
    return sorted(cases, key=lambda case: (case.height * case.width, case.height, case.width))


def schedule(cases: Sequence[Case], launches: int, seed: int) -> list[tuple[Case, int]]:
    """(case, launch) in the order of measuring: every case once a round, each round shuffled by `seed`.

    So the launches of a case are spread over the sweep, and heat or a neighbour's load does not follow the model or the
    size. Unsupported cases are in the first round only.
    """
    generator = random.Random(seed)
    order = []
    for launch in range(launches):
        round_ = [case for case in cases if launch == 0 or not case.unsupported]
        generator.shuffle(round_)
        order += [(case, launch) for case in round_]
    return order


USUAL = {  # the value of each axis that is not given, as on the command line
    "modes": "parallel,recurrent",
    "batch": "knee",
    "dtype": "float32",
    **{name: axis.usual for name, axis in CHOICES.items()},
    "form": AUTO,
}


def parse(axes: Mapping[str, str], device: str) -> Sweep:
    """{"models": ..., "res": ..., and all of `USUAL`} -> a Sweep. Raises: UsageError, as the parsers below."""
    return Sweep(
        models=parse_models(axes["models"]),
        sizes=parse_sizes(axes["res"]),
        modes=parse_modes(axes["modes"]),
        batches=parse_batches(axes["batch"]),
        dtypes=parse_dtypes(axes["dtype"]),
        phases=parse_phases(axes["phase"]),
        backends=choices(axes["backend"], "--backend", BACKENDS),
        layouts=choices(axes["layout"], "--layout", LAYOUTS),
        attentions=choices(axes["attention"], "--attention", ATTENTIONS),
        reparams=choices(axes["reparam"], "--reparam", REPARAMS),
        forms=choices(axes["form"], "--form", (AUTO, *dict.fromkeys(form for forms in OPS.values() for form in forms))),
        device=device,
    )


def parse_models(text: str, option: str = "--models") -> tuple[str, ...]:
    """ "vig_t,deit_*,timm/resnet50" -> names. Patterns are expanded, other spellings are understood (`ours`).

    "all" is every model without a caveat, "field" one of each family (`models.field`).

    Raises: UnknownModelError for an unknown name, UsageError for a pattern that matches none.
    """
    chosen: dict[str, None] = {}
    for item in items(text, option, "vig_t,deit_t"):
        spelled = item.lower() if "[" in item else item.lower().replace("-", "_")
        pattern = "*" if spelled == "all" else spelled
        single = field.FIELD if spelled == field.NAME else [ours(item)]
        matches = names(pattern) if set(pattern) & set("*?[") else single
        if not matches:
            raise UsageError(f"{option}: no model matches '{shown(item)}'; see 'vbench models'")
        for name in matches:
            spec(name)
            chosen[name] = None
    return tuple(chosen)


def parse_sizes(text: str, option: str = "--res") -> tuple[tuple[int, int], ...]:
    """ "224:2048", "224:2048:128", "224,512x1024" -> (height, width) in px.

    A range without a step takes the standard grid (`GRID`) within its bounds.

    Raises: ResolutionError for a size or range that is malformed, reversed, empty or not positive.
    """
    try:
        parts = [_range(item) if ":" in item else [_size(item)] for item in items(text, option, "224:2048")]
    except ResolutionError as error:
        raise ResolutionError(f"{option}: {error}") from None
    return tuple(dict.fromkeys(size for sizes in parts for size in sizes))


def parse_modes(text: str, option: str = "--modes") -> tuple[Mode, ...]:
    """ "parallel,recurrent" -> modes. Raises: UsageError."""
    return choices(text, option, MODES)


def parse_dtypes(text: str, allowed: tuple[Dtype, ...] = DTYPES) -> tuple[Dtype, ...]:
    """ "float32,bf16" -> dtypes, by any of their names (`DTYPE_WORDS`). Raises: UsageError."""
    words = ",".join(word.strip().removeprefix("torch.") for word in text.split(","))
    return choices(words, "--dtype", allowed, DTYPE_WORDS)


def parse_phases(text: str) -> tuple[Phase, ...]:
    """ "infer,train" -> phases. Raises: UsageError."""
    return choices(text, "--phase", PHASES)


def parse_rigor(text: str) -> Protocol:
    """ "quick" -> its protocol. Raises: UsageError."""
    return RIGORS[choices(text, "--rigor", tuple(RIGORS))[0]]


def parse_batches(text: str) -> tuple[Batch, ...]:
    """ "knee", "max" or "1,8" -> batches. Raises: UsageError."""
    named: dict[str, Batch] = {"knee": "knee", "auto": "knee", "max": "max"}
    batches: list[Batch] = []
    for item in map(str.lower, items(text, "--batch", "knee")):
        number = whole(item)
        if item in named:
            batches.append(named[item])
        elif number is not None and 1 <= number <= LARGEST_BATCH:
            batches.append(number)
        else:
            raise UsageError(f"--batch: '{shown(item)}' is not knee, max or a positive number up to {LARGEST_BATCH:,}")
    return tuple(dict.fromkeys(batches))


def _pixels(text: str, item: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ResolutionError(
            f"'{shown(item)}' is not a size; write 512, 512x1024 (height x width), 224:2048 or 224:2048:128"
        )
    number = whole(text)
    if number is None or not 0 < number <= LARGEST:
        raise ResolutionError(f"{shown(text)} px in '{shown(item)}' is not between 1 and {LARGEST}")
    return number


def _size(item: str) -> tuple[int, int]:
    height, times, width = item.lower().partition("x")
    return _pixels(height, item), _pixels(width if times else height, item)


def _range(item: str) -> list[tuple[int, int]]:
    low, high, *step = (_pixels(part, item) for part in item.split(":"))
    if len(step) > 1:
        raise ResolutionError(f"'{item}' has too many parts; write low:high or low:high:step")
    if low > high:
        raise ResolutionError(f"the range '{shown(item)}' is reversed; write {high}:{low}")
    sides = list(range(low, high + 1, step[0])) if step else [px for px in GRID if low <= px <= high]
    if not sides:
        grid = " ".join(map(str, GRID))
        raise ResolutionError(f"no size of the standard grid ({grid}) is in '{item}'; add a step, {item}:32")
    return [(px, px) for px in sides]
