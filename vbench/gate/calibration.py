"""Runs real sessions of the timing gate on equal and on slowed code: how often it errs, and what it detects.

`python -m vbench.gate.calibration --sessions 20 --slowdown 0.05 -o FILE.jsonl.gz` runs sessions at default rigor on
this machine. Base and head are copies of this code; head has a busy-wait in the operator of the cell. Each session
appends a line of JSON. `vbench.reports.gate_calibration` draws figures from the lines, and simulates more sessions.
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

import vbench
from vbench import host
from vbench.errors import UsageError
from vbench.gate import ab, blocks, revisions
from vbench.gate.revisions import Install
from vbench.jobs import scratch
from vbench.plan import Case, Sweep, plan
from vbench.results.outcome import Outcome
from vbench.suites.rules import Rules

PARTS = ("vbench", "models", "kernels", "suites", "results", "reports")
OPERATOR = Path("kernels/gla/chunkwise.py")
MODULE, MODEL = "gate_cell.py", "gate_cell:net"
NET = """from torch import nn
from vbench.kernels import operator


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.project = nn.Conv2d(3, 64, 8, 8), nn.Linear(64, 256)
        self.gla, self.head = operator("gla", "chunkwise"), nn.Linear(64, 10)

    def forward(self, image):
        x = self.project(self.stem(image).flatten(2).transpose(1, 2))
        q, k, v, g = x.unflatten(-1, (2, 128)).transpose(1, 2).split(32, -1)
        out = self.gla(q, k, v, nn.functional.logsigmoid(g), direction="forward")
        out = out[0] if isinstance(out, tuple) else out
        return self.head(out.transpose(1, 2).flatten(2).mean(1))


def net():
    return Net()
"""
PILOTS = 2  # blocks of each kind that tell the latency
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
    """Copy the code of vbench into a folder, and beside it the model that is timed; the folder.

    In the copy, every call of gla's chunkwise form waits `busy_s` seconds. The model calls that form once.
    """
    inside = Path(vbench.__file__).resolve().parent
    beside = inside.parent
    for part in PARTS:
        source = next((root / part for root in (beside, inside) if (root / part / "__init__.py").is_file()), None)
        if source is None:
            raise UsageError(f"this installation of vbench has no {part}")
        shutil.copytree(source, into / part, ignore=shutil.ignore_patterns("__pycache__", "cpu-*", "calibration"))
    (into / "pyproject.toml").write_text("")  # what tells vbench/__init__.py that its parts lie beside it
    (into / MODULE).write_text(NET)
    if busy_s:
        operator = into / OPERATOR
        operator.write_text(operator.read_text() + BUSY.format(seconds=busy_s))
    return into


def pilot(case: Case, install: Install) -> float:
    """The latency of a cell in alternation with another process, in seconds: the median over a few blocks."""
    design = replace(blocks.design("default", 1, 0), blocks=PILOTS)
    outcome = _run([case], design, install, install)
    times = [median(block["outer_ms"]) for blocks in outcome.facts["measured"].values() for block in blocks]
    if not times:
        raise UsageError(f"{case} cannot be measured: {outcome.invalid}")
    return float(median(times)) / 1e3


def session(cases: list[Case], base: Install, head: Install, seed: int) -> dict[str, Any]:
    """One session at default rigor, as a line of the file."""
    outcome = _run(cases, blocks.design("default", 1, seed), base, head)
    if outcome.interrupted:
        raise KeyboardInterrupt
    facts = {
        key: outcome.facts[key] for key in ("seed", "passes", "measured", "measured_again", "started_at", "wall_s")
    }
    for measured in (facts["measured"], facts["measured_again"]):
        for block in [block for cell in measured.values() for block in cell]:
            block |= {key: [round(ms, 4) for ms in block[key]] for key in ("outer_ms", "inner_ms")}  # to 0.1 µs
    about = host.fingerprint("cpu", None)
    return {
        "exit_code": outcome.exit_code(),
        "invalid": outcome.invalid,
        "verdicts": {each.cell: each.verdict for each in outcome.findings if each.what == "latency_ms"},
        "memory": {each.cell: each.verdict for each in outcome.findings if each.what == "peak_memory_bytes"},
        **facts,
        **{key: about[key] for key in ("device_name", "versions", "commit", "dirty")},
    }


def _run(cases: list[Case], design: blocks.Design, base: Install, head: Install) -> Outcome:
    with scratch.folder("caches") as caches:
        runners = partial(revisions.runners, base, head, ab.models_of(cases), caches)
        return ab.Session(cases, design, Rules({}), runners, lambda _: None).run("base", "head")


def main(
    file: Annotated[Path, typer.Option("--out", "-o", help="Sessions are appended to it, compressed by gzip.")],
    sessions: Annotated[int, typer.Option(min=1)] = 10,
    slowdown: Annotated[float, typer.Option(min=0, help="The busy-wait, as a share of the latency.")] = 0.0,
    side: Annotated[int, typer.Option(help="Side of the image, px.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first session; the next ones count up.")] = 0,
) -> None:
    """Run sessions of equal code, or of slowed code."""
    cases = plan(Sweep((MODEL,), ((side, side),), ("parallel",), batches=(1,)))
    with scratch.folder("calibration") as folder:
        base = Install("a copy", path=(copy(folder / "base"),), root=folder / "base")
        busy_s = slowdown * pilot(cases[0], base) if slowdown else 0.0
        head = Install("another", path=(copy(folder / "head", busy_s=busy_s),), root=folder / "head")
        file.parent.mkdir(parents=True, exist_ok=True)
        for number in range(sessions):
            line = {"slowdown": slowdown, "busy_s": busy_s, **session(cases, base, head, seed + number)}
            with gzip.open(file, "at", encoding="utf-8") as lines:
                print(json.dumps(line), file=lines)
            typer.echo(f"{number + 1}/{sessions}: {line['verdicts']} {line['invalid'] or ''}", err=True)


if __name__ == "__main__":
    typer.run(main)
