"""How often the timing gate cries wolf, and what it catches: real sessions of equal and of slowed code.

`python -m vbench.gate_calibration --sessions 20 --slowdown 0.05 -o FILE` runs sessions at default rigor, on this
machine. Both sides are copies of this code; in head's a busy-wait stands in the operator of the cell. A line of JSON a
session is appended; `vbench.reports.gate_calibration` makes figures of them, and simulates more from their noise.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

import vbench
from vbench import ab, host
from vbench.errors import UsageError
from vbench.plan import Case, Sweep, parse_models, parse_sizes, plan
from vbench.revisions import Install
from vbench.suites.rules import Rules

PARTS = ("vbench", "models", "kernels", "suites", "results", "reports")
OPERATOR = Path("kernels/gla/chunkwise.py")
CALLS = 12  # of that operator in a pass of vig_t, one a layer
PILOTS = 5  # launches, to know how long 5 % is
BUSY = """

def _slowed(form, seconds):
    import time

    def call(*args, **options):
        out = form(*args, **options)
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            pass
        return out

    return call


gla = _slowed(gla, {seconds!r})
"""


def copy(into: Path, *, busy_s: float = 0.0) -> Path:
    """A copy of vbench's code in a folder, with that much busy-waiting in every call of gla's chunkwise form."""
    inside = Path(vbench.__file__).resolve().parent
    beside = inside.parent
    for part in PARTS:
        source = next((root / part for root in (beside, inside) if (root / part / "__init__.py").is_file()), None)
        if source is None:
            raise UsageError(f"this installation of vbench has no {part}")
        shutil.copytree(source, into / part, ignore=shutil.ignore_patterns("__pycache__", "cpu-*", "calibration"))
    (into / "pyproject.toml").write_text("")  # what tells vbench/__init__.py that its parts lie beside it
    if busy_s:
        operator = into / OPERATOR
        operator.write_text(operator.read_text() + BUSY.format(seconds=busy_s))
    return into


def pilot(case: Case, install: Install) -> float:
    """The latency of a cell, seconds: the median of a few launches."""
    design = ab.design("default", 1, 0)
    argument: dict[str, Any] = {"case": _plain(case), "protocol": _plain(design.protocol), "launch": 1}
    times = []
    with ab.opened(install, install, [case.model]) as runners:
        for _ in range(PILOTS):
            ending = runners["base"].run("vbench.worker:measure", {**argument, "batch": None, "watch": None}, 300.0)
            if ending.status != "ok":
                raise UsageError(f"{case} cannot be measured: {ending.reason}")
            times.append(median(ending.parts["latency"]["samples_ms"]))
    return median(times) / 1e3


def session(cases: list[Case], base: Install, head: Install, seed: int) -> dict[str, Any]:
    """One session at default rigor, as a line of the file."""
    models = ab.models_of(cases)
    one = ab.Session(
        cases, ab.design("default", 1, seed), Rules({}), partial(ab.opened, base, head, models), lambda _: None
    )
    found = one.run("base", "head")
    if found.interrupted:
        raise KeyboardInterrupt
    facts = {key: found.facts[key] for key in ("seed", "passes", "measured", "measured_again", "started_at", "wall_s")}
    own = host.fingerprint("cpu", None)
    return {
        "exit_code": found.exit_code(),
        "invalid": found.invalid,
        "verdicts": {finding.cell: finding.verdict for finding in found.findings if finding.what == "latency_ms"},
        "memory": {finding.cell: finding.verdict for finding in found.findings if finding.what == "peak_memory_bytes"},
        **facts,
        **{key: own[key] for key in ("device_name", "versions", "commit", "dirty")},
    }


def main(
    file: Annotated[Path, typer.Option("--out", "-o", help="Lines are appended to it.")],
    sessions: Annotated[int, typer.Option(min=1)] = 10,
    slowdown: Annotated[float, typer.Option(min=0, help="Of the first cell, as a share of its latency.")] = 0.0,
    models: Annotated[str, typer.Option()] = "vig_t",
    res: Annotated[str, typer.Option()] = "64",
    seed: Annotated[int, typer.Option(help="Of the first session; each has its own.")] = 0,
) -> None:
    """Run sessions of equal code, or of code that was slowed."""
    cases = plan(Sweep(parse_models(models), parse_sizes(res), ("parallel",), batches=(1,)))
    with tempfile.TemporaryDirectory(prefix="vbench-calibration-") as folder:
        base = Install("a copy", path=(copy(Path(folder) / "base"),), root=Path(folder) / "base")
        busy_s = slowdown * pilot(cases[0], base) / CALLS if slowdown else 0.0
        head = Install("another", path=(copy(Path(folder) / "head", busy_s=busy_s),), root=Path(folder) / "head")
        file.parent.mkdir(parents=True, exist_ok=True)
        for number in range(sessions):
            found = {"slowdown": slowdown, "busy_s": busy_s, **session(cases, base, head, seed + number)}
            with file.open("a") as lines:
                print(json.dumps(found), file=lines)
            typer.echo(f"{number + 1}/{sessions}: {found['verdicts']} {found['invalid'] or ''}", err=True)


def _plain(value: Any) -> dict[str, Any]:
    return asdict(value)


if __name__ == "__main__":
    typer.run(main)
