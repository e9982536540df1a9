"""What a user gives and cannot be meant: one clear line, exit code 2, and nothing was done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import vbench

from vbench.errors import UsageError
from vbench.gate.counters import gate
from vbench.results import counters
from vbench.suites.load import load
from vbench.suites.rules import budget

MANY = "9" * 5000
PLAN = ("plan", "--models", "vig_t")
SWEEP = ("sweep", "--models", "vig_t", "--res", "224")
WORDS = {  # what is given -> what is said
    (*PLAN, "--res=--5"): "--res: '--5' is not a size",
    (*PLAN, "--res", MANY): "(5,000 characters)' is not between 1 and 65536",
    (*PLAN, "--res", f"224:{MANY}"): "is not between 1 and 65536",
    (*PLAN, "--res", "nan"): "'nan' is not a size",
    (
        *PLAN,
        "--res",
        "1:65536:1",
    ): "the plan has 131,072 cells, more than 10,000: name fewer sizes or models, or ask for them: --cells 131072",
    (*PLAN, "--res", "224", "--cells", "1"): "the plan has 2 cells, more than 1",
    (*PLAN, "--res", "224", "--cells", "0"): "--cells: 0 is not between 1 and 10,000,000",
    ("flops", "vig_t", "--res", MANY): "is not between 1 and 65536",
    (*PLAN, "--res", "224", "--batch", "9" * 23): "is not knee, max or a positive number up to 1,000,000,000",
    (*PLAN, "--res", "224", "--batch", "٤"): "is not knee, max or a positive number",
    (*PLAN, "--res", "224", "--budget", "1e9h"): "is not a time; write it like 90s, 10m or 1h30m, up to a year",
    (*PLAN, "--res", "224", "--budget", f"{MANY}h"): "is not a time; write it like 90s, 10m or 1h30m, up to a year",
    (*SWEEP, "--seconds", "inf"): "--seconds: inf is not between",
    (*SWEEP, "--seconds", "nan"): "--seconds",
    (*SWEEP, "--timeout", "1e300"): "--timeout: 1e+300 is not between",
    (*SWEEP, "--seed", "-1"): "--seed: -1 is not between 0 and",
    (*SWEEP, "--seed", "9" * 30): "--seed: 999999999999999999999999999999 is not between 0 and",
    (*SWEEP, "--threads", "9" * 30): "--threads: 999999999999999999999999999999 is not between 1 and 4,096",
    ("maxres", "vig_t", "--memory", "-1"): "--memory: -1 GiB is not a size",
    ("maxres", "vig_t", "--memory", "1e308"): "--memory: 1e+308 GiB is not a size",
    ("maxres", "vig_t", "--memory", "nan"): "--memory: nan GiB is not a size",
    ("maxbatch", "vig_t", "--limit", "9" * 20): "--limit: 99999999999999999999 is not between",
    ("kernels", "bench", "--n", MANY): "(5,000 characters)' is not a positive number",
    (*PLAN, "--res", "224", "--modes", MANY): "(5,000 characters)' is not one of parallel, recurrent",
}


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words)[:60])
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = vbench(*words, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert WORDS[words] in said.stderr
    assert "Traceback" not in said.stderr
    if said.stderr.startswith("vbench: "):  # not one of Typer's own
        assert said.stderr.count("\n") == 1
        assert len(said.stderr) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["1e999", "1e400", "nan", "inf", "0", "-1", MANY, "1e", "9e15"])
def test_a_budget_has_a_limit_that_a_figure_can_reach(limit: str) -> None:
    with pytest.raises(UsageError, match="is no budget; write latency_ms<20") as caught:
        budget(f"latency_ms<{limit}", "[tool.vbench.gate]")
    assert len(str(caught.value)) < 400
    assert budget("latency_ms<1e3", "").limit == 1000.0


GOOD = 'question = "q"\ntime = "t"\nmodels = "vig_t"\nres = "224"\n'
SUITES = {  # the text of a suite -> what is said of it
    "a number for text": (GOOD.replace('"224"', "224"), "non-text keys: res"),
    "an unknown key": (GOOD + 'resolution = "1"\n', "keys: resolution"),
    "a range of everything": (GOOD.replace("224", "1:65536:1"), "131,072 cells"),
    "a size of 5,000 digits": (GOOD.replace("224", MANY), "is not between 1 and 65536"),
    "a number of 5,000 digits": (GOOD + f"seed = {MANY}\n", "is not TOML"),
    "100,000 brackets": (GOOD + "x = " + "[" * 100_000, "is not TOML"),
    "a million lines": (GOOD + "# and\n" * 1_000_000, "more than 1 MiB"),
    "bytes that are no text": (GOOD + "\udcff", "is not TOML"),
    "a budget that overflows": (GOOD + '[gate]\nbudgets = ["latency_ms<1e999"]\n', "is no budget"),
    "a threshold that is none": (GOOD + "[gate]\nthreshold = nan\n", "is no share"),
    "a gate that is no table": (GOOD + "gate = 5\n", "is no table"),
    "a part that is no table": (GOOD + "part = 5\n", "part is no table"),
}


@pytest.mark.parametrize("what", SUITES)
def test_a_suite_that_cannot_be_meant_is_one_line(tmp_path: Path, what: str) -> None:
    text, says = SUITES[what]
    (tmp_path / "mine.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    command = ("gate", "--ab", "HEAD") if "gate" in text else ("plan",)
    said = vbench(*command, "--suite", "mine.toml", cwd=tmp_path)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr
    assert says in said.stderr
    assert len(said.stderr) < 500


def test_a_suite_that_has_no_end_is_not_read_to_it(tmp_path: Path) -> None:
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="more than 1 MiB"):
        load(str(tmp_path / "endless.toml"))


def test_the_rules_of_a_project_may_be_damaged(tmp_path: Path) -> None:
    for text in ("tool = 5\n", "[tool]\nvbench = []\n", "x = " + "[" * 100_000):
        (tmp_path / "pyproject.toml").write_text(text)
        said = vbench("gate", "--ab", "HEAD", cwd=tmp_path)
        assert (said.returncode, said.stderr.count("\n")) == (2, 1), said.stderr
        assert "pyproject.toml" in said.stderr


BASELINE = json.loads((Path(__file__).resolve().parent.parent / "results" / "counters.json").read_text())
CELL = BASELINE["cells"][0]


def with_cell(**parts: object) -> str:
    return json.dumps({**BASELINE, "cells": [{**CELL, **parts}]})


BASELINES = {
    "a cell of one word": (with_cell(cell="vig_t"), "has no size"),
    "half a file": (json.dumps(BASELINE)[:500], "is no JSON"),
    "100,000 brackets": ("[" * 100_000, "is no JSON"),
    "nan": (with_cell(counts={"macs": float("nan")}), "is no JSON"),
    "5,000 digits": (with_cell(counts={"macs": 1}).replace('"macs": 1', f'"macs": {MANY}'), "is no JSON"),
    "200 digits": (with_cell(counts={"macs": 10**200}), "too large for a count"),
    "text for a count": (with_cell(counts={"macs": "1"}), "'1' is no number"),
    "fewer than no MACs": (with_cell(counts={"macs": -1}), "below 0"),
    "a form that is a list": (with_cell(case={**CELL["case"], "form": []}), "is no str"),
    "a size of everything": (with_cell(case={**CELL["case"], "height": 10**9}), "is no size"),
    "cells that are none": (json.dumps({**BASELINE, "cells": 5}), "is damaged"),
    "another schema": (json.dumps({**BASELINE, "schema": 99}), "has schema 99"),
    "a list": ("[]", "is not a baseline"),
}


@pytest.mark.parametrize("what", BASELINES)
def test_a_damaged_baseline_is_one_line(tmp_path: Path, what: str) -> None:
    text, says = BASELINES[what]
    file = tmp_path / "counters.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        counters.read(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(UsageError, match=says):
        gate(file, launcher=None)  # type: ignore[arg-type]  # it asks no child
