"""Figures that others published: the table, and what of our records is set beside them, on a GPU of test records."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from io import StringIO
from math import log
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fakes import HOST, make_record
from rich.console import Console
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.plan import DTYPES, Case
from vbench.reports import html, tables
from vbench.reports import witnesses as report
from vbench.reports.runs import Run, table_of
from vbench.results.beside import Beside, beside, grown, nearest, order
from vbench.results.frame import frame
from vbench.results.store import Record, Store
from vbench.results.witnesses import CARDS, card_of, growths, independent, witnesses

MIB = 2**20


def cell(
    model: str,
    side: int = 224,
    batch: int = 128,
    per_s: float = 1000.0,
    *,
    gpu: str = "NVIDIA A100-SXM4-80GB",
    settings: Any = None,
    memory: Any = None,
    **case: Any,
) -> Record:
    """A record of a GPU that takes `per_s` images a second."""
    base = make_record(model, side)
    assert base.memory is not None
    asked = Case(**{**base.case, "batch": batch, "device": "cuda:0", **case})
    return replace(
        base,
        case=asdict(asked),
        case_id=asked.id,
        host={**HOST, "device": "cuda", "device_name": gpu},
        settings={"tf32": False, "attention": asked.attention, **(settings or {})},
        throughput={"batch": batch, "images_per_s": per_s, "block_calls": 1, "blocks_ms": [batch * 1e3 / per_s] * 3},
        memory={**base.memory, **(memory or {})},
    )


def found(*records: Record) -> list[Beside]:
    return beside(frame(list(records)))


class TestTable:
    def test_all_rows_are_there_with_what_they_state(self) -> None:
        rows = independent()
        assert len(rows) == 777
        assert Counter(row.quantity for row in rows) == {
            "throughput_img_s": 622,
            "top1": 96,
            "flops_g": 48,
            "peak_memory_mib": 8,
            "latency_ms": 3,
        }
        assert all(row.value > 0 and row.source and row.printed for row in rows)
        assert {row.dtype for row in rows} <= {*DTYPES, "tf32", "amp", ""}
        assert {row.phase for row in rows} == {"infer", "train"}
        assert {row.layout for row in rows} == {"nchw", "nhwc", ""}
        assert {row.backend for row in rows} == {"eager", "compile", ""}

    def test_a_model_of_ours_has_our_name(self) -> None:
        names = {row.printed: row.model for row in independent()}
        assert names["vanilla_vmamba_t"] == "vmamba_v0_t"
        assert names["vmamba_s(s2l15)"] == "vmamba_s"
        assert names["xcit_s12_16"] == "timm/xcit_small_12_p16_224"
        assert names["mambavision_t"] == ""

    def test_three_sources_of_vim_on_one_card_are_a_factor_of_two_apart(self) -> None:
        """Which is why a single printed figure proves little."""
        speeds = {row.value for row in witnesses() if row.model == "vim_t" and row.device == "A100"}
        assert {3957.0, 2357.0, 1854.0} <= speeds

    def test_a_figure_in_both_tables_is_one_witness(self) -> None:
        at_128 = [row for row in witnesses() if (row.model, row.batch, row.value) == ("vmamba_t", 128, 1686.0)]
        assert [row.dtype for row in at_128] == ["float32", ""]  # README, and a figure that states no precision

    @pytest.mark.parametrize(
        ("name", "card"),
        [
            ("NVIDIA A100-SXM4-80GB", "A100"),
            ("NVIDIA A100-PCIE-40GB", "A100"),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
            ("NVIDIA H100 80GB HBM3", "H100 SXM"),
            ("NVIDIA H100 PCIe", None),
            ("NVIDIA GeForce RTX 3090", "RTX 3090"),
            ("NVIDIA GeForce RTX 3090 Ti", None),
            ("NVIDIA GeForce RTX 4090 D", None),
            ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Max-Q"),
            ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", None),
            ("12th Gen Intel(R) Core(TM) i7-12700H", "Core i7-12700H"),
            ("a test CPU", None),
        ],
    )
    def test_a_card_is_known_by_its_own_name(self, name: str, card: str | None) -> None:
        assert card_of(name) == card

    def test_every_card_has_witnesses(self) -> None:
        assert {row.device for row in witnesses()} <= set(CARDS)
        assert set(CARDS) - {"H100 SXM"} <= {row.device for row in witnesses()}


class TestGrowth:
    def test_the_exponents_of_table_9_are_computed_from_its_rows(self) -> None:
        rows = {(one.model, one.phase): one for one in growths()}
        wanted = {"deit_s": 1.16, "swin_t": 1.25, "vmamba_t": 0.93, "vmamba_v0_t": 1.01}
        assert {model: round(rows[model, "infer"].exponent, 2) for model in wanted} == wanted
        assert rows["vmamba_t", "train"].exponent == pytest.approx(0.84, abs=0.005)
        assert rows["deit_s", "infer"].sides == (224, 768)
        ends = {row.res: row.value for row in independent() if row.model == "deit_s" and row.dtype == "float32"}
        assert rows["deit_s", "infer"].exponent == pytest.approx(log(ends[224] / ends[768]) / log((768 / 224) ** 2))

    @staticmethod
    def curves(powers: dict[str, float]) -> list[Record]:
        """Throughputs that fall with the tokens by these powers."""
        return [
            cell(model, side, 32, 1e3 * (side / 224) ** (-2 * power))
            for model, power in powers.items()
            for side in (224, 384, 512, 768)
        ]

    def test_order_and_side_are_told_where_they_are_alike(self) -> None:
        (own,) = grown(frame(self.curves({"deit_s": 1.2, "swin_t": 1.3}))).values()
        assert {one.theirs.model: round(one.exponent, 2) for one in own} == {"deit_s": 1.2, "swin_t": 1.3}
        assert order(own) == "the same order, deit_s < swin_t; all on the same side of 1"

    def test_and_where_they_are_not(self) -> None:
        (own,) = grown(frame(self.curves({"deit_s": 1.2, "swin_t": 0.9}))).values()
        assert order(own) == "theirs deit_s < swin_t; ours swin_t < deit_s; swin_t on another side of 1"
        lines = report.found(frame(self.curves({"deit_s": 1.2, "swin_t": 0.9}))).lines
        assert any("deit_s 1.16 and 1.20" in line for line in lines)

    def test_one_model_alone_has_no_order(self) -> None:
        assert grown(frame(self.curves({"deit_s": 1.2}))) == {}
        assert grown(frame([])) == {}


class TestMatch:
    def test_the_same_card_batch_and_precision(self) -> None:
        (one,) = [one for one in found(cell("deit_s", 768, 32, 99.0)) if one.witness.quantity == "throughput_img_s"]
        assert one.witness.value == 90
        assert one.ratio == pytest.approx(1.1)
        assert "device: A100 against NVIDIA A100-SXM4-80GB" in one.differs
        assert set(one.unstated) == {"TF32", "layout", "back end"}
        assert one.witness.source.startswith("arXiv:2401.10166v4 Table 9")

    @pytest.mark.parametrize(
        "other",
        [
            {"batch": 64},
            {"side": 1024},
            {"gpu": "NVIDIA L4"},
            {"dtype": "bfloat16"},
            {"phase": "train"},
            {"reparam": "yes"},
        ],
    )
    def test_what_is_stated_otherwise_is_no_witness(self, other: dict[str, Any]) -> None:
        assert not found(cell("deit_s", **{"side": 768, "batch": 32, **other}))

    def test_a_failed_row_and_one_that_proves_nothing_are_left_out(self) -> None:
        assert not found(replace(cell("deit_s", 768, 32), status="oom", throughput=None))
        wrong = {"ok": False, "checks": 3, "failed": ["deit"]}
        assert not found(replace(cell("deit_s", 768, 32), verified=wrong))

    def test_what_differs_is_told(self) -> None:
        """Of a row of timm's on an RTX 4090: float16 under autocast, batch 1024, not compiled, NCHW."""
        gpu = "NVIDIA GeForce RTX 4090"
        way: dict[str, Any] = {"dtype": "bfloat16", "backend": "compile", "layout": "nhwc"}
        ours = found(cell("timm/convnext_tiny", 288, 1024, 2000.0, gpu=gpu, **way))
        assert ours
        told = next(one for one in ours if one.witness.torch == "2.4").differs
        for words in (
            "precision: amp-fp16 against bfloat16",
            "layout: nchw against nhwc",
            "back end: eager against compile",
            "torch: 2.4 against 2.11",
        ):
            assert words in told

    def test_the_row_with_the_fewest_differences_is_taken(self) -> None:
        rows = [cell("deit_s", 768, 32, 50.0, layout="nhwc", attention="unfused"), cell("deit_s", 768, 32, 95.0)]
        (one,) = [one for one in found(*rows) if one.witness.quantity == "throughput_img_s"]
        assert one.ours == 95
        (one,) = [one for one in found(rows[0]) if one.witness.quantity == "throughput_img_s"]
        assert "attention: not stated against unfused" in one.differs

    def test_a_precision_that_is_not_stated_takes_a_row_of_each_of_ours(self) -> None:
        both = found(cell("deit_b", per_s=900.0), cell("deit_b", per_s=2000.0, dtype="bfloat16"))
        of_mambavision = [one for one in both if "2407.08083" in one.witness.source]
        assert {one.dtype for one in of_mambavision} == {"float32", "bfloat16"}
        assert all("precision" in one.unstated for one in of_mambavision)

    def test_training_says_what_a_step_is(self) -> None:
        ours = found(cell("deit_s", 768, 32, 100.0, dtype="amp-bf16", phase="train"))
        assert [one.witness.value for one in ours] == [156]
        assert "training: forward and backward against these and AdamW's update" in ours[0].differs
        assert "the type of mixed precision is not stated" in ours[0].conditions

    def test_memory_of_a_batch_is_computed_from_batch_1_and_says_so(self) -> None:
        memory = {"peak_bytes": 70 * MIB, "weights_bytes": 60 * MIB}
        (one,) = [one for one in found(cell("swin_t", memory=memory)) if one.witness.quantity == "peak_memory_mib"]
        assert one.ours == 60 + 128 * 10
        assert any("computed from batch 1, weights once and the rest 128 times" in text for text in one.differs)


class TestReport:
    RUN = (cell("deit_s", 768, 32, 99.0), cell("swin_t", 224, 32, 1100.0))

    def shown(self, *records: Record, asked: bool = False) -> str:
        text = StringIO()
        report.show(frame(list(records)), Console(file=text, width=300), asked=asked)
        return text.getvalue()

    def test_a_match_is_printed_and_on_the_page(self) -> None:
        assert "deit_s 768 32 infer float32 images/s 99.0 90.0 1.10× [1]" in " ".join(self.shown(*self.RUN).split())
        run = Run("a100", list(self.RUN))
        page = html.page([run], table_of([run]), [])
        assert '<section id="witnesses"' in page
        assert "<td>90.0</td><td>1.10×</td>" in page

    def test_the_command_writes_it_too(self, tmp_path: Path) -> None:
        with Store(tmp_path) as store:
            for record in self.RUN:
                store.append(record)
        done = vbench("report", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "Beside figures that others published" in done.stdout
        text = (tmp_path / "table.md").read_text(encoding="utf-8")
        assert "### Beside figures that others published" in text
        assert "| deit_s | 768 | 32 | infer | float32 | images/s | 99.0 | 90.0 | 1.10× | \\[1\\] |" in text
        assert "not stated: TF32, layout, back end" in text

    def test_without_a_match_there_is_nothing_or_one_line_if_asked(self) -> None:
        mine = make_record("deit_s")
        assert self.shown(mine) == ""
        assert report.to_markdown(frame([mine])) == ""
        assert tables.to_markdown(frame([mine])) + report.to_markdown(frame([mine])) == tables.to_markdown(
            frame([mine])
        )
        run = Run("cpu", [mine])
        page = html.page([run], table_of([run]), [], witnesses=True)
        assert "other devices" in page[page.index('<section id="witnesses"') :]
        asked = self.shown(mine, asked=True)
        assert asked.count("\n") == 1
        assert "are of other devices (A100, " in asked

    @pytest.mark.parametrize(
        ("record", "says"),
        [
            (make_record("vir_s"), "nobody has published a cost of these models on a device that we know by name"),
            (cell("deit_s", 224, 64), "figures of these models on this device are at 224, 288, 384, 512, 640, 768 px"),
        ],
    )
    def test_the_line_says_what_is_missing(self, record: Record, says: str) -> None:
        assert says in nearest(frame([record]))

    def test_the_command_asks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vbench.reports.write.write_all", lambda *_: [])  # the figures take their time
        with Store(tmp_path) as store:
            store.append(make_record("deit_s"))
        plain, asked = (CliRunner().invoke(app, ["report", str(tmp_path), *more]) for more in ([], ["--witnesses"]))
        assert plain.exit_code == asked.exit_code == 0, asked.output
        assert "others published" not in plain.output
        assert "Figures that others published of the same device, size, batch and precision: none: " in asked.output
