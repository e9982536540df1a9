"""A first user's repository with a model of its own: each report names its commit, and what is not committed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module, invalidate_caches
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from fakes import HOST, latency, make_record
from typer.testing import CliRunner

from vbench import host, jobs
from vbench.commands.app import app
from vbench.gate import code, counters
from vbench.jobs.launch import Ending
from vbench.plan import Sweep, plan
from vbench.reports.gate_files import write_outputs
from vbench.reports.tables import caption
from vbench.results.causes import by_cell
from vbench.results.code import code as code_in_words
from vbench.results.compare import compare, run_of
from vbench.results.frame import frame
from vbench.results.history import history, runs_of
from vbench.results.store import Record, Store

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2).contiguous()
        MORE
        return self.head(self.mix(x).mean(1))

def net(image_size=(64, 64)): return Net()
"""
PRODUCT = "x = torch.bmm(x, torch.eye(16, dtype=x.dtype, device=x.device).expand(len(x), 16, 16))"
NAME = "my_net:net"


class Here:
    """Runs jobs in this process."""

    _one = Lock()

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        module, _, name = jobs.target(job).partition(":")
        with self._one:
            parts = dict(getattr(import_module(module), name)(json.loads(json.dumps(argument))))
        return Ending("ok", None, json.loads(json.dumps(parts)))


def git(folder: Path, *args: str) -> str:
    own = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *own, *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository of one module, without a .gitignore; the current folder."""
    folder = tmp_path / "my_repo"
    folder.mkdir()
    (folder / "my_net.py").write_text(NET.replace("MORE", "pass"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a net")
    monkeypatch.chdir(folder)
    invalidate_caches()
    yield folder
    sys.modules.pop("my_net", None)


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def test_a_product_more_is_one_finding_a_cell_and_the_page_names_the_commit(mine: Path, tmp_path: Path) -> None:
    file, cases = Path("counters.json"), plan(Sweep((NAME,), ((32, 32), (64, 64)), ("parallel",)))
    assert counters.gate(file, Here(), cases=cases, write=True).exit_code() == 0
    git(mine, "add", "counters.json")
    git(mine, "commit", "--quiet", "-m", "what it needs")
    (mine / "my_net.py").write_text(NET.replace("MORE", PRODUCT))
    del sys.modules["my_net"]
    invalidate_caches()
    outcome = counters.gate(file, Here())
    assert outcome.exit_code() == 1
    assert outcome.head == f"my_repo at {head(mine)[:12]} with uncommitted changes in my_net.py"
    assert outcome.facts["code"] == [
        {"name": "my_repo", "commit": head(mine), "changes": ("my_net.py",), "digest": None}
    ]
    told = {one.cell: one.cause for one in by_cell(outcome.findings) if one.verdict == "MORE"}
    for side, tokens in ((32, 16), (64, 64)):
        more = 16 * 16 * tokens / (16 * tokens * (3 * 64 + 16) + 16 * 5)
        assert told[f"{NAME} {side} parallel float32"].startswith(f"MACs {100 * more:+.1f} %, 1 new aten.bmm")
    files = {path.name: path.read_text() for path in write_outputs(outcome, tmp_path / "out")}
    assert len(files["gate.md"]) < 10_000
    for name in ("gate.md", "gate.json", "junit.xml"):
        assert f"my_repo at {head(mine)[:12]} with uncommitted changes in my_net.py" in files[name]
    assert files["junit.xml"].count("<failure") == len(told) <= 3


def test_whose_code_it_is(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"my_repo at {head(mine)[:12]}"
    assert code.in_words(code.code_of([NAME, "vig_t", NAME, "timm/resnet18"])) == here
    (mine / "helper.py").write_text("")  # git does not know it, and the model may import it
    (mine / "notes.txt").write_text("")
    (mine / "__pycache__").mkdir()
    (mine / "__pycache__" / "x.py").write_text("")
    assert code.in_words(code.code_of([NAME])) == f"{here} with uncommitted changes in helper.py"
    for number in range(4):
        (mine / f"more_{number}.py").write_text("")
    assert str(code.code_of([NAME])[0]).endswith("helper.py, more_0.py, more_1.py and 2 more files")
    git(mine, "remote", "add", "origin", "https://someone:secret@example.org/their/net-of-theirs.git?token=secret")
    (name,) = {one.name for one in code.code_of([NAME])}
    assert name == "net-of-theirs"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lone_net.py").write_text(NET)
    monkeypatch.chdir(elsewhere)
    invalidate_caches()
    (lone,) = code.code_of(["lone_net:net"])
    assert (lone.name, lone.commit, len(lone.digest or "")) == ("lone_net", None, 16)
    assert str(lone).startswith("lone_net, without a commit (digest ")
    (ours,) = code.code_of(["vig_t"])  # in no checkout: vbench's own code
    assert ours.name == "vbench"


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("git@github.com:me/my-net.git", "my-net"),
        ("https://github.com/me/my-net", "my-net"),
        ("/srv/git/my-net.git/", "my-net"),
        ("/home/me/my-net/.git", "my-net"),
        ("C:\\work\\my-net", "my-net"),
    ],
)
def test_a_repository_is_called_by_its_origin(origin: str, name: str, mine: Path) -> None:
    git(mine, "config", "remote.origin.url", origin)
    assert host.repository(mine) == name


def test_a_worktree_a_hook_and_an_ignored_folder(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(mine, "worktree", "add", "--detach", "--quiet", str(tmp_path / "base"), "HEAD")
    assert host.repository(tmp_path / "base") == "my_repo"
    monkeypatch.setenv("GIT_DIR", str(mine / ".git"))  # as git sets it for a hook
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    assert host.checkout(mine / "my_net.py") == {"repository": "my_repo", "commit": head(mine), "dirty": False}
    assert host.repository(tmp_path) is None
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    (mine / ".gitignore").write_text("env/\n")
    (mine / "env" / "their_pkg").mkdir(parents=True)
    (mine / "env" / "their_pkg" / "__init__.py").write_text("")
    assert set(host.checkout(mine / "env" / "their_pkg").values()) == {None}
    (mine / "new.py").write_text("")  # not yet added
    assert host.checkout(mine / "new.py") == {"repository": "my_repo", "commit": head(mine), "dirty": True}


def test_a_repository_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    (folder / "fresh_net.py").write_text(NET)
    git(folder, "init", "--quiet")
    monkeypatch.chdir(folder)
    invalidate_caches()
    assert code.in_words(code.code_of(["fresh_net:net"])) == "fresh, without a commit"
    assert host.fingerprint("cpu", None, ["fresh_net:net"])["models"]["fresh_net:net"]["commit"] is None


def records(about: dict[str, Any], ms: float = 10.0) -> list[Record]:
    """Records of the user's model at two sizes, beside attention, as a sweep in its folder would write them."""
    found = []
    for side in (64, 128):
        for launch in range(3):
            own = make_record(NAME, side, host=about, launch=launch)
            own = replace(own, latency=latency(ms * (1 + launch / 1000) * (1 + n / 1e4) for n in range(30)))
            found += [own, make_record("deit_t", side, host=about, launch=launch)]
    return found


def test_records_name_the_users_commit_beside_vbenchs_own(mine: Path, tmp_path: Path) -> None:
    before = {**HOST, "models": host.fingerprint("cpu", None, [NAME])["models"]}
    first = head(mine)
    assert before["models"][NAME] == {  # type: ignore[index]
        **{"repository": "my_repo", "commit": first, "dirty": False},
        "source": before["models"][NAME]["source"],  # type: ignore[index]
    }
    (mine / "my_net.py").write_text(NET.replace("MORE", PRODUCT))
    git(mine, "commit", "--quiet", "--all", "-m", "more")
    after = {**HOST, "models": host.fingerprint("cpu", None, [NAME])["models"]}
    second = head(mine)
    assert code_in_words([before, after]) == [
        *(f"my_repo at {commit[:12]}" for commit in (first, second)),
        f"vbench at {HOST['commit'][:12]}",  # type: ignore[index]
    ]
    table = frame(records(before))
    assert dict(zip(table["model"], table["model_commit"].fillna(""), strict=True)) == {NAME: first, "deit_t": ""}
    assert f"vbench 0.1.0 at commit 0123456789ab; {NAME} at commit {first[:12]}." in caption(table)
    old, new = records(before), records(after, ms=12.0)
    told = compare(run_of(old, "A"), run_of(new, "B"))
    assert told.base == f"A (my_repo at {first[:12]}, vbench at 0123456789ab)"
    assert {one.cell.split()[0] for one in told.of("SLOW")} == {NAME}
    (mine_only,) = [
        one for one in history([*runs_of(old, "A"), *runs_of(new, "B")]) if one.cell == f"{NAME} 64 parallel float32"
    ]
    assert [point.commit for point in mine_only.points] == [first, second]
    for name, own in (("a", old), ("b", new)):
        with Store(tmp_path / name) as store:
            for record in own:
                store.append(record)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert f"my_repo at {first[:12]}" in page.read_text()
    assert f"my_repo at {second[:12]}" in page.read_text()


def test_the_users_commit_stops_no_resume(mine: Path) -> None:
    """The digest of the model's package decides; a commit that leaves it alone measures nothing again."""
    before = host.fingerprint("cpu", None, [NAME])
    (mine / "README").write_text("a net")
    git(mine, "add", ".")
    git(mine, "commit", "--quiet", "-m", "words")
    after = host.fingerprint("cpu", None, [NAME])
    assert before["models"][NAME]["commit"] != after["models"][NAME]["commit"]
    assert host.conditions(before, {}) == host.conditions(after, {})
