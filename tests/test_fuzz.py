"""Whatever a user gives is parsed, or refused in one line: no traceback, no hang, no gigabytes, no code that runs.

`make fuzz` gives each parser its share of 100,000 inputs, which differ from run to run; here it is a few thousand,
always the same ones. `FUZZED` is the table: a name, a share, what is given, and what reads it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import URLError

import pytest
import torch
from fakes import make_record
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vbench import options
from vbench import plan as planning
from vbench.commands import axes
from vbench.commands.python import compare as compare_runs
from vbench.errors import CheckpointError, VbenchError
from vbench.gate.counters import case_of
from vbench.models.checkpoint import fetch
from vbench.models.checkpoint import read as read_checkpoint
from vbench.operators import bench, peers
from vbench.operators import check as kernel_check
from vbench.operators import compile as compiling
from vbench.reports import paper_tables
from vbench.reports.figures import draw
from vbench.results import compare, counters, frame, operators, store
from vbench.suites import load as suites
from vbench.suites import rules
from vbench.sweeps import companies, limits

INPUTS = int(os.environ.get("VBENCH_FUZZ", "0"))  # of all parsers together
FEW = 2_000  # here
DEADLINE_S = 4.0  # of the processor, for one input
ROOM = 2**31  # bytes that all inputs of a parser may take beside what is taken
LINE = 3_000  # characters of a refusal
ROOT = Path(__file__).resolve().parent.parent
SECRET = "s3cr3t-t0ken"

# What people and machines give where words and numbers are expected.
numerals = st.sampled_from(
    ["0", "1", "-1", "224", "1e400", "-0", "1e-400", "NaN", "inf", "9" * 30, "9" * 5000, "²", "١٢", "0x10", "1_0", "+5"]
)
oddities = st.sampled_from(
    ["\x00", "\x1b[2J", "\u202e", "\udc80", "[/b]", "=1+1", "../" * 40, "%s{}", "a" * 3000, "-" * 9, "*?[!", "\n", "🙂"]
)
punctuation = st.sampled_from(list(",:;x=<>.-/@#%[]*? "))


def written(*words: str) -> st.SearchStrategy[str]:
    """Texts of these words, of numerals, of what parts them, and of anything."""
    parts = st.sampled_from(words) | numerals | punctuation | oddities | st.text(max_size=6)
    return st.lists(parts, max_size=8).map("".join) | st.text(max_size=40)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | oddities
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
tokens = st.sampled_from(  # of JSON, or nearly; most cannot be made by json.dumps
    [
        *("1e999", "-1e999", "NaN", "-Infinity", "9" * 5000, "1" + "0" * 400, "01", "1.", "-", "tru", '"', '"\\ud800"'),
        *(
            '"\\u0000"',
            "[" * 3000,
            "[" * 3000 + "]" * 3000,
            '{"a":' * 3000 + "1" + "}" * 3000,
            "",
            '"' + "x" * 9000 + '"',
        ),
        *("0.1", "-5", "1e300", str(2**63), str(2**64), "[]", "{}", "[[]]", '"ok"', "null", "true", '"1"', "1e15"),
    ]
) | values.map(json.dumps)


def places(whole: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a JSON value."""
    yield at
    if isinstance(whole, dict | list):
        for key, one in whole.items() if isinstance(whole, dict) else enumerate(whole[:2]):
            yield from places(one, (*at, key))


def mutants(whole: Any) -> st.SearchStrategy[bytes]:
    """The JSON of a value in which a few values are others, missing or renamed; and JSON with other bytes."""
    text, ways = json.dumps(whole), [way for way in places(whole) if way]

    @st.composite
    def values_changed(draw: st.DrawFn) -> bytes:
        found = json.loads(text)
        instead = []
        for number in range(draw(st.integers(1, 3))):
            *way, last = draw(st.sampled_from(ways))
            inner = found
            for key in way:
                inner = inner[key] if isinstance(inner, list | dict) and _has(inner, key) else None
            if not isinstance(inner, list | dict) or not _has(inner, last):
                continue
            if isinstance(inner, dict) and draw(st.integers(0, 4)) == 0:
                inner[draw(st.text(max_size=5))] = inner.pop(last)
            else:
                inner[last] = f"@{number}@"
                instead.append((json.dumps(f"@{number}@"), draw(tokens)))
        said = json.dumps(found)
        for old, new in instead:
            said = said.replace(old, new)
        return said.encode("utf-8", "surrogatepass")

    @st.composite
    def bytes_changed(draw: st.DrawFn) -> bytes:
        return _damaged(draw, text.encode())

    return values_changed() | bytes_changed() | tokens.map(lambda token: token.encode("utf-8", "surrogatepass"))


def _has(inner: Any, key: Any) -> bool:
    return key in inner if isinstance(inner, dict) else isinstance(key, int) and key < len(inner)


def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(found))), draw(st.sampled_from((0, 1, 2, 8, 64)))
        found[at : at + length] = draw(st.binary(max_size=8))
    return bytes(found[: draw(st.integers(0, len(found)))]) if draw(st.integers(0, 7)) == 0 else bytes(found)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Bytes, a few of which are others, missing or too many."""
    return st.composite(lambda draw: _damaged(draw, whole))()


RECORD = asdict(make_record())
BLOCK = {
    **{key: RECORD[key] for key in ("order", "status", "reason", "conditions", "protocol", "host", "started_at")},
    **{"wall_s": 1.0, "timeout_s": 300.0, "company": "c0ffee", "block": 0, "load": None, "stop": "as known as asked"},
    **{"case_ids": [RECORD["case_id"], "other"], "cases": [RECORD["case"], {**RECORD["case"], "mode": "recurrent"}]},
    **{"samples_ms": [[1.0, 1.1], [2.0, 2.1]], "batches": [1, 1], "calls": [1, 1], "schema": RECORD["schema"]},
}
BASELINE = json.loads((ROOT / "results" / "counters.json").read_text())
BASELINE = {**BASELINE, "cells": BASELINE["cells"][:2], "kernels": dict(list(BASELINE["kernels"].items())[:2])}
TIMED = dict.fromkeys(operators._KEYS, 1)
SUITE = b'question = "?"\ntime = "seconds"\nmodels = "deit_t"\nres = "64:128:32"\n[gate]\nbudgets = ["latency_ms<20"]\n'
PROJECT = (
    b'[tool.vbench.gate]\nthreshold = 0.03\nmodels = "vig_t"\n[[tool.vbench.gate.cells]]\nmatch = "*"\nbudgets = []\n'
)
STATE = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2)}


def saved(contents: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, **how)
    return file.getvalue()


class Calls:
    """Unpickled as it stands, it would run a command."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


HOSTILE = [
    pickle.dumps(Calls(os.system, "true")),
    pickle.dumps({"a": Calls(eval, "1"), "b": Calls(open, "/etc/hosts")}),
]
WHOLE = [saved(STATE), saved(STATE, _use_new_zipfile_serialization=False)]


def archived(text: bytes) -> bytes:
    """An archive of torch.save with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE[0])) as before, zipfile.ZipFile(file, "w") as after:
        for part in before.infolist():
            after.writestr(part.filename, text if part.filename.endswith("data.pkl") else before.read(part))
    return file.getvalue()


with zipfile.ZipFile(io.BytesIO(WHOLE[0])) as _archive:
    PICKLE = next(_archive.read(part) for part in _archive.namelist() if part.endswith("data.pkl"))
HEADER = {"0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
checkpoints = st.one_of(
    st.sampled_from([*WHOLE, *HOSTILE]).flatmap(damaged),
    st.sampled_from([PICKLE, *HOSTILE]).flatmap(damaged).map(archived),
    st.tuples(mutants(HEADER), st.integers(-9, 9) | st.integers(0, 2**64 - 1), st.binary(max_size=40)).map(
        lambda given: struct.pack("<Q", (len(given[0]) + given[1]) % 2**64) + given[0] + given[2]
    ),
    mutants({"metadata": {}, "weight_map": {"a": "part-1.safetensors"}}),
)
sources = st.one_of(
    written(
        "hf-hub:", "org/repo", "http://", "https://", f"user:{SECRET}@", "host", f"?token={SECRET}", "file://", "C:"
    ),
    written("/", "@main", "model.safetensors").map(lambda text: f"hf-hub:{text}"),
    written("/", "%2e", "a.pth", ":80", ":99999").map(lambda text: f"https://user:{SECRET}@{text}"),
)
texts = written(
    *("vig_t", "deit_t", "timm/resnet50", "my_net:net", "all", "swin_*", "knee", "max", "auto", "none", "parallel"),
    *("float32", "amp-bf16", "eager", "quick", "10m", "1h", "s", "latency_ms", "peak_memory_mib", "32", "2048"),
)


class Folder:
    """Where a parser finds the bytes that it is to read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def holds(self, name: str, contents: bytes) -> Path:
        (self.place / name).write_bytes(contents)
        return self.place / name


def records(folder: Folder, lines: list[bytes]) -> None:
    folder.holds(store.FILE, b"\n".join(lines))
    store.read(folder.place)


def table(folder: Folder, lines: list[bytes]) -> None:
    folder.holds(store.FILE, b"\n".join([json.dumps(RECORD).encode(), *lines]))
    folder.holds(store.TURNS, json.dumps(BLOCK).encode())
    frame.of_folders([folder.place])


def turns(folder: Folder, lines: list[bytes]) -> None:
    folder.holds(store.TURNS, b"\n".join(lines))
    store.read_turns(folder.place)


def runs(folder: Folder, text: bytes) -> None:
    folder.holds(store.FILE, json.dumps(RECORD).encode() + b"\n")
    folder.holds("run.json", text)
    compare.load(folder.place)


def baseline(folder: Folder, text: bytes) -> None:
    for cell in counters.read(folder.holds("counters.json", text)).cells:
        case_of(cell.case)


def suite(folder: Folder, text: bytes) -> None:
    found = suites.load(str(folder.holds("mine.toml", text)))
    rules.parse(found.gate, "[gate]")
    for each in found.sets:
        planning.parse({**planning.USUAL, **each}, "cpu")


def project(folder: Folder, text: bytes) -> None:
    folder.holds("pyproject.toml", text)
    rules.read(folder.place)


def kernel_rows(folder: Folder, lines: list[bytes]) -> None:
    folder.holds(operators.FILE, b"\n".join(lines))
    operators.beside_attention(operators.read(folder.place), "gla", 196)


def checkpoint(folder: Folder, contents: bytes) -> None:
    with no_code():
        read_checkpoint(folder.holds("weights.pth", contents))


def source(folder: Folder, text: str) -> None:
    """The network is cut; a checkpoint's address is parsed, and its refusal tells no secret."""
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(text)
    assert SECRET not in str(refused.value)
    raise refused.value


def cells(folder: Folder, text: str) -> None:
    """Each axis by itself, and all that a plan makes of it."""
    usual = {"models": "deit_t", "res": "64"}
    for axis in axes.OPTIONS:
        each(lambda axis=axis: axes.cells({**usual, axis: text}, None, "cpu"))


def words(folder: Folder, text: str) -> None:
    """Every other option that is a text."""
    case = planning.Case("deit_t", 64, 64, "parallel", None, 1, "float32", "cpu", attention="fused")
    fixed = {"mode": "parallel", "dtype": "float32", "phase": "infer", "device": "cpu", "timeout_s": 60.0, "threads": 1}
    looks = {"style": "paper", "formats": "png", "at": "512", "baseline": None, "subject": None, "cost": None}
    calls = {"dtype": None, "backend": None, "l2": None, "tokens": None, "batch": None}
    fine = {"ops": ("gla",), "forms": (), "device": "cpu", "seconds": None, "limit_s": None, "threads": 1, "peers": {}}
    search = {"res": None, "batch": 1, "memory_gib": None, "limit": 512}
    for call in (
        lambda: planning.parse_rigor(text),
        lambda: options.seconds(text, "--budget"),
        lambda: rules.budget(text, "--budget"),
        lambda: companies.parse_pairs(text, [case]),
        lambda: suites.load(text),
        lambda: compiling.parse_archs(text),
        lambda: kernel_check.parse_ops(text),
        lambda: kernel_check.parse_forms(text, ("gla",)),
        lambda: peers.parse_peers([text]),
        lambda: paper_tables.parse_formats(text),
        lambda: limits.task("px", text, **search, **fixed),
        lambda: limits.task("images", "deit_t", **{**search, "res": text, "batch": None}, **fixed),
        lambda: draw.parse_words([text, "."]),
        *(
            lambda key=key: draw.parse((), **{**looks, key: text})
            for key in ("style", "formats", "at", "cost", "width", "font")
        ),
        *(lambda key=key: bench.parse(**fine, **{**calls, key: text}) for key in calls),
    ):
        each(call)


def pairs_of_runs(folder: Folder, text: str) -> None:
    """A path that is no run."""
    compare_runs(folder.place / text.replace("\0", ""), folder.place)


def each(call: Callable[[], Any]) -> None:
    """A call is answered or refused in one line."""
    said = "an answer"
    try:
        call()
    except VbenchError as error:
        said = str(error)
    assert 0 < len(said) < LINE, said[:400]


suites_of = st.dictionaries(st.sampled_from([*suites.AXES, "question", "time"]), texts | values, max_size=5).map(
    lambda found: "".join(f"{key} = {json.dumps(value)}\n" for key, value in found.items()).encode(
        "utf-8", "surrogatepass"
    )
)
lines_of = st.one_of(mutants(RECORD), damaged(json.dumps(RECORD).encode()), st.binary(max_size=60))
FUZZED: dict[str, tuple[float, st.SearchStrategy[Any], Callable[[Folder, Any], None]]] = {
    "records": (0.165, st.lists(lines_of, min_size=1, max_size=3), records),
    "table": (0.01, st.lists(mutants(RECORD), min_size=1, max_size=2), table),
    "turns": (0.10, st.lists(mutants(BLOCK), min_size=1, max_size=2), turns),
    "run.json": (0.005, mutants({"runs": [{"complete": True, "cells": 2}]}), runs),
    "baseline": (0.08, mutants(BASELINE), baseline),
    "suite": (0.08, damaged(SUITE) | suites_of, suite),
    "pyproject": (0.06, damaged(PROJECT), project),
    "kernels": (0.06, st.lists(mutants(TIMED), min_size=1, max_size=2), kernel_rows),
    "checkpoint": (0.12, checkpoints, checkpoint),
    "source": (0.12, sources, source),
    "cells": (0.10, texts, cells),
    "words": (0.08, texts, words),
    "no run": (0.02, texts, pairs_of_runs),
}


@pytest.mark.parametrize("name", list(FUZZED))
def test_what_a_user_gives_is_parsed_or_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, strategy, read = FUZZED[name]
    monkeypatch.setattr(fetch, "urlopen", _cut)
    monkeypatch.setattr(fetch, "hf_hub_download", _cut)
    monkeypatch.setattr(fetch, "list_repo_files", _cut)
    folder, tried = Folder(tmp_path), 0

    @settings(
        max_examples=round(share * (INPUTS or FEW)),
        deadline=None,
        derandomize=not INPUTS,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def holds(value: Any) -> None:
        nonlocal tried
        tried += 1
        with deadline():
            each(lambda: read(folder, value))

    begin = time.process_time()
    with room(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        holds()
    sys.stdout.write(f"{name}: {tried} inputs, {time.process_time() - begin:.1f} s\n")
    assert tried >= round(share * (INPUTS or FEW)) * 0.5  # small spaces are exhausted before


def _cut(*_: Any, **__: Any) -> None:
    raise URLError("the network is cut")


@contextmanager
def deadline() -> Iterator[None]:
    """Within, the processor may take `DEADLINE_S`."""

    def late(number: int, at: FrameType | None) -> None:
        raise AssertionError(f"an input took more than {DEADLINE_S} s of the processor")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def room() -> Iterator[None]:
    """Within, this process may take `ROOM` bytes more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


RUNS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen")
_watched: list[str] | None = None
_hooked: list[bool] = []


@contextmanager
def no_code() -> Iterator[None]:
    """Within, no command, no library and no code object starts: Python's audit sees each."""
    global _watched  # noqa: PLW0603  # an audit hook stays for ever
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    _watched = []
    try:
        yield
        assert not _watched, _watched
    finally:
        _watched, seen = None, _watched
        assert not seen, seen


def _audit(event: str, arguments: Any) -> None:
    if _watched is not None and (event in RUNS or (event == "compile" and arguments[1] in (None, "<string>"))):
        _watched.append(f"{event} {arguments!r}"[:200])
