"""The calls of Python: what the commands do, as functions that return frames; in scripts and in notebooks."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fakes import make_record
from pages import DOCS, fences
from typer.main import get_command

import vbench
from vbench.commands import axes, python
from vbench.commands.app import app
from vbench.errors import DeviceError, ResolutionError, SchemaError, UnknownModelError, UsageError
from vbench.jobs.launch import Launcher
from vbench.results.frame import COLUMNS
from vbench.results.outcome import Finding
from vbench.results.store import Record, Store

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))
"""
TINY: dict[str, Any] = {"modes": "parallel", "batch": 1, "rigor": "quick", "seconds": 0.02, "device": "cpu"}


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A class of a user's own, in a module that the script has imported."""
    (tmp_path / "a_users_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    import a_users_net  # type: ignore[import-not-found]

    yield a_users_net.Net
    del sys.modules["a_users_net"]


def test_a_sweep_returns_its_frame_and_the_same_call_resumes(
    net: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    table = vbench.sweep([net], [32, (32, 64)], out=str(run), progress=False, **TINY)
    assert capfd.readouterr() == ("", "")
    assert list(table.columns) == list(COLUMNS)
    assert list(zip(table["model"], table["height"], table["width"], strict=True)) == [
        ("a_users_net:Net", 32, 32),
        ("a_users_net:Net", 32, 64),
    ]
    assert set(table["status"]) == {"ok"}
    assert (table["latency_ms"] > 0).all()
    before = (run / "records.jsonl").read_bytes()
    again = vbench.sweep("a_users_net:Net", "32,32x64", out=run, **TINY)
    assert (run / "records.jsonl").read_bytes() == before
    pd.testing.assert_frame_equal(again, table)
    pd.testing.assert_frame_equal(vbench.read(str(run)), table)


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Its processes would run it again, and start processes in turn, if they took it for their main module."""
    script = tmp_path / "script.py"
    script.write_text(
        "from vbench.jobs.launch import Launcher\n"
        "print('begun')\n"
        "with Launcher(preload=[]) as launcher:\n"
        "    print(launcher.run('vbench.host:whereabouts', {'models': []}, 60))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(vbench.__file__).parent.parent)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["begun", "Ending(status='ok', reason=None, parts={'files': {}})"], done.stderr


def test_a_child_is_not_told_of_the_script(tmp_path: Path) -> None:
    """It sees the path and the folder of this process, no file of `__main__`, and no arguments."""
    with Launcher() as launcher, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules["__main__"], "__file__", "/a/script.py", raising=False)
        patched.setattr(sys, "argv", ["/a/script.py", "--secret"])
        patched.syspath_prepend(tmp_path)
        patched.chdir(tmp_path)
        seen = launcher.run("fault_jobs:sees", {}, 60).parts["seen"]
    assert seen["main"] is None
    assert seen["argv"] == ["/a/script.py"]
    assert seen["path"][0] == seen["folder"] == str(tmp_path)
    assert seen["input"] == ""


class TestModels:
    def test_a_callable_is_named(self, net: Any) -> None:
        assert python._model(net) == "a_users_net:Net"
        assert python._model(torch.nn.Identity) == "torch.nn.modules.linear:Identity"
        assert python._model("vig_t") == "vig_t"

    def test_one_of_the_notebook_is_one_line(self) -> None:
        def net() -> None: ...

        net.__module__, net.__qualname__ = "__main__", "Net"
        with pytest.raises(
            UsageError, match=r"^models: Net stands in this notebook.*as my_net\.py, and give 'my_net:Net'$"
        ):
            vbench.sweep(net, 32)

    @pytest.mark.parametrize(
        "model", [3, lambda: None, partial(print), torch.nn.Identity()], ids=lambda one: str(type(one))
    )
    def test_one_that_no_process_finds_is_one_line(self, model: Any) -> None:
        with pytest.raises(UsageError, match=r"^models: no other process can find this .*; give a name, or a function"):
            vbench.sweep(["vig_t", model], 32)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"models": "vog_*", "res": 32}, UsageError, "models: no model matches 'vog_*'"),
        ({"models": "resnet50", "res": 32}, UnknownModelError, "did you mean timm/resnet50?"),
        ({"models": "vig_t", "res": "6x"}, ResolutionError, "res: '6x' is not a size"),
        ({"models": "vig_t", "res": (224, 512)}, UsageError, "res: (224, 512) may mean two things; write [224, 512]"),
        ({"models": "vig_t"}, UsageError, "give models and res"),
        ({"models": "vig_t", "res": 32, "modes": ["parallel", "both"]}, UsageError, "modes: 'both' is not one of"),
        ({"models": "vig_t", "res": 32, "dtype": torch.int8}, UsageError, "dtype: 'int8' is not one of float32"),
        ({"models": "vig_t", "res": 32, "device": "gpu"}, DeviceError, "device: 'gpu' is not one of"),
        ({"models": "vig_t", "res": 32, "threads": 0}, UsageError, "threads: 0 is not between 1 and 4,096"),
        ({"models": "vig_t", "res": 32, "seconds": 0}, UsageError, "seconds: 0 is not between 0.001 and 86,400"),
        ({"models": "vig_t", "res": 32, "rigor": "lax"}, UsageError, "rigor: 'lax' is not one of quick"),
        ({"models": "vig_t", "res": 32, "budget": "soon"}, UsageError, "budget: 'soon' is not a time"),
        ({"models": "vig_t", "res": 32, "suite": "none"}, UsageError, "suite: there is no 'none'"),
    ],
)
def test_an_error_is_one_line_that_names_the_keyword(
    given: dict[str, Any], error: type[UsageError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        vbench.sweep(**{"device": "cpu", **given}, out=tmp_path / "run")
    assert says in str(caught.value)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_values_are_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[axes.Asked] = []

    def cells(asked: axes.Asked, *_: Any, most: int) -> Any:
        seen.append(asked)
        raise UsageError("that is enough")

    monkeypatch.setattr(axes, "cells", cells)
    for given in (
        {"models": ["vig_t", "deit_*"], "res": [224, "256:512", (512, 1024)], "batch": [1, "knee"]},
        {"models": "vig_t,deit_*", "res": "224,256:512,512x1024", "batch": "1,knee"},
    ):
        with pytest.raises(UsageError, match="that is enough"):
            vbench.sweep(**given, dtype=torch.float16, phase=("infer",), device="cpu")
    words = {"models": "vig_t,deit_*", "res": "224,256:512,512x1024", "batch": "1,knee"}
    assert seen == [{**words, "dtype": "torch.float16", "phase": "infer"}] * 2


def test_every_option_of_the_command_is_a_keyword() -> None:
    options = {one.name: one for one in get_command(app).commands["sweep"].params}  # type: ignore[attr-defined]
    takes = inspect.signature(vbench.sweep).parameters
    others = {"folder": "out"}
    assert {others.get(name, name) for name in options} - {"as_json", "help"} == set(takes) - {"progress"}
    for name, option in options.items():
        if name in takes and name not in axes.OPTIONS:
            assert takes[name].default == option.default, name


def kept(folder: Path, *records: Record) -> Path:
    with Store(folder) as store:
        for record in records:
            store.append(record)
    return folder


class TestReading:
    def test_a_run_or_several_by_text_or_path(self, tmp_path: Path) -> None:
        one = kept(tmp_path / "one", make_record("vig_t", 224))
        two = kept(tmp_path / "two", make_record("deit_t", 224), make_record("deit_t", 512))
        assert len(vbench.read(str(one))) == 1
        both = vbench.read(str(one), two)
        assert list(both["model"]) == ["deit_t", "deit_t", "vig_t"]
        pd.testing.assert_frame_equal(vbench.read([str(one), two]), both)

    def test_what_is_no_run_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"none has no records\.jsonl; give the out folder of a sweep"):
            vbench.read(str(tmp_path / "none"))
        with pytest.raises(UsageError, match="name a run"):
            vbench.read()
        old = kept(tmp_path / "old", make_record()) / "records.jsonl"
        old.write_text(old.read_text().replace('"schema": 2', '"schema": 7'))
        with pytest.raises(SchemaError, match="schema 7"):
            vbench.read(tmp_path / "old")


def test_two_runs_compared(tmp_path: Path) -> None:
    record = make_record("vig_t", 224)
    assert record.work
    more = {**record.work, "macs": 2 * record.work["macs"]}
    a, b = kept(tmp_path / "a", record), kept(tmp_path / "b", replace(record, work=more))
    found = vbench.compare(str(a), b)
    assert set(found.columns) == {
        "cell",
        "what",
        "verdict",
        "base",
        "head",
        "unit",
        "ratio",
        "lo",
        "hi",
        "delta",
        "note",
    }
    assert set(found.columns) == set(Finding.__dataclass_fields__)
    macs = found[found["what"] == "macs"].iloc[0]
    assert (macs["cell"], macs["verdict"]) == ("vig_t 224 parallel float32", "CHANGED")
    assert macs["head"] == 2 * macs["base"]
    assert found.attrs["exit_code"] == 1
    with pytest.raises(UsageError, match=r"^threshold: 3 is not between 0 and 1"):
        vbench.compare(a, b, threshold=3)


def test_importing_it_imports_nothing_heavy_and_shows_the_calls() -> None:
    code = (
        "import sys, vbench\n"
        "assert not {'torch', 'pandas', 'typer', 'rich', 'vbench.commands'} & set(sys.modules), sys.modules\n"
        "assert {'sweep', 'read', 'compare', '__version__'} <= set(dir(vbench))\n"
        "from vbench import sweep\n"
        "import vbench.sweeps.companies\n"
        "assert vbench.sweep is sweep and callable(sweep)\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
        "assert not hasattr(vbench, 'sweping')\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_page_shows_calls_that_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but smaller and where nothing is measured: sweeps are recorded as they are asked for."""
    (block,) = (fence.text for fence in fences(DOCS / "python.md") if "vbench.sweep(" in fence.text)
    asked = []

    def sweep(*given: Any, **options: Any) -> pd.DataFrame:
        inspect.signature(vbench.commands.python.sweep).bind(*given, **options)  # type: ignore[attr-defined]
        folder = tmp_path / str(options.get("out", "vbench-run"))
        asked.append(folder.name)
        return vbench.read(kept(folder, make_record("vig_t", 224), make_record("deit_t", 224)))

    monkeypatch.setattr(vbench, "sweep", sweep, raising=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "python.md", "exec"), {})
    assert asked == ["before", "after"]
