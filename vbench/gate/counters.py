"""`vbench gate --counters`: counts the deterministic work of cells in children, and compares it with a baseline.

It counts one pass of one image in eager mode, whatever batch, phase and back end a suite asks for. It times nothing and
uses no device: cells of a GPU are counted on any machine that has their packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vbench import host, jobs, verify
from vbench.devices import KINDS
from vbench.errors import UnsupportedError, UsageError, VbenchError, first_line
from vbench.gate import code
from vbench.jobs.launch import Ending, Runner, two_at_a_time
from vbench.kernels.registry import OPS, missing
from vbench.models import spec
from vbench.operators import compile as kernel_compile
from vbench.options import shown
from vbench.plan import REPARAMS, Case
from vbench.results import counters as baselines
from vbench.results.counters import (
    COMPILER,
    COUNTER,
    LIBRARIES,
    RESOURCES,
    Baseline,
    Counted,
    CountedCell,
    Equality,
)
from vbench.results.outcome import Outcome

FIELDS = ("model", "height", "width", "mode", "form", "dtype", "device", "layout", "attention")  # of a case
ADDED = ("reparam",)  # of a case whose value is not the usual one
ARCH, KERNEL_DTYPE = 90, "bfloat16"  # a few kernels are compiled for these; `vbench kernels compile` does all
LIMIT_S = 600.0  # for all cells of a child

_Task = tuple[Callable[[], Any], Callable[[Any], None]]  # runs a job in a child; takes its result


def parse_device(text: str) -> str:
    """The kind of device whose default forms are counted; the machine need not have one. Raises: UsageError."""
    if text not in KINDS:
        raise UsageError(f"--device: '{text}' is not one of {', '.join(KINDS)}; counting needs no device")
    return text


def gate(file: Path, launcher: Runner, *, cases: Sequence[Case] | None = None, write: bool = False) -> Outcome:
    """Count the cells of a baseline and compare; with `write`, make a new baseline and compare with that.

    Args:
        cases: what to write, except cells that cannot exist; None for the cells of the file.

    Raises: UsageError for `cases` without `write`, or a cell to be written that cannot be counted; OutputError; what
        `results.counters.read` raises. Nothing is written then.
    """
    from vbench.files import write_text

    if cases is not None and not write:
        raise UsageError("the cells of --counters are those of its file; to choose others add --write")
    before = baselines.read(file) if cases is None or file.is_file() else None
    wanted = {cell.name: cell.case for cell in before.cells} if before and cases is None else names_of(cases or ())
    counted = code.code_of(str(fields.get("model")) for fields in wanted.values())
    head, facts = code.in_words(counted), {"code": [each.facts() for each in counted]}
    try:
        now = count(wanted, launcher)
    except KeyboardInterrupt:
        return Outcome("gate --counters", str(file), head, (), interrupted=True, facts=facts)
    if before and not write:
        return _with(facts, baselines.compare(before, now, name=str(file), head=head))
    made = _baseline(now, before, chosen=cases is not None)
    outcome = _with(facts, baselines.compare(made, now, name=str(file), head=head))
    if not made.cells or outcome.of("UNEQUAL", "BROKEN"):
        return outcome
    write_text(file, baselines.to_text(made))
    return _with({"written": f"{file}, {len(made.cells)} cells; commit it"}, outcome)


def _with(facts: dict[str, Any], outcome: Outcome) -> Outcome:
    return replace(outcome, facts={**facts, **outcome.facts})


def _baseline(now: Counted, before: Baseline | None, *, chosen: bool) -> Baseline:
    """The baseline to write. If the cells were `chosen` by axes, those that cannot exist are left out.

    Raises: UsageError for a cell or a kernel that cannot be counted here.
    """
    lost = {name: cell for name, cell in now.cells.items() if isinstance(cell, str)} | now.absent
    if not chosen:
        lost |= now.refused
    lost |= {f"the kernels of {op}": reason for op, reason in now.uncompiled.items() if op}
    if "" in now.uncompiled and before and before.kernels:
        lost["kernels"] = now.uncompiled[""]
    for name, reason in lost.items():
        raise UsageError(f"{name} cannot be counted: {reason}; repair it, or leave it out")
    cells = tuple(cell for cell in now.cells.values() if isinstance(cell, CountedCell))
    tolerances = before.tolerances if before else dict(baselines.TOLERANCES)
    return Baseline(now.versions, cells, now.kernels, tolerances)


def names_of(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The cells of these cases, each once: by name, the `FIELDS` of the case."""
    cells = {}
    for case in cases:
        if case.unsupported:
            continue
        known = (*FIELDS, *(key for key in ADDED if key in case.to_json()))
        counted = {key: value for key, value in asdict(case).items() if key in known}  # what else there is, is usual
        plain = Case(**{**counted, "batch": 1, "device": case.device.partition(":")[0]})
        name = str(plain) if plain.device == "cpu" else f"{plain} {plain.device}"
        cells[name] = {key: getattr(plain, key) for key in counted}
    return cells


def case_of(given: dict[str, Any]) -> Case:
    """A case from a file. Raises: UsageError if fields are missing, unknown or of the wrong type."""
    texts = [given.get(key) for key in FIELDS if key not in ("height", "width", "form", "attention")]
    known = set(given) - set(ADDED) == set(FIELDS) and given.get("reparam", "no") in REPARAMS
    if not known or not all(isinstance(text, str) for text in texts) or given["device"] not in KINDS:
        raise UsageError(f"a cell has the fields {', '.join(FIELDS)}, on {' or '.join(KINDS)}; got {shown(given)}")
    return Case(batch=1, **given)


def _refusal(case: Case) -> tuple[str | None, bool]:
    """Why a cell cannot be counted here, None if it can; and whether its form needs a package that is missing."""
    try:
        row = case.spec
    except VbenchError as error:
        return str(error), False
    try:
        row.grid(case.height, case.width)
        reason = case.unsupported
    except VbenchError as error:
        reason = str(error)
    op = case.operator
    lacking = missing(op, case.form, case.device, case.dtype) if op and case.form in OPS[op] else None
    return reason, "needs the package" in (lacking or "")


def count(wanted: dict[str, dict[str, Any]], launcher: Runner) -> Counted:
    """Count cells, verify the modes of their models, and compile some kernels of their operators.

    Two children run at a time. `wanted` has the fields of each case, by the cell's name.

    Raises: UsageError for fields that make no case.
    """
    cases = {name: case_of(given) for name, given in wanted.items()}
    now = Counted(versions(), dict.fromkeys(wanted, "it was not counted"), {}, {}, {}, {}, {})
    able: dict[str, Case] = {}
    for name, case in cases.items():
        reason, for_package = _refusal(case)
        if reason is None:
            able[name] = case
        else:
            now.leave(name, now.absent if for_package else now.refused, reason)
    models = {case.model: case for case in reversed(able.values())}  # the first case of each model
    ops = [op for op in dict.fromkeys(spec(model).operator for model in models) if op]
    tasks = [_counting(share, wanted, now, launcher) for share in (list(able)[::2], list(able)[1::2]) if share]
    tasks += _compiling(ops, now, launcher)
    tasks += [_verifying(subject, models, now, launcher) for subject in verify.subjects(models)]
    for (_, done), result in zip(tasks, two_at_a_time([run for run, _ in tasks]), strict=True):
        done(result)
    return now


def versions() -> dict[str, str | None]:
    """The versions that counts depend on, without names of builds; of Python's, the major and the minor number."""
    about = host.fingerprint("cpu", None)["versions"]
    short = {key: about[key] and about[key].partition("+")[0] for key in (*LIBRARIES, *COMPILER, COUNTER)}
    return {**short, "python": short["python"].rpartition(".")[0]}


def _counting(names: Sequence[str], wanted: dict[str, dict[str, Any]], now: Counted, launcher: Runner) -> _Task:
    def done(ending: Ending) -> None:
        for name in names:
            part = ending.parts.get(name, {"broken": ending.reason or "its child sent no result"})
            if "unsupported" in part:
                now.leave(name, now.refused, part["unsupported"])
            else:
                now.cells[name] = part.get("broken") or CountedCell(name=name, case=wanted[name], **part["cell"])

    ask = jobs.count_for_gate({name: case_of(wanted[name]) for name in names})
    return lambda: launcher.run(*ask, LIMIT_S), done


def count_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"cases"} -> under each name, "cell", as `count_inside` returns it; or "unsupported" or "broken", and why."""
    from vbench.flops.inside import count_inside

    for name, given in argument["cases"].items():
        try:
            yield name, {"cell": count_inside(Case(**given))}
        except UnsupportedError as error:
            yield name, {"unsupported": str(error)}
        except Exception as error:  # whatever a model raises; the next cell is still counted
            yield name, {"broken": first_line(error, named=True)}


def _verifying(subject: str, models: dict[str, Case], now: Counted, launcher: Runner) -> _Task:
    size = (models[subject].height, models[subject].width) if subject in models else (224, 224)

    def run() -> verify.Verification:
        try:
            return verify.verify(subject, launcher, brief=True, image_size=size)
        except UsageError as error:  # a user's model that can no longer be imported
            return verify.Verification(subject, (), complete=False, reason=str(error))

    def done(verification: verify.Verification) -> None:
        wrong = tuple(str(check) for check in verification.checks if not check.ok)
        reason = verification.reason or (None if verification.checks else "it has one mode")
        now.equality[subject] = Equality(len(verification.checks), verification.complete, reason, wrong)

    return run, done


def _compiling(ops: Sequence[str], now: Counted, launcher: Runner) -> list[_Task]:
    ops = [op for op in ops if kernel_compile.triton_forms(op)]
    if ops and kernel_compile.triton_version() is None:
        now.uncompiled[""] = "Triton is not installed: not compared"
        return []

    def task(op: str) -> _Task:
        def done(ending: Ending) -> None:
            now.kernels.update(ending.parts)
            if ending.status != "ok":
                now.uncompiled[op] = ending.reason or ending.status

        return lambda: launcher.run(*jobs.compile_for_gate(op), LIMIT_S), done

    return [task(op) for op in ops]


def compile_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"op"} -> for each kernel of its forms, under its name, the largest of each of `RESOURCES` over its launches."""
    op, kernels = argument["op"], dict[str, dict[str, int]]()
    for form, launch in kernel_compile.forward_launches(op, KERNEL_DTYPE):
        for _, row in kernel_compile.measured([(KERNEL_DTYPE, launch)], op, ARCH):
            name = f"{op} {form} {row.kernel} {KERNEL_DTYPE} sm_{ARCH}"
            before = kernels.get(name, dict.fromkeys(RESOURCES, 0))
            kernels[name] = {what: max(before[what], getattr(row, what)) for what in RESOURCES}
    yield from kernels.items()
