"""The file of a model for a runtime, made in a process of its own: no exporter or compiler is in memory when it is run.

A file is made once in a run, whatever the launches and the runtimes that read it. It lies in the folder that the
processes of a run share, and goes with the run.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

from vbench.devices import is_out_of_memory, open_device
from vbench.errors import CompileError, UnsupportedError, first_line
from vbench.files import write_text
from vbench.jobs import scratch
from vbench.plan import Case
from vbench.runtimes import RUNTIMES, open_runtime

Work = Callable[["Request", Path], dict[str, Any]]  # request, folder -> what is kept of it

EXPORTED, BUILT = "exported.json", "built-{}.json"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be made: the model of a cell at a batch, with the weights of a seed."""

    case: Case
    batch: int
    threads: int
    seed: int
    tf32: bool

    @property
    def folder(self) -> Path:
        """Where its files are, one folder for all runtimes that read the same exported one. Raises: OutputError."""
        about = replace(self.case, batch=self.batch).to_json() | {"backend": RUNTIMES[self.case.backend].file}
        facts = json.dumps([about, self.threads, self.seed, self.tf32], sort_keys=True)
        return scratch.shared("exported") / sha256(facts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Made:
    """A file that a runtime loads.

    `weights` is a file of the model's state. `settings` are those of the model, as `workload.settings` returns them.
    `compile_s` went into the export and into compilers.
    """

    file: Path
    weights: Path
    weights_bytes: int
    settings: dict[str, Any]
    compile_s: float


def made(request: Request) -> Made:
    """The file of a request, made now or earlier in this run.

    Raises: UnsupportedError in the exporter's or the runtime's words; MemoryError; CompileError for another error.
    """
    exported = _told(request, EXPORTED, export)
    seconds, file = exported["seconds"], exported["file"]
    if RUNTIMES[request.case.backend].builds:
        built = _told(request, BUILT.format(request.case.backend), build)
        seconds, file = seconds + built["seconds"], built["file"]
    folder, known = request.folder, {name: exported[name] for name in ("weights_bytes", "settings")}
    return Made(folder / file, folder / exported["weights"], **known, compile_s=seconds)


def export(request: Request, folder: Path) -> dict[str, Any]:
    """Export the model of a request into a folder. Returns: `file` and `weights`, names there; what else `Made` has."""
    import torch

    from vbench.exports import files, program
    from vbench.meters import aside, memory
    from vbench.meters.backend import Compilations
    from vbench.meters.build import images, weights_of
    from vbench.meters.workload import settings

    case, device = request.case, open_device(request.case.device)
    torch.set_num_threads(request.threads)
    device.select(tf32=request.tf32)
    aside.prepare(case)
    torch.manual_seed(request.seed)
    model = aside.placed(case)
    torch.save(model.state_dict(), folder / "weights.pt")
    batch = images(case, request.batch, torch.device(device.name))
    write = files.to_aoti if RUNTIMES[case.backend].file == "aoti" else files.to_onnx
    begin = perf_counter()
    with Compilations("compile", request.threads):
        file = write(program.exported(model, batch), folder)
    return {
        "seconds": perf_counter() - begin,
        "file": file.name,
        "weights": "weights.pt",
        "weights_bytes": memory.nbytes(weights_of(model)),
        "settings": settings(model, device, case.attention),
    }


def build(request: Request, folder: Path) -> dict[str, Any]:
    """Make the runtime's own file of the exported one beside it. Returns: `file`, its name, and the `seconds` spent."""
    device = open_device(request.case.device)
    device.select(tf32=request.tf32)
    runtime = open_runtime(request.case.backend, device.name, request.threads, tf32=request.tf32)
    exported = json.loads((folder / EXPORTED).read_text(encoding="utf-8"))["file"]
    begin = perf_counter()
    file = runtime.compiled(folder / exported)
    return {"seconds": perf_counter() - begin, "file": file.name}


def _told(request: Request, name: str, work: Work) -> dict[str, Any]:
    """What that work has returned for a request; it is done in a process of its own if it was not before.

    Raises: as `made`; an UnsupportedError comes again without the work.
    """
    about = request.folder / name
    if not about.exists():
        about.parent.mkdir(exist_ok=True)
        _in_a_process(work, request, about)
    found: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
    if "unsupported" in found:
        raise UnsupportedError(found["unsupported"])
    return found


def _in_a_process(work: Work, request: Request, about: Path) -> None:
    context = get_context("spawn")  # a fork would have this process's threads and CUDA context, and neither works there
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, request, about))
    process.start()
    theirs.close()
    try:
        kind, said = mine.recv()
    except EOFError:
        kind, said = "", ""
    mine.close()
    process.join()
    if kind in ("oom", "error"):
        raise (MemoryError if kind == "oom" else CompileError)(said)
    if kind != "done":
        raise CompileError(f"the process that makes the file ended with exit code {process.exitcode}")


def _answer(answers: Connection, work: Work, request: Request, about: Path) -> None:
    try:
        try:
            found = work(request, about.parent)
        except UnsupportedError as error:
            found = {"unsupported": str(error)}
        write_text(about, json.dumps(found))
    except Exception as error:  # whatever an exporter or a compiler raises
        traceback.print_exc(file=sys.stderr)
        answers.send(("oom" if is_out_of_memory(error) else "error", first_line(error, named=True)))
    else:
        answers.send(("done", ""))
