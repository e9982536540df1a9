"""MACs by two counters and by hand, FLOPs and bytes by the ledger, held to figures known from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from math import log
from typing import Any

import pytest
import torch
from packaging.version import Version
from strange_op import double
from torch import Tensor, nn
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import ResolutionError, UnknownModelError, UsageError
from vbench.flops import count as flops
from vbench.flops.count import count_by_module
from vbench.flops.formulas import FORMULAS
from vbench.flops.ledger import Kind, Ledger
from vbench.flops.products import PRODUCTS
from vbench.flops.second import second_count
from vbench.flops.tables import MOVES, PER_INPUT, PER_OUTPUT, VIEWS, WINDOWS
from vbench.jobs.launch import Ending
from vbench.kernels import OPS, default_form, operator
from vbench.models import MODELS, create, spec
from vbench.models.closed_forms import closed_form
from vbench.plan import Case, Mode

count = cache(flops.count)  # many tests ask for the same
# One row of the table for each way that its arguments differ by more than a number; `full` takes all of them.
STRUCTURES = [
    *("vig_t", "vig_h_t", "vrwkv_t", "vrwkv_l", "vrwkv6_t", "vil_t", "vil_tplus_s8", "vil2_t", "vir_s", "vir_l14"),
    *("vim_t", "vim_t_plus", "vmamba_t", "vmamba_v0_t", "mlla_t"),
    *("vir_s_softmax", "vision_gru_t", "deit_t", "deit3_t", "swin_t", "swin_b"),
]
FORMS = [(op, form) for op, forms in OPS.items() for form in forms]
OF_TORCH = [(op, form) for op, form in FORMS if OPS[op][form].package is None]  # no other's operations can be counted


def case(
    model: str, height: int, width: int | None = None, mode: Mode = "parallel", form: str | None = None, dtype: Any = ""
) -> Case:
    op = spec(model).operator
    form = form or (default_form(op, mode) if op else None)
    return Case(model, height, width or height, mode, form, 1, dtype or "float32", "cpu")


class Call(nn.Module):
    """A function as a model of no parameters."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def enter(function: Callable[[Tensor], Any], *shape: int) -> Ledger:
    return Ledger(Call(function)).enter(torch.ones(shape))


# What is known from elsewhere


@pytest.mark.parametrize(("side", "gmacs"), [(224, 1.254), (512, 10.43), (1024, 99.70)])
def test_deit_counts_all_of_attention(side: int, gmacs: float) -> None:
    work = count(case("deit_t", side))
    assert work["macs_matmul"] / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert work["macs"] == work["macs_executed"] == work["macs_matmul"]


def test_attention_is_the_same_work_fused_or_not_on_every_device() -> None:
    found, bytes_min = set(), {}
    for device in ("meta", "cpu"):
        for fused in (True, False):
            with torch.device(device):
                model, x = create("deit_t"), torch.zeros(1, 3, 224, 224)
            for module in model.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = fused
            sums = Ledger(model).enter(x).total()
            found.add((sums.macs_matmul, sums.flops_elementwise))
            bytes_min[device, fused] = sums.bytes_min
    work = count(case("deit_t", 224))
    assert found == {(work["macs_matmul"], work["flops_elementwise"])}
    scores = 4 * 12 * 3 * 197**2  # written and read once, if they are not kept on chip
    assert bytes_min["meta", False] - bytes_min["meta", True] == 2 * scores
    assert bytes_min["cpu", False] - bytes_min["cpu", True] == 2 * scores


@pytest.mark.parametrize(("height", "gmacs"), [(224, 1.168), (512, 6.10), (1024, 24.4), (2048, 97.6)])
def test_vig_t_equals_the_hand_count_of_the_literature(height: int, gmacs: float) -> None:
    assert count(case("vig_t", height))["macs"] / 1e9 == pytest.approx(gmacs, rel=2e-3)


def exponent(model: str, form: str | None = None, field: str = "macs_executed") -> float:
    low, high = (count(case(model, side, form=form)) for side in (512, 1024))
    return log(high[field] / low[field]) / log(high["tokens"] / low["tokens"])


def test_exponents_tell_linear_from_quadratic() -> None:
    assert exponent("deit_t") == pytest.approx(1.63, abs=0.01)
    for model in ("vig_t", "vrwkv_t", "vir_s", "vision_gru_t", "vil_t"):
        assert 0.97 < exponent(model) <= 1.03, model
    assert exponent("vil_t", "quadratic") > 1.3
    assert exponent("vil_t", "chunkwise", "flops_total") <= 1.03


def test_swin_pays_for_windows_that_do_not_fit() -> None:
    work = count(case("swin_t", 512))
    assert "133x133" in work["padding"]
    tax = work["macs"] / (count(case("swin_t", 448))["macs"] * (512 / 448) ** 2) - 1  # 448 px: windows fit
    assert 0.08 <= tax <= 0.09
    assert count(case("timm/resnet18", 224))["tokens"] is None


# The third vote


def sizes(model: str) -> list[tuple[int, int]]:
    return [(224, 224), (512, 512), (231, 300) if spec(model).multiple == 1 else (192, 256)]


@pytest.mark.parametrize(("model", "turn"), [(model, number % 3) for number, model in enumerate(STRUCTURES)])
def test_every_structure_equals_its_closed_form(model: str, turn: int) -> None:
    check_closed_form(model, *sizes(model)[turn])


@pytest.mark.full
@pytest.mark.parametrize("model", MODELS)
def test_every_model_equals_its_closed_form_at_every_size(model: str) -> None:
    for size in sizes(model):
        check_closed_form(model, *size)


def check_closed_form(model: str, height: int, width: int) -> None:
    work = count(case(model, height, width))
    assert work["macs"] == work["macs_closed_form"] == closed_form(model, height, width)
    assert work["closed_form_agrees"] is True
    assert work["coverage"] == 1.0
    assert not work["unknown"]


def test_all_modes_need_the_same_and_do_at_least_that() -> None:
    for model in ("vig_t", "vrwkv_t", "vir_s", "vision_gru_t"):
        works = [count(case(model, 512, mode=mode)) for mode in spec(model).modes]
        assert len({work["macs"] for work in works}) == 1
        assert len({work["state_bytes"] for work in works}) == 1
        for work in works:
            assert work["coverage"] == 1.0
            assert work["macs_executed"] == work["macs_matmul"] + work["macs_elementwise"] >= work["macs"]


def test_a_closed_form_knows_its_limits() -> None:
    assert closed_form("timm/resnet18", 224, 224) is None
    assert count(case("timm/resnet18", 224))["closed_form_agrees"] is None
    with pytest.raises(ResolutionError):
        closed_form("deit_t", 225, 224)


# The second vote


@pytest.mark.parametrize("model", ["vrwkv_t", "vim_t", "vmamba_v0_t", "mlla_t", "vig_t", "deit_t", "timm/resnet18"])
def test_the_second_counter_agrees(model: str) -> None:
    """Of a scan of Vim and VMamba it counts nothing, though torch reads its states by products of matrices."""
    asked = case(model, 64 if model in ("vrwkv_t", "vim_t", "vmamba_v0_t", "mlla_t") else 224)
    macs = count(asked)["macs_matmul"]
    opinion = second_count(asked, macs)
    assert opinion["agree"] is True
    assert opinion["macs_fvcore"] == pytest.approx(macs, rel=0.01)


def test_the_second_counter_disagrees_beyond_one_in_a_hundred() -> None:
    macs = count(case("timm/resnet18", 224))["macs_matmul"]
    assert second_count(case("timm/resnet18", 224), macs + macs // 50)["agree"] is False


def test_the_second_counter_says_when_it_cannot() -> None:
    for asked, macs in ((case("deit_t", 2048), 10**12), (case("vig_t", 224, mode="recurrent"), 10**9)):
        opinion = second_count(asked, macs)
        assert opinion["macs_fvcore"] is None
        assert opinion["reason"]


# The ledger


def test_each_operation_is_of_one_kind_and_counts_by_its_table() -> None:
    tables = [PER_OUTPUT, PER_INPUT, WINDOWS, VIEWS, MOVES, PRODUCTS, FORMULAS]
    assert sum(map(len, tables)) == len(set().union(*tables))
    for function, kind, flops_, macs in (
        (lambda x: x + 1, Kind.ELEMENTWISE, 6, 0),
        (lambda x: x.add_(1), Kind.ELEMENTWISE, 6, 0),
        (torch.nn.functional.silu, Kind.ELEMENTWISE, 12, 0),
        (lambda x: x.sum(), Kind.ELEMENTWISE, 6, 0),
        (lambda x: torch.nn.functional.max_pool2d(x[None], 2, 1), Kind.ELEMENTWISE, 4 * 2, 0),
        (lambda x: x.transpose(0, 1), Kind.FREE, 0, 0),
        (lambda x: torch.where(x > 0, x, 0.0), Kind.FREE, 0, 0),
        (lambda x: x @ x.mT, Kind.MATRIX, 0, 12),
        (lambda x: x[0] @ x[1], Kind.MATRIX, 0, 3),
        (lambda x: torch.nn.functional.conv1d(x, torch.ones(4, 2, 3), padding=1), Kind.MATRIX, 0, 3 * 2 * 3 * 4),
    ):
        ledger = enter(function, 2, 3)
        sums = ledger.total()
        assert not ledger.unknown
        assert (sums.flops_elementwise, sums.macs_matmul) == (flops_, macs)
        assert ledger.total(kind).calls > 0


def test_bytes_are_those_of_operands_and_results_and_a_weight_is_read_once() -> None:
    layer = nn.Linear(4, 5)
    once = Ledger(layer).enter(torch.ones(3, 4)).total().bytes_min
    assert once == 4 * (3 * 4 + 5 * 4 + 5 + 3 * 5)
    twice = Ledger(nn.Sequential(layer, nn.ReLU(), nn.Linear(5, 4), layer)).enter(torch.ones(3, 4)).total().bytes_min
    assert twice == once + 4 * (3 * 5 + 5 * 4 + 4 + 3 * 4) + 4 * (3 * 4 + 3 * 5)
    single, half = (count(case("deit_t", 224, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert single["bytes_min"] == 2 * half["bytes_min"]
    assert single["flops_total"] == half["flops_total"]
    assert single["intensity"] == single["flops_total"] / single["bytes_min"]


def test_what_no_table_knows_is_said_with_its_bytes() -> None:
    ledger = enter(lambda x: double(double(x + 1)) * 2, 2, 3)
    assert ledger.unknown == {"vbench_test.double": {"calls": 2, "bytes": 2 * 2 * 4 * 6}}
    assert ledger.coverage == pytest.approx(0.5)
    assert enter(torch.linalg.svd, 2, 3).coverage < 1


class Strange(nn.Module):
    """Nine tenths of its bytes are of an operation that no table knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(9):
            x = double(x)
        y: Tensor = self.conv(x)
        return y


def strange(image_size: tuple[int, int], *, name: str) -> nn.Module:
    return Strange()


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.models.baselines.timm_model", strange)


@pytest.mark.usefixtures("stranger")
def test_a_total_is_never_a_guess() -> None:
    work = count(case("timm/strange", 8))
    assert work["coverage"] < 0.2
    assert work["flops_total"] is None
    assert work["intensity"] is None
    assert "vbench_test.double" in work["flops_reason"]
    assert work["macs_matmul"] == 8 * 8 * 3


AUTOCAST = pytest.mark.skipif(
    Version(version("timm")) < Version("1.0.30"), reason="this timm takes autocast on meta, which torch does not have"
)


@pytest.mark.parametrize(
    "model",
    [f"timm/{name}" for name in ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_100")]
    + [f"timm/{name}" for name in ("poolformerv2_s12", "xcit_nano_12_p16_224")]
    + [pytest.param("timm/efficientvit_b0", marks=AUTOCAST)],
)
def test_the_ledger_knows_all_that_models_of_timm_do(model: str) -> None:
    work = count(case(model, 224))
    assert work["unknown"] == {}
    assert work["coverage"] == 1.0
    assert work["flops_total"] > 2 * work["macs_matmul"] > 0
    assert work["flops_reason"] is work["state_bytes"] is None


@pytest.mark.parametrize("model", ["vrwkv_t", "swin_t", "timm/resnet18"])
def test_modules_add_up_to_the_whole(model: str) -> None:
    asked = case(model, 224)
    work, rows = count(asked), count_by_module(asked)
    for name in ("macs_executed", "macs_matmul", "macs_elementwise", "flops_elementwise", "flops_total", "bytes_min"):
        assert sum(row[name] for row in rows) == work[name]
    assert len({row["module"] for row in rows}) == len(rows) > 4


def test_blocks_are_rows() -> None:
    rows = {row["module"]: row for row in count_by_module(case("deit_t", 224))}
    N, C = 197, 192
    assert rows["blocks.*.mlp"]["macs_matmul"] == 12 * N * 8 * C * C
    assert rows["blocks.*.attn"]["macs_matmul"] == 12 * N * (4 * C * C + 2 * N * C)


# Our operators' formulas, held to what their forms really do


@pytest.mark.parametrize(("op", "form"), OF_TORCH)
def test_an_operators_formulas_are_what_it_does(op: str, form: str) -> None:
    """All FLOPs of a real call, counted one by one, against 2 · macs + elementwise_flops; and the real state."""
    tokens = 96 if "reference" in form else 130
    function, inputs, options = operator(op, form), operands(op, tokens), directions(op)
    real = Ledger(Call(lambda _: function(*inputs, **options))).enter(torch.ones(1))
    assert not real.unknown
    on_meta = [x.to("meta") for x in inputs]
    formula = Ledger(Call(lambda _: function(*on_meta, **options))).enter(torch.ones(1))
    assert [op_ for _, op_, kind in formula.entries if kind is Kind.OPERATOR] == ["vbench.operator"]
    wanted, found = (2 * sums.macs_executed + sums.flops_elementwise for sums in (real.total(), formula.total()))
    assert found == pytest.approx(wanted, rel=0.05)
    _, state = function(*inputs, **options)
    parts = state if isinstance(state, tuple) else (state,)
    assert sum(part.nbytes for part in parts) == sum(formula.states)
    assert bool(formula.states) == (op != "softmax_retention")


def test_no_form_does_less_than_the_algorithm() -> None:
    for op, form in FORMS:
        call = partial(operator(op, form), *(x.to("meta") for x in operands(op, 256)), **directions(op))
        sums = enter(partial(_ignore, call), 1).total()
        assert sums.macs_executed >= sums.macs_algorithm > 0, (op, form)


def _ignore(call: Callable[[], Any], _: Tensor) -> Any:
    return call()


def operands(op: str, tokens: int) -> list[Tensor]:
    """Two images, three heads of 16 and 32, or 48 channels."""
    torch.manual_seed(0)
    B, H, N, D, E = 2, 3, tokens, 16, 32
    q, k, v = torch.randn(B, H, N, D), torch.randn(B, H, N, D), torch.randn(B, H, N, E)
    flat, channels = torch.randn(B, N, 48), torch.rand(48)
    return {
        "gla": [q, k, v, -torch.rand(2, B, H, N, D)],
        "wkv6": [q, k, v, -torch.rand(B, H, N, D), torch.rand(H, D)],
        "mlstm": [q, k, v, torch.randn(B, H, N), torch.randn(B, H, N)],
        "retention": [q, k, v, -torch.rand(H)],
        "softmax_retention": [q, k, v, -torch.rand(H)],
        "linear_attention": [q.abs(), k.abs(), v],
        "wkv": [flat, flat, channels, channels],
        "mingru": [flat, flat],
        "selective_scan": [
            *(torch.randn(2, B, 1, N, 48) for _ in range(2)),  # u, delta
            -torch.rand(2, 1, 48, 16),
            *(torch.randn(2, B, 1, N, 16) for _ in range(2)),  # B, C
            *(torch.randn(2, 1, 48) for _ in range(2)),  # D, delta_bias
        ],
    }[op]


def directions(op: str) -> dict[str, str]:
    return {"direction": "both"} if op in ("gla", "wkv6", "selective_scan") else {}


def test_a_state_is_the_largest_or_the_sum_of_all_layers() -> None:
    assert count(case("vig_t", 224))["state_bytes"] == 4 * 2 * 3 * 32 * 64
    assert count(case("vig_h_t", 224))["state_bytes"] == 4 * 2 * 24 * 16 * 32  # of the last stage
    assert count(case("vir_s", 224))["state_bytes"] == 12 * 4 * 6 * 64 * 64
    assert count(case("vir_s", 225, mode="recurrent"))["state_bytes"] == 12 * 4 * 6 * 64 * 64
    assert count(case("vil_t", 224))["state_bytes"] == 4 * 4 * (96 * 96 + 96 + 1)
    assert count(case("deit_t", 224))["state_bytes"] is None


# The command


class Here:
    """A launcher that runs the job in this process."""

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        assert job == "count_in_full"
        return Ending("ok", None, dict(flops.count_in_full(argument)))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr("vbench.jobs.launch.Launcher", Here)
    return lambda *arguments: CliRunner().invoke(app, ["flops", *arguments])


def test_the_command_prints_a_line_of_json_a_size(command: Callable[..., Any]) -> None:
    done = command("vig_t", "--res", "32,32x64", "--mode", "recurrent", "--json", "--by-module", "--strict")
    assert done.exit_code == 0, done.output
    small, wide = json.loads(done.stdout)
    assert (small["height"], small["width"], wide["width"]) == (32, 32, 64)
    assert (small["mode"], small["form"]) == ("recurrent", "compiled")
    assert set(small) >= set(
        """model height width params macs macs_executed macs_matmul macs_elementwise flops_elementwise flops_total
        bytes_min intensity flops_coverage unknown state_bytes macs_closed_form mode form modules""".split()  # noqa: SIM905
    )
    assert small["flops_total"] == 2 * small["macs_executed"] + small["flops_elementwise"]
    assert sum(row["flops_total"] for row in wide["modules"]) == wide["flops_total"]


def test_the_command_prints_tables(command: Callable[..., Any]) -> None:
    done = command("deit_t", "--res", "224", "--by-module")
    assert done.exit_code == 0, done.output
    assert "GMACs" in done.stdout
    assert "1.254" in done.stdout
    assert "blocks.*.attn" in done.stdout


@pytest.mark.usefixtures("stranger")
def test_strict_fails_on_what_no_table_knows(command: Callable[..., Any]) -> None:
    assert command("timm/strange", "--res", "8", "--json").exit_code == 0
    done = command("timm/strange", "--res", "8", "--strict")
    assert done.exit_code == 1
    assert f"vbench_test.double ({9 * 2 * 4 * 3 * 64} bytes)" in " ".join(done.stderr.split())


def test_the_command_refuses_in_one_line(command: Callable[..., Any]) -> None:
    for arguments, error in (
        (("vig_t",), UsageError),
        (("no_such", "--res", "224"), UnknownModelError),
        (("deit_t", "--res", "225"), ResolutionError),
        (("vig_t", "--res", "224", "--form", "scan"), UsageError),
        (("vig_t", "--res", "224", "--form", "chunkwise", "--mode", "recurrent"), UsageError),
        (("deit_t", "--res", "224", "--form", "chunkwise"), UsageError),
        (("deit_t", "--res", "224", "--mode", "recurrent"), UsageError),
        (("deit_t", "--res", "224", "--mode", "parallel,recurrent"), UsageError),
        (("timm/no_such", "--res", "224"), UsageError),
    ):
        done = command(*arguments)
        assert isinstance(done.exception, error), (arguments, done.output)
        assert len(str(done.exception).splitlines()) == 1
