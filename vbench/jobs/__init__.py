"""What child processes do: the name of each job, the function that does it, and its argument.

A job is a generator function that takes one JSON-able dict and yields (part, value) pairs, both JSON-able. Processes
call a job by its name; in `gate --ab` they may be of two revisions, so a name stays when its function moves. Each
function below builds the argument of the job that has its name: `launcher.run(*measure(case, ...), timeout_s)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbench.flops.modules import Timing
    from vbench.operators.bench import Plan
    from vbench.plan import Case, Protocol
    from vbench.verify import Extent

Ask = tuple[str, dict[str, Any]]  # a job's name and its argument

JOBS = {
    "probe": "vbench.host:probe",
    "fingerprint": "vbench.host:fingerprint_job",
    "whereabouts": "vbench.host:whereabouts",
    "verify": "vbench.verify:job",
    "export": "vbench.exports.verdict:job",
    "count": "vbench.flops.count:count_cells",
    "count_in_full": "vbench.flops.count:count_in_full",
    "time_modules": "vbench.meters.modules:measure",
    "foresee": "vbench.flops.estimate:foresee",
    "foresee_cells": "vbench.flops.estimate:foresee_cells",
    "predict_memory": "vbench.flops.fit:predict_job",
    "count_for_gate": "vbench.gate.counters:count_job",
    "compile_for_gate": "vbench.gate.counters:compile_job",
    "measure": "vbench.sweeps.measure:measure",
    "take_turns": "vbench.sweeps.measure:take_turns",
    "take_rounds": "vbench.sweeps.measure:take_rounds",
    "attempt": "vbench.sweeps.limits:attempt",
    "survey_images": "vbench.accuracy.job:survey",
    "evaluate": "vbench.accuracy.job:evaluate",
    "identify": "vbench.meters.state:identify",
    "timer": "vbench.doctor.selftest:timer",
    "peaks": "vbench.doctor.peaks:measure",
    "roof": "vbench.doctor.peaks:roof",
    "import_peers": "vbench.operators.bench:peers_job",
    "bench_operator": "vbench.operators.bench:job",
    "compile_operator": "vbench.operators.compile:job",
    "tune_operator": "vbench.operators.tune:job",
}

FORMER = {  # the names in release 0.1 of the jobs that cross revisions; until 0.3 a revision may run either release
    "probe": "vbench.worker:probe",
    "fingerprint": "vbench.worker:fingerprint",
    "whereabouts": "vbench.worker:whereabouts",
    "verify": "vbench.worker:verify",
    "measure": "vbench.worker:measure",
    "take_turns": "vbench.worker:take_turns",
}


def target(job: str) -> str:
    """ "measure", its name in release 0.1, or "module:function" -> "module:function"."""
    names = {former: name for name, former in FORMER.items()}
    return JOBS.get(names.get(job, job), job)


def probe(device: str, models: Iterable[str] = ()) -> Ask:
    """Ask CUDA about a device, and whether these models of timm or of the user's own are there."""
    return "probe", {"device": device, "models": list(models)}


def fingerprint(device: str, gpu: dict[str, Any] | None, models: Iterable[str]) -> Ask:
    """Ask a process what machine, versions and code it has; `gpu` is the answer of `probe`."""
    return "fingerprint", {"device": device, "gpu": gpu, "models": list(models)}


def whereabouts(models: Iterable[str]) -> Ask:
    """Ask from which file each model is imported."""
    return "whereabouts", {"models": list(models)}


def verify(
    subject: str,
    device: str,
    seed: int,
    extent: Extent,
    *,
    weights: str | None,
    image_size: tuple[int, int],
    dtype: str = "float32",
) -> Ask:
    """Compare the forms of an operator, or the modes of a model in `dtype` too, as far as `extent` says."""
    about: dict[str, Any] = {
        "subject": subject,
        "device": device,
        "seed": seed,
        "weights": weights,
        "image_size": image_size,
    }
    if dtype != "float32":
        about["dtype"] = dtype
    how_much = asdict(extent)
    if extent.values:
        del how_much["values"]  # another revision may not know it
    return "verify", {**about, "extent": how_much}


def export(case: Case, about: Mapping[str, Any]) -> Ask:
    """Export the model of a cell; `about` says to what, and what to try."""
    return "export", {"case": case.to_json(), **about}


def count(cases: Iterable[Case]) -> Ask:
    """Count the work of cells of one model."""
    return "count", {"cases": [case.to_json() for case in cases]}


def count_in_full(case: Case, *, depth: int | None) -> Ask:
    """Count the work of a cell, and by modules of so many levels too, unless that is None."""
    return "count_in_full", {"case": case.to_json(), "depth": depth}


def time_modules(case: Case, timing: Timing, depth: int) -> Ask:
    """Time the modules of a cell, of so many levels."""
    return "time_modules", {"case": case.to_json(), **asdict(timing), "depth": depth}


def foresee(case: Case) -> Ask:
    """Predict what a cell needs."""
    return "foresee", {"case": case.to_json()}


def foresee_cells(cases: Iterable[Case]) -> Ask:
    """Predict what cells of one model need."""
    return "foresee_cells", {"cases": [asdict(case) for case in cases]}


def predict_memory(case: Case, card: str, *, batch: int, tf32: bool = False, largest: bool = False) -> Ask:
    """Predict the memory of a call of a cell on a card; with `largest` also what fits."""
    common = {"case": case.to_json(), "card": card, "batch": batch}
    return "predict_memory", common | {"tf32": tf32, "largest": largest}


def count_for_gate(cases: Mapping[str, Case]) -> Ask:
    """Count cells for the gate of counters, each under its name."""
    return "count_for_gate", {"cases": {name: case.to_json() for name, case in cases.items()}}


def compile_for_gate(op: str) -> Ask:
    """Compile an operator's kernels for the gate of counters."""
    return "compile_for_gate", {"op": op}


def measure(
    case: Case,
    protocol: Protocol,
    *,
    launch: int = 0,
    batch: int | None = None,
    watch: dict[str, Any] | None = None,
    in_turns: bool = False,
) -> Ask:
    """Measure one launch of a cell. `batch`: of the throughput, if known; `watch`: the sampler of the GPU's state.

    With `in_turns` a slow cell is not timed, because it will be in turns with others.
    """
    known = {"launch": launch, "batch": batch, "watch": watch, "in_turns": in_turns}
    return "measure", {"case": case.to_json(), "protocol": asdict(protocol), **known}


def take_turns(case: Case, protocol: Protocol, *, socket: Path, first: bool, core: int) -> Ask:
    """Measure one launch of a cell whose calls alternate with those of another process at the same socket."""
    place = {"socket": str(socket), "first": first, "core": core}
    return "take_turns", {"case": case.to_json(), "protocol": asdict(protocol), **place}


def take_rounds(case: Case, protocol: Protocol, *, socket: Path, place: int, core: int, known_ms: float) -> Ask:
    """Time the calls of a cell in turn with other processes, as the table at the socket tells them."""
    where = {"socket": str(socket), "place": place, "core": core, "known_ms": known_ms}
    return "take_rounds", {"case": case.to_json(), "protocol": asdict(protocol), **where}


def attempt(case: Case, *, budget_bytes: int | None, threads: int) -> Ask:
    """Test whether a cell fits in memory."""
    return "attempt", {"case": case.to_json(), "budget_bytes": budget_bytes, "threads": threads}


def survey_images(about: Mapping[str, Any], listing: Path) -> Ask:
    """Look at the images, the labels and the weights of an evaluation; `listing` is the file for the images."""
    return "survey_images", {**about, "listing": str(listing)}


def evaluate(asked: Mapping[str, Any], place: Mapping[str, Any], shards: Iterable[tuple[int, int, int]]) -> Ask:
    """Predict the classes of images, by shards (number, begin, end); `place` says where, with what and from what."""
    return "evaluate", {"asked": dict(asked), **place, "shards": [list(shard) for shard in shards]}


def identify(device: str) -> Ask:
    """Ask for the UUID of a CUDA device."""
    return "identify", {"device": device}


def timer(device: str) -> Ask:
    """Test the clock that times calls."""
    return "timer", {"device": device}


def peaks(device: str, dtype: str, threads: int = 1) -> Ask:
    """Measure the peaks of a device."""
    return "peaks", {"device": device, "dtype": dtype, "threads": threads}


def roof(device: str, dtypes: Iterable[str], threads: int, *, tf32: bool) -> Ask:
    """Measure in about a second what no call on a device can exceed."""
    return "roof", {"device": device, "dtypes": list(dtypes), "threads": threads, "tf32": tf32}


def import_peers(peers: Mapping[str, str]) -> Ask:
    """Import the functions that a user named; `peers` maps an operator to "module:function"."""
    return "import_peers", {"peers": dict(peers)}


def bench_operator(op: str, plan: Plan, peaks: dict[str, Any], rest: Mapping[str, Any]) -> Ask:
    """Time the forms of an operator; `peaks` give the least time that is possible.

    `rest` is {}, or what an earlier process left when it lost its device.
    """
    return "bench_operator", {"op": op, "plan": asdict(plan), "peaks": peaks, "rest": dict(rest)}


def compile_operator(op: str, arch: int) -> Ask:
    """Compile an operator's Triton kernels for an architecture."""
    return "compile_operator", {"op": op, "arch": arch}


def tune_operator(op: str, device: str, dtype: str, rest: Mapping[str, Any]) -> Ask:
    """Time the configurations of an operator's fused form. `rest` is as in `bench_operator`."""
    return "tune_operator", {"op": op, "device": device, "dtype": dtype, "rest": dict(rest)}
