"""Suites: those that come along ask something and have cells; a file of one's own works alike, or is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vbench import plan
from vbench.commands import app as cli
from vbench.errors import UsageError
from vbench.reports import suites as listing
from vbench.suites.load import load, shipped

DOCS = Path(__file__).resolve().parent.parent / "docs" / "suites.md"
MINE = 'question = "?"\ntime = "seconds"\nmodels = "vig_t,deit_t"\nres = "64"\n'


def cells(name: str) -> list[plan.Case]:
    return plan.union([plan.parse({**plan.USUAL, **axes}, "cpu") for axes in load(name).sets])


@pytest.mark.parametrize("name", shipped())
def test_every_suite_asks_something_says_its_time_and_has_cells(name: str) -> None:
    found = listing.row(name)
    assert "?" in found["question"]
    assert "minute" in found["time"] or "hour" in found["time"] or "second" in found["time"]
    assert "estimate" in found["time"] or "not measured" not in found["time"]
    assert found["cells"] > found["unsupported"]


def test_each_measures_what_it_asks() -> None:
    assert {"aa", "minute", "resolution", "modes", "batch", "training", "paper"} <= set(shipped())
    modes = [cell for cell in cells("modes") if not cell.unsupported]
    assert {cell.mode for cell in modes} == {"parallel", "recurrent"}
    assert len(modes) == len(cells("modes"))  # every model of it has both
    assert len({cell.batch for cell in cells("batch")}) >= 4
    assert {cell.phase for cell in cells("training")} == {"train"}
    assert all(isinstance(cell.batch, int) and cell.batch > 1 for cell in cells("training"))
    paper = cells("paper")
    assert {cell.attention for cell in paper if cell.model == "deit_t"} == {"fused", "unfused"}
    assert {224, 512, 736, 1024, 1248, 1632, 2048} <= {cell.height for cell in paper}


def test_the_page_is_what_the_suites_say() -> None:
    """`make suites` was run after the last change of a suite."""
    assert DOCS.read_text(encoding="utf-8") == listing.page()


def test_the_example_of_the_page_is_a_suite(tmp_path: Path) -> None:
    _, _, rest = DOCS.read_text(encoding="utf-8").partition("```toml\n")
    (tmp_path / "mine.toml").write_text(rest.partition("```")[0])
    assert listing.row(str(tmp_path / "mine.toml"))["cells"] > 0


def test_a_file_of_ones_own_is_listed_alike(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    found = listing.row(str(tmp_path / "mine.toml"))
    assert (found["cells"], found["unsupported"]) == (4, 1)
    assert found["sets"] == [{"models": "vig_t,deit_t", "res": "64"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINE + "modes = 3\n", "wrong, missing or non-text keys: modes"),
        (MINE + 'moods = "parallel"\n', "wrong, missing or non-text keys: moods"),
        (MINE.replace('res = "64"\n', ""), "wrong, missing or non-text keys: res"),
        (MINE + "= 3", "is not TOML"),
        (MINE.replace("64", "64:32"), "mine.toml: --res: the range '64:32' is reversed"),
        (MINE.replace("vig_t", "vig_tt"), "mine.toml: unknown model 'vig_tt'"),
        (MINE.replace("64", "65"), "mine.toml: deit_t cannot take 65x65"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        listing.row(str(tmp_path / "mine.toml"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_lists_all_or_shows_one(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli.app, ["suites"])
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in shipped())
    rows = json.loads(CliRunner().invoke(cli.app, ["suites", "--json"]).stdout)
    assert [row["suite"] for row in rows] == shipped()
    (tmp_path / "mine.toml").write_text(MINE.replace('"?"', '"[bold]bold[/bold]?"'))
    one = CliRunner().invoke(cli.app, ["suites", str(tmp_path / "mine.toml")])
    assert "[bold]bold[/bold]?" in one.stdout
    assert "models = vig_t,deit_t" in one.stdout
    missing = CliRunner().invoke(cli.app, ["suites", "nothing"])
    assert isinstance(missing.exception, UsageError)


def test_listing_imports_no_torch() -> None:
    code = "import sys; from vbench.reports import suites; suites.page(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
