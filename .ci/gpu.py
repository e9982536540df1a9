"""`make gpu`: what awaits a GPU, step by step, into one folder that can be committed, results/DEVICE.

Each step is a process with a limit of its own. A step that fails stops no other. `steps.json` in the folder says how
each went. With a budget, steps are left out by priority. This is a tool of the project and no part of the package; it
imports nothing of it, so that no CUDA context lives here while others measure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
FILE = "steps.json"
GRACE_S = 10.0  # that a step has to end by itself after it was interrupted
VBENCH = ("python", "-P", "-m", "vbench")
ASK = """
import sys
from vbench.devices import open_device, resolve
from vbench.errors import VbenchError
try:
    print(open_device(resolve("cuda")).about()["name"])
except VbenchError as error:
    sys.exit(str(error))
"""

Outcome = Literal["ok", "failed", "timeout", "left out", "interrupted"]


class NoGpuError(Exception):
    """There is no GPU that torch can use."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `priority` 1 is left out last; `expected_s` is a guess until a GPU has run it; `limit_s` ends it."""

    name: str
    command: tuple[str, ...]
    priority: int
    expected_s: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Went:
    """How a step went: the part of `FILE`. `reason` says why it did not end ok."""

    name: str
    command: str
    outcome: Outcome
    started_at: str | None  # ISO 8601, UTC
    seconds: float
    exit_code: int | None
    reason: str | None
    expected_s: float
    limit_s: float


def steps(folder: str) -> list[Step]:
    """The steps in their order: sweeps, check, tests, bench, and the README's section from the folder."""
    sweep = (*VBENCH, "sweep", "--device", "cuda", "--dtype", "bfloat16", "--rigor", "quick", "--timeout", "30")
    infer = (*sweep, "--modes", "parallel", "--batch", "1", "-o", folder)
    families = "vig_t,vrwkv_t,vil2_t,vir_s,vision_gru_t,vim_t,vmamba_t,deit_t"
    sizes = "224,512,1024,2048"
    kernels = "fused,unfused,flash,cudnn,efficient"
    train = (*sweep, "--phase", "train", "--modes", "parallel", "--batch", "32", "-o", folder)
    pytest = ("python", "-P", "-m", "pytest", "-o", "addopts=", "--import-mode=importlib", "-ra", "tests/test_gpu.py")
    pages = ("results/cpu", "README.md", "docs/results.md")
    return [
        Step(
            "sweep",
            (*infer, "--models", families, "--res", sizes, "--backend", "cudagraph"),
            priority=1,
            expected_s=336,
            limit_s=1200,
        ),
        Step(
            "others",
            (*infer, "--models", "vrwkv6_t,mlla_t", "--res", sizes, "--backend", "cudagraph"),
            priority=4,
            expected_s=84,
            limit_s=600,
        ),
        Step("training", (*train, "--models", families, "--res", "224,512"), priority=3, expected_s=270, limit_s=900),
        Step(
            "attention",
            (*infer, "--models", "deit_t", "--res", "224,1024,2048", "--attention", kernels),
            priority=4,
            expected_s=120,
            limit_s=600,
        ),
        Step(
            "forms",
            (*infer, "--models", "vig_t", "--res", "224,1024,2048", "--form", "auto,chunkwise"),
            priority=6,
            expected_s=60,
            limit_s=600,
        ),
        Step(
            "check",
            (*VBENCH, "kernels", "check", "--device", "cuda", "--remember"),
            priority=2,
            expected_s=120,
            limit_s=900,
        ),
        Step("tests", pytest, priority=7, expected_s=420, limit_s=1500),
        Step(
            "bench",
            (*VBENCH, "kernels", "bench", "--device", "cuda", "--n", "1024,4096,16384", "--batch", "1", "-o", folder),
            priority=5,
            expected_s=170,
            limit_s=900,
        ),
        Step("readme", ("python", "-P", "-m", "vbench.reports.readme", *pages), priority=0, expected_s=15, limit_s=120),
    ]


def device_name() -> str:
    """Torch's name of cuda:0, asked in a process of its own. Raises: NoGpuError."""
    asked = subprocess.run([sys.executable, "-P", "-c", ASK], capture_output=True, text=True, check=False, cwd=ROOT)
    lines = (asked.stdout if asked.returncode == 0 else asked.stderr).strip().splitlines()
    if asked.returncode != 0 or not lines:
        raise NoGpuError(lines[-1] if lines else "torch could not be asked for a GPU")
    return lines[-1]


def slug(name: str) -> str:
    """ "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def chosen(rest: Sequence[Step], left_s: float) -> list[Step]:
    """The steps that fit into the seconds that are left, those of the best priority first, in their order."""
    found = []
    for step in sorted(rest, key=lambda step: step.priority):
        if step.expected_s <= left_s:
            found.append(step)
            left_s -= step.expected_s
    return [step for step in rest if step in found]


def run(
    wanted: Sequence[Step],
    folder: Path,
    device: str,
    budget_s: float | None = None,
    *,
    grace_s: float = GRACE_S,
    tell: Callable[[str], None] = print,
) -> int:
    """Run steps one after another, and record each in `FILE` of the folder as it ends.

    Args:
        budget_s: for all steps. Before each step those of worse priority are left out that would not fit into what is
            left; a step that would exceed the budget is ended.
        grace_s: what a step has to end by itself at its limit.

    Returns: 0; 1 if a step failed or was ended at its limit; 130 after Ctrl-C.
    """
    begin, went = time.monotonic(), list[Went]()
    about = {"device": device, "started_at": _now(), "budget_s": budget_s}
    earlier = _earlier(folder / FILE)

    def record() -> None:
        took = round(time.monotonic() - begin, 1)
        _write(folder / FILE, [*earlier, {**about, "wall_s": took, "steps": [asdict(one) for one in went]}])

    for place, step in enumerate(wanted):
        left_s = float("inf") if budget_s is None else budget_s - (time.monotonic() - begin)
        if step not in chosen(wanted[place:], left_s):
            left = f"{max(0.0, left_s):.0f} s of {budget_s:g} s are left for all that follows"
            why = f"{step.expected_s:g} s expected; {left}"
            went.append(_ended(step, "left out", None, 0.0, None, why))
        else:
            tell(f"== {step.name}: {' '.join(step.command)}")
            went.append(_run(step, min(step.limit_s, max(1.0, left_s - grace_s)), grace_s))
        record()
        if went[-1].outcome == "interrupted":
            break
    for one in went:
        tell(f"{one.name}: {one.outcome}, {one.seconds:.0f} s" + (f": {one.reason}" if one.reason else ""))
    tell(f"written: {os.path.relpath(folder / FILE)}")
    outcomes = {one.outcome for one in went}
    return 130 if "interrupted" in outcomes else int(bool(outcomes & {"failed", "timeout"}))


def _run(step: Step, limit_s: float, grace_s: float) -> Went:
    started, begin = _now(), time.monotonic()
    command = [sys.executable if word == "python" else word for word in step.command]

    def ended(outcome: Outcome, code: int | None, reason: str | None) -> Went:
        return _ended(step, outcome, started, round(time.monotonic() - begin, 1), code, reason)

    try:
        child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    except OSError as error:
        return ended("failed", None, f"it cannot be started: {error.strerror}")
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        _interrupt(child, grace_s)
        return ended("timeout", child.returncode, f"it took longer than {limit_s:.0f} s")
    except KeyboardInterrupt:
        _interrupt(child, grace_s)
        return ended("interrupted", child.returncode, "Ctrl-C")
    finally:
        with suppress(ProcessLookupError):  # what it left running would disturb the next step
            os.killpg(child.pid, signal.SIGKILL)
    return ended("ok", code, None) if code == 0 else ended("failed", code, f"exit code {code}")


def _interrupt(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a step and its children: as Ctrl-C does, so that a sweep still writes its tables, and then by force."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ended(
    step: Step, outcome: Outcome, started: str | None, seconds: float, code: int | None, reason: str | None
) -> Went:
    command = " ".join(step.command)
    return Went(step.name, command, outcome, started, seconds, code, reason, step.expected_s, step.limit_s)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _earlier(file: Path) -> list[dict[str, Any]]:
    """The runs that a file holds; none if there is no such file, or it is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads(file.read_text(encoding="utf-8"))["runs"])
    return []


def _write(file: Path, runs: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part-{file.name}")
    part.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """One line and exit code 2."""
        print(f"gpu.py: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, find the GPU, run the steps. Returns: the exit code; 2 without a GPU or for a wrong option."""
    known = [step.name for step in steps("")]
    parser = _Parser(description="What awaits a GPU, into results/DEVICE.")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="leave out, by priority, what does not fit")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(known)}")
    parser.add_argument("--name", action="store_true", help="print the folder's name, and run nothing")
    asked = parser.parse_args(arguments)
    names = known if asked.only is None else asked.only.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--only: '{unknown[0]}' is not one of {', '.join(known)}")
    if asked.budget is not None and not 0 < asked.budget < float("inf"):
        parser.error(f"--budget: {asked.budget:g} is not a positive number of seconds")
    try:
        device = device_name()
    except NoGpuError as error:
        parser.error(str(error))
    if asked.name:
        print(slug(device))
        return 0
    folder = f"results/{slug(device)}"
    wanted = [step for step in steps(folder) if step.name in names]
    return run(wanted, ROOT / folder, device, asked.budget, tell=lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
