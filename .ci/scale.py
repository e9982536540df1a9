"""What reports take on many records: run folders are made, each command reads them in a process of its own.

`make scale` writes `results/scale.csv`, and from it the table in `docs/reports.md`; `--page` makes the table again from
that file. The records are those of `results/cpu` with other cells and other numbers: as many bytes and as many samples
a launch as there, eight launches a cell. One in eight launches drifts, one in fifty has outliers, one cell in forty
failed; recurrent models took turns with attention. The cells are the plan of a real command, under the conditions of
this machine, so that the same command resumes them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT / "results" / "cpu" / "records.jsonl"
TABLE = ROOT / "results" / "scale.csv"
PAGE = ROOT / "docs" / "reports.md"
SEED = 0
LIMIT_S = 150.0  # of one command
CHUNK = 2_000  # records that are drawn together
SCATTER = 0.01  # of launches, and of the samples of a launch, as a share
FAILED = 40  # one cell of so many, with all its launches
ENDINGS = (
    ("oom", "out of memory: 24.1 GB were asked for, 16.0 GB are free"),
    ("timeout", "not done after 300 s"),
    ("error", "RuntimeError: the output has another shape than the input asks for"),
)
ROUNDS = 20  # of a block of turns
BLOCKS = (1.0, 0.99, 1.01, 1.0, 1.02, 1.0)  # of calls back to back, about their middle
HEADS = (
    *("records", "cells", "mib", "command", "wall_s", "cpu_s", "peak_mib", "ended"),
    *("cpu", "cores", "python", "pandas", "numpy", "commit"),
)
EVERY_S = 0.05  # memory is looked at
STOPPED = 256  # stands for the exit code of a command that was stopped
MEMORY_GIB = 12  # that a command may take
NOT_ON = {  # more records than these
    "plan": 1_000,  # it counts the work of each model and size
    "page": 10_000,  # it keeps all records in memory
    "resume": 100_000,  # so does a sweep
}
COMMANDS = ("plan", "report", "figures", "page", "compare", "merge", "resume")


@dataclass(frozen=True)
class Shape:
    """The axes of a plan, as options of `vbench sweep`."""

    models: str
    res: str
    batch: str
    dtype: str
    layout: str

    @property
    def options(self) -> list[str]:
        axes = {**asdict(self), "device": "cpu", "pairs": "none", "cells": "1000000"}
        return [word for name, value in axes.items() for word in (f"--{name}", value)]


FEW, MORE = "vig_t,deit_t", "vig_t,vig_s,vrwkv_t,vil_t,deit_t,swin_t"
MOST = f"{MORE},vig_b,vrwkv_s,vil_s,vir_s,vision_gru_t,deit_s,swin_s,vrwkv6_t,vil2_t"
SHAPES = {  # models and batches grow with the number of records, and sizes too
    1_000: Shape(FEW, "256:864:32", "1,8", "float32", "nchw"),
    10_000: Shape(MORE, "256:896:32", "1,4,8", "float32,bfloat16", "nchw"),
    100_000: Shape(MOST, "256:1504:32", "1,2,4,8", "float32,bfloat16,float16", "nchw"),
    1_000_000: Shape(MOST, "256:1824:16", "1,2,4,8,16,32,knee,max", "float32,bfloat16,float16", "nchw,nhwc"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", default=",".join(map(str, SHAPES)), help="some of the sizes")
    parser.add_argument("--only", default=",".join(COMMANDS), help="some of the commands")
    parser.add_argument("--keep", type=Path, help="a folder in which the runs stay")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page", action="store_true", help="only make the table of the page again")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of one command")
    asked = parser.parse_args()
    if asked.page:
        fill(asked.table)
        return
    rows, here = list[dict[str, Any]](), about()
    with tempfile.TemporaryDirectory(prefix="vbench-scale-") as temporary:
        place = asked.keep or Path(temporary)
        for records in map(int, asked.records.split(",")):
            rows += [row | here for row in measured(place / str(records), records, asked.only.split(","), asked.limit)]
            if asked.keep is None:
                shutil.rmtree(place / str(records))
    write(asked.table, rows)
    if asked.table == TABLE:
        fill(TABLE)


def about() -> dict[str, str]:
    """The machine, the versions that matter, and the commit."""
    sys.path.insert(0, str(ROOT))
    from vbench import host
    from vbench.results import workers
    from vbench.results.launches import commit

    found = host.fingerprint("cpu", None)
    versions = {name: str(metadata.version(name)) for name in ("pandas", "numpy")}
    made = {"python": found["versions"]["python"], **versions, "commit": str(commit(found))}
    return {"cpu": found["cpu"], "cores": str(workers.cores()), **made}


def fill(table: Path) -> None:
    """Put the table of that file into the page."""
    sys.path.insert(0, str(ROOT))
    from vbench.reports.write import filled

    rows = read(table)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "scale", page(rows)), encoding="utf-8")


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write` has made. Ends with one line if it has other columns, or no rows."""
    try:
        with table.open(encoding="utf-8", newline="") as text:
            rows = csv.DictReader(text)
            found, lacking = list(rows), [name for name in HEADS if name not in (rows.fieldnames or ())]
    except OSError as error:
        sys.exit(f"{table} cannot be read: {error.strerror}")
    if lacking or not found:
        why = f"has no column {', '.join(lacking)}: an older script wrote it" if lacking else "has no rows"
        sys.exit(f"{table} {why}; 'make scale' measures it again")
    return list(found)


def measured(folder: Path, records: int, commands: list[str], limit_s: float) -> Iterator[dict[str, Any]]:
    """One row for each command on a run of so many records."""
    run, again, shape = folder / "run", folder / "again", SHAPES[records]
    if not run.is_dir():
        make(run, records, shape)
    size = (run / "records.jsonl").stat().st_size
    cells = len({line[:40] for line in (run / "records.jsonl").open("rb")})  # each line begins with its case_id
    lines: dict[str, list[str]] = {
        "plan": ["plan", *shape.options],
        "report": ["report", str(run)],
        "figures": ["figures", "all", str(run), "--format", "png", "-o", str(folder / "figures")],
        "page": ["report", str(run), "-o", str(folder / "page.html")],
        "compare": ["compare", str(run), str(again)],
        "merge": ["merge", str(run), str(again), "-o", str(folder / "merged")],
        "resume": ["sweep", *shape.options, "--refine", "none", "-o", str(run)],
    }
    for command in commands:
        if records > NOT_ON.get(command, records):
            continue
        if command in ("compare", "merge") and not again.is_dir():
            again.mkdir()
            for file in ("records.jsonl", "turns.jsonl"):
                os.link(run / file, again / file)
        took = child([sys.executable, "-P", "-m", "vbench", *lines[command]], folder / f"{command}.txt", limit_s)
        row = {"records": records, "cells": cells, "mib": round(size / 2**20), "command": command, **took}
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        yield row


def child(command: list[str], log: Path, limit_s: float) -> dict[str, Any]:
    """Run a command within a time. CPU time and memory are those of all its processes together."""
    begin, peak = time.monotonic(), 0
    with log.open("wb") as text:
        process = psutil.Popen(
            command,
            stdout=text,
            stderr=text,
            env={**os.environ, "COLUMNS": "200"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB << 30, MEMORY_GIB << 30)),
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        while process.poll() is None and time.monotonic() - begin < limit_s:
            peak = max(peak, sum(map(resident, [process, *below(process)])))
            time.sleep(EVERY_S)
        for one in [*below(process), process] if process.poll() is None else ():
            one.kill()
        rc = process.wait() if time.monotonic() - begin < limit_s else STOPPED
        process.wait()
    took, used = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    words = log.read_text(encoding="utf-8", errors="replace")
    good = (0, 1) if {"compare", "sweep"} & set(command) else (0,)  # 1: done, and there are worse or failed cells
    ended = "ok" if rc in good else f"stopped after {limit_s:g} s" if rc == STOPPED else f"exit {rc}"
    for fault in ("Traceback", "MemoryError", "No such command"):
        ended = fault.lower() if fault in words else ended
    return {"wall_s": round(took, 1), "cpu_s": round(cpu_s, 1), "peak_mib": round(peak / 2**20), "ended": ended}


def below(process: psutil.Process) -> list[psutil.Process]:
    """The processes that it has started, and theirs."""
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def resident(process: psutil.Process) -> int:
    """The bytes of memory that it holds; 0 if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def make(folder: Path, records: int, shape: Shape) -> None:
    """Write the run: records of every launch of every cell, in the order of a sweep."""
    sys.path.insert(0, str(ROOT))
    from vbench import host, plan
    from vbench.sweeps.companies import companies

    sweep = plan.parse({**plan.USUAL, **asdict(shape)}, "cpu")
    protocol = asdict(plan.RIGORS["default"])
    about = host.fingerprint("cpu", None)
    common = {"protocol": protocol, "host": about, "conditions": host.conditions(about, protocol)}
    cases = plan.plan(sweep)
    order = plan.schedule(cases, plan.RIGORS["default"].launches, SEED)
    print(f"{folder.name}: {len(order)} records are planned, {records} asked for", flush=True)
    folder.mkdir(parents=True)
    template = Template(common)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for first in range(0, len(order), CHUNK):
            file.write("".join(template.lines(order[first : first + CHUNK], first)))
    able = [case for case in cases if not case.unsupported and not ending(case)]
    with (folder / "turns.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(map(template.turns(len(order)), companies(able)))


def ending(case: Any) -> tuple[str, str] | None:
    """How the launches of a cell failed, and why; None if they did not."""
    number = int(case.id[:8], 16)
    return ENDINGS[number // FAILED % len(ENDINGS)] if number % FAILED == 0 else None


class Template:
    """Lines of records: those of `REAL` with other cells and numbers."""

    def __init__(self, common: dict[str, Any]) -> None:
        real = [json.loads(line) for line in REAL.open(encoding="utf-8")]
        timed = [record for record in real if record["status"] == "ok" and record["latency"]]
        self.first = {**next(record for record in timed if record["launch"] == 0), **common}
        self.later = {**next(record for record in timed if record["launch"] > 0), **common}
        self.ended = {**next(record for record in real if record["status"] == "unsupported"), **common}
        self.counts = [len(record["latency"]["samples_ms"]) for record in timed]
        self.random = np.random.default_rng(SEED)
        self.choice = random.Random(SEED)
        from vbench.results.models import of_zoo

        self.common, self.zoo = common, cache(of_zoo)
        self.cut: dict[int, list[str]] = {}

    def lines(self, order: list[Any], first: int) -> Iterator[str]:
        """The lines of these launches; `first` is the place of the first one in the sweep."""
        counts = self.choice.choices(self.counts, k=len(order))
        noise = self.random.lognormal(0.0, SCATTER, sum(counts)).round(6)
        launches = self.random.lognormal(0.0, SCATTER, len(order))
        at = 0
        for number, ((case, launch), count) in enumerate(zip(order, counts, strict=True)):
            samples = noise[at : at + count] * (self.milliseconds(case) * launches[number])
            at += count
            if (first + number) % 8 == 0:
                samples = samples * np.linspace(1.0, 1.05, count)
            if (first + number) % 50 == 0:
                samples[-2:] *= 3
            yield self.line(case, launch, first + number, samples.round(6).tolist())

    def turns(self, order: int) -> Callable[[Any], str]:
        """What gives the lines of a company: as many blocks as it has cells."""
        places = itertools.count(order)

        def lines(company: Any) -> str:
            count = len(company.cases)
            noise = self.random.lognormal(0.0, SCATTER, (count, count, ROUNDS))
            usual = np.array([self.milliseconds(case) for case in company.cases])[:, None]
            about = {
                "case_ids": [case.id for case in company.cases],
                "cases": [asdict(case) for case in company.cases],
                "batches": [1] * count,
                "calls": [1] * count,
                "stop": f"{ROUNDS} rounds",
            }
            return "".join(
                json.dumps(
                    {
                        **{"company": company.id, "block": block},
                        **{**about, "order": next(places), "status": "ok", "reason": None, **self.common},
                        **{name: self.first[name] for name in ("started_at", "wall_s", "timeout_s", "load", "schema")},
                        "samples_ms": (usual * noise[block]).round(6).tolist(),
                    }
                )
                + "\n"
                for block in range(count)
            )

        return lines

    @staticmethod
    def milliseconds(case: Any) -> float:
        tokens = (case.height / 16) * (case.width / 16)
        slow = 1 + sum(map(ord, case.model)) % 7 / 4 + (case.mode == "recurrent")
        grows = tokens**1.3 / 40 if case.attention else tokens / 10
        return float(slow * grows * (0.6 if case.dtype != "float32" else 1.0))

    def line(self, case: Any, launch: int, place: int, samples: list[float]) -> str:
        zoo = self.zoo(case.model, case.height, case.width)
        ended = ("unsupported", case.unsupported) if case.unsupported else ending(case)
        if ended:
            about = {"case_id": case.id, "case": asdict(case), "launch": launch, "order": place, "zoo": zoo}
            return json.dumps({**self.ended, **about, "status": ended[0], "reason": ended[1]}) + "\n"
        tokens = (case.height // 16) * (case.width // 16)
        kind = min(launch, 1)
        if kind not in self.cut:
            self.cut[kind] = self._cut(self.later if kind else self.first)
        middle = sorted(samples)[len(samples) // 2]
        peak = 28_000_000 + 9_000 * tokens + 4_096 * (place % 7)
        parts = (
            case.id,
            json.dumps(asdict(case)),
            str(launch),
            str(place),
            *(str(size) for size in (tokens, 5_900_000 * tokens, 6_100_000 * tokens, 6_100_000 * tokens)),
            *([] if kind else [str(peak), str(peak - 24_000_000)]),
            str(samples),
            *([] if kind else self._blocks(case, middle)),
            str(middle / 3),
            json.dumps(zoo),
        )
        return "".join(piece for pair in zip(self.cut[kind], (*parts, "\n"), strict=True) for piece in pair)

    @staticmethod
    def _blocks(case: Any, middle: float) -> list[str]:
        """Batch, images/s and block times of calls back to back."""
        batch = case.batch if isinstance(case.batch, int) else 8
        blocks = [round(batch * middle * part, 9) for part in BLOCKS]
        return [str(batch), f"{1e3 / middle:.9f}", str(blocks)]

    @staticmethod
    def _cut(record: dict[str, Any]) -> list[str]:
        """The text between the values that are put in."""
        mark = "@@"
        record = json.loads(json.dumps(record))
        record |= {"case_id": mark, "case": mark, "launch": mark, "order": mark}
        record["work"] |= dict.fromkeys(("tokens", "macs", "macs_executed", "macs_matmul"), mark)
        if record["memory"]:
            record["memory"] |= {"peak_bytes": mark, "activation_bytes": mark}
        record["latency"] |= {"samples_ms": mark}
        if record["throughput"]:
            record["throughput"] |= {"batch": mark, "images_per_s": mark, "blocks_ms": mark}
        record["floor"] |= {"floor_ms": mark}
        record["zoo"] = mark
        head, *rest = json.dumps(record).replace('"case_id": "@@"', '"case_id": "\0"').replace('"@@"', "\0").split("\0")
        return [head, *rest]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        table = csv.DictWriter(text, HEADS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def page(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown: seconds and peak memory of each command by the number of records, and how time grows."""
    sizes = list(dict.fromkeys(int(row["records"]) for row in rows))
    lines = ["| command | " + " | ".join(f"{size:,} records" for size in sizes) + " | exponent |"]
    lines += ["| --- |" + " ---: |" * (len(sizes) + 1)]
    for command in dict.fromkeys(row["command"] for row in rows):
        found = {int(row["records"]): row for row in rows if row["command"] == command}
        cells = [*(_cell(found.get(size)) for size in sizes), exponent(list(found.values()))]
        lines.append(f"| `{command}` | " + " | ".join(cells) + " |")
    alike = [", ".join(dict.fromkeys(str(row[name]) for row in rows)) for name in HEADS[8:]]
    text = "On {} with {} cores, on which nothing else ran; Python {}, pandas {}, numpy {}, vbench at commit {}."
    lines += ["", text.format(*alike)]
    return "\n".join(lines)


def exponent(rows: list[dict[str, Any]]) -> str:
    """How wall time grows with the cells between the two largest runs that ended well: 1 is linear."""
    done = sorted((int(row["cells"]), float(row["wall_s"])) for row in rows if row["ended"] == "ok")
    if len(done) < 2 or not done[-2][1]:
        return "–"
    (few, before), (many, after) = done[-2:]
    return f"{math.log(after / before) / math.log(many / few):.2f}"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    if row["ended"] != "ok":
        return str(row["ended"])
    return f"{float(row['wall_s']):g} s, {int(row['peak_mib']) / 1024:.2g} GiB"


if __name__ == "__main__":
    main()
