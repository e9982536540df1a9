"""README.md and docs/: every command exists and takes its values, every link leads somewhere, nothing is left out."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_lines import app, check, program
from pages import DOCS, PAGES, ROOT, anchors, commands, contents, fences, links, prose, spans
from ruamel.yaml import YAML
from typer.testing import CliRunner

from vbench import plan
from vbench.devices import KINDS
from vbench.models import MODELS
from vbench.reports import paper_tables, tables
from vbench.reports.figures.table import FIGURES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VARIABLES = set(re.findall(r"\$\((?:if \$\()?([A-Z]+)\)", (ROOT / "Makefile").read_text()))
CHEAP = ("report", "figures", "tables", "fit", "claims", "suites", "models")  # that read records alone, or less
COMMITTED = Path("results/cpu")


def of_the_ci_files() -> list[list[str]]:
    """The commands in the files for CI and for pre-commit."""

    def read(path: str) -> Any:
        return YAML(typ="safe").load(ROOT / path)

    hooks = [*read(".pre-commit-hooks.yaml")]
    hooks += [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    for fence in fences(DOCS / "tutorials" / "ci.md"):
        if fence.title == ".pre-commit-config.yaml":
            hooks += [hook for repo in YAML(typ="safe").load(fence.text)["repos"] for hook in repo["hooks"]]
    lines = [[*hook["entry"].split(), *hook.get("args", [])] for hook in hooks]
    return [*lines, *(line.split() for line in read("docs/ci/gitlab.yml")["vbench-gate"]["script"])]


LINES = sorted({tuple(words) for page in PAGES for words in commands(page)} | {tuple(one) for one in of_the_ci_files()})


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], present=lambda: [{"name": "a GPU"}]))


def pip(words: list[str]) -> None:
    assert words[0] in ("install", "uninstall")
    extras = {extra for word in words for extra in re.findall(r"\.\[(.*)\]", word)}
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    files = [words[place + 1] for place, word in enumerate(words) if word == "-c"]
    assert all((ROOT / file).is_file() for file in files)


def make(words: list[str]) -> None:
    assert {word for word in words if "=" not in word} <= TARGETS
    assert {word.partition("=")[0] for word in words if "=" in word} <= VARIABLES


def python(words: list[str]) -> None:
    module = words[words.index("-m") + 1]
    assert importlib.util.find_spec(module)


def pytest_(words: list[str]) -> None:
    assert all(word.startswith("-") or (ROOT / word.partition("::")[0]).exists() or "OP" in word for word in words)


OTHERS: dict[str, Callable[[list[str]], None]] = {
    "pip": pip,
    "make": make,
    "python": python,
    "pytest": pytest_,
    "git": lambda words: None,
}


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_every_command_that_is_written_down_exists_and_takes_its_values(line: tuple[str, ...]) -> None:
    words = [word.strip("[]") for word in line]  # [RUN...]: it may be left out
    if words[0] == "vbench":
        check(words)
    else:
        assert words[0] in OTHERS, "a command of which no test knows whether it works"
        OTHERS[words[0]](list(line[1:]))


def test_every_option_that_is_written_down_exists() -> None:
    def options(command: Any) -> set[str]:
        own = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
        return own.union(*(options(one) for one in getattr(command, "commands", {}).values()))

    known = options(program()) | {"--help", "--builtin-schema"}
    for page in PAGES:
        for span in spans(page):
            if span.startswith("--"):
                assert set(re.findall(r"(?<!\S)--[\w-]+", span)) <= known, (page.name, span)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_image_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), f"{target} is not there"
        assert where.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(where), f"{target}: there is no such heading"
        if page.is_relative_to(DOCS):
            assert where.is_file(), f"{target}: a site cannot show a folder"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = contents(DOCS / "index.md")
    assert sorted([*listed, DOCS / "index.md"]) == sorted(DOCS.rglob("*.md"))


def test_the_reference_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make reference` was run after the last change of a command, an option or a help text."""
    monkeypatch.syspath_prepend(str(DOCS))
    made = importlib.import_module("make_reference").page(program())
    assert made == (DOCS / "reference" / "commands.md").read_text("utf-8")


def test_what_needs_no_measuring_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that holds a copy of the committed records."""
    (tmp_path / COMMITTED).mkdir(parents=True)
    for name in ("records.jsonl", "run.json"):
        shutil.copy(ROOT / COMMITTED / name, tmp_path / COMMITTED)
    monkeypatch.chdir(tmp_path)
    ran = set()
    for program_, name, *rest in (line for line in LINES if len(line) > 1):
        whole = (str(COMMITTED) in rest and "all" not in rest) or (not rest and name in ("suites", "models"))
        if program_ == "vbench" and name in {*CHEAP} - ran and whole:
            done = CliRunner().invoke(app, [name, *rest])
            assert done.exit_code == 0, (name, rest, done.output)
            ran.add(name)
    assert ran == set(CHEAP)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("vbench sweeps", "sweeps"),
        ("vbench sweep --model vig_t --res 224", "--model"),
        ("vbench sweep --models vig_q --res 224", "vig_q"),
        ("vbench sweep --suite papers", "papers"),
        ("vbench plan --models vig_t --res 224 --modes sideways", "sideways"),
        ("vbench gate --write", "--write"),
        ("vbench gate --counters FILE --ab REV", "--ab"),
        ("vbench gate --ab main --models vig_t --res 2z4", "2z4"),
        ("vbench flops vig_t --form fast", "fast"),
        ("vbench maxres vig_t --dtype int8", "int8"),
        ("vbench kernels check --op glas", "glas"),
        ("vbench kernels bench --backend lazy", "lazy"),
        ("vbench figures resolutions results/cpu", "resolutions"),
        ("vbench figures resolution results/cpu --style loud", "loud"),
        ("vbench tables RUN --what nothing", "nothing"),
        ("vbench fit RUN --cost money", "money"),
        ("vbench history DIR --what money", "money"),
        ("vbench pick RUN --latency-ms 0", "latency-ms"),
        ("vbench pick RUN --latency-ms 9 --metric f1", "f1"),
        ("vbench accuracy vig_t,vig_q RUN", "vig_q"),
        ("vbench eval --models vig_q --data DIR", "vig_q"),
    ],
)
@pytest.mark.usefixtures("a_gpu")
def test_a_line_that_vbench_would_refuse_is_found(line: str, wrong: str) -> None:
    with pytest.raises(Exception, match=wrong):
        check(line.split())


def test_the_python_that_is_shown_imports_what_there_is() -> None:
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "python":
                for node in ast.walk(ast.parse(fence.text)):
                    if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vbench"):
                        module = importlib.import_module(str(node.module))
                        assert all(hasattr(module, name.name) for name in node.names), page


def test_the_readme_fits_on_a_screen_and_keeps_its_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 150
    assert text.partition("<!-- findings -->")[2].partition("<!-- /findings -->")[0].count("\n- ") <= 10
    blocks = [fence.text for fence in fences(ROOT / "README.md") if "text" not in fence.language]
    assert blocks[0] == "pip install -e .\nvbench sweep --suite minute\n"
    assert blocks[1] == "vbench sweep --models vig_t,deit_t --res 224:2048\npip install -e '.[test]' && pytest\n"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/columns.md", list(tables.NOTES)),
        ("reference/axes.md", [f"--{axis}" for axis in (*plan.USUAL, "models", "res", "rigor", "tf32")]),
        (
            "reference/axes.md",
            [*plan.DTYPES, *plan.PHASES, *plan.BACKENDS, *plan.LAYOUTS, *plan.ATTENTIONS, *plan.REPARAMS],
        ),
        ("tutorials/paper.md", list(FIGURES)),
        ("tutorials/paper.md", list(paper_tables.KINDS)),
        ("zoo.md", list(MODELS)),
    ],
)
def test_a_page_names_all_that_there_is(page: str, names: list[str]) -> None:
    text = prose(DOCS / page)
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="pip install -e '.[docs]'")
    command = [sys.executable, "-P", "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "search.html").is_file()
