"""What is installed is what is in the repository."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from command_lines import check

import vbench
from vbench.devices import KINDS
from vbench.kernels import OPS, operator
from vbench.suites.load import load, shipped

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_on_disk_is_listed() -> None:
    listed = PROJECT["tool"]["setuptools"]["package-dir"]
    assert sorted(listed) == sorted(PROJECT["tool"]["setuptools"]["packages"])
    tops = {folder.split("/")[0] for folder in listed.values()}
    on_disk = {str(file.parent.relative_to(ROOT)) for top in tops for file in (ROOT / top).rglob("__init__.py")}
    assert on_disk == set(listed.values())


def test_no_module_hides_in_an_unlisted_folder() -> None:
    listed = PROJECT["tool"]["setuptools"]["package-dir"].values()
    for top in {folder.split("/")[0] for folder in listed}:
        for file in (ROOT / top).rglob("*.py"):
            assert str(file.parent.relative_to(ROOT)) in listed, file


@pytest.mark.parametrize("op", list(OPS))
def test_every_form_can_be_imported_and_every_operator_is_explained(op: str) -> None:
    for form in OPS[op]:
        assert callable(operator(op, form))
    text = (ROOT / "kernels" / op / "README.md").read_text()
    for form in OPS[op]:
        assert form in text


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_suite_is_valid(name: str) -> None:
    from vbench import plan

    suite = load(name)
    assert all(plan.plan(plan.parse({**plan.USUAL, **axes}, "cpu")) for axes in suite.sets)


def _commands(target: str) -> list[list[str]]:
    """What `make TARGET` would run, in words."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    command = ["make", "--dry-run", "--no-print-directory", target, "GPU=results/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("target", ["kernels", "gpu-tune", "gpu-long"])
def test_every_command_of_a_make_target_parses(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the call of the library: options, models, sizes and forms; on a machine that has a GPU, as it seems."""
    monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], present=lambda: [{"name": "a GPU"}]))
    commands = _commands(target)
    assert commands
    for words in commands:
        assert words[:4] == ["python", "-P", "-m", "vbench"], words
        check(["vbench", *words[4:]])


def test_the_version_is_the_changelogs() -> None:
    assert f"## [{vbench.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
