"""A hundred models as users write them sweep, count, train or refuse, in both phases, as `zoo_of_users.table` says."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from command import vbench
from test_sweep import Silent
from zoo_of_users.table import ENTRIES, GROUPS, IMPORTS, Row, model

from vbench import jobs
from vbench.devices import is_out_of_memory
from vbench.errors import UnsupportedError, UsageError, first_line
from vbench.jobs.launch import Ending
from vbench.plan import RIGORS, Case, Sweep, plan
from vbench.results.frame import frame, rows_of
from vbench.results.store import Record, read
from vbench.sweeps import loop as sweeping

SHORT = replace(
    RIGORS["quick"],
    window=2,
    warmup_s=0.0,
    warmup_max_s=0.1,  # a slower call has no reference
    agree=1.0,
    sample_s=0.001,
    sample_max_s=0.002,
    samples_min=2,
    throughput_s=0.001,
)
OF_THE_MODEL = {"uncounted", "counters_disagree", "nonfinite", "output_differs", "modes_differ", "impossible"}  # flags
LONGEST = 400  # characters of a reason


class Here:
    """Runs jobs in this process, and ends them as a child of `Launcher` would."""

    roofs: dict[str, Ending] = {}  # noqa: RUF012 - of this machine, so of all

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job != "roof":
            return self._run(job, argument)
        if job not in self.roofs:
            self.roofs[job] = self._run(job, argument)
        return self.roofs[job]

    def _run(self, job: str, argument: dict[str, Any]) -> Ending:
        module, _, name = jobs.target(job).partition(":")
        parts: dict[str, Any] = {}
        gc.freeze()  # the meters collect garbage after each call, and need not look at what was there before
        try:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                for part, value in getattr(import_module(module), name)(argument):
                    parts[part] = json.loads(json.dumps(value))
        except UnsupportedError as error:
            return Ending("unsupported", first_line(error), parts)
        except UsageError:
            raise
        except Exception as error:
            oom = is_out_of_memory(error)
            return Ending("oom" if oom else "error", first_line(error, named=not oom), parts)
        return Ending("ok", None, parts)


@pytest.fixture
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    gc.collect()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


def case_of(group: str, row: Row, phase: str) -> Case:
    side, name = (row.side, row.side), model(group, row)
    return plan(Sweep((name,), (side,), ("parallel",), (row.batch,), phases=(phase,)))[0]  # type: ignore[arg-type]


def misses(row: Row, record: Record, flags: str) -> Iterator[str]:
    """What is not as the table says."""
    phase = record.case["phase"]
    if record.status not in row.status(phase):
        yield f"{record.status}: {record.reason}"
        return
    if record.status != "ok":
        reason = record.reason or ""
        if not any(word in reason for word in row.words.split("|")):
            yield f"the reason lacks '{row.words}': {reason}"
        if "\n" in reason or "Traceback" in reason or not 0 < len(reason) <= LONGEST:
            yield f"the reason is no line: {reason}"
        return
    found = {flag for flag in flags.split() if flag in OF_THE_MODEL}
    if row.flags != "*" and found != set(row.flags.split()):
        yield f"flags {sorted(found)}, not '{row.flags}': {record.reason} {record.second_count} {record.outputs}"
    if not record.latency or not record.memory:
        yield "no latency, or no memory"
    work = record.work
    if work is None:
        if "uncounted" not in found:
            yield "no MACs, and no flag"
        if row.macs is not None:
            yield f"no MACs: {record.reason}"
        return
    for name, wanted in (("macs", row.macs), ("params", row.params)):
        if wanted is not None and work[name] != wanted:
            yield f"{work[name]} {name}, not {wanted}"


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("group", GROUPS)
def test_models_of_users_in_both_phases(group: str, tmp_path: Path) -> None:
    rows = {
        (row, phase): case_of(group, row, phase)
        for row in GROUPS[group]
        for phase in ("infer", "train")
        if row.infer != "usage"
    }
    settings = sweeping.Settings(tmp_path / "run", "cpu", pairs="none", memory=tmp_path / "memo")
    records = sweeping.run(list(rows.values()), settings, SHORT, Here(), Silent())
    found = {record.case_id: record for record in records}
    flags = {row["case_id"]: row["flags"] or "" for row in rows_of(frame(records))}
    wrong = [
        f"{row.entry} {row.side} {phase}: {miss}"
        for (row, phase), case in rows.items()
        for miss in misses(row, found[case.id], flags[case.id])
    ]
    assert not wrong, "\n".join(wrong)


REFUSED = [("entries", row) for row in ENTRIES if row.infer == "usage"]
REFUSED += [("imports", row) for row in IMPORTS if row.infer == "usage"]
QUICKLY = ("--batch", "2", "--rigor", "quick", "--seconds", "0.01", "--modes", "parallel", "--device", "cpu")


@pytest.mark.parametrize(("group", "row"), REFUSED, ids=[row.entry for _, row in REFUSED])
def test_what_is_no_model_is_a_line_that_says_so(group: str, row: Row, tmp_path: Path) -> None:
    name = model(group, row)
    done = vbench("sweep", "--models", name, "--res", "64", *QUICKLY, "-o", "run", cwd=tmp_path)
    if done.returncode == 1:  # it fails when it is built: a row
        assert f"error: {name}" in done.stdout
        assert row.words in done.stdout
        return
    assert done.returncode == 2, done.stdout
    *progress, said = done.stderr.strip().splitlines()
    assert all(line.startswith("[") for line in progress if line), done.stderr
    assert name in said
    assert row.words in said
    assert "could not be asked" not in said  # it is not the device's fault


def test_a_dozen_of_them_in_a_real_sweep(tmp_path: Path) -> None:
    """Those that change the process which imports them, and some of each kind."""
    some = {"building": "Lazy", "values": "Prune", "outputs": "Dict", "training": "Frozen", "entries": "vit"}
    rows = {model("imports", row): row for row in IMPORTS if row.infer != "usage"}
    rows |= {model(group, row): row for group, name in some.items() for row in GROUPS[group] if row.entry == name}
    assert len(rows) >= 12
    done = vbench("sweep", "--models", ",".join(rows), "--res", "64", *QUICKLY, "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "welcome" not in done.stdout + done.stderr
    records = read(tmp_path / "run")
    flags = {row["model"]: row["flags"] or "" for row in rows_of(frame(records))}
    wrong = [
        f"{name}: {miss}"
        for name, record in ((record.case["model"], record) for record in records)
        for miss in misses(rows[name], record, flags[name])
    ]
    assert not wrong, "\n".join(wrong)
    heavy, light = (
        next(r.memory for r in records if r.case["model"] == f"zoo_of_users.imports.{name}:Net")
        for name in ("heavy", "prints")
    )
    assert heavy is not None
    assert light is not None
    assert abs(heavy["peak_bytes"] - light["peak_bytes"]) < 2**18


def test_there_are_a_hundred_and_most_are_counted_by_hand() -> None:
    rows = [row for group in (*GROUPS.values(), IMPORTS) for row in group]
    assert len({row.entry for row in rows}) >= 100
    assert sum(row.macs is not None and row.params is not None for row in rows) >= 60
