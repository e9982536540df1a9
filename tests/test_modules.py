"""Where the time of a forward pass goes: on a known clock, for each family, and as the command shows it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from fake_cuda import FakeCuda
from simulated import Simulated
from torch import Tensor, nn
from typer.testing import CliRunner

from vbench import jobs
from vbench.commands.app import app
from vbench.devices.cuda import Cuda
from vbench.flops import count as counting
from vbench.flops.modules import Timing, by_module
from vbench.jobs.launch import Ending
from vbench.kernels import operator
from vbench.meters import modules
from vbench.meters.modules import OUTSIDE, WHOLE, Marking, in_turn, operator_row, rows_of, shares
from vbench.plan import RIGORS, Case, Sweep, plan

X = torch.zeros(1)


class Clock(Simulated):
    """A device whose time is what the modules of a test say that they take."""

    def take(self, milliseconds: float) -> None:
        self.time += milliseconds / 1e3

    def moment(self, used: Any = None) -> float:
        return self.time

    def between_ms(self, begin: float, end: float) -> float:
        return (end - begin) * 1e3


class Takes(nn.Module):
    """Takes a time, and then fails if it is told so."""

    def __init__(self, clock: Clock, milliseconds: float, *, fails: bool = False) -> None:
        super().__init__()
        self.clock, self.milliseconds, self.fails = clock, milliseconds, fails

    def forward(self, x: Tensor) -> Tensor:
        self.clock.take(self.milliseconds)
        if self.fails:
            raise ValueError("not today")
        return x


class Block(nn.Module):
    """1 ms of its own, 2 ms of a norm, 16 ms of an operator, 4 ms of a layer with 8 ms of a part of it."""

    def __init__(self, clock: Clock, op: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.clock, self.op = clock, op
        self.norm = Takes(clock, 2)
        self.layer = nn.Sequential(Takes(clock, 4), nn.Sequential(Takes(clock, 8)))

    def forward(self, x: Tensor) -> Tensor:
        self.clock.take(0.5)
        x = self.op(self.layer(self.norm(x)))
        self.clock.take(0.5)
        return x


class Net(nn.Module):
    """Two blocks; then it calls the norm of the first one itself, and takes 32 ms; 64 ms of a part that fails."""

    def __init__(self, clock: Clock, op: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.clock = clock
        self.blocks = nn.ModuleList(Block(clock, op) for _ in range(2))
        self.weak = Takes(clock, 64, fails=True)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        try:
            x = self.weak(x)
        except ValueError:
            self.clock.take(32)
        return self.blocks[0].norm(x)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def net(clock: Clock) -> Net:
    def gla(x: Tensor) -> Tensor:
        clock.take(16)
        return x

    return Net(clock, gla)


def marking(net: Net, clock: Clock, depth: int) -> Marking:
    made = Marking(net, rows_of(net, depth), clock, {"gla": net.blocks[0].op})
    made.search(lambda: net(X))
    return made


def test_own_times_are_of_what_a_row_does_itself(net: Net, clock: Clock) -> None:
    def call() -> Tensor:
        clock.take(128)  # as autocast around the model
        return net(X)

    found = marking(net, clock, 2).take(call)
    assert found.own_ms == pytest.approx(
        {
            OUTSIDE: 128,
            WHOLE: 32,
            "blocks.*": 2 * 1,
            "blocks.*.norm": 3 * 2,
            "blocks.*.layer": 0,
            "blocks.*.layer.0": 2 * 4,
            "blocks.*.layer.1": 0,
            "blocks.*.layer.1.0": 2 * 8,
            "blocks.*.gla()": 2 * 16,
            "weak": 64,
        }
    )
    assert found.total_ms[OUTSIDE] == pytest.approx(sum(found.own_ms.values()))
    assert found.total_ms[WHOLE] == pytest.approx(found.total_ms[OUTSIDE] - 128)
    assert found.total_ms["blocks.*"] == pytest.approx(2 * (1 + 2 + 4 + 8 + 16))
    assert found.total_ms["blocks.*.layer"] == pytest.approx(24)
    assert (found.calls["blocks.*"], found.calls["blocks.*.norm"], found.calls["blocks.*.gla()"]) == (2, 3, 2)


def test_repeated_blocks_share_a_row() -> None:
    """Stages of other sizes do not, nor what is of another class, nor linear layers of other shapes."""

    def block(dim: int) -> nn.Module:
        return nn.ModuleDict({"up": nn.Sequential(nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)), "act": nn.SiLU()})

    stages = nn.ModuleList(nn.Sequential(*(block(dim) for _ in range(2)), nn.SiLU()) for dim in (8, 16))
    rows = rows_of(nn.ModuleDict({"stages": stages}), 9)
    assert {row for path, row in rows.items() if path.startswith("stages.1.")} == {
        *("stages.1.*", "stages.1.*.up", "stages.1.*.up.0", "stages.1.*.up.1", "stages.1.*.act", "stages.1.2"),
    }
    assert rows["stages.0.0.act"] == rows["stages.0.1.act"] == "stages.0.*.act"


def test_one_level_takes_in_what_is_below(net: Net, clock: Clock) -> None:
    found = marking(net, clock, 1).take(lambda: net(X))
    own = {OUTSIDE: 0, WHOLE: 32, "blocks.*": 2 * (1 + 2 + 4 + 8) + 2, "blocks.*.gla()": 32, "weak": 64}
    assert found.own_ms == pytest.approx(own)


def test_only_modules_that_begin_a_row_are_marked(net: Net, clock: Clock) -> None:
    """At one level a norm is a part of its block, unless the model calls it: then its time is not the model's own."""
    assert {row for _, row in marking(net, clock, 1)._modules} == {WHOLE, "blocks.*", "weak"}
    assert len(marking(net, clock, 1)._modules) == 5  # the model, two blocks, the weak part, and the first norm


def test_nothing_is_left_in_the_model(net: Net, clock: Clock) -> None:
    before = net.blocks[0].op
    made = marking(net, clock, 2)
    for _ in range(3):
        made.take(lambda: net(X))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert net.blocks[0].op is net.blocks[1].op is before


def test_calls_with_and_without_marks_take_turns(net: Net, clock: Clock) -> None:
    made, seen = marking(net, clock, 1), list[bool]()

    def call() -> Tensor:
        seen.append(bool(net._forward_hooks))
        return net(X)

    whole, taken = in_turn(call, made, clock, seconds=4.5 * 2 * 0.160)
    assert seen == [False, True, True, False, False, True, True, False, False, True]
    assert whole == pytest.approx([160.0] * 5)
    assert len(taken) == 5
    whole, _ = in_turn(call, made, clock, seconds=0.3)  # five rounds would take more than twice as long
    assert len(whole) == 2


@pytest.mark.full
def test_compiled_code_is_one_row_and_stays_as_it_is(clock: Clock) -> None:
    from torch._dynamo.utils import counters

    model = nn.Sequential(
        nn.Linear(4, 4), torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), backend="eager")
    )
    x = torch.zeros(1, 4)
    with torch.inference_mode():
        model(x)
        before, made = dict(counters["graph_break"]), Marking(model, rows_of(model, 9), clock, {})
        made.search(lambda: model(x))
        assert {*made.take(lambda: model(x)).calls} == {OUTSIDE, WHOLE, "0", "1"}
        compiled = dict(counters["frames"])
        for _ in range(3):
            model(x)
            made.take(lambda: model(x))
        assert dict(counters["frames"]) == compiled
    assert dict(counters["graph_break"]) == before


def test_shares_of_a_row_within_itself() -> None:
    found = shares(["a", "b", "a", None, None, None], [1.0, 2.0, 4.0, 8.0, 16.0])
    assert found.own_ms == {"a": 1 + 4 + 16, "b": 2 + 8}
    assert found.total_ms == {"a": 31, "b": 14}
    assert found.calls == {"a": 2, "b": 1}


def test_moments_of_cuda_are_events_that_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeCuda(monkeypatch) as fake:
        device = Cuda("cuda:0")
        first = device.moment()
        assert device.moment(first) is first
        assert fake.events_made == 1
        assert device.between_ms(first, device.moment()) >= 0


def case(model: str, side: int = 32, mode: str = "parallel") -> Case:
    return plan(Sweep((model,), ((side, side),), (mode,), (1,)))[0]  # type: ignore[arg-type]


FAMILIES = ("vig_t", "vrwkv_t", "vrwkv6_t", "vil2_t", "vir_s", "vision_gru_t", "vim_t", "vmamba_t", "mlla_t")


@pytest.mark.parametrize("model", FAMILIES)
def test_the_operator_has_the_row_of_its_time_in_the_work(model: str) -> None:
    """Of every family: the modules that hold an operator are those whose calls the ledger enters."""
    cell = case(model)
    found = counting.enter(cell)
    worked = {row["module"] for row in by_module(found, cell) if row["module"].endswith("()")}
    function = {cell.operator or "": operator(cell.operator or "", cell.form or "")}
    timed = {row for *_, row in Marking(found.model, rows_of(found.model), Clock(), function)._operators}
    assert worked == timed != set()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(RIGORS["quick"], warmup_s=0.0, warmup_max_s=0.0)
    monkeypatch.setattr(modules, "RIGORS", {"quick": short})


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("model", "mode"),
    [("vig_t", "parallel"), ("deit_t", "parallel"), pytest.param("vir_s", "recurrent", marks=pytest.mark.full)],
)
def test_what_works_is_timed(model: str, mode: str) -> None:
    """A real job: each row with work has times of each round, which add up to the call's."""
    cell = case(model, mode=mode)
    threads = torch.get_num_threads()
    try:
        ((part, times),) = modules.measure(jobs.time_modules(cell, Timing(batch=2, seconds=0.001), 2)[1])
    finally:
        torch.set_num_threads(threads)
    assert part == "times"
    rows, rounds = times["rows"], len(times["whole_ms"])
    assert {row["module"] for row in counting.count_by_module(cell)} <= set(rows)
    assert all(len(row["own_ms"]) == len(row["total_ms"]) == rounds >= 2 for row in rows.values())
    for number in range(rounds):
        own = sum(row["own_ms"][number] for row in rows.values())
        assert own == pytest.approx(rows[OUTSIDE]["total_ms"][number])
    if cell.operator:
        name = operator_row("blocks.*.attn" if model == "vig_t" else "blocks.*.retention", cell.operator)
        assert rows[name]["calls"] >= 12
        assert all(0 < ms < whole for ms, whole in zip(rows[name]["own_ms"], rows[WHOLE]["total_ms"], strict=True))


# The command


TIMES = {
    "warmup": {"converged": True},
    "whole_ms": [10.0] * 9,
    "rows": {
        OUTSIDE: {"calls": 1, "own_ms": [1.0] * 9, "total_ms": [11.0] * 9},
        WHOLE: {"calls": 1, "own_ms": [2.0] * 9, "total_ms": [10.0] * 9},
        "blocks.*.mlp": {"calls": 12, "own_ms": [7.0, 8.0, 9.0] * 3, "total_ms": [8.0] * 9},
        "blocks.*.drop_path1": {"calls": 12, "own_ms": [0.0] * 9, "total_ms": [0.0] * 9},
    },
}


@cache
def counted() -> dict[str, Any]:
    """The work of the one cell that these tests ask for, counted once."""
    return dict(counting.count_in_full(jobs.count_in_full(case("deit_t"), depth=2)[1]))


class Canned:
    """A launcher that counts in this process; what it times, it was told before."""

    times: Ending

    def __enter__(self) -> Canned:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "count_in_full":
            return Ending("ok", None, counted())
        if job == "probe":
            return Ending("ok", None, {"gpu": None})
        assert (job, argument["batch"], argument["threads"], argument["depth"]) == ("time_modules", 2, 1, 2)
        return self.times


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr("vbench.jobs.launch.Launcher", Canned)
    monkeypatch.setattr(Canned, "times", Ending("ok", None, {"times": TIMES}), raising=False)
    return lambda *rest: CliRunner().invoke(app, ["flops", "deit_t", "--res", "32", *rest])


ASKED = ("--by-module", "--time", "--batch", "2", "--device", "cpu")


def test_time_stands_beside_work(command: Callable[..., Any]) -> None:
    done = command(*ASKED, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    rows = {row["module"]: row for row in found["modules"]}
    mlp = rows["blocks.*.mlp"]
    N, C = 5, 192
    assert mlp["macs_matmul"] == 12 * N * 8 * C * C
    assert (mlp["calls"], mlp["own_ms"], mlp["own_ms_lo"], mlp["own_ms_hi"], mlp["total_ms"]) == (
        12,
        8.0,
        7.0,
        9.0,
        8.0,
    )
    assert mlp["gflops_per_s"] == pytest.approx(2 * mlp["flops_total"] / 8e-3 / 1e9)
    assert rows["blocks.*.attn"]["own_ms"] is rows["blocks.*.attn"]["gflops_per_s"] is None  # it was not called
    assert rows["blocks.*.drop_path1"]["flops_total"] == 0
    assert sum(row["flops_total"] for row in rows.values()) == found["flops_total"]
    time = found["time"]
    assert (time["ms"], time["marked_ms"], time["parts_ms"], time["rounds"], time["batch"]) == (10, 11, 11, 9, 2)
    assert time["overhead"] == pytest.approx(0.1)
    assert time["gflops_per_s"] == pytest.approx(2 * found["flops_total"] / 10e-3 / 1e9)
    assert time["versions"]["torch"]
    assert found["time_reason"] is None


def test_time_in_a_table_and_as_csv(command: Callable[..., Any]) -> None:
    done = command(*ASKED)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if line.startswith("blocks.*.mlp "))
    assert "8.000  7.000 to 9.000       72.7 %" in line
    assert "hooks change it by 10.0 % (10.0 to 10.0)" in done.stdout
    rows = list(csv.DictReader(command(*ASKED, "--csv").stdout.splitlines()))
    assert {row["module"] for row in rows} >= {OUTSIDE, "blocks.*.mlp", "head"}
    assert all((row["model"], row["batch"], row["whole_ms"]) == ("deit_t", "2", "10.0") for row in rows)
    (size,) = csv.DictReader(command("--csv").stdout.splitlines())
    assert int(size["macs"]) == counted()["work"]["macs"]


def test_what_cannot_be_timed_is_counted_all_the_same(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canned, "times", Ending("oom", "no more memory"))
    done = command(*ASKED, "--json")
    assert done.exit_code == 1
    assert "cannot be timed at batch 2: oom: no more memory" in done.stderr
    (found,) = json.loads(done.stdout)
    assert found["time"] is None
    assert "no more memory" in found["time_reason"]
    assert found["modules"]
    assert "blocks.*.mlp" in command(*ASKED).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--time",), "give --by-module too"),
        (("--batch", "2", "--device", "cpu"), "--batch, --device: nothing is measured"),
        (("--json", "--csv"), "not both"),
    ],
)
def test_options_that_say_nothing_are_refused(
    command: Callable[..., Any], options: tuple[str, ...], words: str
) -> None:
    done = command(*options)
    assert done.exit_code == 2 or words in str(done.exception)
    assert words in done.stderr + str(done.exception)
