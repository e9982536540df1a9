"""`vbench kernels`, as its users meet it: list, check, bench, tune, and the sweep's axis of forms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import vbench
from simulated import Simulated

from vbench import plan, verify
from vbench.errors import DeviceError, UsageError
from vbench.jobs.launch import Ending, Launcher, Runner
from vbench.kernels import OPS, forms, operator
from vbench.kernels.fused import tuning
from vbench.kernels.fused.tuning import Choice
from vbench.kernels.registry import default_form
from vbench.operators import bench as kernel_bench
from vbench.operators import calls as kernel_calls
from vbench.operators import check as kernel_check
from vbench.operators import contestants, sampling
from vbench.operators import peers as kernel_peers
from vbench.operators import tune as kernel_tune
from vbench.operators.tune import Timing
from vbench.reports import operators
from vbench.verify import checks


def test_list_names_every_form_and_why_one_cannot_run() -> None:
    rows = json.loads(vbench("kernels", "list", "--device", "cpu", "--json").stdout)
    assert [(row["operator"], row["form"]) for row in rows] == [(op, form) for op in OPS for form in OPS[op]]
    for row in rows:
        assert (row["missing"] is None) == (row["form"] in forms(row["operator"], "cpu"))
        if row["mode"] == "parallel":
            on_cpu = row["form"] == default_form(row["operator"], "parallel", "cpu")
            assert ("cpu" in row["default_on"]) == on_cpu
    assert "all pairs of tokens" in vbench("kernels", "list").stdout


def test_a_check_that_remembers_runs_nothing_that_a_sweep_has_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[dict[str, Any]] = []

    class Fake:
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            if job == "probe":
                return Ending("ok", None, {"gpu": None})
            asked.append(argument)
            return Ending("ok", None, {"checks": []})

    def check(runner: Runner, **about: Any) -> int:
        asked.clear()
        options = {"device": "cpu", "tokens": None, "seed": 0, **about}
        (verdict,) = kernel_check.check(["gla"], tuple(OPS["gla"]), runner, **options)
        assert verdict.ok
        return len(asked)

    verify.verify("gla", kernel_check.remembering(Fake(), "cpu"), device="cpu", gradients=False)
    assert [argument["extent"]["gradients"] for argument in asked] == [False]
    assert check(kernel_check.remembering(Fake(), "cpu")) == 1  # the gradients
    assert check(kernel_check.remembering(Fake(), "cpu")) == 0
    assert check(kernel_check.remembering(Fake(), "cpu"), seed=1) == 2
    assert check(kernel_check.remembering(Fake(), "cpu"), tokens=20) == 1
    assert check(Fake()) == 2


def test_check_holds_forms_to_the_recurrence_and_their_gradients_too() -> None:
    with Launcher() as launcher:  # before `check` asks for the interpreter, which the next tests' children would get
        assert launcher.run("jobs:fine", {"x": 0}, 60).status == "ok"
    done = vbench("kernels", "check", "--op", "mingru", "--form", "scan,quadratic", "--tokens", "20", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "scan, quadratic" in done.stdout
    found = vbench("kernels", "check", "--op", "mingru", "--form", "scan", "--tokens", "9", "--device", "cpu", "--json")
    checks = json.loads(found.stdout)
    assert {check["form"] for check in checks} == {"scan"}
    assert {"grad", "half", "split"} <= {check["kind"] for check in checks}


def test_a_wrong_gradient_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form whose values are right and whose gradient is not."""
    right = operator("mingru", "scan")

    def wrong(a: Any, b: Any, **options: Any) -> Any:
        h, state = right(a, b, **options)
        return h + 0.1 * (a - a.detach()), state

    monkeypatch.setattr(checks, "operator", lambda op, form: wrong if form == "scan" else operator(op, form))
    failed = [check for check in checks.operator_checks("mingru", extent=verify.Extent(tokens=20)) if not check.ok]
    assert {(check.kind, check.form) for check in failed} == {("grad", "scan")}
    values = checks.operator_checks("mingru", extent=verify.Extent(tokens=20, gradients=False))
    assert {check.kind for check in values} == {"float64", "float32", "half", "split", "causal"}
    assert all(check.where.endswith("of a") for check in failed)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["check", "--op", "gla,nope"], "'nope' is not one of gla"),
        (["check", "--op", "gla", "--form", "scan"], "'scan' is not one of"),
        (["compile", "--arch", "sm90"], "'sm90' is not an architecture"),
        (["bench", "--n", "0"], "'0' is not a positive number"),
        (["bench", "--device", "cpu", "--backend", "cudagraph"], "cpu replays no recorded calls"),
        (["bench", "--dtype", "int8"], "'int8' is not one of float32"),
        (["bench", "--peer", "gla=math"], "is not OPERATOR=module:function"),
        (["bench", "--device", "cpu", "--peer", "gla=no.such:thing"], "no.such:thing: there is no module 'no'"),
        (["tune", "--device", "cpu", "-o", "rows.toml"], "times kernels on a GPU"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(command: list[str], said: str, tmp_path: Path) -> None:
    done = vbench("kernels", *command, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


PEERS = """
import torch
def right(a, b, *, direction):
    h, keep = 0, torch.sigmoid(-b)
    feed = torch.sigmoid(b) * torch.where(a >= 0, a + 0.5, torch.sigmoid(a))
    out = []
    for t in range(a.shape[1]):
        h = keep[:, t] * h + feed[:, t]
        out.append(h)
    return torch.stack(out, dim=1)
def wrong(a, b, *, direction):
    return a
"""


def test_bench_times_forms_and_peers_in_one_run_and_a_wrong_one_has_no_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PEERS)
    (tmp_path / "torch.py").write_text("raise RuntimeError('this is no torch')")
    options = ["--op", "mingru", "--form", "scan,reference", "--n", "16,64", "--seconds", "0.01", "--device", "cpu"]
    done = vbench("kernels", "bench", *options, "--peer", "mingru=mine:right", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mine:right at N=64" in done.stdout
    assert "faster than log_space at N=64" in done.stdout or "slower than log_space at N=64" in done.stdout
    assert "is not installed" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "out" / "kernels.jsonl").read_text().splitlines()]
    timed = {(row["form"], row["tokens"]): row for row in rows if row["status"] == "ok"}
    assert set(timed) == {
        (form, tokens) for form in ("scan", "reference", "sdpa", "log_space", "mine:right") for tokens in (16, 64)
    }
    for row in timed.values():
        assert row["ms_lo"] <= row["ms"] <= row["ms_hi"]
        assert row["floor_ratio"] == pytest.approx(row["ms"] / row["floor_ms"])
        assert (row["error"] is None) == (row["form"] == "sdpa")
        assert {"versions", "commit", "load", "device_name"} <= row.keys()
    options[3], options[5] = "scan", "16"
    done = vbench("kernels", "bench", *options, "--peer", "mingru=mine:wrong", "-o", "out", "--json", cwd=tmp_path)
    wrong = [row for row in json.loads(done.stdout) if row["form"] == "mine:wrong"]
    assert {row["status"] for row in wrong} == {"failed"}
    assert all(row["ms"] is None and "its output is off" in row["reason"] for row in wrong)
    more = (tmp_path / "out" / "kernels.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in more[: len(rows)]] == rows
    assert len(more) > len(rows)


def bench_plan(**changes: Any) -> kernel_bench.Plan:
    usual = kernel_bench.parse(
        ops=("mingru",),
        forms=("scan", "quadratic"),
        device="cpu",
        tokens="16,32",
        batch="1",
        dtype=None,
        backend=None,
        l2="warm,cold",
        seconds=0.001,
        limit_s=1000.0,
        threads=1,
        peers={},
    )
    return replace(usual, **changes)


PEAKS = {"copy_bytes_per_s": 1e9, "gemm_flops_per_s": 1e10}


def measured(plan: kernel_bench.Plan, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows of minGRU on a device on which every call takes 20 ms, whatever it does."""
    device = Simulated()
    real = contestants._caller
    ticking = lambda op, function: lambda inputs, options: _ticking(device, real(op, function)(inputs, options))  # noqa: E731
    monkeypatch.setattr(contestants, "_caller", ticking)
    monkeypatch.setattr(sampling, "FLUSHED_BYTES", 2**12)
    monkeypatch.setattr(kernel_bench, "SAMPLES", (2, 2))
    width = kernel_calls.WIDTHS["mingru"][0]
    return list(kernel_bench.measure(plan, "mingru", width, PEAKS, device))


def _ticking(device: Simulated, call: Any) -> Any:
    def run() -> Any:
        device.call()
        return call()

    return run


def test_samples_are_the_devices_and_the_floor_is_its_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in measured(bench_plan(), monkeypatch) if row["form"] == "scan" and row["ms"]]
    assert [(row["tokens"], row["l2"]) for row in rows] == [(n, l2) for n in (16, 32) for l2 in ("warm", "cold")]
    for row in rows:
        assert row["ms"] == pytest.approx(20)
        channels, numbers = 144, row["tokens"] * 144
        assert row["bytes_min"] == 4 * (3 * numbers + channels)  # a, b and h, and the last h
        assert row["flops_min"] == 2 * numbers
        assert row["floor_ms"] == pytest.approx(1e3 * row["bytes_min"] / 1e9)


def test_what_would_take_too_long_is_foretold_and_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measured(bench_plan(limit_s=0.07), monkeypatch)
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert [(row["form"], row["tokens"]) for row in skipped] == [("quadratic", 32)]
    assert "one call would take about 0.08 s" in skipped[0]["reason"]


def test_a_form_that_raises_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(op: str, function: Any) -> Any:
        def build(inputs: Any, options: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return build

    monkeypatch.setattr(contestants, "_caller", broken)
    monkeypatch.setattr(kernel_bench, "SAMPLES", (2, 2))
    width = kernel_calls.WIDTHS["mingru"][0]
    rows = list(kernel_bench.measure(bench_plan(forms=("scan",)), "mingru", width, PEAKS, Simulated()))
    assert {row["status"] for row in rows if row["form"] == "scan"} == {"oom"}


def test_the_log_space_form_is_the_same_function() -> None:
    width = kernel_calls.WIDTHS["mingru"][0]
    inputs = {name: x.double() for name, x in width.inputs(batch=2, tokens=50, dtype="float32", device="cpu").items()}
    for direction in ("forward", "reverse"):
        wanted, _ = operator("mingru", "reference")(*inputs.values(), direction=direction)
        found = kernel_peers.log_space(*inputs.values(), direction=direction)
        assert (found - wanted).norm() < 1e-12 * wanted.norm()


def test_the_scans_that_hold_every_state_are_the_same_function() -> None:
    width = kernel_calls.WIDTHS["selective_scan"][0]
    inputs = {name: x.double() for name, x in width.inputs(batch=2, tokens=50, dtype="float32", device="cpu").items()}
    wanted, _ = width.call(operator("selective_scan", "reference"), inputs)
    for peer in kernel_peers.peers("selective_scan", {}):
        if peer.same and peer.package is None:
            found = peer.build(inputs, width.keywords(inputs))()
            assert (found - wanted).norm() < 1e-12 * wanted.norm(), peer.name


@pytest.mark.parametrize("op", list(kernel_calls.WIDTHS))
def test_every_width_is_a_call_of_its_operator(op: str) -> None:
    for width in kernel_calls.WIDTHS[op]:
        inputs = width.inputs(batch=2, tokens=5, dtype="float32", device="cpu")
        o, _ = width.call(operator(op, "reference"), inputs)
        first, _ = width.call(operator(op, "reference"), width.first(inputs))
        assert torch.allclose(o[:1], first, atol=1e-5)
        least = kernel_calls.floor(op, inputs, width.keywords(inputs))
        assert least.bytes > sum(x.nbytes for x in inputs.values())
        assert least.flops > 0


def test_findings_compare_the_fastest_form_on_the_longest_sequence() -> None:
    base = {"op": "gla", "batch": 1, "dtype": "float32", "backend": "eager", "l2": "warm"}

    def row(form: str, tokens: int, ms: float | None, peer: bool = False) -> dict[str, Any]:
        return {**base, "form": form, "tokens": tokens, "ms": ms, "peer": peer}

    rows = [row("chunkwise", 64, 2.0), row("reference", 64, 9.0), row("sdpa", 64, 8.0, True), row("chunkwise", 99, 1.0)]
    rows.append(row("sdpa", 99, None, True))
    (line,) = operators.findings(rows)
    assert line.startswith("gla chunkwise is 4.0 times faster than sdpa at N=64, batch 1 (2 against 8 ms;")


SMALL, LARGE, WALK = Choice(32, 4), Choice(64, 4), Choice(64, 2, sequential=True)


def test_timings_become_rows_in_the_order_of_looking_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ms = {  # rows, tokens: what each choice takes
        (3, 196): (2.0, 3.0, 1.0),
        (3, 1024): (2.0, 3.0, 9.0),
        (3, 4096): (5.0, 4.9, 40.0),  # a gain of 2 %: what was taken before stays
        (3, 16384): (20.0, 10.0, 160.0),
        (192, 196): (4.0, 3.0, 2.0),
        (192, 16384): (90.0, 80.0, 50.0),
    }
    timings = [
        Timing("gla", tokens, count, choice, each)
        for (count, tokens), times in ms.items()
        for choice, each in zip((SMALL, LARGE, WALK), times, strict=True)
    ]
    rows = kernel_tune.rows(timings, "a GPU", "a GPU, commit c0ffee")
    assert [(row.rows_min, row.tokens_max, row.choice) for row in rows] == [
        (192, tuning.ANY_TOKENS, WALK),
        (0, 196, WALK),
        (0, 4096, SMALL),
        (0, tuning.ANY_TOKENS, LARGE),
    ]
    import tomllib

    parsed = tomllib.loads(kernel_tune.to_toml(rows))["row"]
    assert parsed[0] == {
        "op": "gla",
        "rows_min": 192,
        "device": "a GPU",
        "chunk": 64,
        "warps": 2,
        "sequential": True,
        "source": "a GPU, commit c0ffee",
    }
    monkeypatch.setattr(tuning, "table", lambda: tuple(rows))
    tuning._look_up.cache_clear()
    for (count, tokens), times in ms.items():
        picked = tuning.pick("gla", tokens, count, "a GPU")
        taken = times[(SMALL, LARGE, WALK).index(picked)]
        assert taken <= (1 + kernel_tune.MARGIN) * min(times)
    tuning._look_up.cache_clear()


def test_a_choice_can_be_tried() -> None:
    before = tuning.pick("gla", 64, 1)
    with tuning.trying(WALK):
        assert tuning.pick("gla", 64, 1) == WALK
    assert tuning.pick("gla", 64, 1) == before


def test_tuning_needs_a_gpu_and_a_fused_form() -> None:
    with pytest.raises(DeviceError, match="this machine has none"):
        kernel_tune.check(["gla"], "cpu")
    with pytest.raises(UsageError, match="has a fused form"):
        kernel_tune.check(["softmax_retention"], "cuda:0")


def test_a_form_is_an_axis_of_a_sweep() -> None:
    axes = {**plan.USUAL, "models": "vig_t,deit_t", "res": "64", "form": "chunkwise,reference"}
    cases = plan.plan(plan.parse(axes, "cpu"))
    found = {(case.model, case.mode, case.form): case.unsupported for case in cases}
    assert found["vig_t", "parallel", "chunkwise"] is None
    assert found["vig_t", "recurrent", "reference"] is None
    assert "gla has no parallel form 'reference'; it has" in str(found["vig_t", "parallel", "reference"])
    assert found["deit_t", "parallel", None] is None
    assert len(cases) == 6
    assert str(next(case for case in cases if case.form == "chunkwise")) == "vig_t 64 parallel float32"
    quadratic = plan.plan(plan.parse({**axes, "form": "quadratic", "modes": "parallel", "models": "vig_t"}, "cpu"))
    assert str(quadratic[0]) == "vig_t 64 parallel quadratic float32"
    with pytest.raises(UsageError, match="--form: 'nope' is not one of auto"):
        plan.parse({**axes, "form": "nope"}, "cpu")


def test_auto_is_each_modes_default_and_older_records_keep_their_ids() -> None:
    axes = {**plan.USUAL, "models": "vig_t", "res": "64"}
    cases = plan.plan(plan.parse(axes, "cpu"))
    assert [case.form for case in cases] == [default_form("gla", mode, "cpu") for mode in ("parallel", "recurrent")]
    assert plan.Case("vig_t", 224, 224, "parallel", "chunkwise", "knee", "float32", "cpu").id == "c2e652d84b145ce5"


def test_a_form_that_a_device_lacks_is_an_unsupported_row() -> None:
    for op, table in OPS.items():
        for form, about in table.items():
            if "cpu" not in about.devices and op == "gla":
                case = plan.Case("vig_t", 64, 64, about.mode, form, "knee", "float32", "cpu")
                assert f"gla {form} runs on cuda, not on cpu" in str(case.unsupported)
