"""Two revisions of a user's package, each with its own code and its own processes."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from vbench.errors import UsageError
from vbench.gate import ab, blocks, revisions
from vbench.jobs.revision_runner import RevisionRunner
from vbench.plan import Sweep, plan
from vbench.results.store import read
from vbench.suites.rules import Rules

NET = """
import time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        time.sleep(PAUSE)
        return self.stem(x).mean((2, 3))

def net(): return Net()
"""
NAME = "their_own_pkg.nets:net"
BUILDER = """
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "their_own_pkg-1.0-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\\nName: their_own_pkg\\nVersion: 1.0\\n",
        "WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for file in ("__init__.py", "nets.py"):
            wheel.write(os.path.join("src", "their_own_pkg", file), f"their_own_pkg/{file}")
        for file, text in about.items():
            wheel.writestr(f"their_own_pkg-1.0.dist-info/{file}", text)
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "builder"
backend-path = ["."]
"""


def git(folder: Path, *args: str) -> str:
    own = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *own, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["", "src"])
def repository(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in git, flat or under src, whose working tree pauses longer than its last commit."""
    package = tmp_path / "repo" / request.param / "their_own_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NET.replace("PAUSE", "0.0"))
    top = tmp_path / "repo"
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "one")
    (package / "nets.py").write_text(NET.replace("PAUSE", "0.03"))
    monkeypatch.chdir(top)
    return top


def test_base_is_the_commit_and_head_the_working_tree(repository: Path) -> None:
    with revisions.prepared("main", [NAME]) as (base, head):
        texts = [next(install.path[0].rglob("nets.py")).read_text() for install in (base, head)]
        assert ["sleep(0.0)" in text for text in texts] == [True, False]
        commit = git(repository, "rev-parse", "--short=12", "HEAD").strip()
        assert base.label == f"repo at main ({commit})"
        assert head.label.startswith(f"repo at {commit} with uncommitted changes in ")
        assert head.label.endswith("their_own_pkg/nets.py")
        assert base.root is not None
        assert base.root.is_dir()
    assert not base.root.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_what_cannot_be_compared_is_said_in_a_line(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision, models, said in (
        ("no-such", [NAME], "git has no 'no-such'"),
        ("main", ["vig_t"], "holds no code of vig_t"),
        ("main", ["elsewhere:net"], "holds no code of elsewhere"),
    ):
        with pytest.raises(UsageError, match=said), revisions.prepared(revision, models):
            pass
    with (
        pytest.raises(UsageError, match="--head-python"),
        revisions.prepared("main", [NAME], head_python="none/python"),
    ):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no git repository"), revisions.prepared("main", [NAME]):
        pass


def test_an_interpreter_of_the_users_stands_for_a_revision(repository: Path) -> None:
    with revisions.prepared("main", [NAME], base_python=sys.executable) as (base, head):
        assert (base.python, base.path, base.root) == (sys.executable, (), None)
        assert head.root == repository
        assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("repository", ["src"], indirect=True)
def test_each_revision_may_be_installed_into_an_environment_of_its_own(repository: Path) -> None:
    (repository / "builder.py").write_text(BUILDER)
    (repository / "pyproject.toml").write_text(PROJECT)
    git(repository, "add", "builder.py", "pyproject.toml")
    git(repository, "commit", "--quiet", "-m", "a build, from no other package")
    ask = "from importlib.util import find_spec as f; print(f('their_own_pkg.nets').origin, f('vbench').origin)"
    with revisions.prepared("main", [NAME], install=True) as (base, head):
        found = [
            subprocess.check_output([install.python, "-P", "-c", ask], text=True, cwd="/").split()
            for install in (base, head)
        ]
        texts = [Path(own).read_text() for own, _ in found]
        assert ["sleep(0.0)" in text for text in texts] == [True, False]
        for install, (own, vbench) in zip((base, head), found, strict=True):
            assert install.root is not None
            assert Path(own).is_relative_to(install.root)
            assert Path(vbench).name == "__init__.py"
    (repository / "builder.py").write_text("")
    with pytest.raises(UsageError, match="pip cannot install"), revisions.prepared("main", [NAME], install=True):
        pass


@pytest.mark.parametrize("repository", ["src"], indirect=True)
def test_each_revision_measures_its_own_code(repository: Path, tmp_path: Path) -> None:
    cases = plan(Sweep((NAME,), ((32, 32),), ("parallel",), batches=(1,)))
    design = blocks.Design(1, blocks.DESIGNS["quick"].protocol)
    with revisions.prepared("main", [NAME]) as (base, head):
        runners = partial(revisions.runners, base, head, [NAME], tmp_path)
        found = ab.Session(cases, design, Rules({}), runners, lambda _: None, tmp_path / "out").run("base", "head")
    kept = {name: read(tmp_path / "out" / name) for name in blocks.ROLES}
    assert {name: len(records) for name, records in kept.items()} == {"base": 2, "twin": 1, "head": 1}
    sources = {name: {record.host["models"][NAME]["source"] for record in records} for name, records in kept.items()}
    assert sources["base"] == sources["twin"] != sources["head"]
    assert all(min(record.latency["samples_ms"]) >= 30 for record in kept["head"] if record.latency)
    assert {record.host["models"][NAME]["dirty"] for record in kept["head"]} == {True}
    assert found.exit_code() == 3  # one block is no verdict
    assert "1 whole blocks" in next(f.note for f in found.findings if f.what == "latency_ms" and f.note)


def test_a_runner_that_cannot_start_says_why(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no module named vbench >&2\nexit 1\n")
    fake.chmod(0o755)
    with (
        RevisionRunner("base", str(fake), [], tmp_path) as runner,
        pytest.raises(UsageError, match="no module named vbench"),
    ):
        runner.run("probe", {}, 1.0)
