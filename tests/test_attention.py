"""The kernel of attention: the one that ran is in the record, one alone can be allowed, and rows with two are found."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import make_record

from vbench import jobs
from vbench.errors import UnsupportedError
from vbench.flops.peak import predicted_peak
from vbench.jobs.launch import Ending, Launcher
from vbench.meters import attention
from vbench.meters.build import build
from vbench.plan import PINNED, RIGORS, Case, Sweep, plan
from vbench.results.frame import frame
from vbench.results.lint import unfair

SHORT = replace(RIGORS["quick"], warmup_s=0.01, sample_s=0.01, throughput_s=0.01, samples_min=2, energy_s=0.01)
CUDA_SAYS = (  # with one kernel allowed and float32 images, in torch's order and words
    "Memory efficient kernel not used because: (Triggered internally at /pytorch/sdp_utils.cpp:859.)",
    "Memory Efficient attention has been runtime disabled. (Triggered internally at /pytorch/sdp_utils_cpp.h:550.)",
    "Flash attention kernel not used because: (Triggered internally at /pytorch/sdp_utils.cpp:861.)",
    "Expected query, key and value to all be of dtype: {Half, BFloat16}. Got Query dtype: float instead.\n"
    " (Triggered internally at /pytorch/sdp_utils_cpp.h:103.)",
    "CuDNN attention kernel not used because: (Triggered internally at /pytorch/sdp_utils.cpp:863.)",
    "cuDNN attention has been runtime disabled. (Triggered internally at /pytorch/sdp_utils.cpp:700.)",
)


def case(attention: Any = "fused", model: str = "deit_t", **changes: Any) -> Case:
    return replace(Case(model, 64, 64, "parallel", None, 1, "float32", "cpu", attention=attention), **changes)


def attend(dropout: float = 0.0) -> torch.Tensor:
    x = torch.ones(1, 3, 16, 64)
    return F.scaled_dot_product_attention(x, x, x, dropout_p=dropout)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def measured(launcher: Launcher, one: Case, launch: int = 0) -> Ending:
    return launcher.run(*jobs.measure(one, SHORT, launch=launch), 120)


class TestWhatRan:
    @pytest.mark.parametrize(("asked", "kernel"), [("fused", "flash"), ("math", "math"), ("flash", "flash")])
    def test_the_kernel_is_in_the_settings_of_a_first_launch(self, launcher: Launcher, asked: str, kernel: str) -> None:
        ending = measured(launcher, case(asked))
        assert (ending.status, ending.reason) == ("ok", None)
        assert ending.parts["settings"]["attention"] == asked
        assert ending.parts["settings"]["attention_kernel"] == kernel
        row = frame([make_record("deit_t", settings=ending.parts["settings"])]).iloc[0]
        assert (row["attention"], row["attention_kernel"]) == (asked, kernel)

    def test_a_training_step_has_one_and_unfused_attention_has_none(self, launcher: Launcher) -> None:
        step = measured(launcher, case("flash", phase="train", batch=2)).parts["settings"]
        assert step["attention_kernel"] == "flash"
        unfused = measured(launcher, case("unfused")).parts["settings"]
        assert unfused["attention_kernel"] is None
        assert unfused["attention_kernel_reason"] == attention.NONE_RAN

    def test_a_later_launch_and_a_model_with_an_operator_of_ours_are_not_asked(self, launcher: Launcher) -> None:
        assert "attention_kernel" not in measured(launcher, case(), launch=1).parts["settings"]
        (ours,) = plan(Sweep(("vig_t",), ((64, 64),), ("parallel",), (1,)))
        assert "attention_kernel" not in measured(launcher, ours).parts["settings"]

    def test_kernels_of_one_call_are_named_together(self) -> None:
        def both() -> None:
            attend()
            with attention.pinned("math"):
                attend()

        found = attention.found(both, expected_s=0.1, limit_s=1.0)
        assert found == {"attention_kernel": "flash+math", "attention_kernel_reason": None}

    def test_a_slow_call_is_not_repeated_and_a_failing_one_costs_the_name_alone(self) -> None:
        slow = attention.found(lambda: pytest.fail("called"), expected_s=45.0, limit_s=3.0)
        assert slow == {
            "attention_kernel": None,
            "attention_kernel_reason": "one more call would take 45 s, more than 3 s",
        }

        def fails() -> None:
            raise MemoryError("no room\nat all")

        reason = attention.found(fails, expected_s=0.1, limit_s=3.0)["attention_kernel_reason"]
        assert reason == "the call failed under the profiler: no room"


class TestOneAlone:
    @pytest.mark.parametrize("kernel", ["cudnn", "efficient"])
    def test_a_kernel_that_the_device_lacks_is_unsupported_in_torchs_words(
        self, launcher: Launcher, kernel: str
    ) -> None:
        ending = measured(launcher, case(kernel))
        assert ending.status == "unsupported"
        assert str(ending.reason).startswith(f"the kernel '{kernel}' cannot compute this attention: No viable backend")
        assert "latency" not in ending.parts

    def test_torchs_reasons_against_an_input_are_the_reason(self) -> None:
        wanted = r"the kernel 'flash' cannot compute this attention: .*[dD]ropout"
        with pytest.raises(UnsupportedError, match=wanted), attention.pinned("flash"):
            attend(dropout=0.5)

    def test_the_reasons_are_those_of_the_kernel_that_was_asked_for(self) -> None:
        wanted = "Expected query, key and value to all be of dtype: {Half, BFloat16}. Got Query dtype: float instead"
        assert attention.reasons("flash", CUDA_SAYS) == wanted
        assert attention.reasons("cudnn", CUDA_SAYS) == "cuDNN attention has been runtime disabled"
        assert attention.reasons("efficient", CUDA_SAYS) == "Memory Efficient attention has been runtime disabled"
        assert attention.reasons("flash", ()) == ""

    def test_another_error_stays_what_it_is(self) -> None:
        with pytest.raises(RuntimeError, match="something else"), attention.pinned("math"):
            raise RuntimeError("something else")

    @pytest.mark.parametrize("asked", [None, "fused", "unfused", "math"])
    def test_afterwards_torch_chooses_again(self, asked: str | None) -> None:
        with attention.pinned(asked):
            assert attention.ran(attend) == {"math" if asked == "math" else "flash"}
        assert attention.ran(attend) == {"flash"}

    def test_a_model_without_attention_that_timm_fuses_has_no_kernel_to_choose(self) -> None:
        for model in ("timm/resnet18", "swin_t"):
            with pytest.raises(UnsupportedError, match=f"{model} has no attention that timm fuses"):
                build(case("flash", model, height=224, width=224))

    def test_another_kernel_than_the_one_asked_for_is_no_row(self) -> None:
        nothing = {"attention_kernel": None, "attention_kernel_reason": attention.NONE_RAN}
        unknown = {"attention_kernel": None, "attention_kernel_reason": "one more call would take 45 s"}
        for one, known, ran in (
            (case("flash"), {"attention_kernel": "flash+math"}, r"flash\+math"),
            (case("math"), nothing, "none"),
        ):
            with pytest.raises(UnsupportedError, match=f"by the kernel '{one.attention}' alone, and {ran} ran"):
                attention.check(one, known)
        attention.check(case("math", backend="compile"), nothing)  # the compiler's own code
        attention.check(case("math"), unknown)
        attention.check(case("fused"), {"attention_kernel": "flash+math"})

    def test_the_largest_batch_is_that_of_the_kernel(self, launcher: Launcher) -> None:
        tried = [
            launcher.run(*jobs.attempt(case(kernel), budget_bytes=None, threads=1), 120)
            for kernel in ("math", "efficient")
        ]
        assert [one.status for one in tried] == ["ok", "unsupported"]

    def test_the_math_kernel_is_predicted_to_hold_all_scores(self) -> None:
        peaks = {how: predicted_peak(case(how, height=512, width=512)) for how in ("fused", "flash", "math", "unfused")}
        assert peaks["flash"] == peaks["fused"] < peaks["math"]
        assert peaks["math"] == pytest.approx(peaks["unfused"], rel=0.05)

    def test_a_sweep_plans_each(self) -> None:
        cells = plan(Sweep(("deit_t", "vig_t"), ((224, 224),), ("parallel",), attentions=PINNED))
        assert [cell.attention for cell in cells] == [*PINNED, None]

        assert [str(cell).split()[-1] for cell in cells] == [*PINNED, "float32"]


def test_rows_of_two_kernels_get_a_line_of_the_lint() -> None:
    rows = [
        make_record("deit_t", side, settings={"attention": "fused", "attention_kernel": kernel})
        for side, kernel in ((224, "cudnn"), (512, "flash"), (1024, "flash"))
    ]
    line = "rows differ in attention_kernel: cudnn (1), flash (2); compare within one"
    assert line in unfair(frame([*rows, make_record("vig_t")]))
    assert not any("attention_kernel" in one for one in unfair(frame([*rows[1:], make_record("vig_t")])))


def test_warnings_of_others_are_not_swallowed_outside() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with attention.pinned("math"):
            attend()
        warnings.warn("afterwards", stacklevel=1)
    assert [str(one.message) for one in said] == ["afterwards"]
