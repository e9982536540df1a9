"""Tables in print: they fit the column or the page of a paper, and speak to somebody who never saw vbench."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from command import vbench
from fakes import make_record
from papers import compiled, of_models

from vbench.reports import paper_tables
from vbench.reports.fitting import HEIGHT, LARGE, ROOMS, Fitted, fit
from vbench.reports.grid import Block, Column, Grid, TableCell
from vbench.reports.labels import Labels
from vbench.reports.latex import to_latex
from vbench.reports.readers import COMMANDS, for_reader, printed
from vbench.reports.tables import NOTES
from vbench.reports.type_widths import broken, points
from vbench.results.frame import frame
from vbench.results.store import Store

COUNTS = (2, 20)
LABELS = Labels({"vig_t": "ViG-T", "deit_t": "DeiT-T (50 % of & $x_1$)"})
BAD = re.compile(r"Overfull .hbox.*|.*Float too large.*")


@cache
def models(count: int) -> pd.DataFrame:
    return of_models(count)


@cache
def texts(count: int, width: str) -> str:
    """All tables of so many models as LaTeX."""
    kinds = [
        kind for kind in paper_tables.KINDS if count < 10 or kind not in ("scaling", "crossovers")
    ]  # these take long
    made, lacking = paper_tables.make(models(count), ",".join(kinds), labels=LABELS)
    assert not lacking
    return paper_tables.render(made, "tex", width)


def of_words(*heads: str, rows: int = 2, text: str = "word", **about: int) -> Grid:
    """A table of words under these heads; `about`: the `spare` of a head."""
    columns = tuple(Column(head, number=False, spare=about.get(head, 0)) for head in heads)
    cells = tuple(tuple(TableCell(f"{text} {row}") for _ in heads) for row in range(rows))
    return Grid("Words", columns, (Block(cells),), "Said below.")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("width", ROOMS)
def test_every_table_is_narrow_enough(count: int, width: str) -> None:
    text = texts(count, width)
    assert "pt wide;" not in text  # see `latex._tables`
    assert text.count(r"\toprule") >= len(paper_tables.KINDS)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("width", ROOMS)
def test_tex_finds_them_narrow_enough(count: int, width: str, tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(texts(count, width).replace("% made by", "\\clearpage\n% made by"))
    assert BAD.findall(compiled([tmp_path / "tables.tex"], tmp_path)) == []


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_tex_finds_a_table_that_is_too_wide(tmp_path: Path) -> None:
    wide = Fitted(of_words(*(f"head{at}" for at in range(12)), text="words of a cell"), LARGE)
    assert wide.width > ROOMS["column"].width
    text = "\\begin{tabular}{@{}" + "l" * 12 + "@{}}" + "words of a cell & " * 11 + "words \\end{tabular}"
    (tmp_path / "wide.tex").write_text(text)
    assert "Overfull" in compiled([tmp_path / "wide.tex"], tmp_path)


class TestArrangements:
    def test_few_sizes_stand_side_by_side_and_many_below_each_other(self) -> None:
        def columns(width: str, *sides: int) -> list[str]:
            (grid,) = paper_tables.make(frame([make_record(m, s) for m in ("vig_t", "deit_t") for s in sides]))[0][
                "resolution"
            ]
            return list(dict.fromkeys(c.group for c in fit(printed(grid), ROOMS[width]).grid.columns if c.group))

        assert columns("full", 224, 512) == ["224 px", "512 px"]
        assert columns("full", 224, 512, 1024, 2048) == columns("column", 224, 512) == []
        text = paper_tables.render(paper_tables.make(models(2), "resolution")[0], "tex", "column")
        assert re.findall(r"\\emph\{(\d+) px", text)[:4] == ["224", "512", "1024", "2048"]

    def test_an_interval_goes_below_its_value(self) -> None:
        text = paper_tables.render(paper_tables.make(models(2), "resolution")[0], "tex", "column")
        assert re.search(r"98\.00 &.*\\\\\n &.*\{\\vbenchsmall 96\.04--99\.96\}", text)
        assert "Under a value: its 95 \\% interval." in text
        assert "In parentheses" not in text

    def test_equal_cells_are_said_once_before_anything_is_left_out(self) -> None:
        grid = replace(of_words("model", "form", "note", form=9, text="a long text of one kind"), remarks=("last",))
        (block,) = grid.blocks
        rows = tuple((row[0], TableCell("chunkwise and compiled"), row[2]) for row in block.rows)
        found = fit(replace(grid, blocks=(Block(rows),)), ROOMS["column"]).grid
        assert [column.head for column in found.columns] == ["model", "note"]
        assert found.remarks == ("in all rows: form: chunkwise and compiled", "last")

    def test_columns_go_by_priority_and_the_table_says_which(self) -> None:
        heads = [f"h{at}" for at in range(8)]
        spare = {f"h{at}": at for at in range(4, 8)}
        found = fit(of_words(*heads, text="eleven_chars", **spare), ROOMS["column"]).grid
        kept = [column.head for column in found.columns]
        gone = [head for head in reversed(heads) if head not in kept]
        assert gone
        assert gone == heads[: -len(gone) - 1 : -1]
        assert found.remarks == (
            f"not shown, as the table is narrow: {', '.join(gone[:-1])} and {gone[-1]}"
            if len(gone) > 1
            else f"not shown, as the table is narrow: {gone[0]}",
        )

    def test_what_may_not_be_left_out_never_is(self) -> None:
        grid = of_words(*(f"h{at}" for at in range(12)), text="abcdefghijklmnop")
        found = fit(grid, ROOMS["column"])
        assert len(found.grid.columns) == 12
        assert "pt wide; \\columnwidth may have only 221 pt" in to_latex([grid], "x", "column")

    def test_a_long_table_goes_on_and_its_notes_are_at_the_end(self) -> None:
        text = to_latex([of_words("model", "verdict", rows=150)], "long", "column")
        parts = text.split(r"\begin{table}")[1:]
        assert [r"(continued)" in part for part in parts] == [False, True, True, True]
        assert re.findall(r"\\label\{(.*)\}", text) == ["tab:long", *(f"tab:long-part{n}" for n in (2, 3, 4))]
        assert ["Said below." in part for part in parts] == [False, False, False, True]
        assert re.findall(r"word (\d+) &", parts[0])[0] == "0"
        assert sum(part.count("word ") for part in parts) == 300
        assert max(part.count(r"\\") for part in parts) * 9.6 < HEIGHT


class TestWords:
    def test_no_table_speaks_of_commands(self) -> None:
        for width in ROOMS:
            text = texts(20, width).replace("{}", "")
            assert not COMMANDS.search(text)
            assert "vbench sweep" not in text

    @pytest.mark.parametrize("flag", NOTES)
    def test_a_flag_is_told_by_its_meaning(self, flag: str) -> None:
        text = for_reader(NOTES[flag])
        assert len(text) > 25
        assert flag not in text.split(":")[0] or flag in ("bimodal",)
        assert not COMMANDS.search(text)
        assert for_reader(f"3 of 9 cells are flagged {NOTES[flag]}").startswith("3 of 9 cells have this note: ")

    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("not shown: 384 px; --at names sizes", "not shown: 384 px"),
            ("oom: no memory left; give --batch 1 (vig_t parallel 2048)", "out of memory: no memory left"),
            ("rows differ in attention_kernel: a (1), b (2)", "rows differ in attention kernel: a (1), b (2)"),
            ("use --form reference", "use"),
            ("torch 2.14.1, vbench 0.1.0 at commit 0123", "torch 2.14.1, vbench 0.1.0 at commit 0123"),
        ],
    )
    def test_notes(self, text: str, read: str) -> None:
        assert for_reader(text) == read

    def test_flags_of_the_whole_table_are_footnotes(self) -> None:
        text = paper_tables.render(paper_tables.make(models(2), "full")[0], "tex")
        assert "flags" not in text
        assert "unconverged" not in text
        assert r"\textsuperscript{a}\,Successive calls still differed at the end of the warm-up time." in text

    def test_labels_are_in_every_format(self) -> None:
        made, _ = paper_tables.make(models(2), labels=Labels({"vig_t": "ViG-T"}))
        for form in ("md", "tex", "csv"):
            text = "".join(paper_tables.render({name: grids}, form) for name, grids in made.items())
            assert "ViG-T" in text
            assert "vig_t" not in text.replace("\\", "")


class TestWidths:
    def test_a_text_is_as_wide_as_its_letters(self) -> None:
        assert points("0", 8.0) == pytest.approx(4.28)
        assert points("ViG-T", 7.0) < points("ViG-T", 8.0) < points("ViG-T", 8.0, bold=True)

    @pytest.mark.parametrize(
        "text", ["a few words in a row", "my_package.models:vision_lstm_large", "x" * 80, "", "é中"]
    )
    def test_broken_lines_are_narrow_and_lose_nothing(self, text: str) -> None:
        lines = broken(text, 40.0, 7.0)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(points(line, 7.0) <= 40.0 or len(line) == 1 for line in lines)


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        with Store(tmp_path / "run") as store:
            for model in ("vig_t", "deit_t"):
                store.append(make_record(model))
        return tmp_path / "run"

    def test_width_and_labels(self, run: Path) -> None:
        given = ("--what", "resolution", "--format", "tex", "--width", "column", "--labels", "vig_t=ViG-T")
        text = vbench("tables", str(run), *given, "--labels", "deit_t=DeiT-T").stdout
        assert r"\begin{table}[tp]" in text
        assert r"\begin{minipage}{\columnwidth}" in text
        assert "ViG-T & " in text
        assert "DeiT-T & " in text

    def test_json_keeps_the_models_own_names(self, run: Path) -> None:
        given = ("--what", "resolution", "--json", "--labels", "vig_t=ViG-T,deit_t=DeiT-T")
        (table,) = json.loads(vbench("tables", str(run), *given).stdout)
        assert {row["model"] for row in table["rows"]} == {"vig_t", "deit_t"}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("--width", "page"), "--width: 'page' is not one of column, full"),
            (("--width", "column,full"), "--width: 'column,full' names 2 widths; give one of column, full"),
            (("--labels", "vil_t=ViL"), "--labels: the records have no model 'vil_t'; they have deit_t, vig_t"),
        ],
    )
    def test_what_is_not_meant_is_a_line(self, run: Path, given: tuple[str, ...], said: str) -> None:
        done = vbench("tables", str(run), *given)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stdout == ""
