"""Cells that are compared take turns: which ones, in which order, how often, and what their ratio comes to."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import vbench
from fakes import HOST, make_record
from test_sweep import FakeLauncher, Silent

from vbench.errors import UnknownModelError, UsageError
from vbench.jobs.launch import Ending
from vbench.jobs.round_table import WARM, Seat
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.results import pairs
from vbench.results.frame import frame
from vbench.results.store import TurnBlock, read, read_turns
from vbench.sweeps import loop as sweeping
from vbench.sweeps.blocks import MOST_ROUNDS, Turns, rounds
from vbench.sweeps.companies import Company, companies, parse_pairs

CASES = plan(Sweep(("vig_t", "deit_t"), ((224, 224),)))


def named(found: list[Company]) -> list[list[str]]:
    return [[f"{case.model} {case.height} {case.mode}" for case in company.cases] for company in found]


def test_a_recurrent_model_takes_turns_with_the_attention_model_nearest_in_parameters() -> None:
    cases = plan(Sweep(("deit_t", "deit_b", "vig_b", "vig_t"), ((224, 224), (384, 384))))
    assert named(companies(cases)) == [
        [f"{base} {px} parallel", f"{model} {px} parallel", f"{model} {px} recurrent"]
        for px in (224, 384)
        for base, model in (("deit_b", "vig_b"), ("deit_t", "vig_t"))
    ]


def test_without_attention_the_modes_take_turns_and_one_cell_alone_does_not() -> None:
    assert named(companies(plan(Sweep(("vig_t",), ((224, 224),))))) == [["vig_t 224 parallel", "vig_t 224 recurrent"]]
    assert companies(plan(Sweep(("vig_t",), ((224, 224),), ("parallel",)))) == []
    assert companies(plan(Sweep(("deit_t", "swin_t"), ((224, 224),)))) == []
    assert companies(CASES, "none") == []


def test_all_others_take_turns_with_a_model_that_is_named() -> None:
    cases = plan(Sweep(("deit_t", "swin_t", "vig_t"), ((224, 224),)))
    assert named(companies(cases, parse_pairs("swin_t", cases))) == [
        ["swin_t 224 parallel", "deit_t 224 parallel"],
        ["swin_t 224 parallel", "vig_t 224 parallel", "vig_t 224 recurrent"],
    ]
    with pytest.raises(UsageError, match=r"--pairs: deit_s is not in this sweep; give auto, none, or one of deit_t"):
        parse_pairs("deit_s", cases)
    with pytest.raises(UnknownModelError, match="did you mean"):
        parse_pairs("deit_tt", cases)


def test_cells_of_other_settings_do_not_meet_and_a_second_batch_changes_no_latency() -> None:
    cases = plan(Sweep(("deit_t", "vig_t"), ((224, 224),), ("parallel",), (1, 8), ("float32", "bfloat16")))
    found = companies(cases)
    assert [{case.dtype for case in company.cases} for company in found] == [{"float32"}, {"bfloat16"}]
    assert {case.batch for company in found for case in company.cases} == {1}
    trained = [replace(case, phase="train") for case in cases]
    assert len(companies(trained)) == 4


def test_forms_beyond_four_cells_meet_attention_in_a_company_of_their_own() -> None:
    cases = plan(Sweep(("deit_t", "vig_t"), ((224, 224),), forms=("quadratic", "chunkwise", "reference", "compiled")))
    found = [[case.form for case in company.cases] for company in companies(cases)]
    assert all(len(forms) <= 4 and forms[0] is None for forms in found)
    assert Counter(form for forms in found for form in forms[1:]) == {
        "quadratic": 1,
        "chunkwise": 1,
        "reference": 1,
        "compiled": 1,
    }


@pytest.mark.parametrize(
    ("round_s", "count"), [(0.01, MOST_ROUNDS), (0.1, 40), (0.2, 40), (0.3, 13), (3.0, 1), (60.0, 1)]
)
def test_a_block_has_forty_rounds_where_calls_allow(round_s: float, count: int) -> None:
    assert rounds(round_s, Protocol()) == count


class Seats(FakeLauncher):
    """Plays the processes of a block. A call of a model takes `ms`, times noise of its own and of the block."""

    def __init__(self, ms: dict[str, float], *, place: float = 0.0, fails: str | None = None, seed: int = 0) -> None:
        super().__init__()
        self.ms, self.place, self.fails = ms, place, fails
        self.random = random.Random(seed)
        self.asked: list[tuple[str, int, float]] = []  # model and mode, place, known_ms

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job != "take_rounds":
            ending = super().run(job, argument, timeout_s)
            case = Case(**argument["case"]) if job == "measure" else None
            if case and ending.status == "ok":
                ms = self.ms[f"{case.model} {case.mode}"]
                ending.parts["latency"] = {**ending.parts["latency"], "samples_ms": [ms] * 5}
                if argument["in_turns"] and ms > 1250:
                    ending.parts["memory"] = {**ending.parts["memory"], "pass_s": ms / 1e3}
                    ending = replace(ending, parts={k: ending.parts[k] for k in ("memory", "spent")})
            return ending
        case = Case(**argument["case"])
        name = f"{case.model} {case.mode}"
        self.asked.append((name, argument["place"], argument["known_ms"]))
        if case.model == self.fails:
            return Ending("oom", "no memory")
        of_block = exp(self.random.gauss(0, 0.01) + self.place * (argument["place"] == 0))
        samples = []
        with Seat(Path(argument["socket"]), argument["place"]) as seat:
            for calls in seat.turns():
                ms = self.ms[name] * of_block * exp(self.random.gauss(0, 0.02))
                seat.answer([] if calls == WARM else [ms] * calls)
                samples += [ms] if calls != WARM else []
        parts = {
            "settings": {},
            "warmup": {"converged": True},
            "latency": {"batch": 1, "samples_ms": samples, "throttled": None, "host_ms": None},
            "spent": {"measured_s": 1.0, "warmup_s": 0.1},
        }
        return Ending("ok", None, parts)


SHORT = Protocol(launches=2, turns_s=1.0, rounds=3)


def go(folder: Path, launcher: FakeLauncher, protocol: Protocol = SHORT, cases: list[Case] = CASES) -> None:
    settings = sweeping.Settings(folder, "cpu", memory=folder / "memory")
    sweeping.run(cases, settings, protocol, launcher, Silent())


MS = {"deit_t parallel": 100.0, "vig_t parallel": 200.0, "vig_t recurrent": 300.0}


def test_a_sweep_stores_blocks_in_both_orders_and_the_frame_has_the_ratios(tmp_path: Path) -> None:
    go(tmp_path, launcher := Seats(MS, place=0.1))
    blocks = read_turns(tmp_path)
    orders = [" ".join(case["mode"][0] if case["model"] == "vig_t" else "D" for case in one.cases) for one in blocks]
    assert orders[:6] == ["D p r", "p r D", "r D p", "r p D", "D r p", "p D r"][: len(blocks)]
    assert len(blocks) % 3 == 0
    assert {known for _, _, known in launcher.asked} == {100.0, 200.0, 300.0}
    table = frame(read(tmp_path), blocks).set_index(["model", "mode"])
    beside = json.loads(table["latency_paired"]["vig_t", "parallel"])
    value, lo, hi, count, turns = beside[table["case_id"]["deit_t", "parallel"]]
    assert lo < value < hi
    assert value == pytest.approx(2.0, rel=0.03)  # whatever the first place costs
    assert (count, turns) == (len(blocks), sum(len(block.samples_ms[0]) for block in blocks if block.samples_ms))
    back = json.loads(table["latency_paired"]["deit_t", "parallel"])[table["case_id"]["vig_t", "parallel"]]
    assert back[:3] == pytest.approx([1 / value, 1 / hi, 1 / lo])


def test_a_second_run_takes_no_turns_again(tmp_path: Path) -> None:
    go(tmp_path, Seats(MS))
    go(tmp_path, again := Seats(MS))
    assert (again.asked, again.measured) == ([], [])


def test_blocks_are_added_until_the_ratio_is_as_sharp_as_wanted(tmp_path: Path) -> None:
    counts = {}
    for within in (0.5, 0.01):
        go(tmp_path / str(within), Seats(MS), replace(SHORT, ratio_within=within, company_s=20.0))
        counts[within] = len(read_turns(tmp_path / str(within)))
        known = pairs.paired(read_turns(tmp_path / str(within)))
        assert max(ratio.half_width for ratio in known.values()) <= within
    assert counts[0.5] == 3 < counts[0.01]
    go(tmp_path / "no time", Seats(MS), replace(SHORT, ratio_within=0.001, company_s=0.0))
    assert len(read_turns(tmp_path / "no time")) == 3


def test_the_turns_of_a_slow_cell_are_its_launches(tmp_path: Path) -> None:
    ms = {"deit_t parallel": 3000.0, "vig_t parallel": 600.0, "vig_t recurrent": 20.0}
    go(tmp_path, launcher := Seats(ms), replace(SHORT, launches=3))
    launches = Counter((r.case["model"], r.case["mode"]) for r in read(tmp_path) if r.status == "ok")
    assert launches == {
        ("deit_t", "parallel"): 3,  # the first one measured memory alone
        ("vig_t", "parallel"): 3,
        ("vig_t", "recurrent"): 3,
    }
    assert len(launcher.measured) == 5
    table = frame(read(tmp_path), read_turns(tmp_path)).set_index(["model", "mode"])
    assert table["latency_ms"]["deit_t", "parallel"] == pytest.approx(3000, rel=0.05)
    assert table["latency_launches"]["deit_t", "parallel"] == 2
    assert table["throughput_img_s"]["deit_t", "parallel"] == pytest.approx(1 / 3, rel=0.05)
    assert table["peak_memory_bytes"].notna().all() or table["peak_memory_bytes"].notna().sum() == 3


def test_a_cell_whose_turns_fail_is_timed_alone_and_the_failure_is_kept(tmp_path: Path) -> None:
    ms = {"deit_t parallel": 3000.0, "vig_t parallel": 600.0, "vig_t recurrent": 20.0}
    go(tmp_path, Seats(ms, fails="vig_t"))
    (block,) = read_turns(tmp_path)
    assert (block.status, block.samples_ms) == ("oom", None)
    assert block.reason is not None
    assert block.reason.endswith("in turns: no memory")
    assert frame(read(tmp_path), [block]).set_index(["model", "mode"])["latency_ms"]["deit_t", "parallel"] == 3000


class Late(Seats):
    """Its model takes all its turns, and is stopped before it has sent what they took."""

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        ending = super().run(job, argument, timeout_s)
        late = job == "take_rounds" and argument["case"]["model"] == "vig_t"
        return Ending("timeout", "took longer than 1 s", {}) if late else ending


def test_a_cell_that_is_stopped_after_its_turns_fails_them(tmp_path: Path) -> None:
    go(tmp_path, Late({"deit_t parallel": 3000.0, "vig_t parallel": 600.0, "vig_t recurrent": 20.0}))
    blocks = read_turns(tmp_path)
    assert {(block.status, str(block.samples_ms)) for block in blocks} == {("timeout", "None")}
    assert all(str(block.reason).endswith("in turns: took longer than 1 s") for block in blocks)


def test_a_resumed_sweep_whose_turns_fail_counts_the_cells_that_it_times_alone(tmp_path: Path) -> None:
    """Those were finished but for their turns, so they were none of the cells to prepare."""

    class Interrupted(Seats):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "take_rounds":
                raise KeyboardInterrupt
            return super().run(job, argument, timeout_s)

    ms = {"deit_t parallel": 3000.0, "vig_t parallel": 600.0, "vig_t recurrent": 20.0}
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Interrupted(ms))
    go(tmp_path, Seats(ms, fails="vig_t"))
    table = frame(read(tmp_path), read_turns(tmp_path)).set_index(["model", "mode"])
    assert table["latency_ms"]["deit_t", "parallel"] == 3000
    assert not table["flags"].str.contains("not counted").any()


def test_all_batches_of_a_cell_share_its_turns(tmp_path: Path) -> None:
    cases = plan(Sweep(("vig_t", "deit_t"), ((224, 224),), ("parallel",), (1, 8)))
    go(tmp_path, Seats(MS), cases=cases)
    table = frame(read(tmp_path), read_turns(tmp_path))
    assert table["latency_paired"].notna().all()
    mine, theirs = (table[table["model"] == model] for model in ("vig_t", "deit_t"))
    assert [set(json.loads(one)) for one in mine["latency_paired"]] == [set(theirs["case_id"])] * 2


def block(number: int, logs: list[float], *, rounds_: int = 20, noise: float = 0.02, seed: int = 0) -> TurnBlock:
    """A block of two cells; `logs` are those of their times in this block."""
    generator = np.random.default_rng((seed, number))
    cases = [CASES[0], CASES[2]]
    samples = [list(np.exp(middle + noise * generator.standard_normal(rounds_))) for middle in logs]
    if number % 2:
        cases, samples = cases[::-1], samples[::-1]
    record = make_record()
    return TurnBlock(
        company="c",
        block=number,
        case_ids=[case.id for case in cases],
        cases=[asdict(case) for case in cases],
        order=number,
        status="ok",
        reason=None,
        conditions=record.conditions,
        protocol=record.protocol,
        host=HOST,
        started_at=record.started_at,
        wall_s=1.0,
        timeout_s=300.0,
        samples_ms=samples,
    )


def test_the_interval_of_a_ratio_covers_it_whatever_the_place_and_a_busy_neighbour_do() -> None:
    true, covered, widths = log(1.8), 0, []
    generator = np.random.default_rng(1)
    key = tuple(pairs.alike(asdict(CASES[i])) for i in (0, 2))
    for trial in range(300):
        blocks = []
        for number in range(6):
            neighbour = generator.choice([0.0, 0.4])  # it slows both
            place = 0.05 if number % 2 else -0.05
            mine = true + place / 2 + neighbour + 0.015 * generator.standard_normal()
            blocks.append(block(number, [mine, neighbour - place / 2], seed=trial))
        ratio = pairs.paired(blocks)[key[0], key[1]]
        assert ratio.lo is not None
        assert ratio.hi is not None
        covered += ratio.lo <= exp(true) <= ratio.hi
        widths.append(ratio.half_width)
    assert covered >= 0.92 * 300  # 95 % of many
    assert np.median(widths) < 0.03


def test_blocks_in_one_order_have_no_interval() -> None:
    for blocks in (
        [block(0, [0.5, 0.0])],
        [block(0, [0.5, 0.0]), block(2, [0.5, 0.0])],
    ):
        (ratio, *_) = pairs.paired(blocks).values()
        assert (ratio.lo, ratio.hi, ratio.blocks) == (None, None, len(blocks))


def test_blocks_of_other_conditions_do_not_count() -> None:
    old = [replace(block(n, [2.0, 0.0]), conditions="old") for n in range(4)]
    ratios = pairs.paired([*old, *(block(n, [0.5, 0.0]) for n in range(4))])
    assert {one.blocks for one in ratios.values()} == {4}
    assert max(one.value for one in ratios.values()) == pytest.approx(exp(0.5), rel=0.02)


def test_each_cell_has_each_place_once_in_as_many_blocks_as_cells() -> None:
    company = Company(tuple(CASES[:3]))
    for passed in range(3):
        orders = [Turns(company, 7, 3 * passed + n, (1.0, 2.0, 3.0), 3).order for n in range(3)]
        assert all({order[place] for order in orders} == {0, 1, 2} for place in range(3))
    assert Company(company.cases[::-1]).id == company.id
    assert [Turns(company, 7, n, (1.0, 2.0, 3.0), 2).order for n in range(3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_slow_cells_take_turns_in_twos_and_their_ratio_has_an_interval(tmp_path: Path) -> None:
    """One round takes longer than a block should; the scatter is that of other companies."""
    cases = plan(Sweep(("vig_t", "deit_t"), ((224, 224), (384, 384))))

    class Larger(Seats):
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            slow = "case" in argument and argument["case"]["height"] == 384
            self.ms = {name: ms * (100 if slow else 1) for name, ms in MS.items()}
            return super().run(job, argument, timeout_s)

    go(tmp_path, Larger(MS), replace(SHORT, company_s=0.0, turns_s=1.0), cases)
    blocks = read_turns(tmp_path)
    assert Counter(one.cases[0]["height"] for one in blocks) == {224: 3, 384: 2}
    first, second = (one for one in blocks if one.cases[0]["height"] == 384)
    assert first.case_ids == second.case_ids[::-1]
    known = pairs.paired(blocks)
    assert all(ratio.lo is not None for ratio in known.values())


def test_turns_through_the_command_line(tmp_path: Path) -> None:
    """Real processes."""
    options = (
        "--modes",
        "parallel",
        "--rigor",
        "quick",
        "--seconds",
        "0.05",
        "--batch",
        "1",
        "-o",
        str(tmp_path / "run"),
    )
    done = vbench("sweep", "--models", "vig_t,deit_t", "--res", "64", *options)
    assert done.returncode == 0, done.stderr
    assert "in turns: vig_t 64 parallel float32 " in done.stderr
    assert "of deit_t 64 parallel float32" in done.stderr
    one, two = read_turns(tmp_path / "run")
    assert one.case_ids == two.case_ids[::-1]
    assert one.samples_ms
    assert len(one.samples_ms[0]) == len(one.samples_ms[1]) >= 1
    none = vbench("sweep", "--models", "vig_t,deit_t", "--res", "64", "--pairs", "swin", *options)
    assert (none.returncode, none.stdout) == (2, "")
