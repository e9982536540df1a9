"""The generated page: every variant, every deviation with its reason, and no reason without a deviation."""

from __future__ import annotations

from pathlib import Path

import pytest

from vbench.models import MODELS
from vbench.reports import zoo
from vbench.results.published import costs

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["vig_t", "vrwkv_t", "vil2_s", "vir_s_softmax", "vision_gru_t", "deit_t"])
def test_the_page_is_what_the_counters_say_now(name: str) -> None:
    assert zoo.row(name) in PAGE


def test_every_model_is_there_and_every_reason_is_needed() -> None:
    assert [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if line.startswith("| v")] == [
        name for name in MODELS if name.startswith("v")
    ]
    assert zoo.sources() in PAGE
    assert [why for why in zoo.REASONS.values() if why not in PAGE] == []


def test_a_published_figure_is_the_models_own_and_agrees_where_ours_rounds_to_it() -> None:
    assert costs()["vrwkv_l", "flops_g"].res == 384
    assert costs()["vil2_t", "flops_g"].text == "1.5"
    assert zoo.deviation("vrwkv_b", "params_m", 93.6455, costs()["vrwkv_b", "params_m"]) == []
    assert zoo.deviation("vig_t", "flops_g", 0.914, costs()["vig_t", "flops_g"]) == []
    assert zoo.deviation("vig_t", "flops_g", 1.168, costs()["vig_t", "flops_g"])[0].startswith("GMACs +28.4%: read off")
    with pytest.raises(KeyError, match="say in REASONS why flops_g deviates"):
        zoo.deviation("vrwkv_t", "flops_g", 2.0, costs()["vrwkv_t", "flops_g"])
