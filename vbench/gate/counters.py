"""`vbench gate --counters`: what is deterministic of a set of cells, counted in children and held to a baseline.

One pass of one image in eager mode is counted, whatever batch, phase and back end a suite asks for. Nothing is timed,
and no device is touched: cells of a GPU are counted on any machine that has their packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vbench import host, jobs, verify
from vbench.devices import KINDS
from vbench.errors import UnsupportedError, UsageError, VbenchError, first_line
from vbench.jobs.launch import Ending, Runner, two_at_a_time
from vbench.kernels.registry import OPS, missing
from vbench.models import spec
from vbench.operators import compile as kernel_compile
from vbench.plan import Case
from vbench.results import counters as baselines
from vbench.results.counters import COMPILER, LIBRARIES, RESOURCES, Baseline, Cell, Counted, Equality
from vbench.results.outcome import Outcome

FIELDS = ("model", "height", "width", "mode", "form", "dtype", "device", "layout", "attention")  # of a case in a file
ARCH, KERNEL_DTYPE = 90, "bfloat16"  # for which a few kernels are compiled; `vbench kernels compile` does them all
LIMIT_S = 600.0  # for all cells of a child


def parse_device(text: str) -> str:
    """The kind of device whose default forms are counted; none need be there. Raises: UsageError."""
    if text not in KINDS:
        raise UsageError(f"--device: '{text}' is not one of {', '.join(KINDS)}; counting needs no device")
    return text


def gate(file: Path, launcher: Runner, *, cases: Sequence[Case] | None = None, write: bool = False) -> Outcome:
    """Count the cells of a baseline and hold them to it; with `write`, make the baseline anew and hold it to itself.

    Args:
        cases: what to write; None for the cells that the file holds. Those that cannot exist stay out.

    Raises: UsageError if there are `cases` and nothing to `write`, for a cell to be written that cannot be counted,
        and as `results.counters.read` does; OutputError. Then nothing is written.
    """
    from vbench.reports.write import write_text

    if cases is not None and not write:
        raise UsageError("the cells of --counters are those of its file; to choose others add --write")
    before = baselines.read(file) if cases is None or file.is_file() else None
    wanted = {cell.name: cell.case for cell in before.cells} if before and cases is None else names_of(cases or ())
    try:
        now = count(wanted, launcher)
    except KeyboardInterrupt:
        return Outcome("gate --counters", str(file), _head(), (), interrupted=True)
    if before and not write:
        return baselines.compare(before, now, name=str(file), head=_head())
    made = _baseline(now, before, chosen=cases is not None)
    outcome = baselines.compare(made, now, name=str(file), head=_head())
    if made.cells and not outcome.of("UNEQUAL", "BROKEN"):
        write_text(file, baselines.to_text(made))
    return outcome


def _head() -> str:
    about = host.fingerprint("cpu", None)
    return f"commit {about['commit'][:12]}{' and changes' * about['dirty']}" if about["commit"] else about["source"]


def _baseline(now: Counted, before: Baseline | None, *, chosen: bool) -> Baseline:
    """What is to be written; of cells that were `chosen` by axes, those stay out that cannot exist.

    Raises: UsageError for a cell or a kernel that cannot be counted here.
    """
    lost = {name: cell for name, cell in now.cells.items() if isinstance(cell, str)} | now.absent
    if not chosen:
        lost |= now.refused
    lost |= {f"the kernels of {op}": reason for op, reason in now.uncompiled.items() if op}
    if "" in now.uncompiled and before and before.kernels:
        lost["kernels"] = now.uncompiled[""]
    for name, reason in lost.items():
        raise UsageError(f"{name} cannot be counted: {reason}; mend it, or leave it out")
    cells = tuple(cell for cell in now.cells.values() if isinstance(cell, Cell))
    tolerances = before.tolerances if before else dict(baselines.TOLERANCES)
    return Baseline(now.versions, cells, now.kernels, tolerances)


def names_of(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The cells that these cases come to, each once: the fields by which they differ, under their names."""
    found = {}
    for case in cases:
        if case.unsupported:
            continue
        plain = replace(case, batch=1, phase="infer", backend="eager", device=case.device.partition(":")[0])
        name = str(plain) if plain.device == "cpu" else f"{plain} {plain.device}"
        found[name] = {key: value for key, value in asdict(plain).items() if key in FIELDS}
    return found


def case_of(given: dict[str, Any]) -> Case:
    """A case from a file. Raises: UsageError for fields that are none, or of which one is not there."""
    texts = [given.get(key) for key in FIELDS if key not in ("height", "width", "form", "attention")]
    if set(given) != set(FIELDS) or given["device"] not in KINDS or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"a cell has the fields {', '.join(FIELDS)}, on {' or '.join(KINDS)}; got {given}")
    return Case(batch=1, **given)


def _lacks_package(case: Case) -> str | None:
    """The package that the form of a cell needs and this machine lacks, in words."""
    op = case.operator
    if op is None or case.form not in OPS[op]:
        return None
    reason = missing(op, case.form, case.device, case.dtype)
    return reason if reason and "needs the package" in reason else None


# ------------------------------------------------------------------------------------------------------ counting


@dataclass(frozen=True, slots=True)
class _Task:
    """A job for a child, and what is made of its end."""

    run: Callable[[], Any]
    done: Callable[[Any], None]


def count(wanted: dict[str, dict[str, Any]], launcher: Runner) -> Counted:
    """Count cells, verify the modes of their models, compile some kernels of their operators; two children at a time.

    Args:
        wanted: the fields of each case, by the cell's name.

    Raises: UsageError for fields that make no case.
    """
    cases = {name: case_of(given) for name, given in wanted.items()}
    now = Counted(versions(), dict.fromkeys(wanted, "it was not counted"), {}, {}, {}, {}, {})
    able: dict[str, Case] = {}
    for name, case in cases.items():
        known, reason = _impossible(case)
        if reason is None:
            able[name] = case
        elif known and _lacks_package(case):
            now.leave(name, now.absent, reason)
        else:
            now.leave(name, now.refused, reason)
    models = {case.model: case for case in reversed(able.values())}  # at its smallest size
    ops = [op for op in dict.fromkeys(spec(model).operator for model in models) if op]
    tasks = [_counting(share, wanted, now, launcher) for share in (list(able)[::2], list(able)[1::2]) if share]
    tasks += _compiling(ops, now, launcher)
    tasks += [_verifying(subject, models, now, launcher) for subject in verify.subjects(models)]
    for task, found in zip(tasks, two_at_a_time([task.run for task in tasks]), strict=True):
        task.done(found)
    return now


def _impossible(case: Case) -> tuple[bool, str | None]:
    """Whether the model is known; why the cell cannot be counted here, or None."""
    try:
        row = case.spec
    except VbenchError as error:
        return False, str(error)
    try:
        row.grid(case.height, case.width)
    except VbenchError as error:
        return True, str(error)
    return True, case.unsupported


def versions() -> dict[str, str | None]:
    """Of what counts depend on: Python's to the minor one, and no build's name."""
    found = host.fingerprint("cpu", None)["versions"]
    short = {key: value and value.partition("+")[0] for key, value in found.items()}
    return {**{key: short[key] for key in (*LIBRARIES, *COMPILER)}, "python": short["python"].rpartition(".")[0]}


def _counting(names: Sequence[str], wanted: dict[str, dict[str, Any]], now: Counted, launcher: Runner) -> _Task:
    def done(ending: Ending) -> None:
        for name in names:
            found = ending.parts.get(name, {"broken": ending.reason or "its child ended without a word"})
            if "unsupported" in found:
                now.leave(name, now.refused, found["unsupported"])
            else:
                now.cells[name] = found.get("broken") or Cell(name=name, case=wanted[name], **found["cell"])

    ask = jobs.count_for_gate({name: case_of(wanted[name]) for name in names})
    return _Task(lambda: launcher.run(*ask, LIMIT_S), done)


def count_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"cases"} -> for each, under its name, "cell": what `inside.look` returns; or "unsupported" or "broken", why
    there is no such cell, or why it cannot be counted."""
    from vbench.flops.inside import look

    for name, given in argument["cases"].items():
        try:
            yield name, {"cell": look(Case(**given))}
        except UnsupportedError as error:
            yield name, {"unsupported": str(error)}
        except Exception as error:  # whatever a model raises; the next one may be well
            yield name, {"broken": first_line(error, named=True)}


def _verifying(subject: str, models: dict[str, Case], now: Counted, launcher: Runner) -> _Task:
    size = (models[subject].height, models[subject].width) if subject in models else (224, 224)

    def run() -> verify.Verdict:
        try:
            return verify.verify(subject, launcher, brief=True, image_size=size)
        except UsageError as error:  # a user's model that cannot be imported any more
            return verify.Verdict(subject, (), complete=False, reason=str(error))

    def done(verdict: verify.Verdict) -> None:
        wrong = tuple(str(check) for check in verdict.checks if not check.ok)
        reason = verdict.reason or (None if verdict.checks else "it has one mode")
        now.equality[subject] = Equality(len(verdict.checks), verdict.complete, reason, wrong)

    return _Task(run, done)


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

        return _Task(lambda: launcher.run(*jobs.compile_for_gate(op), LIMIT_S), done)

    return [task(op) for op in ops]


def compile_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"op"} -> for each kernel of its forms, under its name, the most that a launch of it takes of `RESOURCES`."""
    op, found = argument["op"], dict[str, dict[str, int]]()
    for form, launch in kernel_compile.forward_launches(op, KERNEL_DTYPE):
        for _, row in kernel_compile.measured([(KERNEL_DTYPE, launch)], op, ARCH):
            name = f"{op} {form} {row.kernel} {KERNEL_DTYPE} sm_{ARCH}"
            before = found.get(name, dict.fromkeys(RESOURCES, 0))
            found[name] = {what: max(before[what], getattr(row, what)) for what in RESOURCES}
    yield from found.items()
