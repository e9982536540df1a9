"""What was tested is pinned, bounds are those of the project, and the doctor says what lies outside."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import vbench
from vbench import host
from vbench.constraints import tested
from vbench.doctor import examine as doctor
from vbench.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECLARED = [
    Requirement(text)
    for text in [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
]
BOUNDED = [
    needed for needed in DECLARED if needed.name not in ("ruff", "mypy") and needed.specifier
]  # tools, of any age


class TestFiles:
    @pytest.mark.parametrize("needed", BOUNDED, ids=lambda needed: needed.name)
    def test_lowest_pins_every_declared_bound(self, needed: Requirement) -> None:
        """The bound itself, or its first release where a bound names a series."""
        (bound,) = needed.specifier
        lowest = tested.pinned("lowest")[canonicalize_name(needed.name)]
        assert bound.operator == ">="
        assert Version(lowest) >= Version(bound.version)
        assert Version(lowest).release[:2] == (*Version(bound.version).release, 0)[:2]

    @pytest.mark.parametrize("needed", DECLARED, ids=lambda needed: needed.name)
    def test_tested_pins_all_that_is_declared_and_keeps_to_it(self, needed: Requirement) -> None:
        assert tested.pinned("tested")[canonicalize_name(needed.name)] in needed.specifier

    def test_tested_is_as_make_constraints_writes_it(self) -> None:
        first, *rest = (ROOT / "constraints" / "tested.txt").read_text().splitlines()
        assert re.fullmatch(r"# Python 3\.\d+\.\d+ on \d{4}-\d\d-\d\d, by: make constraints", first)
        names = [line.partition("==")[0] for line in rest]
        assert names == sorted(names)
        assert all(re.fullmatch(r"[a-z0-9-]+==[^+\s]+", line) for line in rest)
        assert not {"vbench", vbench.DISTRIBUTION} & set(tested.pinned("tested"))

    def test_what_the_doctor_looks_at_is_in_both(self) -> None:
        for name in ("lowest", "tested"):
            assert set(host.PACKAGES) <= set(tested.pinned(name))

    def test_they_are_part_of_the_wheel(self) -> None:
        patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
        for file in (ROOT / "constraints").glob("*.txt"):
            assert any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns), file


PINS = {"lowest": {"torch": "2.11.0", "huggingface-hub": "0.25.0"}, "tested": {"torch": "2.14.1"}}


@pytest.mark.parametrize(
    ("installed", "verdict", "text"),
    [
        ("2.10.2", "note", "2.10.2; tested from 2.11.0"),
        ("2.11.0", "ok", "2.11.0"),
        ("2.11.0+cu130", "ok", "2.11.0+cu130"),
        ("2.12.1.post1", "ok", "2.12.1.post1"),
        ("2.9", "note", "2.9; tested from 2.11.0"),
        ("2.11.0a0+git0123abc", "note", "2.11.0a0+git0123abc; tested from 2.11.0"),
        ("2.14.1", "ok", "2.14.1"),
        ("2.14.1+cpu", "ok", "2.14.1+cpu"),
        ("2.14.1.dev20261101+cu130", "ok", "2.14.1.dev20261101+cu130"),
        ("2.14.2", "note", "2.14.2; tested up to 2.14.1"),
        ("2.15.0.dev20261101", "note", "2.15.0.dev20261101; tested up to 2.14.1"),
        ("3.0", "note", "3.0; tested up to 2.14.1"),
        ("ours", "note", "ours; the version cannot be compared; not known whether it was tested"),
    ],
)
def test_the_doctor_says_what_lies_outside(
    installed: str, verdict: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "pinned", PINS.__getitem__)
    assert doctor.package_finding("torch", installed) == doctor.Finding("torch", verdict, text)  # type: ignore[arg-type]


def test_a_package_has_no_bound_where_a_file_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "pinned", PINS.__getitem__)
    assert tested.outside("Huggingface_Hub", "99") is None
    assert tested.outside("Huggingface_Hub", "0.1") == "tested from 0.25.0"
    assert tested.outside("numpy", "0.1") is None


@pytest.mark.parametrize(("package", "verdict"), [("torch", "missing"), ("triton", "note"), ("fvcore", "note")])
def test_the_doctor_says_what_is_not_installed(package: str, verdict: str) -> None:
    finding = doctor.package_finding(package, None)
    assert (finding.verdict, finding.text) == (verdict, f"not installed; pip install {package}")


INSTALLED = {
    "root": ("0.1", ["Left_One>=1", "right; extra == 'test'", "never; python_version < '3'", "none; extra == 'gpu'"]),
    "left-one": ("1.5+cu130", ["deep[more]"]),
    "right": ("2.0", ["left-one", "root"]),
    "deep": ("3.0", ["extra-of-deep; extra == 'more'", "unwanted; extra == 'test'"]),
    "extra-of-deep": ("4.0", None),
}


class TestWriting:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def distribution(name: str) -> SimpleNamespace:
            if name not in INSTALLED:
                raise PackageNotFoundError(name)
            version, requires = INSTALLED[name]
            return SimpleNamespace(version=version, requires=requires)

        monkeypatch.setattr(tested, "distribution", distribution)

    def test_all_that_is_brought_is_written_and_nothing_else(self) -> None:
        _, *rest = tested.page("root").splitlines()
        assert rest == ["deep==3.0", "extra-of-deep==4.0", "left-one==1.5", "right==2.0"]

    def test_what_is_not_installed_is_said(self) -> None:
        with pytest.raises(UsageError, match=r"^none is not installed, and root needs it; pip install none$"):
            tested.required("root", {"gpu"})


@pytest.mark.parametrize(
    ("words", "line"),
    [([], "name one file"), (["/nowhere/tested.txt"], "/nowhere/tested.txt cannot be written: No such file")],
)
def test_what_cannot_be_written_is_one_line(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tested, "page", lambda: "")
    with pytest.raises(SystemExit) as ended:
        tested.main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vbench: {line}")
    assert said.count("\n") == 1
