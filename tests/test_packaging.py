"""What is installed is what is in the repository."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
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


def test_the_distribution_has_a_name_of_its_own_and_all_that_names_it_agrees() -> None:
    """`vbench` on the package index is another project."""
    name = PROJECT["project"]["name"]
    assert name == vbench.DISTRIBUTION != "vbench"
    assert PROJECT["project"]["scripts"] == {"vbench": "vbench.commands.app:main"}
    assert f"build/wheel/{name.replace('-', '_')}-*.whl" in (ROOT / "Makefile").read_text()
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.yml"), ROOT / "README.md"]
    named = {found for page in pages for found in re.findall(r"([\w-]+) @ git\+https", page.read_text())}
    assert named == {name}


USER = """
import vbench
from vbench.models import spec
table: int = vbench.sweep(["vig_t"], res=[224, (224, 448)], dtype="fp16", batch=8)
operator: int = spec("vig_t").operator
vbench.sweep("vig_t", resolution=224)
vbench.compare("a", "b").no_such = vbench.read(3)
"""
SKIPPED = (  # large, and not asked about
    *("torch", "timm", "numba", "triton", "scipy", "numpy", "rich", "typer"),
    *("vbench.reports", "vbench.sweeps", "vbench.results.frame"),
)


def test_a_type_checker_sees_the_calls_and_the_packages(tmp_path: Path) -> None:
    """In a folder as an installed one is: each package where its name says."""
    site = tmp_path / "site"
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        for file in [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("py.typed")]:
            target = site / package.replace(".", "/") / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    assert (site / "vbench" / "py.typed").is_file()
    (tmp_path / "user.py").write_text(USER)
    skips = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true\n" for name in SKIPPED)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nfollow_imports = silent\n{skips}")
    command = [sys.executable, "-P", "-m", "mypy", "--no-incremental", "--config-file", "mypy.ini", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(site)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = re.findall(r"^user\.py:(\d): error: (.*)  \[", done.stdout, re.MULTILINE)
    assert said == [
        ("4", 'Incompatible types in assignment (expression has type "DataFrame", variable has type "int")'),
        ("5", 'Incompatible types in assignment (expression has type "str | None", variable has type "int")'),
        ("6", 'Unexpected keyword argument "resolution" for "sweep"'),
        ("7", '"DataFrame" has no attribute "no_such"'),
        ("7", 'Argument 1 to "read" has incompatible type "int"; expected "str | Path | Iterable[str | Path]"'),
    ], done.stdout + done.stderr
