"""A command line of vbench, taken as far as the program takes it before it measures: options, and their values too."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer

from vbench import devices, plan
from vbench.accuracy import plan as asking
from vbench.commands import app as cli
from vbench.commands import gate as cli_gate
from vbench.commands import pick as cli_pick
from vbench.flops import count as counting
from vbench.models.registry import MODELS
from vbench.operators import bench as kernel_bench
from vbench.operators import check as kernel_check
from vbench.operators import compile as kernel_compile
from vbench.options import choices
from vbench.reports import labels, paper_tables
from vbench.reports.figures import draw
from vbench.results import history, pick, scaling
from vbench.suites.load import load
from vbench.sweeps import limits

# What is put in the place of a word that a reader fills in, as NAME.
HOLES = {"models": "vig_t", "model": "vig_t", "name": "minute", "suite": "minute", "op": "gla"}
AXES = (*plan.USUAL, "models", "res")
app = cli.app


def program() -> Any:
    return typer.main.get_command(app)


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command and its parameters. Fails for a command or an option that vbench has not."""
    command, rest = program(), words[1:]
    assert words[0] == "vbench"
    path = []
    while hasattr(command, "commands"):
        while rest and rest[0].startswith("-"):
            assert rest.pop(0) in [word for option in command.params for word in option.opts]
        if not rest:
            return " ".join(path), {}
        name, *rest = rest
        assert name in command.commands, f"there is no vbench {' '.join([*path, name])}"
        path.append(name)
        command = command.commands[name]
    context = command.make_context(path[-1], [*rest], resilient_parsing=not rest)  # its name alone is no call
    if path == ["gate"] and rest:
        cli_gate.refuse(context)
        given = [context.params[axis] for axis in ("models", "res", "modes", "dtype", "layout", "attention", "form")]
        assert context.params["revision"] or context.params["write"] or not any(given), "add --write"
    several = {option.name for option in command.params if getattr(option, "multiple", False)} - {"peer"}
    values = {key: ",".join(value or ()) or None if key in several else value for key, value in context.params.items()}
    return " ".join(path), values if rest else {}


def check(words: list[str]) -> str:
    """Fail if vbench would refuse the line, on a machine that has what it asks for. Return the command's name."""
    name, given = parse([word.rstrip("…") for word in words])
    if given:
        CHECKS.get(name, lambda given: None)({key: _filled(key, value) for key, value in given.items()})
    return name


def _filled(key: str, value: Any) -> Any:
    """A value in the place of what a reader must fill in, as NAME; and our model for one of a user's own."""
    if isinstance(value, str) and (re.fullmatch(r"[A-Z]+", value) or (key == "models" and ":" in value)):
        return HOLES.get(key, value)
    return value


def _sweep(given: dict[str, Any]) -> None:
    asked = {key: given[key] for key in AXES if given.get(key) is not None}
    if given["suite"] is not None and given["suite"].endswith(".toml"):
        return  # a user's own
    sets = load(given["suite"]).sets if given["suite"] else [{}]
    where = devices.resolve(given["device"])
    cases = plan.union([plan.parse({**plan.USUAL, **axes, **asked}, where) for axes in sets])
    assert any(not case.unsupported for case in cases)
    plan.parse_rigor(given["rigor"] or "default")


def _gate(given: dict[str, Any]) -> None:
    if given["models"] is not None:
        _sweep(given)


def _verify(given: dict[str, Any]) -> None:
    if given["models"] != "all":
        plan.parse_models(given["models"])


def _flops(given: dict[str, Any]) -> None:
    sizes = plan.parse_sizes(given["res"] or "224")
    (dtype,) = plan.parse_dtypes(given["dtype"])
    modes = plan.parse_modes(given["mode"]) if given["mode"] else (None,)
    (reparam,) = choices(given["reparam"], "--reparam", plan.REPARAMS)
    counting.cases(given["model"], sizes, mode=modes[0], form=given["form"], dtype=dtype, reparam=reparam)


def _limit(axis: limits.Axis) -> Callable[[dict[str, Any]], None]:
    def check(given: dict[str, Any]) -> None:
        same = {key: given[key] for key in ("mode", "dtype", "phase", "limit", "threads")}
        res, batch = (None, given["batch"]) if axis == "px" else (given["res"], None)
        where, memory, longest = devices.resolve(given["device"]), given["memory"], given["timeout"]
        limits.task(
            axis, given["model"], res=res, batch=batch, device=where, memory_gib=memory, timeout_s=longest, **same
        )

    return check


def _kernels(given: dict[str, Any]) -> None:
    kernel_check.parse_forms(given.get("form"), kernel_check.parse_ops(given["op"]))


def _bench(given: dict[str, Any]) -> None:
    ops = kernel_check.parse_ops(given["op"])
    kernel_bench.parse(
        ops=ops,
        forms=kernel_check.parse_forms(given["form"], ops),
        device=devices.resolve(given["device"]),
        tokens=given["n"],
        peers={},
        threads=given["threads"],
        **{key: given[key] for key in ("batch", "dtype", "backend", "l2", "seconds", "limit_s")},
    )


def _compile(given: dict[str, Any]) -> None:
    _kernels(given)
    kernel_compile.parse_archs(given["arch"])


def _figures(given: dict[str, Any]) -> None:
    names = [word for words in given["words"] for word in words.split(",")]
    known = [word for word in names if word in draw.FIGURES]
    runs = [word for word in names if word not in (*known, "all")]
    assert all(re.fullmatch(r"[A-Z.]+|[\w-]+/[\w/-]+|run|vbench-run", run) for run in runs), f"no figures: {runs}"
    assert runs or (known and all(draw.FIGURES[name].alone for name in known)), "give a run"
    asked = {key: given[key] for key in ("style", "formats", "at", "baseline", "subject", "cost", "width", "font")}
    draw.parse(tuple(known), **asked)
    if given["labels"]:
        labels.parse(given["labels"], MODELS)


def _tables(given: dict[str, Any]) -> None:
    assert given["what"] == "all" or set(given["what"].split(",")) <= set(paper_tables.KINDS), (
        f"no table {given['what']}"
    )
    paper_tables.parse_formats(given["formats"] or "md")
    if given["at"]:
        plan.parse_sizes(given["at"])


def _fit(given: dict[str, Any]) -> None:
    assert given["cost"] in (None, *scaling.COSTS), f"no cost {given['cost']}"


def _history(given: dict[str, Any]) -> None:
    assert given["what"] in history.WHATS, f"no cost {given['what']}"


def _claims(given: dict[str, Any]) -> None:
    assert given["shape"] in ("text", "md", "csv"), f"no format {given['shape']}"


def _eval(given: dict[str, Any]) -> None:
    names, sizes = plan.parse_models(given["models"]), plan.parse_sizes(given["res"] or "224")
    asking.check_sizes(names, sizes)
    asking.parse_checkpoints(given["checkpoint"] or "auto", names)
    asking.parse_crop(given["crop_pct"])
    plan.parse_dtypes(given["dtype"], asking.TYPES)
    assert given["data"], "give --data"


def _pick(given: dict[str, Any]) -> None:
    pick.parse({option: given[option] for option in pick.KINDS})
    if given["res"]:
        pick.parse_sizes(given["res"])
    cli_pick.metric_of(given["metric"])


def _accuracy(given: dict[str, Any]) -> None:
    assert len(plan.parse_models(given["models"].replace("MODEL", "vig_t"))) in (1, 2)
    cli_pick.metric_of(given["metric"])


def _suites(given: dict[str, Any]) -> None:
    if given["name"] and not given["name"].endswith(".toml"):
        load(given["name"])


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "sweep": _sweep,
    "plan": _sweep,
    "gate": _gate,
    "verify": _verify,
    "flops": _flops,
    "maxres": _limit("px"),
    "maxbatch": _limit("images"),
    "kernels check": _kernels,
    "kernels compile": _compile,
    "kernels bench": _bench,
    "kernels tune": _kernels,
    "figures": _figures,
    "tables": _tables,
    "fit": _fit,
    "history": _history,
    "claims": _claims,
    "eval": _eval,
    "pick": _pick,
    "accuracy": _accuracy,
    "suites": _suites,
}
