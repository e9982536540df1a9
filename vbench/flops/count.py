"""Work of one image: multiply-accumulates (MACs) by two counters and by hand, FLOPs, bytes. One MAC is two FLOPs.

The first counter enters every operation of a forward pass into a ledger (`ledger.py`), without data if the model can
run so (`passes.py`). It sees attention whether or not timm fuses it, counts our operators by the formulas beside their
kernels, and names the operations that it does not know. The second (fvcore) reads a trace of a real pass, with
attention unfused. The third count is a formula for each family, derived by hand (`models/closed_forms.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.errors import UnsupportedError, UsageError, VbenchError, first_line
from vbench.flops.second import AGREE, not_counted, second_count
from vbench.jobs.lenient import Lenient
from vbench.kernels.registry import OPS, Mode
from vbench.meters.modules import LEVELS
from vbench.models import spec
from vbench.models.closed_forms import closed_form
from vbench.plan import Case, Dtype, Reparam, Sweep, plan

if TYPE_CHECKING:
    from torch import nn

    from vbench.flops.ledger import Ledger
    from vbench.flops.passes import Entered
    from vbench.jobs.launch import Launcher

ENDED = "fvcore's count ended the process, or took too long"
TIME_LIMIT_S = 300.0  # for one size
EXECUTED = ("macs_executed", "macs_matmul", "macs_elementwise", "flops_elementwise")  # sums of a `Tally`


def count(case: Case) -> dict[str, Any]:
    """Work of one image, independent of the machine.

    Returns:
        params, tokens: parameters; tokens that enter the first block, None if not known.
        params_deployed: parameters of the form in which a re-parameterised model is deployed; None if it has no other.
        macs: what the recurrence or the attention itself needs, equal for all forms.
        macs_executed: what this cell's form does, the sum of `macs_matmul` (matrix products, convolutions,
            attention, operators made of these) and `macs_elementwise` (the other operators, and every recurrent
            form: a step updates a state by one outer product and reads it by one vector).
        flops_elementwise: arithmetic and functions outside MACs, one FLOP each.
        flops_total: 2 · macs_executed + flops_elementwise; None, with `flops_reason`, where the ledger does not
            know operations that touch more than 1 % of the bytes.
        bytes_min: operands and results of all that has MACs, in the cell's types, weights once, if all else is fused.
        intensity: flops_total / bytes_min; None without a total, and where nothing has MACs.
        coverage, unknown: share of the bytes whose operations the ledger knows; the others, with `calls` and `bytes`.
        registered: FLOPs of operations that were counted by the formula registered for them with torch, by name.
        notes: what was counted by a convention, by a registered formula, or on a real pass, a sentence each.
        state_bytes: what the recurrent mode carries: the largest operator's state, or the sum over layers where the
            whole network walks the tokens; None for attention.
        macs_closed_form, closed_form_agrees: `macs` by hand, and whether it is within 1 %; None for timm's models.
        padding: what the model pads, in words.

    Raises: as `passes.entered`.
    """
    return work_of(case, enter(case))


def work_of(case: Case, found: Entered[Ledger]) -> dict[str, Any]:
    """The work of a cell as `count` returns it, from the ledger of a pass."""
    from vbench.flops.ledger import UNKNOWN_LIMIT
    from vbench.models.deployed import parameters_deployed

    ledger = found.ledger
    sums, grid = ledger.total(), case.spec.grid(case.height, case.width)
    by_hand = closed_form(case.model, case.height, case.width)
    unknown = sum(each["bytes"] for each in ledger.unknown.values())
    merged = parameters_deployed(found.model) if case.reparam == "no" else None
    known = 1 - ledger.coverage <= UNKNOWN_LIMIT
    total = sums.flops_total if known else None
    return {
        "params": sum(p.numel() for p in found.model.parameters()),
        "tokens": grid[0] * grid[1] if grid else None,
        "macs": sums.macs_algorithm,
        **{name: getattr(sums, name) for name in EXECUTED},
        "flops_total": total,
        "flops_reason": None if known else f"unknown operations touch {unknown} bytes: {', '.join(ledger.unknown)}",
        "bytes_min": sums.bytes_min,
        "intensity": total / sums.bytes_min if total is not None and sums.bytes_min else None,
        "coverage": ledger.coverage,
        "unknown": ledger.unknown,
        "registered": ledger.registered,
        "notes": [*ledger.notes, *found.notes, *([_of_deployed(case, found.model, merged)] if merged else [])],
        "params_deployed": merged,
        "state_bytes": (sum if case.spec.streams else max)(ledger.states) if ledger.states else None,
        "macs_closed_form": by_hand,
        "closed_form_agrees": None if by_hand is None else abs(by_hand - sums.macs_algorithm) <= AGREE * by_hand,
        "padding": case.spec.padding(case.height, case.width),
    }


def _of_deployed(case: Case, model: nn.Module, merged: int) -> str:
    """That a model has a second form, by its parameters."""
    millions, before = f"{merged / 1e6:.2f}", f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"
    return f"{case.model} has a deployed form, of {millions} M parameters instead of {before}: --reparam yes"


def count_by_module(case: Case, depth: int = LEVELS) -> list[dict[str, Any]]:
    """The same work by module, as `modules.by_module` returns it. Raises: as `passes.entered`."""
    from vbench.flops.modules import by_module

    return by_module(enter(case), case, depth)


def enter(case: Case) -> Entered[Ledger]:
    """A pass of one image in a ledger. Raises: as `passes.entered`."""
    from vbench.flops.ledger import Ledger
    from vbench.flops.passes import entered

    return entered(case, lambda model, _: Ledger(model))


def count_cells(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"cases"} -> for each, under its id, "work" and "second_count"; or "unsupported", why it cannot be built;
    or "uncounted", why its work cannot be counted.

    "work" has a predicted peak too, or None and a note that says why. No device is needed. Many cases share a process
    because its first pass on the meta device costs as much as the next three. A case is yielded before the second count
    and after it: if that count ends the process, the first one is not lost.
    """
    from vbench.flops.peak import prediction

    for case in (Case(**fields) for fields in argument["cases"]):
        try:
            work = count(case)
            peak_bytes, why = prediction(case)
        except UnsupportedError as error:
            yield case.id, {"unsupported": str(error)}
            continue
        except Exception as error:  # whatever a model raises; the next cell is still counted
            yield case.id, {"uncounted": uncounted(error)}
            continue
        work |= {"predicted_peak_bytes": peak_bytes, "notes": [*work["notes"], *why]}
        yield case.id, {"work": work, "second_count": not_counted(ENDED)}
        yield case.id, {"work": work, "second_count": _opinion(case, work)}


def uncounted(error: Exception) -> str:
    """Why the work of a cell is not known, in a line."""
    return f"MACs not counted: {first_line(error, named=not isinstance(error, VbenchError))}"


def count_in_full(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case", "depth"} -> "work", "modules" and "second_count" of one image; needs no device.

    "modules" has rows for modules of so many levels; None if the depth is None.
    """
    from vbench.flops.modules import by_module
    from vbench.meters.refusals import explained

    case, depth = Case(**argument["case"]), argument["depth"]
    with explained(case):
        found = enter(case)
    work = work_of(case, found)
    yield "work", work
    yield "modules", None if depth is None else by_module(found, case, depth)
    yield "second_count", _opinion(case, work)


def _opinion(case: Case, work: dict[str, Any]) -> dict[str, Any]:
    """What `second_count` says of a work. It has no formula of torch's registry, and is not asked where one counts."""
    if work["registered"]:
        return not_counted(f"fvcore does not know {', '.join(work['registered'])}")
    return second_count(case, work["macs_matmul"])


def cases(
    model: str,
    sizes: tuple[tuple[int, int], ...],
    *,
    mode: Mode | None,
    form: str | None,
    dtype: Dtype,
    reparam: Reparam = "no",
    device: str = "cpu",
) -> list[Case]:
    """What to count: a model at each size, by a form of its operator or the default one of a mode.

    Args:
        mode: None for the mode of `form`; "parallel" if that is None too.
        reparam: whether to count the deployed form of a re-parameterised model.
        device: whose default form is taken, and on which the cell will run if it is timed.

    Raises: UnknownModelError, ResolutionError, UsageError.
    """
    op = spec(model).operator
    forms = OPS[op] if op else {}
    if form and form not in forms:
        raise UsageError(f"--form: {model} has no form '{form}'; it has {', '.join(forms) or 'no operator of ours'}")
    mode = mode or (forms[form].mode if form else "parallel")
    if form and forms[form].mode != mode:
        raise UsageError(f"--form: '{form}' is a {forms[form].mode} form, not a {mode} one; leave --mode out")
    planned = plan(Sweep((model,), sizes, (mode,), (1,), (dtype,), reparams=(reparam,), device=device))
    if reason := planned[0].unsupported:
        option = "--mode" if mode not in planned[0].spec.modes else "--reparam"
        raise UsageError(f"{option}: {reason}" + "; use --mode parallel" * (option == "--mode"))
    return [replace(case, form=form) if form else case for case in planned]


def run(case: Case, launcher: Launcher, *, depth: int | None = None) -> dict[str, Any]:
    """All that is known of one cell's work, counted in a child, as a flat, JSON-able dict.

    Args:
        depth: the levels of modules that have a row each; None for no modules.

    Returns: the axes of `case`, what `count` and `second_count` return, and `modules` if a depth is given.
    Raises: UnknownModelError; UsageError if the model cannot be built at this size or cannot be counted.
    """
    ending = Lenient(launcher).run(*jobs.count_in_full(case, depth=depth), TIME_LIMIT_S)
    if "modules" not in ending.parts:
        raise UsageError(f"{case} cannot be counted: {ending.reason}")
    second = ending.parts.get("second_count", not_counted(ending.reason))
    return {
        **{axis: getattr(case, axis) for axis in ("model", "height", "width", "mode", "form", "dtype", "reparam")},
        **ending.parts["work"],
        "macs_fvcore": second["macs_fvcore"],
        "fvcore_agrees": second["agree"],
        "fvcore_reason": second["reason"],
        **({} if depth is None else {"modules": ending.parts["modules"]}),
    }
