"""The recipe of docs/tutorials/ci.md and the files for CI: that they are valid, agree and work."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
import torch
from click.testing import CliRunner
from command_lines import parse, program
from pages import DOCS, ROOT, Fence, fences
from ruamel.yaml import YAML

import vbench
from vbench import plan
from vbench.errors import UsageError
from vbench.models import create

FENCES = fences(DOCS / "tutorials" / "ci.md")
ACTION = ROOT / ".github" / "actions" / "vbench-gate" / "action.yml"
AT_END = ", at its end"
MODEL = "my_pkg.models:my_backbone"


def put(fence: Fence, folder: Path) -> None:
    """Do what a reader does with a block that has a title."""
    assert fence.title is not None
    path = folder / fence.title.removesuffix(AT_END)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if fence.title.endswith(AT_END) else ""
    path.write_text(before + fence.text)


def yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with the page's files in it, that Python imports from."""
    for fence in FENCES:
        if fence.title:
            put(fence, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


def test_the_recipes_files_are_valid_and_agree(folder: Path) -> None:
    titles = {fence.title for fence in FENCES if fence.title}
    assert {"pyproject.toml", "my_pkg/models.py", ".github/workflows/gate.yml", ".pre-commit-config.yaml"} <= titles
    for file in folder.rglob("*.py"):
        ast.parse(file.read_text())
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert all((folder / package / "__init__.py").is_file() for package in project["tool"]["setuptools"]["packages"])
    gate = project["tool"]["vbench"]["gate"]
    axes = {key: gate[key] for key in ("models", "res", "modes")}
    names = [str(case) for case in plan.plan(plan.parse({**plan.USUAL, **axes}, "cpu"))]
    assert len(names) == 2
    for cell in gate["cells"]:
        assert any(fnmatchcase(name, cell["match"]) for name in names)
    for budget in [*gate["budgets"], *(one for cell in gate["cells"] for one in cell.get("budgets", []))]:
        assert re.fullmatch(r"(latency_ms|peak_memory_mib)<\d+", budget)
    (hook,) = yaml(folder / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    (ours,) = yaml(ROOT / ".pre-commit-hooks.yaml")
    assert {key: hook[key] for key in ("id", "name", "language", "types_or", "pass_filenames")} == {
        key: ours[key] for key in ("id", "name", "language", "types_or", "pass_filenames")
    }


def test_the_recipes_backbone_is_one_function_in_both_modes(folder: Path) -> None:
    logits = {}
    for mode in plan.MODES:
        torch.manual_seed(0)
        model = create(MODEL, (64, 128), mode)
        logits[mode] = model(torch.randn(2, 3, 64, 128, generator=torch.Generator().manual_seed(1)))
    assert logits["parallel"].shape == (2, 1000)
    torch.testing.assert_close(logits["recurrent"], logits["parallel"], rtol=1e-4, atol=1e-5)
    assert not torch.equal(logits["recurrent"], logits["parallel"])  # two ways to compute it


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-actions", ACTION),
        ("github-workflows", ROOT / ".github" / "workflows" / "gate.yml"),
        ("github-workflows", ROOT / ".github" / "workflows" / "ci.yml"),
        ("github-workflows", Path(".github/workflows/gate.yml")),
        ("gitlab-ci", ROOT / "docs" / "ci" / "gitlab.yml"),
    ],
    ids=lambda value: "/".join(value.parts[-2:]) if isinstance(value, Path) else value,
)
def test_a_ci_file_is_valid(schema: str, file: Path, folder: Path) -> None:
    path = file if file.is_absolute() else folder / file
    done = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", f"vendor.{schema}", str(path)])
    assert done.exit_code == 0, done.output


def test_what_the_workflow_hands_on_the_action_takes(folder: Path) -> None:
    action, called = yaml(ACTION), yaml(ROOT / ".github" / "workflows" / "gate.yml")
    steps = called["jobs"]["gate"]["steps"]
    handed = steps[-1]["with"]
    assert steps[-1]["uses"] == "./vbench/" + str(ACTION.parent.relative_to(ROOT))
    assert set(handed) <= set(action["inputs"])
    inputs = called["on"]["workflow_call"]["inputs"]
    for file, known in ((called, inputs), (action, action["inputs"])):
        used = set(re.findall(r"\binputs\.([\w-]+)", json.dumps(file)))
        assert used == set(known)
    asked = yaml(folder / ".github" / "workflows" / "gate.yml")["jobs"]["gate"]["with"]
    assert set(asked) <= set(inputs)
    assert {name for name, about in inputs.items() if about.get("required")} <= set(asked)
    for step in action["runs"]["steps"]:  # what a stranger may set reaches a shell as a variable alone
        assert "${{" not in step.get("run", "")


CI_FILES = (ACTION, *sorted((ROOT / ".github" / "workflows").glob("*.yml")))


def steps_of(file: Path) -> list[dict[str, Any]]:
    """The steps of an action, or of all jobs of a workflow."""
    whole = yaml(file)
    parts = [whole["runs"]] if "runs" in whole else list(whole["jobs"].values())
    return [step for part in parts for step in part["steps"]]


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.name)
def test_actions_of_others_are_pinned_to_a_commit_and_say_its_version(file: Path) -> None:
    used = [step["uses"] for step in steps_of(file) if "uses" in step and not step["uses"].startswith("./")]
    assert used
    lines = [line for line in file.read_text().splitlines() if re.search(r"\buses: (?!\./)", line) and line[0] != "#"]
    assert len(lines) == len(used)
    for line in lines:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    hashes = {
        re.sub(r"^.*uses: ", "", line) for one in CI_FILES for line in one.read_text().splitlines() if "@" in line
    }
    named = [text.partition("@")[0] for text in hashes if re.search("[0-9a-f]{40}", text)]
    assert len(named) == len(set(named))  # one version of each, everywhere


def test_docs_name_a_released_tag_and_no_branch(folder: Path) -> None:
    tag = f"v{vbench.__version__}"
    asked = yaml(folder / ".github" / "workflows" / "gate.yml")["jobs"]["gate"]
    assert (asked["uses"].rpartition("@")[2], asked["with"]["vbench-ref"]) == (tag, tag)
    called = yaml(ROOT / ".github" / "workflows" / "gate.yml")["on"]["workflow_call"]["inputs"]
    assert "default" not in called["vbench-ref"]
    assert yaml(ROOT / "docs" / "ci" / "gitlab.yml")["vbench-gate"]["variables"]["VBENCH"].endswith(f"vbench@{tag}")
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for at in re.findall(r"OWNER/vbench/[\w./-]+@([\w.-]+)", page.read_text()):
            assert at.rstrip(".") == tag, page


def test_the_hook_has_no_baseline_of_ours() -> None:
    (hook,) = yaml(ROOT / ".pre-commit-hooks.yaml")
    assert not hook.get("args")
    with pytest.raises(UsageError, match="give one of --counters FILE and --ab REV"):
        program().main(hook["entry"].split()[1:], standalone_mode=False)


@pytest.mark.parametrize(("torch_", "index"), [("cpu", "https://download.pytorch.org/whl/cpu"), ("", None)])
def test_the_action_installs_the_wheels_of_torch_that_it_is_asked_for(
    torch_: str, index: str | None, tmp_path: Path
) -> None:
    assert {name: yaml(ACTION)["inputs"][name]["default"] for name in ("torch", "cache")} == {
        "torch": "cpu",
        "cache": "true",
    }
    (install,) = [step for step in steps_of(ACTION) if step.get("name") == "Install"]
    (kept,) = [step for step in steps_of(ACTION) if "cache" in step.get("uses", "")]
    assert kept["with"]["path"] == install["env"]["PIP_CACHE_DIR"]
    assert kept["if"] == "inputs.cache == 'true'"
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$CALLED"\n')
    (tmp_path / "python").chmod(0o755)
    given = {
        "INSTALL": "-e . extra",
        "TORCH": torch_,
        "GITHUB_ACTION_PATH": "/a/b/c",
        "CALLED": str(tmp_path / "called"),
    }
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", install["run"]],
        env={**os.environ, **given, "PATH": path},
        check=True,
    )
    words = (tmp_path / "called").read_text().split()
    assert words[:4] == ["-m", "pip", "install", "--quiet"]
    assert words[-4:] == ["/a/b/c/../../..", "-e", ".", "extra"]
    assert words[4:-4] == (["--extra-index-url", index] if index else [])


FAKE = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in *--counters*) kind=counters; code=$FIRST;; *) kind=ab; code=$SECOND;; esac
mkdir -p vbench-gate/$kind && echo "# $kind" > vbench-gate/$kind/gate.md
exit $code
"""
GIVEN = {"MODELS": MODEL, "RES": "64,128", "MODES": "parallel", "THRESHOLD": "0.05", "STRICT": "true"}


def run_action(where: Path, *, first: int, second: int, **given: str) -> tuple[int, list[str], str]:
    """Run the scripts of the action where `vbench` only notes its words: exit code, calls, and the job's page."""
    (where / "bin").mkdir()
    fake = where / "bin" / "vbench"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    steps = {step["name"]: step for step in yaml(ACTION)["runs"]["steps"] if "name" in step}
    names = dict.fromkeys(steps["Gate"]["env"], "")
    files = {"CALLS": str(where / "calls"), "GITHUB_STEP_SUMMARY": str(where / "page")}
    path = f"{where / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**names, **files, **given, "PATH": path, "FIRST": str(first), "SECOND": str(second)}
    codes = [
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[name]["run"]],
            cwd=where,
            env=environment,
            check=False,
            capture_output=True,
        ).returncode
        for name in ("Gate", "Summary")
    ]
    assert codes[1] == 0
    calls, page = where / "calls", where / "page"
    return codes[0], calls.read_text().splitlines() if calls.exists() else [], page.read_text() if page.exists() else ""


@pytest.mark.parametrize(
    ("given", "first", "second", "code", "kinds"),
    [
        ({}, 0, 0, 2, []),
        ({"COUNTERS": "counters.json"}, 1, 0, 1, ["counters"]),
        ({"BASE": "origin/main", "ARGS": "--rigor quick --device cpu"}, 0, 3, 3, ["ab"]),
        (
            {"COUNTERS": "counters.json", "BASE": "origin/main", "ARGS": "--rigor paper", **GIVEN},
            5,
            1,
            5,
            ["counters", "ab"],
        ),
        ({"COUNTERS": "counters.json", "BASE": "main; touch slipped"}, 0, 4, 4, ["counters", "ab"]),
    ],
)
def test_the_action_runs_the_gates_it_is_asked_for_and_fails_as_they_do(
    given: dict[str, str], first: int, second: int, code: int, kinds: list[str], tmp_path: Path
) -> None:
    ended, calls, page = run_action(tmp_path, first=first, second=second, **given)
    assert ended == code
    assert page.split() == [word for kind in kinds for word in ("#", kind)]
    assert not (tmp_path / "slipped").exists()
    assert [f"--{kind}" in call for kind, call in zip(kinds, calls, strict=True)] == [True] * len(kinds)
    for call in calls:
        assert ("--strict" in call) == ("STRICT" in given)
        if ";" not in call:
            parse(["vbench", *call.split()])


SLOWER = """

import time

_plain = Backbone.forward


def _slower(self, image):  # the same result, a tenth later
    start = time.perf_counter()
    logits = _plain(self, image)
    end = start + 1.1 * (time.perf_counter() - start)
    while time.perf_counter() < end:
        pass
    return logits


Backbone.forward = _slower
"""


@pytest.mark.full
def test_the_recipe_followed_literally_passes_and_fails_on_a_slowdown_of_a_tenth(tmp_path: Path) -> None:
    """From an empty folder, in an environment of its own that sees the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    site = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    seen = [f"import site; site.addsitedir({place!r})" for place in sys.path if place and Path(place).is_dir()]
    (Path(site) / "parent.pth").write_text("\n".join(seen))
    vbench = tmp_path / "env" / "bin" / "vbench"
    vbench.write_text(f'#!/bin/sh\nexec {python} -P -m vbench "$@"\n')
    vbench.chmod(0o755)
    path = f"{vbench.parent}{os.pathsep}{os.environ['PATH']}"
    who = {f"GIT_{role}_{key}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "PATH": path, "VIRTUAL_ENV": str(tmp_path / "env"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    work = tmp_path / "work"
    work.mkdir()

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=work,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )

    for fence in FENCES:
        if fence.title:
            put(fence, work)
        elif fence.language == "sh":
            done = run(fence.text)
            assert done.returncode == 0, done.stdout + done.stderr

    models = work / "my_pkg" / "models.py"
    models.write_text(models.read_text() + SLOWER)
    done = run("git commit --quiet --all -m slower\nvbench gate --counters counters.json")
    assert done.returncode == 0, done.stdout + done.stderr  # it is no more work
    done = run("vbench gate --ab HEAD~1")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((work / "vbench-gate" / "gate.json").read_text())
    assert {one["cell"] for one in found["findings"] if one["verdict"] == "SLOW"}
