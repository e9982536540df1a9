"""Tables for a paper: what is shown, what is bold, what is said, and that no text of a record breaks a format."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import HOST, failed, latency, make_record
from typer.main import get_command
from typer.testing import CliRunner

from vbench.commands import app as cli
from vbench.errors import OutputError, UsageError
from vbench.plan import GRID, Case
from vbench.reports import paper_cells, paper_tables, readme
from vbench.reports.fitting import ROOMS
from vbench.reports.grid import ABSENT, Grid, Row, TableCell
from vbench.reports.tables import NOTES, stated
from vbench.results import scaling
from vbench.results.frame import frame, rows_of
from vbench.results.statistics import Interval, ratio
from vbench.results.store import Record, Store

HOSTILE = '50 % of </td><script>x</script> $HOME/a_b & C:\\tmp {~^#} "q" `b` [x] *y* | --z é \u202e中\nnext'


def recased(record: Record, **case: Any) -> Record:
    """The record of a cell that differs in these fields of its case."""
    fields = {**record.case, **case}
    return replace(record, case=fields, case_id=Case(**fields).id)


def timed(model: str, side: int, ms: Iterable[float], **changes: Any) -> Record:
    return make_record(model, side, latency=latency(ms), **changes)


def steady(ms: float, *, spread: float = 0.01) -> list[float]:
    """Samples about a median, half-way between alternating extremes of ± spread."""
    return [ms * (1 + spread * sign) for sign in (-1, 1, 0, 1, -1, 0, 1, -1, 0, 1, -1)]


def grid(records: list[Record], kind: str, at: str | None = None) -> Grid:
    made, _ = paper_tables.make(frame(records), kind, at)
    (found,) = made[kind]
    return found


def rows(found: Grid) -> list[Row]:
    return [row for block in found.blocks for row in block.rows]


def column(found: Grid, name: str) -> dict[str, TableCell]:
    """model -> its cell under a head; "512 px: GMACs" where heads are grouped."""
    at = [column.name for column in found.columns].index(name)
    return {f"{row[0].text} {row[1].text}".removesuffix(" parallel"): row[at] for row in rows(found)}


class TestResolution:
    def test_a_row_has_each_size_side_by_side(self, records: list[Record]) -> None:
        found = grid(records, "resolution")
        assert [c.name for c in found.columns[3:9]] == [
            f"{px} px: {head}" for px in (224, 512) for head in ("GMACs", "latency (ms)", "peak memory (MiB)")
        ]
        assert [row[0].text for row in rows(found)] == ["deit_t", "vig_t", "vig_t"]
        text = paper_tables.render({"resolution": [found]}, "md")
        assert "| 5.120 | **512.0** (501.8–522.2) | 30.56 |" in text
        assert "a test CPU; float32; 1 CPU thread(s)" in text

    def test_what_did_not_end_is_said_with_its_reason(self, records: list[Record]) -> None:
        found = grid([*records, failed("timeout", "took too long", model="vil_t", side=512)], "resolution")
        cells = column(found, "1024 px: latency (ms)")
        assert (cells["deit_t"].text, cells["deit_t"].notes) == ("OOM", ("OOM: out of memory",))
        assert column(found, "1024 px: GMACs")["deit_t"].text == "20.48"  # counted without a device
        assert cells["vil_t"].text == ABSENT
        assert f"{ABSENT}: these records do not give it" in found.remarks
        assert column(found, "512 px: latency (ms)")["vil_t"].notes == ("time-out: took too long",)
        text = paper_tables.render({"resolution": [found]}, "md")
        assert "OOM <sup>a</sup>" in text
        assert "- <sup>a</sup> OOM: out of memory" in text

    def test_what_no_size_allows_is_a_remark_and_no_row(self, records: list[Record]) -> None:
        never = make_record("deit_t", 224, "recurrent", status="unsupported", reason="no state")
        found = grid([*records, replace(never, latency=None, work=None, memory=None)], "resolution")
        assert "deit_t recurrent" not in column(found, "224 px: GMACs")
        assert "unsupported: no state (deit_t recurrent 224)" in found.remarks

    def test_of_many_sizes_a_few_are_shown_and_the_others_named(self) -> None:
        many = [make_record("vig_t", side) for side in (224, 256, 384, 512, 768, 1024)]
        found = grid(many, "resolution")
        assert list(dict.fromkeys(c.group for c in found.columns if c.group)) == ["224 px", "512 px", "1024 px"]
        assert "not shown: 256, 384, 768 px; --at names sizes" in found.remarks
        named = grid(many, "resolution", at="256,384,512,768,1024")
        assert len({c.group for c in named.columns if c.group}) == 5
        assert not any("not shown" in line for line in named.remarks)

    def test_settings_are_tables_of_their_own(self, records: list[Record]) -> None:
        half = [recased(record, dtype="bfloat16") for record in records]
        other = replace(records[0], host={**HOST, "device_name": "another CPU"})
        made, _ = paper_tables.make(frame([*records, *half, other]), "resolution")
        settings = [(each.settings["device_name"], each.settings["dtype"]) for each in made["resolution"]]
        assert sorted(settings) == [("a test CPU", "bfloat16"), ("a test CPU", "float32"), ("another CPU", "float32")]
        text = paper_tables.render(made, "tex")
        assert re.findall(r"\\label\{(.*)\}", text) == [f"tab:vbench-resolution{n}" for n in ("", "-2", "-3")]
        (read_back,) = [list(csv.DictReader(StringIO(paper_tables.render(made, "csv"))))]
        assert len(read_back) == 7
        assert {row["dtype"] for row in read_back} == {"float32", "bfloat16"}

    def test_two_gpus_of_one_name_are_not_one(self) -> None:
        two = [recased(make_record("vig_t"), device=device) for device in ("cuda:0", "cuda:1")]
        made, _ = paper_tables.make(frame(two), "resolution")
        assert [each.settings["device"] for each in made["resolution"]] == ["cuda:0", "cuda:1"]

    def test_forms_and_attention_are_named_where_there_are_several(self) -> None:
        many = [make_record("vig_t"), recased(make_record("vig_t"), form="quadratic"), make_record("deit_t")]
        many.append(recased(make_record("deit_t"), attention="unfused"))
        assert set(column(grid(many, "resolution"), "224 px: GMACs")) == {
            "vig_t chunkwise",
            "vig_t quadratic",
            "deit_t",
            "deit_t unfused",
        }


class TestBest:
    def bold(self, records: list[Record], name: str = "224 px: latency (ms)") -> set[str]:
        return {who for who, cell in column(grid(records, "resolution"), name).items() if cell.bold}

    def test_alone_only_beyond_the_others_intervals(self) -> None:
        clear = [timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(11)), timed("vil_t", 224, steady(12))]
        assert self.bold(clear) == {"vig_t"}
        near = [timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(10.1)), timed("vil_t", 224, steady(12))]
        assert self.bold(near) == {"vig_t", "deit_t"}

    def test_none_where_all_tie_or_there_is_one(self) -> None:
        assert self.bold([timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(10.1))]) == set()
        assert self.bold([timed("vig_t", 224, steady(10))]) == set()

    def test_only_among_models_of_like_size(self) -> None:
        found = [timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(12))]
        found += [timed("vig_s", 224, steady(30)), timed("deit_s", 224, steady(40))]
        assert self.bold(found) == {"vig_t", "vig_s"}
        names = [block.name for block in grid(found, "resolution").blocks]
        assert names == ["5.72–5.83 M parameters", "22.1–22.6 M parameters"]

    def test_memory_ties_within_a_percent_and_work_not_at_all(self) -> None:
        def held(model: str, peak: int, macs: int) -> Record:
            record = make_record(model)
            assert record.memory
            assert record.work
            memory = {**record.memory, "peak_bytes": peak}
            return replace(record, memory=memory, work={**record.work, "macs": macs})

        found = [held("vig_t", 1000, 1001), held("deit_t", 1009, 1000), held("vil_t", 1011, 1002)]
        assert self.bold(found, "224 px: peak memory (MiB)") == {"vig_t", "deit_t"}
        assert self.bold(found, "224 px: GMACs") == {"deit_t"}

    def test_never_what_is_not_the_model_or_not_known(self) -> None:
        wrong = {"ok": False, "checks": 1, "failed": ["gla"]}
        found = [timed("vig_t", 224, steady(1), verified=wrong), timed("deit_t", 224, steady(11))]
        found.append(timed("vil_t", 224, steady(12)))
        assert self.bold(found) == {"deit_t"}
        work = {**(make_record().work or {}), "macs": 1, "unknown": {"aten::x": {"calls": 1, "bytes": 1}}}
        unknown = [replace(make_record("vig_t"), work=work), make_record("deit_t"), make_record("vil_t")]
        assert self.bold(unknown, "224 px: GMACs") == set()

    def test_never_across_versions(self) -> None:
        newer = {**HOST, "versions": {**HOST["versions"], "torch": "2.12.0"}}
        found = [timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(11), host=newer)]
        assert self.bold(found) == set()
        remarks = grid(found, "resolution").remarks
        assert "rows differ in torch: 2.11.0 (1), 2.12.0 (1); compare within one" in remarks
        assert "nothing is bold, for rows differ in what must be equal" in remarks

    def test_the_rule_is_said_where_it_is_used(self) -> None:
        bold = [timed("vig_t", 224, steady(10)), timed("deit_t", 224, steady(11))]
        assert paper_cells.BEST in grid(bold, "resolution").caption
        assert paper_cells.BEST not in grid(bold[:1], "resolution").caption


class TestFootnotes:
    def test_every_flag_has_its_place(self) -> None:
        placed = [*paper_cells.BRANDS, *paper_cells.TIMING, *paper_cells.WORK]
        assert sorted(placed) == sorted(NOTES)

    def test_each_stands_at_the_figure_that_it_concerns(self) -> None:
        wrong = {"ok": False, "checks": 1, "failed": ["gla"]}
        warmup = {"calls": 10, "wall_s": 0.5, "converged": False, "reason": None}
        counts = {"macs_fvcore": 80, "agree": False, "reason": None}
        found = grid([make_record(verified=wrong, warmup=warmup, second_count=counts)], "resolution")
        (row,) = rows(found)
        assert [note.split(":")[0] for note in row[0].notes] == ["modes_differ"]
        assert [note.split(":")[0] for note in row[3].notes] == ["counters_disagree"]
        assert [note.split(":")[0] for note in row[4].notes] == ["unconverged"]
        assert list(found.marks().values()) == ["a", "b", "c"]

    def test_a_launch_that_failed_later_is_said(self) -> None:
        later = failed("oom", "no memory left", launch=1)
        (row,) = rows(grid([make_record(), later], "resolution"))
        assert "not every launch ended: no memory left" in row[4].notes

    def test_the_same_note_has_one_letter(self) -> None:
        warmup = {"calls": 10, "wall_s": 0.5, "converged": False, "reason": None}
        found = grid([make_record(side=side, warmup=warmup) for side in (224, 512)], "resolution")
        text = paper_tables.render({"resolution": [found]}, "md")
        assert len(found.marks()) == 1
        assert text.count("<sup>a</sup>") == 3


class TestKinds:
    def test_work_tells_macs_from_flops(self) -> None:
        record = make_record("deit_t")
        counts = {"macs": 4_000_000_000, "macs_executed": 5_000_000_000, "flops_total": 10_250_000_000}
        found = grid([replace(record, work={**(record.work or {}), **counts})], "work")
        assert column(found, "GMACs")["deit_t"].text == "4.000"
        assert column(found, "GMACs executed")["deit_t"].text == "5.000"
        assert column(found, "GFLOPs executed")["deit_t"].text == "10.25"
        assert column(found, "state (KiB)")["deit_t"].text == "none"
        assert any(line.startswith("GFLOPs executed = 2 · GMACs executed + pointwise work") for line in found.remarks)
        assert "a test CPU" not in found.caption  # counts are of no device

    def test_work_without_a_total_says_so(self) -> None:
        record = make_record()
        found = grid([replace(record, work={**(record.work or {}), "flops_total": None})], "work")
        assert column(found, "GFLOPs executed")["vig_t"].text == "not known"

    def test_modes_stand_beside_each_other_with_their_ratio(self) -> None:
        good = {"ok": True, "checks": 3, "failed": []}
        other = replace(make_record("vig_t", 512, "recurrent", verified=good), latency=latency(steady(1024)))
        found = grid([make_record("vig_t", 512, verified=good), other, make_record("deit_t", 512)], "modes")
        assert "not shown, as they have one mode here: deit_t" in found.remarks
        (row,) = rows(found)
        at = {c.name: cell for c, cell in zip(found.columns, row, strict=True)}
        assert at["one function"].text == "yes"
        both = {cells["mode"]: cells for cells in frame([make_record("vig_t", 512), other]).to_dict("records")}
        keys = ("latency_ms", "latency_ms_lo", "latency_ms_hi", "latency_level", "latency_basis")
        of = ratio(*(Interval(*(both[mode][key] for key in keys)) for mode in ("recurrent", "parallel")))
        assert (at["latency: ratio"].value, at["latency: ratio"].lo) == (pytest.approx(2.0), pytest.approx(of.lo))
        assert at["latency: ratio"].text == "2.00"
        assert at["peak memory: ratio"].text == "1.00"

    def test_modes_that_differ_are_not_one_function(self) -> None:
        wrong = {"ok": False, "checks": 1, "failed": ["gla"]}
        found = grid([make_record(mode=mode, verified=wrong) for mode in ("parallel", "recurrent")], "modes")
        assert rows(found)[0][3].text == "NO"

    def test_training_shows_the_parts_of_a_step_and_of_its_memory(self) -> None:
        record = recased(make_record("vig_t"), phase="train", batch=8)
        parts = {"parts_ms": {"forward": [10.0], "backward": [18.0], "update": [2.0]}, "batch": 8}
        memory = {**(record.memory or {}), "batch": 8, "gradients_bytes": 2**20, "optimizer_bytes": 2**21}
        step = replace(
            record,
            latency={**latency(steady(30)), **parts},
            memory=memory,
            throughput={**(record.throughput or {}), "batch": 8},
        )
        found = grid([step, make_record("vig_t")], "training")
        (row,) = rows(found)
        assert [cell.text for cell in row[3:7]] == ["30.00", "10.00", "18.00", "2.000"]
        assert [cell.text for cell in row[-2:]] == ["1.000", "2.000"]
        assert found.title.endswith("train, batch 8")
        assert column(grid([step, make_record("vig_t")], "resolution"), "224 px: latency (ms)")["vig_t"].text == "98.00"

    def test_batches_stand_side_by_side_in_order(self) -> None:
        def at(model: str, asked: Any, speed: float) -> Record:
            measured = {"batch": 16 if asked == "knee" else asked, "block_calls": 1, "images_per_s": speed}
            blocks = [1e3 * measured["batch"] / speed * (1 + share) for share in (-1e-3, 1e-3) * 4]
            return recased(replace(make_record(model), throughput={**measured, "blocks_ms": blocks}), batch=asked)

        vig = [at("vig_t", asked, speed) for asked, speed in ((64, 300), (8, 200), ("knee", 250))]
        found = grid([*vig, at("deit_t", 8, 100)], "batch")
        assert [c.group for c in found.columns[3:]] == ["batch 8", "batch 64", "batch of its own (knee)"]
        assert [cell.text for cell in rows(found)[1][3:]] == ["200.0", "300.0", "250.0"]
        assert [cell.bold for cell in rows(found)[1][3:]] == [True, False, False]
        assert rows(found)[0][4].text == ABSENT

    def test_scaling_and_crossovers_are_what_the_records_give(self, measured: tuple[pd.DataFrame, Made]) -> None:
        table, made = measured
        (growth,), (pairs,) = made["scaling"], made["crossovers"]
        fitted = scaling.exponents(table)
        assert [row[5].value for row in rows(growth)] == pytest.approx(fitted["exponent"].tolist())
        assert [row[7].text for row in rows(growth)] == fitted["verdict"].tolist()
        time = [row for row in rows(pairs) if row[0].text == "time a call"]
        expected = scaling.crossover(table, "vig_t parallel", "deit_t")
        assert time[0][3].value == pytest.approx(expected.px)
        assert f"{expected.reading}".endswith(time[0][4].text)
        assert {"vig_t recurrent", "vig_t parallel"} == {row[1].text for row in time}

    def test_what_stands_behind_a_fit_is_said(self, records: list[Record]) -> None:
        cold = {"calls": 10, "wall_s": 0.5, "converged": False, "reason": None}
        for kind in ("scaling", "crossovers"):
            remarks = grid([replace(records[0], warmup=cold), *records[1:]], kind).remarks
            assert f"1 of 9 cells are flagged {NOTES['unconverged']}" in remarks
            assert "oom: out of memory (deit_t parallel 1024)" in remarks

    def test_only_like_pairs_of_recurrence_and_attention_are_crossed(self) -> None:
        sides = (224, 512, 1024)
        many = [make_record(m, side) for m in ("vig_t", "vil_t", "deit_t", "deit_s", "vig_b") for side in sides]
        pairs = {frozenset((row[1].text.split()[0], row[2].text.split()[0])) for row in rows(grid(many, "crossovers"))}
        assert pairs == {frozenset(("vig_t", "deit_t")), frozenset(("vil_t", "deit_t"))}


Made = dict[str, list[Grid]]


def in_turns(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a ratio in turns of vig_t over deit_t: 0.5 (0.4–0.8), in 4 blocks, held by the row of deit_t."""
    table = table.copy()
    usual = (table["phase"] == "infer") & (table["batch_policy"] == "knee")
    for at, row in table[usual & (table["model"] == "deit_t")].iterrows():
        mine = table[usual & (table["model"] == "vig_t") & (table["height"] == row["height"])]
        found = {case_id: [2.0, 1.25, 2.5, 4, 1440] for case_id in mine["case_id"]}
        table.loc[at, "latency_paired"] = json.dumps(found)
    return table


@pytest.fixture(scope="module")
def hostile() -> Made:
    """Every kind of table, of records whose device, commit and reasons hold what the formats take for commands."""
    records = [make_record("vig_t", side, mode) for side in (224, 1024) for mode in ("parallel", "recurrent")]
    records += [make_record("deit_t", side) for side in (224, 1024)]
    host = {**HOST, "device_name": f"=GPU {HOSTILE}", "commit": HOSTILE}
    found = [*records, failed("oom", f"=1+1 {HOSTILE}", model="vil_t"), make_record("vil_t", 512)]
    found += [recased(make_record(m, 224), phase="train", batch=8) for m in ("vig_t", "deit_t")]
    found += [recased(make_record("vig_t", 224), batch=4)]
    made, lacking = paper_tables.make(in_turns(frame([replace(record, host=host) for record in found])))
    assert not lacking
    return made


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, Made]:
    """The frame of a sweep over the standard grid, too slow for many samples at 2048 px; and all that it gives."""
    found = [make_record("vig_t", side, mode) for side in GRID for mode in ("parallel", "recurrent")]
    found += [make_record("deit_t", side) for side in GRID]
    at_last = [replace(record, latency=latency([8000.0, 8100.0])) for record in found if record.case["height"] == 2048]
    table = frame([*(record for record in found if record.case["height"] < 2048), *at_last])
    return table, paper_tables.make(table)[0]


class TestPairs:
    """Cells that were measured in turns, once each, with the recurrent model above."""

    def table(self) -> pd.DataFrame:
        found = [make_record("vig_t", side, mode) for side in (224, 1024) for mode in ("parallel", "recurrent")]
        return in_turns(frame([*found, *(make_record("deit_t", side) for side in (224, 1024))]))

    def test_each_pair_is_a_row_with_its_interval(self) -> None:
        made, _ = paper_tables.make(self.table(), "pairs")
        lines = rows(made["pairs"][0])
        assert [[cell.text for cell in line[:3]] for line in lines] == [
            [side, f"vig_t {mode}", "deit_t parallel"] for side in ("224", "1024") for mode in ("parallel", "recurrent")
        ]
        assert {(line[3].value, line[3].lo, line[3].hi) for line in lines} == {(0.5, 0.4, 0.8)}
        assert {(line[4].value, line[5].value) for line in lines} == {(4, 1440)}
        head, first, *_ = csv.reader(StringIO(paper_tables.render(made, "csv")))
        assert dict(zip(head, first, strict=True))["ratio of times hi"] == "0.8"

    def test_an_interval_that_is_not_known_is_said(self) -> None:
        table = self.table()
        table["latency_paired"] = table["latency_paired"].str.replace("1.25, 2.5", "null, null")
        made, _ = paper_tables.make(table, "pairs")
        assert {line[3].extent for line in rows(made["pairs"][0])} == {"(not known)"}

    def test_a_cell_that_is_not_in_the_records_is_left_out(self) -> None:
        table = self.table()
        made, _ = paper_tables.make(table[~((table["model"] == "vig_t") & (table["height"] == 224))], "pairs")
        assert {line[0].text for line in rows(made["pairs"][0])} == {"1024"}

    def test_the_ratio_of_both_modes_is_the_one_in_turns(self) -> None:
        table = self.table()
        mine = (table["model"] == "vig_t") & (table["height"] == 224)
        name = table.loc[mine & (table["mode"] == "parallel"), "case_id"].item()
        table.loc[mine & (table["mode"] == "recurrent"), "latency_paired"] = json.dumps({name: [1.3, 1.2, 1.4, 4, 9]})
        made, _ = paper_tables.make(table, "modes")
        first, second = (line[6] for line in rows(made["modes"][0]))
        assert (first.value, first.lo, first.hi) == (1.3, 1.2, 1.4)
        assert second.value == 1.0

    def test_the_readme_shows_them_at_its_sizes(self) -> None:
        text = readme.headline(self.table())
        assert "| vig_t parallel / deit_t | 0.50× (0.40–0.80) | – | 0.50× (0.40–0.80) | – |" in text
        assert "0.50× the time (0.40–0.80, in turns" in text
        assert "|" not in readme.headline(self.table().drop(columns="latency_paired"))


class TestFormats:
    def test_no_text_breaks_latex(self, hostile: Made) -> None:
        for name, grids in hostile.items():
            for width in ROOMS:
                check_latex(paper_tables.render({name: grids}, "tex", width), max(len(each.columns) for each in grids))

    def test_latex_is_what_it_should_be(self, records: list[Record]) -> None:
        made, _ = paper_tables.make(frame(records), "resolution")
        lines = paper_tables.render(made, "tex").splitlines()
        assert r"\begin{tabular}{@{}llrrrrrrrrrr@{}}" in lines
        assert r"\cmidrule(lr){4-6} \cmidrule(lr){7-9} \cmidrule(lr){10-12}" in lines
        at = next(i for i, line in enumerate(lines) if line.startswith(r"vig\_t & parallel & 5.835 & 0.9800 & 98.00 &"))
        assert lines[at + 1].startswith(r" &  &  &  & {\vbenchsmall 96.04--99.96} &")
        assert r"\textsuperscript{a}\,OOM: out of memory." in lines

    def test_no_text_breaks_markdown(self, hostile: Made) -> None:
        text = paper_tables.render(hostile, "md")
        assert "<script" not in text
        assert "\u202e" not in text
        for name, grids in hostile.items():
            own = paper_tables.render({name: grids}, "md")
            lines = [re.sub(r"\\.", "", line) for line in own.splitlines() if line.startswith("|")]
            assert {line.count("|") for line in lines} == {len(each.columns) + 1 for each in grids}
            plain = re.sub(r"\\.", "", re.sub(r"</?sup>|\*\*[^*]*\*\*|\*[^*|]* M parameters\*", "", own))
            assert not set("`[]$~") & set(plain), name

    def test_csv_holds_the_figures_in_full(self, measured: tuple[pd.DataFrame, Made]) -> None:
        table, made = measured
        found = list(csv.DictReader(StringIO(paper_tables.render({"resolution": made["resolution"]}, "csv"))))
        cells = table[(table["model"] == "vig_t") & (table["mode"] == "parallel") & (table["height"] == 2048)].iloc[0]
        (row,) = [row for row in found if (row["model"], row["mode"]) == ("vig_t", "parallel")]
        assert float(row["2048 px: latency (ms)"]) == cells["latency_ms"]
        known = stated(rows_of(cells.to_frame().T)[0], "latency_ms")
        assert row["2048 px: latency (ms) lo"] == (str(cells["latency_ms_lo"]) if known else "not known")
        assert float(row["2048 px: GMACs"]) == cells["macs"] / 1e9
        assert "few_samples" in row["notes"]

    def test_csv_of_all_cells_has_numbers_that_a_machine_reads(self, measured: tuple[pd.DataFrame, Made]) -> None:
        found = list(csv.DictReader(StringIO(paper_tables.render({"full": measured[1]["full"]}, "csv"))))
        assert max(float(row["latency (ms)"]) for row in found) > 1000

    def test_csv_runs_no_formula_and_stays_one_line_a_row(self, hostile: Made) -> None:
        for name, grids in hostile.items():
            found = list(csv.reader(StringIO(paper_tables.render({name: grids}, "csv"))))
            assert {len(row) for row in found} == {len(found[0])}
            texts = [text for row in found for text in row]
            assert all(text[:1] not in "=+@" or not text for text in texts)
            assert not any("\n" in text for text in texts)

    def test_the_same_records_give_the_same_bytes(self, measured: tuple[pd.DataFrame, Made], tmp_path: Path) -> None:
        paper_tables.write(measured[1], paper_tables.FORMATS, tmp_path / "a")
        made, _ = paper_tables.make(measured[0].copy())
        files = paper_tables.write(made, paper_tables.FORMATS, tmp_path / "b")
        assert len(files) == 3 * len(made) == 18
        assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(path.name for path in files)
        for path in files:
            assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


LATEX = re.compile(r"\\(?:begin|end)\{[a-z*]+\}|\\[A-Za-z]+|\\[{}$&#_%\\]|\$\\?[A-Za-z-]+\$|.", re.DOTALL)
COMMANDS = {
    *("centering", "scriptsize", "setlength", "tabcolsep", "caption", "label", "toprule", "cmidrule", "midrule"),
    *("bottomrule", "multicolumn", "emph", "textbf", "textsuperscript", "smallskip", "raggedright", "par", "textwidth"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "textquotedbl"),
    *("textasciigrave", "dots", "fontsize", "selectfont", "columnwidth", "def", "vbenchsmall", "allowbreak"),
}


def check_latex(text: str, widest: int) -> None:
    """Braces and environments close, rows have as many cells as columns, and nothing special stands bare."""
    comment, text = text.split("\n", 1)
    assert comment.startswith("%")
    depth, open_ = 0, []
    for token in LATEX.findall(text):
        if token.startswith((r"\begin", r"\end")):
            name = token.partition("{")[2][:-1]
            if token.startswith(r"\begin"):
                open_.append(name)
            else:
                assert open_.pop() == name
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        elif len(token) == 1:
            assert token not in '#$%^_~`|<>"', token
            assert token.isascii() or token in "é", token
            assert token not in "&" or open_[-1] == "tabular"
        elif token[1:].isalpha():
            assert token[1:] in COMMANDS, token
    assert depth == 0
    assert not open_
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        spec, *lines = body.strip().splitlines()
        width = len(re.sub(r"@\{\}|[{}]", "", spec))
        assert width <= widest
        for line in lines:
            if not re.search(r"\\\\(\[1.5pt\])?$", line):
                assert re.fullmatch(r"\\(top|mid|bottom)rule|(\\cmidrule\(lr\)\{\d+-\d+\} ?)+", line), line
                continue
            assert not line.lstrip().startswith(("[", "*"))
            cells = re.split(r"(?<!\\)&", re.sub(r"\\\\(\[1.5pt\])?$", "", line))
            spans = [re.match(r"\s*\\multicolumn\{(\d+)\}", cell) for cell in cells]
            assert sum(int(span[1]) if span else 1 for span in spans) == width, line


class TestRequests:
    @pytest.mark.parametrize(
        ("what", "at", "says"),
        [
            ("resolutions", None, "'resolutions' is not one of all, resolution, full"),
            ("training", None, "the records lack training; vbench sweep --suite training measures it"),
            ("all", "300", "--at: the records have no 300 px; they have 224, 512, 1024"),
            ("all", "large", "--at: 'large' is not a size"),
        ],
    )
    def test_what_cannot_be_made_is_said_in_a_line(
        self, records: list[Record], what: str, at: str | None, says: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            paper_tables.make(frame(records), what, at)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_all_leaves_out_what_the_records_lack_and_says_so(self, records: list[Record]) -> None:
        made, lacking = paper_tables.make(frame(records[2:]))
        assert list(made) == ["resolution", "full", "modes", "work", "scaling", "crossovers"]
        assert lacking == [
            "no table 'batch': the records lack inference at several batches; vbench sweep --suite batch measures it",
            "no table 'training': the records lack training; vbench sweep --suite training measures it",
            "no table 'pairs': the records lack cells measured in turns; vbench sweep pairs recurrence with attention",
        ]

    def test_wrong_formats(self) -> None:
        with pytest.raises(UsageError, match="'pdf' is not one of md, tex, csv"):
            paper_tables.parse_formats("md,pdf")

    def test_a_file_where_the_folder_should_be(self, records: list[Record], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        made, _ = paper_tables.make(frame(records), "full")
        with pytest.raises(OutputError, match="cannot be written"):
            paper_tables.write(made, ["md"], tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"


class TestCommand:
    def test_its_help_names_every_kind(self) -> None:
        (option,) = [each for each in get_command(cli.app).commands["tables"].params if each.name == "what"]  # type: ignore[attr-defined]
        assert option.help == f"all, or some of {', '.join(paper_tables.KINDS)}."

    @pytest.fixture
    def run(self, records: list[Record], tmp_path: Path) -> Path:
        with Store(tmp_path / "run") as store:
            for record in records:
                store.append(record)
        return tmp_path / "run"

    def test_prints_one_format_or_writes_files(self, run: Path, tmp_path: Path) -> None:
        printed = CliRunner().invoke(cli.app, ["tables", str(run), "--what", "resolution", "--format", "tex"])
        assert printed.exit_code == 0
        assert printed.stdout.startswith("% made by vbench")
        done = CliRunner().invoke(cli.app, ["tables", str(run), "--what", "full,modes", "-o", str(tmp_path / "out")])
        assert done.exit_code == 0
        assert done.stdout == ""
        made = {path.name for path in (tmp_path / "out").iterdir()}
        assert made == {f"{name}.{form}" for name in ("full", "modes") for form in ("md", "tex", "csv")}
        assert (tmp_path / "out" / "full.tex").read_text().count("{table*}") == 2

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--format", "md,tex"], "only one format can be printed; name one of md, tex, or give -o FOLDER"),
            (["--format", "csv", "--what", "full,work"], "csv prints one table; name it by --what (full, work)"),
        ],
    )
    def test_refuses_what_cannot_be_printed(self, run: Path, options: list[str], says: str) -> None:
        done = CliRunner().invoke(cli.app, ["tables", str(run), *options])
        assert isinstance(done.exception, UsageError)
        assert says in str(done.exception)

    def test_imports_no_torch(self, run: Path) -> None:
        code = (
            "import sys; from vbench.commands.app import app\n"
            "app(['tables', sys.argv[1], '--what', 'resolution'], standalone_mode=False)\n"
            "sys.exit('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code, str(run)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("### Cost of an image")
