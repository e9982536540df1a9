"""The help of every option, and what a shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command import vbench

from vbench.commands.app import app
from vbench.commands.completion import FORMS, SUITES, completing
from vbench.kernels.registry import OPS
from vbench.suites.load import shipped

ROOT: Any = typer.main.get_command(app)


def commands(group: Any, name: str = "vbench") -> Iterator[tuple[str, Any]]:
    for own, command in group.commands.items():
        found = commands(command, f"{name} {own}") if hasattr(command, "commands") else [(f"{name} {own}", command)]
        yield from found


def completed(words: str, cwd: Path, *, at_a_new_word: bool = False) -> list[str]:
    """What bash offers after these words, asked of the program as bash asks it."""
    count = len(words.split())
    about = {"_VBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count - (not at_a_new_word))}
    run = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            "import sys; sys.argv[0] = 'vbench'; from vbench.commands.app import main; main()",
        ],
        check=False,
        env={**os.environ, **about},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_bash_completes_models_after_a_comma(tmp_path: Path) -> None:
    assert completed("vbench sweep --models vig_t,deit_", tmp_path) == ["vig_t,deit_t", "vig_t,deit_s", "vig_t,deit_b"]


def test_bash_completes_runs(tmp_path: Path) -> None:
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "records.jsonl").touch()
    (tmp_path / "no_run").mkdir()
    assert completed("vbench report", tmp_path, at_a_new_word=True) == ["a/b", "c"]


@pytest.mark.parametrize(
    ("command", "parameter", "incomplete", "wanted"),
    [
        ("sweep", "suite", "mi", ["minute"]),
        ("sweep", "rigor", "p", ["paper"]),
        ("sweep", "dtype", "float32,b", ["float32,bfloat16"]),
        ("figures", "words", "accuracy", ["accuracy-cost"]),
        ("memory", "device", "h2", ["h200"]),
        ("sweep", "device", "cu", ["cuda"]),
        ("suites", "name", "mod", ["modes"]),
    ],
)
def test_values_are_completed(command: str, parameter: str, incomplete: str, wanted: list[str]) -> None:
    complete = completing(command, parameter, commas=True)
    assert complete is not None
    assert set(wanted) <= set(complete(incomplete))
    assert all(word.startswith(incomplete) for word in complete(incomplete))


def test_values_without_names_are_not_completed() -> None:
    assert completing("sweep", "seed", commas=False) is None


def test_help_names_all_values() -> None:
    options = {one.name: one.help for one in dict(commands(ROOT))["vbench sweep"].params}
    assert sorted(SUITES) == shipped()
    assert all(name in options["suite"] for name in shipped())
    assert all(form in options["form"] for form in FORMS)
    kernels = {one.name: one.help for one in dict(commands(ROOT))["vbench kernels check"].params}
    assert all(op in kernels["op"] for op in OPS)


@pytest.mark.parametrize("words", [(), ("kernels",), ("kernels", "list"), ("sweep",)])
def test_no_flag_shows_a_kind_of_value(words: tuple[str, ...]) -> None:
    text = vbench(*words, "--help").stdout
    assert re.search(r"--help +-h +Show this message", text)
    assert "bool" not in text.lower()


def test_every_option_says_what_it_takes_and_its_help_is_a_sentence() -> None:
    for name, command in commands(ROOT):
        for one in command.params:
            if getattr(one, "is_flag", False):
                assert not one.metavar, (name, one.name)
            elif one.param_type_name == "option" and one.name != "help":
                assert one.metavar, (name, one.name)
                assert one.metavar == one.metavar.upper(), (name, one.name, one.metavar)
            if one.param_type_name == "option" and one.help:
                assert re.search(r"[.!]$", one.help), (name, one.name, one.help)
