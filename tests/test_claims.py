"""What papers claim, and which of it holds: the table, the papers' own counts, every verdict, what is printed."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from command import vbench
from fakes import HOST, make_record
from rich.console import Console

from vbench.errors import SchemaError, UsageError
from vbench.kernels import default_form
from vbench.models import MODELS, spec
from vbench.models.closed_forms import closed_form
from vbench.plan import USUAL, Case, union
from vbench.plan import parse as parse_axes
from vbench.reports import claims as report
from vbench.results import claim_equivalence, operators
from vbench.results.claim_judgement import (
    FAILS,
    HOLDS,
    OPEN,
    UNFUSED,
    UNKNOWN,
    VERDICTS,
    Bound,
    Judgement,
    OurValue,
    bound_of,
)
from vbench.results.claim_verdicts import judge, linear
from vbench.results.claims import Claim, claims, parse
from vbench.results.countings import published_macs
from vbench.results.frame import frame
from vbench.results.store import Record, read
from vbench.suites.load import load

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED, RECORDS = ROOT / "results" / "published", ROOT / "results" / "cpu"
TABLE = {claim.id: claim for claim in claims()}
GPU = {**HOST, "device": "cuda", "device_name": "a test GPU"}


def cell(
    model: str,
    side: int,
    per_s: float = 10.0,
    mib: float = 100.0,
    *,
    attention: str = "fused",
    dtype: Any = "bfloat16",
    device: str = "cuda:0",
    spread: float = 1e-6,
    batch: Any = "knee",
    found: int = 4,
    phase: Any = "infer",
    **changes: Any,
) -> Record:
    """A cell of a GPU that takes `per_s` images a second, ± `spread` of it, and `mib` beside 10 MiB of weights.

    `batch` is what was asked for; a policy has `found` the batch.
    """
    op = spec(model).operator
    form = default_form(op, "parallel", device) if op else None
    case = Case(model, side, side, "parallel", form, batch, dtype, device, phase, attention=None if op else attention)  # type: ignore[arg-type]
    base = make_record(model, side)
    at = found if isinstance(batch, str) else batch
    ms = [at * 1e3 / per_s / (1 + share * spread) for share in (-1, -0.5, 0, 0.5, 1) * 4]
    values: dict[str, Any] = {
        "case": asdict(case),
        "case_id": case.id,
        "host": GPU if device.startswith("cuda") else HOST,
        "throughput": {"batch": at, "images_per_s": per_s, "block_calls": 1, "blocks_ms": ms},
        "memory": {
            **(base.memory or {}),
            "peak_bytes": int((mib + 10) * 2**20),
            "weights_bytes": 10 * 2**20,
            "activation_bytes": int(mib * 2**20) - 12 * side * side,
        },
    }
    return replace(base, **{**values, **changes})


def ruled(name: str, records: Iterable[Record]) -> Judgement:
    found = list(records)
    one = judge(TABLE[name], frame(found))
    assert one.verdict in VERDICTS
    assert one.reason
    assert "\n" not in one.reason
    assert set(one.case_ids) <= {record.case_id for record in found}
    return one


class TestTable:
    def test_every_paper_is_there_and_both_sides_of_vigs_disagreement(self) -> None:
        assert {claim.paper for claim in TABLE.values()} == {
            *("ViG", "Vision-RWKV", "Vision-LSTM", "ViR", "VisionGRU", "Vim", "VMamba", "MLLA"),
        }
        assert TABLE["vig-abstract-speed"].ratio == 4.8
        assert TABLE["vig-figure-speed-1024"].ratio == 4.0
        assert TABLE["vig-abstract-memory"].ratio == pytest.approx(10)
        assert TABLE["vig-figure-memory-1024"].ratio == 6.7
        assert TABLE["vig-small-macs"].ratio == pytest.approx(5)
        assert TABLE["vision-gru-macs"].ratio == pytest.approx(2.85, abs=0.01)
        assert TABLE["vmamba-speed-768"].ratio == pytest.approx(1.66, abs=0.01)  # images/s: ours over theirs
        assert TABLE["vmamba-train-768"].ratio == pytest.approx(0.34, abs=0.01)
        assert TABLE["mlla-speed-t"].ratio == pytest.approx(1.46 / 1.23)  # ms: theirs over ours

    @pytest.mark.parametrize("claim", [one for one in TABLE.values() if one.value is not None], ids=lambda one: one.id)
    def test_every_number_stands_in_the_published_tables(self, claim: Claim) -> None:
        """As a row of this model and size, or in the words of where it was found."""
        rows = [
            row
            for name in ("efficiency.csv", "accuracy.csv", "independent_efficiency.csv")
            for row in csv.DictReader((PUBLISHED / name).read_text(encoding="utf-8").splitlines())
            if row["model"] in (claim.subject, claim.baseline) and row["source"].startswith(claim.source)
            if (row.get("phase") or row.get("mode") or "infer") == claim.phase
        ]
        of_size = [row for row in rows if str(claim.res) in (row.get("res"), row.get("eval_res"))]
        for value in filter(None, (claim.value, claim.baseline_value)):
            printed = [row.get("value") or row.get("top1") for row in of_size]
            worded = any(f"{value:g}%" in row.get("locator", "") for row in of_size)
            tops = [float(row["top1"]) for row in of_size if row.get("top1")]
            gain = any(abs(a - b - value) < 0.05 for a in tops for b in tops)
            assert worded or gain or any(text and float(text) == value for text in printed), (value, printed)

    def test_every_printed_ratio_of_the_published_table_is_claimed(self) -> None:
        """So that a claim cannot be left out in silence."""
        rows = csv.DictReader((PUBLISHED / "efficiency.csv").read_text(encoding="utf-8").splitlines())
        printed = {
            (row["model"], int(row["res"]), float(row["value"]))
            for row in rows
            if row["metric"].startswith(("ratio_", "speedup_", "memory_saved"))
        }
        claimed = {(claim.subject, claim.res, claim.value) for claim in TABLE.values()}
        assert len(printed) > 10
        assert printed <= claimed

    GOOD = (
        '[[claim]]\nid = "a"\npaper = "P"\nsource = "s"\nlocator = "l"\nsays = "w"\nseen = "figure"\n'
        'quantity = "macs"\nsubject = "vig_t"\nbaseline = "deit_t"\nres = 512\nprinted = "2x"\nvalue = 2\n'
        'unit = "x"\ndirection = "less"\nstated = []\nmissing = []\n'
    )

    def test_a_good_row(self) -> None:
        assert parse(self.GOOD, "f")[0].ratio == 2

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ('paper = "P"', 'papr = "P"', "f: claim a: unknown or missing keys: papr, paper"),
            ('quantity = "macs"', 'quantity = "flops"', "quantity is 'flops'; it must be macs, params, memory"),
            ("res = 512", 'res = "512"', "res is '512'; it must be a positive whole number"),
            ("res = 512", "res = true", "res is True"),
            ("value = 2", "value = -2", "value is -2; it must be a positive number"),
            ("value = 2\n", "", "a claim in 'x' needs value"),
            ('unit = "x"', 'unit = "none"', "a claim in 'none' has no value"),
            ('unit = "x"', 'unit = "G"', "needs baseline_value"),
            ('value = 2\nunit = "x"', 'value = 100\nunit = "% saved"', "less than 100 % can be saved"),
            ("stated = []", "stated = [1]", "it must be a list of texts"),
            ('says = "w"', 'says = ""', "says is ''; it must be text"),
            ('direction = "less"', 'direction = "less"\ncounting = "half"', "it must be full, vig"),
            ("[[claim]]", "[[claims]]", "must have only [[claim]] tables; it has claims"),
            ("[[claim]]", "[[claim", "f is not TOML"),
        ],
    )
    def test_a_bad_row_is_one_line(self, old: str, new: str, says: str) -> None:
        assert old in self.GOOD
        with pytest.raises(UsageError, match=re.escape(says)) as caught:
            parse(self.GOOD.replace(old, new), "f")
        assert "\n" not in str(caught.value)

    def test_an_id_occurs_once(self) -> None:
        with pytest.raises(UsageError, match="ids occur twice: a"):
            parse(self.GOOD * 2, "f")


def printed_macs() -> list[Any]:
    """(counting, model, side, printed G) of the figures and tables that the papers' own counts should give."""
    papers = {"2405.18425": "vig", "2412.18178": "vision_gru", "2406.04303 ": "vil"}
    whose = {
        "vig": ("vig_t", "deit_t"),
        "vision_gru": ("vision_gru_t", "deit_s"),
        "vil": ("vil2_t", "vil2_s", "vil2_b"),
    }
    found = []
    for row in csv.DictReader((PUBLISHED / "efficiency.csv").read_text(encoding="utf-8").splitlines()):
        counting = next((name for paper, name in papers.items() if paper in row["source"]), None)
        if row["metric"] == "flops_g" and counting and row["model"] in whose[counting] and row["res"] != "1640":
            side = int(row["res"]) // 16 * 16 if row["model"].startswith("deit") else int(row["res"])
            found.append(pytest.param(counting, row["model"], side, float(row["value"]), id=f"{row['model']}-{side}"))
    return found


class TestCountings:
    @pytest.mark.parametrize(("counting", "model", "side", "printed"), printed_macs())
    def test_the_papers_own_counts_give_what_they_print_within_1_percent(
        self, counting: str, model: str, side: int, printed: float
    ) -> None:
        assert published_macs(counting, model, side) / 1e9 == pytest.approx(printed, rel=0.01)

    def test_there_is_much_to_hold_them_to(self) -> None:
        assert len(printed_macs()) >= 25

    def test_a_full_count_does_not(self) -> None:
        """What is left out is what tells the counts apart."""
        full = closed_form("vig_t", 1024, 1024)
        assert full is not None
        assert published_macs("full", "vig_t", 1024) == full
        assert full / 19.0e9 > 1.25
        assert (closed_form("deit_s", 512, 512) or 0) / 24.6e9 > 1.25

    def test_the_headline_5_2_becomes_4_1_and_the_grus_2_85_becomes_3_1(self) -> None:
        vig, gru = judge(TABLE["vig-abstract-macs"], frame([])), judge(TABLE["vision-gru-macs"], frame([]))
        assert vig.verdict == FAILS
        assert vig.stated is not None
        assert vig.fair is not None
        assert vig.stated.value == pytest.approx(5.2, rel=0.02)
        assert vig.fair.value == pytest.approx(4.1, abs=0.05)
        assert gru.verdict == HOLDS
        assert gru.stated is not None
        assert gru.fair is not None
        assert gru.stated.value == pytest.approx(432.3 / 151.9, rel=0.01)
        assert gru.fair.value == pytest.approx(3.1, abs=0.05)


def vig_against_deit(side: int, ours: float, fused: float | None, unfused: float | None, **about: Any) -> list[Record]:
    found = [cell("vig_t", side, ours, **about)]
    found += [cell("deit_t", side, fused, **about)] if fused else []
    return found + ([cell("deit_t", side, unfused, attention="unfused", **about)] if unfused else [])


class TestVerdicts:
    """Of 'ViG-T is 4.0x faster than DeiT-T at 1024 px' unless said otherwise."""

    @pytest.mark.parametrize(
        ("ours", "fused", "unfused", "verdict"),
        [
            (40.0, 10.0, 10.0, HOLDS),
            (90.0, 10.0, 9.0, HOLDS),
            (38.1, 10.0, None, HOLDS),  # two printed digits leave 5 % open
            (37.9, 10.0, 10.0, FAILS),
            (38.0, 20.0, 9.0, UNFUSED),
            (20.0, 20.0, 10.0, FAILS),
            (20.0, 20.0, None, UNKNOWN),
            (90.0, None, 10.0, UNKNOWN),
        ],
    )
    def test_each_is_reached(self, ours: float, fused: float, unfused: float, verdict: str) -> None:
        one = ruled("vig-figure-speed-1024", vig_against_deit(1024, ours, fused, unfused))
        assert one.verdict == verdict
        assert "a test GPU, bfloat16" in one.reason
        assert len(one.case_ids) == 1 + bool(fused) + bool(unfused)

    @pytest.mark.parametrize("ours", [1.0, 10.0, 30.0, 100.0])
    def test_fused_attention_alone_never_proves_what_needs_unfused(self, ours: float) -> None:
        one = ruled("vig-figure-speed-1024", vig_against_deit(1024, ours, 10.0, None))
        assert one.verdict in (HOLDS, UNKNOWN)
        assert "unfused" in one.reason

    def test_an_interval_that_lies_on_both_sides_leaves_it_open(self) -> None:
        for spread in (0.05, 0.6):
            one = ruled("vig-figure-speed-1024", vig_against_deit(1024, 36.0, 10.0, 10.0, spread=spread))
            assert one.verdict == OPEN, one.reason
            assert one.fair is not None
            assert one.fair.lo is not None
            assert one.fair.hi is not None
            assert one.fair.lo < 3.8 < one.fair.hi
            assert one.label == f"open: {one.fair} against 4×"
            assert one.label.removeprefix("open: ") in one.reason

    @pytest.mark.parametrize(
        ("ours", "reached"),
        [
            (OurValue(3.3, 2.6, 4.2, ""), None),
            (OurValue(4.5, 3.8, 5.5, ""), True),  # 4 less the 5 % that its digits leave open
            (OurValue(4.5, 3.79, 5.5, ""), None),
            (OurValue(3.2, 2.6, 3.79, ""), False),
            (OurValue(9.0, None, None, ""), None),
            (OurValue(1.0, None, None, ""), None),
            (OurValue(3.8, None, None, "", exact=True), True),
            (OurValue(3.7, None, None, "", exact=True), False),
        ],
    )
    def test_a_value_reaches_a_bound_by_its_low_end_and_misses_it_by_its_high_end(
        self, ours: OurValue, reached: bool | None
    ) -> None:
        bound = bound_of(TABLE["vig-figure-speed-1024"])
        assert bound == Bound(3.8, "4×")
        assert bound.reached(ours) is reached

    def test_a_verdict_against_unfused_attention_needs_both_intervals(self) -> None:
        """The low end against unfused attention, the high end against fused."""
        verdicts = []
        for fused, unfused in ((20.0, 7.0), (20.0, 9.6), (11.0, 5.0)):
            records = vig_against_deit(1024, 38.0, fused, unfused, spread=0.15)
            verdicts.append(ruled("vig-figure-speed-1024", records))
        assert [one.verdict for one in verdicts] == [UNFUSED, OPEN, OPEN]
        assert "unfused attention lies on both sides" in verdicts[1].reason
        assert "to fused attention lies on both sides" in verdicts[2].reason

    def test_a_measured_value_without_an_interval_decides_nothing(self) -> None:
        few = {"batch": 4, "images_per_s": 90.0, "block_calls": 1, "blocks_ms": [44.0]}
        latency = make_record().latency
        assert latency is not None
        once = {**latency, "samples_ms": latency["samples_ms"][:1]}
        records = [
            cell("vig_t", 1024, 90.0, throughput=few, latency=once),
            *vig_against_deit(1024, 1.0, 10.0, 10.0)[1:],
        ]
        one = ruled("vig-figure-speed-1024", records)
        assert one.verdict == OPEN
        assert "the interval of the ratio to fused attention is not known: 9.00× (interval not known)" in one.reason

    def test_a_cpu_judges_no_claim_of_a_gpu_but_shows_its_ratio(self) -> None:
        one = ruled("vig-figure-speed-1024", vig_against_deit(1024, 50.0, 10.0, 10.0, device="cpu", dtype="float32"))
        assert one.verdict == UNKNOWN
        assert one.reason.startswith("needs a GPU; on this CPU (a test CPU, float32): 5.00×")
        assert len(one.case_ids) == 3

    def test_half_precision_comes_first_and_the_rest_is_told(self) -> None:
        half, single = vig_against_deit(1024, 20, 10, 4), vig_against_deit(1024, 50, 10, 10, dtype="float32")
        one = ruled("vig-figure-speed-1024", [*single, *half])
        assert one.verdict == UNFUSED
        assert one.reason.endswith("Elsewhere: a test GPU, float32: holds (5.00× (5.00–5.00) fair)")
        assert set(one.case_ids) == {record.case_id for record in half}

    def test_rows_of_two_settings_are_never_set_against_each_other(self) -> None:
        mixed = [cell("vig_t", 1024, 90.0), cell("deit_t", 1024, 10.0, dtype="float32")]
        assert ruled("vig-figure-speed-1024", mixed).verdict == UNKNOWN

    def test_memory_is_taken_at_the_inferred_batch(self) -> None:
        """At batch 1 the weights, 10 MiB each, hide the ratio: (10 + 75) / (10 + 10) = 4; at 32 it is 7.3."""
        found = [cell("vig_t", 1024, mib=10), cell("deit_t", 1024, mib=10)]
        found.append(cell("deit_t", 1024, mib=75, attention="unfused"))
        one = ruled("vig-figure-memory-1024", found)
        assert one.verdict == UNFUSED
        assert one.stated is not None
        assert one.stated.value == pytest.approx((10 + 32 * 75) / (10 + 32 * 10))
        assert one.stated.lo == pytest.approx(0.9 * one.stated.value)
        assert "batch 32, computed from batch 1 (weights once; ±10%)" in one.reason
        assert ruled("vig-abstract-memory", found).verdict == FAILS  # ten times less, the abstract says

    def test_without_a_batch_memory_is_that_of_batch_1(self) -> None:
        found = [
            cell("vrwkv_t", 2048, mib=10),
            *(cell("deit_t", 2048, mib=90, attention=a) for a in ("fused", "unfused")),
        ]
        one = ruled("vrwkv-memory", found)
        assert one.fair is not None
        assert one.fair.value == pytest.approx(5.0)
        assert one.fair.exact  # the allocator counts bytes
        assert str(one.fair) == "5.00×"
        assert one.verdict == HOLDS

    def test_a_cpus_peak_is_not_exact(self) -> None:
        found = [cell(model, 2048, device="cpu", dtype="float32") for model in ("vrwkv_t", "deit_t")]
        one = ruled("vrwkv-memory", found)
        assert "1.00× (interval not known) against fused attention" in one.reason

    def test_a_baseline_that_ran_out_of_memory_is_named(self) -> None:
        gone = cell("deit_t", 1024, attention="unfused", status="oom", reason="out of\x1b[31m memory\n", memory=None)
        one = ruled("vig-figure-memory-1024", [cell("vig_t", 1024), cell("deit_t", 1024), gone])
        assert one.verdict == UNKNOWN
        assert "deit_t with unfused attention at 1024 px: oom: out of" in one.reason
        assert "\x1b" not in one.reason

    def test_a_model_whose_modes_differ_proves_nothing(self) -> None:
        records = vig_against_deit(1024, 90.0, 10.0, 10.0)
        wrong = replace(records[0], verified={"ok": False, "checks": 1, "failed": ["gla"]})
        one = ruled("vig-figure-speed-1024", [wrong, *records[1:]])
        assert one.verdict == UNKNOWN
        assert "not one function" in one.reason

    def test_linear_growth_needs_the_whole_interval(self) -> None:
        found = [
            linear(OurValue(1.0, *bounds, ""), local).verdict
            for *bounds, local in ((0.9, 1.05, 1), (0.9, 1.2, 1), (1.1, 1.2, 1), (0.9, 1.05, 1.4), (None, None, 1))
        ]
        assert found == [HOLDS, OPEN, FAILS, FAILS, OPEN]

    @pytest.mark.parametrize(("power", "verdict"), [(1.0, HOLDS), (0.8, HOLDS), (2.0, FAILS)])
    def test_linear_memory(self, power: float, verdict: str) -> None:
        sides = (224, 512, 1024, 2048)
        one = ruled("vil-linear-memory", [cell("vil2_t", side, mib=(side / 16) ** (2 * power)) for side in sides])
        assert one.verdict == verdict
        assert one.fair is not None
        assert one.fair.value == pytest.approx(power, abs=0.1)
        assert len(one.case_ids) == 4

    def test_linear_memory_needs_three_sizes(self) -> None:
        assert ruled("vil-linear-memory", [cell("vil2_t", side) for side in (224, 512)]).verdict == UNKNOWN

    def test_linear_compute_is_the_algorithms_and_not_the_papers_count(self) -> None:
        one = judge(TABLE["vil-linear-compute"], frame([]))
        assert one.verdict == HOLDS
        assert one.stated is not None
        assert one.fair is not None
        assert one.fair.value == pytest.approx(1.0, abs=0.01)
        assert one.stated.value > 1.5

    @pytest.mark.parametrize(("at_2048", "verdict"), [(90.0, HOLDS), (5.0, FAILS)])
    def test_an_advantage_that_grows(self, at_2048: float, verdict: str) -> None:
        found = [cell("vir_s", 224, 10.0), cell("vir_s", 2048, at_2048)]
        found += [cell("deit_s", side, 10.0, attention=a) for side in (224, 2048) for a in ("fused", "unfused")]
        one = ruled("vir-speed", found)
        assert one.verdict == verdict
        assert f"an advantage of 1.00× (1.00–1.00) at 224 px and {at_2048 / 10:#.3g}×" in one.reason
        assert len(one.case_ids) == 6

    def test_no_growth_is_no_proof_of_growth(self) -> None:
        found = [cell(model, side, 10.0, spread=0.1) for model in ("vir_s", "deit_s") for side in (224, 2048)]
        one = ruled("vir-speed", found)
        assert one.verdict == OPEN
        assert "against growth, above 1×" in one.label

    @pytest.mark.parametrize(("ours", "verdict"), [(12.0, HOLDS), (10.1, OPEN), (8.0, FAILS)])
    def test_any_advantage_is_an_interval_above_1(self, ours: float, verdict: str) -> None:
        found = [cell("vrwkv_t", 512, ours, spread=0.1)]
        found += [cell("deit_t", 512, 10.0, spread=0.1, attention=a) for a in ("fused", "unfused")]
        assert ruled("vrwkv-dense-speed", found).verdict == verdict

    def test_what_has_no_model_is_listed(self) -> None:
        one = judge(replace(TABLE["vim-speed"], subject="vim_h"), frame([]))
        assert (one.verdict, one.reason) == (UNKNOWN, "no such model: vim_h is not in the zoo")

    def test_what_a_saving_implies_of_the_baseline_is_computed(self) -> None:
        assert "the 11.14 GB that its figure prints of vim_t, this implies 84.4 GB of deit_t" in report.implied(
            TABLE["vim-memory"]
        )
        assert not report.implied(TABLE["vrwkv-memory"])  # no figure of its memory is stored
        assert not report.implied(TABLE["vim-speed"])

    @pytest.mark.parametrize(("ours", "verdict"), [(12.0, HOLDS), (9.0, FAILS)])
    def test_a_baseline_without_attention_has_one_value(self, ours: float, verdict: str) -> None:
        """Of '1.23 against 1.46 ms': both models have an operator of ours, so nothing can be fused or not."""
        claim = replace(TABLE["mlla-speed-t"], subject="vig_t", baseline="vrwkv_t")
        records = [cell("vig_t", 224, ours, batch=8), cell("vrwkv_t", 224, 10.0, batch=8)]
        one = judge(claim, frame(records))
        assert one.verdict == verdict
        assert one.fair == one.stated
        assert "attention" not in one.reason

    @pytest.mark.parametrize(("ours", "verdict"), [(0.4, HOLDS), (0.3, FAILS)])
    def test_training_is_judged_by_records_of_training_alone(self, ours: float, verdict: str) -> None:
        claim = replace(TABLE["vmamba-train-768"], subject="vig_t")
        way: dict[str, Any] = {"dtype": "amp-bf16", "phase": "train", "batch": 32}
        theirs = [cell("deit_s", 768, 1.0, attention=a, **way) for a in ("fused", "unfused")]
        assert judge(claim, frame([cell("vig_t", 768, ours, **way), *theirs])).verdict == verdict
        inference = [cell("vig_t", 768, ours, batch=32), cell("deit_s", 768, 1.0, batch=32)]
        one = judge(claim, frame(inference))
        assert (one.verdict, "records of training of both at 768 px" in one.reason) == (UNKNOWN, True)
        assert judge(TABLE["vmamba-speed-768"], frame(theirs)).verdict == UNKNOWN

    def test_an_accuracy_is_not_judged_and_what_is_printed_is_told(self) -> None:
        one = ruled("vig-small-accuracy", [])
        assert one.verdict == UNKNOWN
        assert "printed at 224 px: 81.7 % of vig_s (" in one.reason

    @pytest.mark.parametrize("name", ["vig-linear-compute", "vision-gru-linear-compute", "vil-linear-compute"])
    def test_linear_compute_is_counted(self, name: str) -> None:
        one = ruled(name, [])
        assert one.verdict == HOLDS
        assert one.fair is not None
        assert one.fair.exact
        assert one.fair.hi is not None
        assert one.fair.hi <= 1.06

    def test_lower_flops_are_counted(self) -> None:
        one = ruled("vrwkv-dense-macs", [])
        assert one.verdict == HOLDS
        assert "any advantage, above 1× is claimed" in one.reason

    def test_recorded_macs_are_preferred_and_name_their_records(self) -> None:
        found = [make_record(model, 1024) for model in ("vig_t", "deit_t")]
        one = ruled("vig-abstract-macs", found)
        assert one.fair is not None
        assert one.fair.value == 1.0  # what the fakes say
        assert set(one.case_ids) == {record.case_id for record in found}


class TestBatches:
    """Of 'ViG-T is 4.0x faster than DeiT-T at 1024 px': one batch for both, or none."""

    def at(self, batch: Any, ours: float, theirs: float, found: tuple[int, int] = (4, 4), **about: Any) -> list[Record]:
        fast = cell("vig_t", 1024, ours, batch=batch, found=found[0], **about)
        both = [cell("deit_t", 1024, theirs, batch=batch, found=found[1], attention=a) for a in ("fused", "unfused")]
        return [fast, *both]

    def test_two_knees_of_different_size_give_the_times_of_a_call_at_batch_1(self) -> None:
        one = ruled("vig-figure-speed-1024", self.at("knee", 90.0, 10.0, found=(16, 4)))
        assert one.fair is not None
        assert one.fair.value == pytest.approx((1024 / 16) ** 3 / 50 / ((1024 / 16) ** 2 / 2), rel=0.05)
        assert "time a call at batch 1 (images/s at batch 16 and 4 are not compared: give --batch 1,8,32)" in one.reason

    def test_two_knees_without_a_time_at_batch_1_give_nothing(self) -> None:
        records = [replace(record, latency=None) for record in self.at("knee", 90.0, 10.0, found=(16, 4))]
        one = ruled("vig-figure-speed-1024", records)
        assert one.verdict == UNKNOWN
        assert "images/s at batch 16 and 4 are not compared: give --batch 1,8,32" in one.reason
        assert one.fair is one.stated is None

    def test_the_largest_batch_that_both_have_counts(self) -> None:
        records = [*self.at(1, 90.0, 10.0), *self.at(32, 20.0, 10.0), *self.at(8, 60.0, 10.0)]
        one = ruled("vig-figure-speed-1024", records)
        assert one.verdict == FAILS
        assert "images/s at batch 32" in one.reason
        assert set(one.case_ids) == {record.case_id for record in records[3:6]}

    def test_a_batch_that_one_lacks_is_left_out(self) -> None:
        gone = [replace(one, status="oom", reason="too large", throughput=None) for one in self.at(32, 1.0, 1.0)[1:]]
        one = ruled("vig-figure-speed-1024", [*self.at(32, 90.0, 9.0)[:1], *gone, *self.at(8, 60.0, 10.0)])
        assert one.verdict == HOLDS
        assert "6.00× (6.00–6.00) against fused attention, images/s at batch 8" in one.reason

    def test_a_stated_batch_comes_first(self) -> None:
        claim = replace(TABLE["vig-figure-speed-1024"], batch=8)
        table = frame([*self.at(8, 60.0, 10.0), *self.at(32, 20.0, 10.0)])
        one = judge(claim, table)
        assert one.verdict == HOLDS
        assert "images/s at batch 8" in one.reason

    def test_the_largest_that_fit_may_differ(self) -> None:
        one = ruled("vig-figure-speed-1024", self.at("max", 60.0, 10.0, found=(64, 16)))
        assert one.verdict == HOLDS
        assert "images/s at batch 64 and 16, the largest that fit" in one.reason

    def test_batches_that_no_pair_shares_are_named(self) -> None:
        one = ruled("vig-figure-speed-1024", [*self.at(8, 60.0, 10.0)[:1], *self.at(32, 20.0, 10.0)[1:]])
        assert one.verdict == UNKNOWN
        assert "batches asked for differ: 8 of vig_t, 32 of deit_t" in one.reason

    def test_growth_is_that_at_one_batch(self) -> None:
        records = [
            cell(model, side, per_s, batch=batch, attention=a)
            for model, side, per_s, batch in (
                *(("vir_s", 224, 10.0, 8), ("vir_s", 224, 90.0, 1), ("vir_s", 2048, 50.0, 8), ("vir_s", 2048, 9.0, 32)),
                *(("deit_s", 224, 10.0, 8), ("deit_s", 224, 10.0, 1)),
                *(("deit_s", 2048, 10.0, 8), ("deit_s", 2048, 10.0, 32)),
            )
            for a in (("fused", "unfused") if model == "deit_s" else ("fused",))
        ]
        one = ruled("vir-speed", records)
        assert one.verdict == HOLDS
        assert "5.00× (5.00–5.00) at 2048 px, images/s at batch 8" in one.reason


class TestEquivalence:
    """ViR's: its parallel and its recurrent mode compute one function."""

    @pytest.mark.parametrize(
        ("stamps", "verdict"), [((True,), HOLDS), ((True, False), FAILS), ((False,), FAILS), ((), UNKNOWN)]
    )
    def test_records_decide_by_their_stamps(self, stamps: tuple[bool, ...], verdict: str) -> None:
        failed = {True: [], False: ["retention chunkwise"]}
        sides = (224, 512)
        found = [
            make_record("vir_s", side, verified={"ok": ok, "checks": 5, "failed": failed[ok]})
            for side, ok in zip(sides, stamps, strict=False)
        ]
        found.append(make_record("deit_s", 224))
        one = ruled("vir-equivalence", found)
        assert one.verdict == verdict
        assert len(one.case_ids) == len(stamps)
        if not stamps:
            assert "vbench sweep --models vir_s --modes parallel,recurrent" in one.reason

    @pytest.mark.parametrize(("failed", "verdict"), [([], HOLDS), (["vir_s chunkwise: error 1"], FAILS)])
    def test_a_verification_decides_where_no_record_does(self, failed: list[str], verdict: str) -> None:
        def verify(model: str) -> dict[str, Any]:
            assert model == "vir_s"
            return {"ok": not failed, "checks": 4, "failed": failed}

        open_ = judge(TABLE["vir-equivalence"], frame([]))
        one = claim_equivalence.judged(open_, verify)
        assert one.verdict == verdict
        assert one.fair is not None
        assert one.fair.value == 1 - len(failed) / 4
        assert all(line in one.reason for line in failed)
        assert claim_equivalence.judged(open_, lambda _: None) is open_

    def test_other_claims_and_records_stay(self) -> None:
        by_records = Judgement(TABLE["vir-equivalence"], FAILS, "stamped")
        for one in (by_records, judge(TABLE["vir-speed"], frame([]))):
            assert claim_equivalence.judged(one, lambda _: pytest.fail("nothing is to be verified")) is one


class TestOperators:
    ROW: dict[str, Any] = {  # noqa: RUF012
        **{"op": "wkv", "peer": False, "tokens": 16384, "batch": 1, "dtype": "bfloat16", "device": "cuda:0"},
        **{"backend": "eager", "l2": "warm", "status": "ok", "form": "fused", "ms": 1.0, "ms_lo": 0.99, "ms_hi": 1.01},
        **{"device_name": "a test GPU", "started_at": "2026-01-01T00:00:00+00:00"},
    }

    def rows(self, sdpa_ms: float, **about: Any) -> list[dict[str, Any]]:
        attention = {"form": "sdpa", "peer": True, "ms": sdpa_ms, "ms_lo": 0.99 * sdpa_ms, "ms_hi": 1.01 * sdpa_ms}
        return [{**self.ROW, **about}, {**self.ROW, **attention, **about}]

    @pytest.mark.parametrize(("ms", "verdict"), [(3.0, HOLDS), (2.0, FAILS)])
    def test_of_a_gpu(self, ms: float, verdict: str) -> None:
        one = judge(TABLE["vrwkv-operator"], frame([]), self.rows(ms))
        assert one.verdict == verdict
        assert f"{ms:.2f}× (" in one.reason
        assert "a test GPU" in one.reason

    def test_others_judge_nothing(self) -> None:
        claim = TABLE["vrwkv-operator"]
        assert judge(claim, frame([]), self.rows(9.0, device="cpu", form="scan")).verdict == UNKNOWN
        for about in ({"op": "gla"}, {"tokens": 4096}, {"status": "failed", "ms": None}):
            assert "vbench kernels bench --op wkv --n 16384" in judge(claim, frame([]), self.rows(9.0, **about)).reason

    def test_the_newest_row_of_the_plainest_setting_counts(self) -> None:
        cold, old, new = (
            self.rows(9.0, l2="cold", started_at="2026-01-03"),
            self.rows(5.0),
            self.rows(1.0, started_at="2026-01-02"),
        )
        one = judge(TABLE["vrwkv-operator"], frame([]), [*old, *new, *cold])
        assert one.verdict == FAILS
        assert "2026-01-02" in one.reason

    def test_a_damaged_file_is_one_line(self, tmp_path: Path) -> None:
        assert operators.read(tmp_path) == []
        (tmp_path / operators.FILE).write_text(json.dumps(self.ROW) + "\n")
        assert operators.read(tmp_path) == [self.ROW]
        (tmp_path / operators.FILE).write_text(json.dumps(self.ROW) + "\n{}\n")
        with pytest.raises(SchemaError, match="line 2 is not a row"):
            operators.read(tmp_path)


class TestSuite:
    def cases(self) -> list[Case]:
        return union([parse_axes({**USUAL, **axes}, "cuda:0") for axes in load("claims").sets])

    def test_it_measures_what_the_claims_need_and_no_more(self) -> None:
        needed: set[tuple[str, int, str | None, str]] = set()
        for claim in TABLE.values():
            if claim.quantity not in ("memory", "speed") or claim.subject not in MODELS:
                continue
            sides = (224, 512, 1024, 2048) if claim.unit == "linear" else filter(None, (claim.res, claim.res_from))
            for side in sides:
                needed.add((claim.subject, side, None, claim.phase))
                if claim.baseline:
                    ways = (None,) if spec(claim.baseline).operator else ("fused", "unfused")
                    needed |= {(claim.baseline, side, attention, claim.phase) for attention in ways}
        assert {(case.model, case.height, case.attention, case.phase) for case in self.cases()} == needed

    def test_it_has_the_batch_that_a_claim_states(self) -> None:
        there = {(case.model, case.height, case.batch, case.phase) for case in self.cases()}
        stated = [claim for claim in TABLE.values() if claim.quantity == "speed" and claim.batch]
        assert stated
        assert {(claim.subject, claim.res, claim.batch, claim.phase) for claim in stated} <= there

    def test_then_every_claim_of_memory_and_speed_is_judged_or_says_why(self) -> None:
        measured = [
            cell(
                c.model,
                c.height,
                mib=c.height**2 / 1e4,
                **{"dtype": c.dtype, "attention": str(c.attention), "batch": c.batch, "phase": c.phase},
            )
            for c in self.cases()
        ]
        table = frame(measured)
        assert {record.case_id for record in measured} == {case.id for case in self.cases()}
        found = [judge(claim, table) for claim in TABLE.values() if claim.quantity in ("memory", "speed")]
        assert not [one for one in found if one.verdict == UNKNOWN and "needs" in one.reason]

    def test_it_measures_speed_at_batches_that_two_models_share(self) -> None:
        policies = {case.batch for case in self.cases()}
        assert {8, 32} <= policies
        assert "knee" not in policies


class TestReport:
    def test_the_page_is_what_the_committed_records_give(self) -> None:
        """`make claims` was run after the last change of records, claims or rules."""
        assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == report.page([RECORDS])

    def test_a_cpu_proves_every_claim_that_needs_no_gpu(self) -> None:
        ids = {record.case_id for record in read(RECORDS)}
        for one in report.judged([RECORDS]):
            counted = one.claim.quantity in ("macs", "params")  # no record of ViR is committed
            assert (one.verdict != UNKNOWN) == counted, one.claim.id
            assert set(one.case_ids) <= ids
            if not counted and one.claim.quantity in ("speed", "memory") and one.claim.subject in MODELS:
                assert one.reason.startswith("needs "), one.reason

    def test_nothing_is_cut_on_a_narrow_terminal(self) -> None:
        shown = {}
        for width in (40, 250):
            text = StringIO()
            report.show(report.judged([]), Console(file=text, width=width))
            shown[width] = text.getvalue()
        assert "…" not in shown[40].replace("RUN…", "")
        assert shown[40].split() == shown[250].split()
        assert "45 claims. holds: 8;" in " ".join(shown[250].split())

    def test_training_has_a_section_of_its_own(self) -> None:
        found = report.judged([])
        text = report.to_markdown(found)
        section = text[text.index("## Training") : text.index("## ViG")]
        assert "| vmamba-train-768 | training speed of vmamba_t against deit_s at 768 px | 0.34× |" in section
        assert "the authors infer at 1.66× and train at 0.34× the speed of the baseline; ours: not measured" in section
        assert "vmamba-train" not in text[: text.index("## Training")]

    def test_what_a_record_says_is_no_markup(self) -> None:
        hostile = "<script>|[x](http://e.vil)`*\x1b]0;"
        records = [cell("vig_t", 1024), cell("deit_t", 1024, status="error", reason=hostile)]
        one = judge(TABLE["vig-figure-speed-1024"], frame(records))
        text = report.to_markdown([one])
        assert r"&lt;script&gt;\|\[x\](http://e.vil)\`\*" in text
        assert "<script" not in text
        assert "\x1b" not in text
        shown = StringIO()
        report.show([one], Console(file=shown, width=200))
        assert "<script>|[x](http://e.vil)`*" in shown.getvalue().replace("\n", "")
        assert next(csv.DictReader(StringIO(report.to_csv([one]))))["why"] == one.reason

    def test_json_names_claims_verdicts_and_records(self) -> None:
        found = {row["id"]: row for row in json.loads(report.to_json(report.judged([RECORDS])))}
        row = found["vig-figure-macs-2048"]
        assert row["verdict"] == FAILS
        assert row["ratio"] == 17.4
        assert len(row["case_ids"]) == 2
        assert row["fair"]["case_ids"] == row["case_ids"]
        assert found["vim-memory"]["fair"] is None


class TestCommand:
    def test_without_records_it_judges_what_can_be_counted(self) -> None:
        done = vbench("claims", "--format", "csv")
        assert done.returncode == 0, done.stderr
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(StringIO(done.stdout))}
        assert list(verdicts) == list(TABLE)
        assert verdicts["vig-abstract-macs"] == FAILS
        assert verdicts["vig-abstract-speed"] == UNKNOWN

    @pytest.mark.parametrize(
        ("args", "says"), [(["nowhere"], "nowhere has no records.jsonl"), (["--format", "pdf"], "text, md, csv")]
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, args: list[str], says: str) -> None:
        done = vbench("claims", *args)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stdout == ""

    def test_it_imports_no_torch(self) -> None:
        code = (
            "import sys; from pathlib import Path; from vbench.reports import claims; claims.judged([]); "
            "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
