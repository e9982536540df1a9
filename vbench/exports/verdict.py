"""Whether a cell's model exports to a target: yes, with its file and the error of that; or no, with what stops it."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vbench import jobs
from vbench.errors import ExportError, UnsupportedError, UsageError, VbenchError, first_line
from vbench.files import write_whole, writing
from vbench.jobs.lenient import Lenient
from vbench.kernels.registry import OPS, Mode
from vbench.models.registry import MODELS
from vbench.plan import Case, Dtype, Sweep, plan

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from vbench.jobs.launch import Runner

Target = Literal["torch.export", "aoti", "onnx"]
TARGETS: tuple[Target, ...] = get_args(Target)
ENDS: dict[Target, str] = {"torch.export": ".pt2", "aoti": ".aoti.pt2", "onnx": ".onnx"}
PACKAGES: dict[Target, tuple[str, ...]] = {
    "torch.export": ("torch",),
    "aoti": ("torch",),
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
}
FARTHER = (32, 64)  # px, by which the other size is larger at which a file of open sides is tried
# Relative error of logits, above which a file does not compute the model.
BOUNDS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


def cases(
    models: tuple[str, ...],
    size: tuple[int, int],
    *,
    modes: tuple[Mode, ...],
    form: str | None,
    batch: int,
    dtype: Dtype,
) -> list[Case]:
    """What to export: each model in each mode that it has, by an exportable form unless `form` names one.

    Raises: UnknownModelError, ResolutionError; UsageError if no model has a mode, or one has not the form.
    """
    from vbench.exports.program import exportable

    found = [case for case in plan(Sweep(models, (size,), modes, (batch,), (dtype,))) if case.mode in case.spec.modes]
    if not found:
        raise UsageError(f"--mode: {', '.join(models)} has no {' and no '.join(modes)} mode")
    if form is None:
        return [exportable(case) for case in found]
    for case in found:
        known = [name for name, about in OPS.get(case.operator or "", {}).items() if about.mode == case.mode]
        if form not in known:
            has = ", ".join(known) or "no operator of ours"
            raise UsageError(f"--mode: {case.model} has no {case.mode} form '{form}'; it has {has}")
    return [replace(case, form=form) for case in found]


def run(
    case: Case,
    files: Mapping[Target, Path],
    launcher: Runner,
    *,
    check: bool,
    dynamic: bool = False,
    weights: str | None = None,
    timeout_s: float,
) -> list[dict[str, Any]]:
    """The verdicts on a cell and some targets, found in one child, as flat dicts.

    Args:
        files: the targets, and where each export is written.
        check: run the file on another input, and compare it with the model in eager mode.
        dynamic: leave height and width open in the file; otherwise that is only tried.
        weights: a checkpoint for the model.
        timeout_s: for all targets together.

    Returns, for each target:
        model, height, width, batch, mode, form, dtype, target: what was exported.
        exports: "yes" or "no"; None if it is not known, with the `reason`.
        stopped_by, reason: the operator, or the line of the model, that stops it, and one line of words.
        file, bytes, seconds, nodes: the file, how long it took to trace the model and to make it, and the operations of
            its graph.
        error: the largest relative error of the logits, ‖found − eager‖ / ‖eager‖, at other inputs, if checked;
            `check` says in words why there is none.
        dynamic, dynamic_reason: "yes" or "no", whether height and width can be open, and why not.
        versions: of the packages, in words.

    Raises: UsageError for `weights` that cannot be read or do not fit.
    """
    about = {"check": check, "dynamic": dynamic, "weights": weights}
    runner = launcher if weights else Lenient(launcher)
    places = {target: str(file) for target, file in files.items()}
    ending = runner.run(*jobs.export(case, {"files": places, **about}), timeout_s)
    axes = {axis: getattr(case, axis) for axis in ("model", "height", "width", "batch", "mode", "form", "dtype")}
    rows = []
    for target in files:
        found = dict.fromkeys(FIELDS) | ending.parts.get(target, {})
        if found["exports"] is None:
            found |= {"exports": "no" if ending.status == "unsupported" else None, "reason": ending.reason}
        rows.append(axes | {"target": target} | found | {"versions": versions(target)})
    return rows


def file_name(case: Case, target: Target) -> str:
    """ "vig_t-parallel-224.onnx" """
    size = f"{case.height}" if case.height == case.width else f"{case.height}x{case.width}"
    parts = (re.sub(r"[^\w.-]", "-", case.model), case.mode, size, *([] if case.dtype == "float32" else [case.dtype]))
    return "-".join(parts) + ENDS[target]


FIELDS = (
    *("exports", "stopped_by", "reason", "file", "bytes", "seconds", "nodes"),
    *("error", "check", "dynamic", "dynamic_reason"),
)


def versions(target: Target) -> str:
    """The packages of a target with their versions; those that are not installed are left out."""
    found = []
    for package in PACKAGES[target]:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "files", "check", "dynamic", "weights"} -> a verdict under the name of each target.

    Raises: UnsupportedError if the model does not have the form or the size; CheckpointError.
    """
    case, check, dynamic = Case(**argument["case"]), argument["check"], argument["dynamic"]
    model, image = _built(case, argument["weights"])
    traced = _Traced(model, image)
    for target, file in argument["files"].items():
        verdict = _verdict(case, target, traced, Path(file), check=check, dynamic=dynamic)
        yield target, verdict
        if verdict["exports"] == "yes" and not dynamic:
            yield target, verdict | _tried_open(case, target, traced, check=check)


class _Traced:
    """A model and an image, and the programs that were made of them, or why there is none."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self.model, self.image = model, image
        self._made: dict[bool, tuple[ExportedProgram | ExportError, float]] = {}

    def program(self, *, dynamic: bool) -> tuple[ExportedProgram, float]:
        """The program, and the seconds that it took. Raises: ExportError."""
        from vbench.exports.program import exported

        if dynamic not in self._made:
            begin = time.monotonic()
            try:
                made: ExportedProgram | ExportError = exported(self.model, self.image, dynamic=dynamic)
            except ExportError as error:
                made = error
            self._made[dynamic] = made, time.monotonic() - begin
        made, seconds = self._made[dynamic]
        if isinstance(made, ExportError):
            raise made
        return made, seconds


def _write(target: Target, program: ExportedProgram, folder: str) -> Path:
    """The program as a file of a target. Raises: ExportError; OutputError."""
    from vbench.exports import files

    writers = {"torch.export": files.save, "aoti": files.to_aoti, "onnx": files.to_onnx}
    return writers[target](program, Path(folder))


def _verdict(case: Case, target: Target, traced: _Traced, file: Path, *, check: bool, dynamic: bool) -> dict[str, Any]:
    """The verdict on a target; its file is written."""
    from vbench.exports.program import nodes

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            program, seconds = traced.program(dynamic=dynamic)
            begin, found["nodes"] = time.monotonic(), nodes(program)
            made = _write(target, program, folder)
        except ExportError as error:
            return found | {"exports": "no", "stopped_by": error.stopped_by, "reason": first_line(error)}
        found |= {"exports": "yes", "seconds": seconds + time.monotonic() - begin, "bytes": made.stat().st_size}
        if check:
            sizes = [_size(traced.image), *([_farther(traced.image)] if dynamic else [])]
            found |= _checked(case, target, made, traced, sizes)
        if found["exports"] == "yes":
            with writing(file.parent, file):
                write_whole(file, lambda part: shutil.copyfile(made, part))
            found |= {"file": str(file)} | ({"dynamic": "yes"} if dynamic else {})
    return found


def _tried_open(case: Case, target: Target, traced: _Traced, *, check: bool) -> dict[str, Any]:
    """Whether height and width can be open, as far as making such a file, and if `check` calling it, tells."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = _write(target, traced.program(dynamic=True)[0], folder)
        except ExportError as error:
            return {"dynamic": "no", "dynamic_reason": first_line(error)}
        found = _checked(case, target, made, traced, [_farther(traced.image)]) if check else {}
    stopped = found.get("exports") == "no"
    return {"dynamic": "no", "dynamic_reason": found["reason"]} if stopped else {"dynamic": "yes"}


def _built(case: Case, weights: str | None) -> tuple[nn.Module, Tensor]:
    """The model of a cell, which has been called once, and an image. Raises: UnsupportedError in the model's words."""
    import torch

    from vbench.exports.program import exportable
    from vbench.models import create, drawn, load_published

    if case.form and (package := OPS[case.operator or ""][case.form].package):
        use = exportable(case).form
        raise UnsupportedError(
            f"{case.operator} {case.form} is machine code by {package}, which torch.export does not see; use {use}"
        )
    torch.manual_seed(0)
    model = create(case.model, (case.height, case.width), case.mode, form=case.form)
    if weights:
        load_published(model, weights)
    elif case.model in MODELS:
        model.load_state_dict(drawn.weights(model, torch.Generator().manual_seed(0)))
    dtype = getattr(torch, case.dtype)
    if dtype != torch.float32:
        model.to(dtype)
    image = torch.randn(int(case.batch), 3, case.height, case.width, dtype=dtype)
    try:
        with torch.no_grad():
            model(image)  # a lazy module takes its shapes from it
    except VbenchError:
        raise
    except Exception as error:  # whatever a model raises
        size = f"{case.height}x{case.width}"
        raise UnsupportedError(f"{case.model} cannot take {size}: {first_line(error, named=True)}") from error
    return model, image


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[2]), int(image.shape[3])


def _farther(image: Tensor) -> tuple[int, int]:
    """Another size, in px, for a file of open sides."""
    height, width = _size(image)
    return height + FARTHER[0], width + FARTHER[1]


def _checked(case: Case, target: Target, file: Path, traced: _Traced, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """The `error` of a file at other inputs of these sizes; it is no export if it is out of bounds."""
    import torch

    if target == "onnx" and find_spec("onnxruntime") is None:
        return {"check": "onnxruntime is not installed"}
    if target == "onnx" and case.dtype == "bfloat16":
        return {"check": "ONNX Runtime takes no bfloat16 from Python"}
    worst = 0.0
    try:
        call = _loaded(target, file)
        with torch.no_grad():
            for height, width in sizes:
                other = torch.randn(*traced.image.shape[:2], height, width, dtype=traced.image.dtype)
                worst = max(worst, _relative(call(other), traced.model(other)))
    except Exception as error:  # whatever a runtime raises
        return {"exports": "no", "reason": f"the file does not run: {first_line(error, named=True)}"}
    if not worst <= BOUNDS[case.dtype]:
        return {"exports": "no", "error": worst, "reason": f"the file computes something else: error {worst:.1e}"}
    return {"error": worst}


def _loaded(target: Target, file: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function."""
    import torch

    if target == "torch.export":
        return torch.export.load(file).module()
    if target == "aoti":
        import torch._inductor

        package: Callable[[Tensor], Tensor] = torch._inductor.aoti_load_package(str(file))
        return package
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors alone
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])


def _relative(found: Any, wanted: Any) -> float:
    """The largest relative error of what a model returns: a tensor, or several."""
    import torch
    from torch.utils._pytree import tree_leaves

    pairs = zip(tree_leaves(found), tree_leaves(wanted), strict=True)
    errors = [
        float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-300))
        for a, b in pairs
        if isinstance(b, torch.Tensor)
    ]
    return max(errors)
