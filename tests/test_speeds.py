"""The table of docs/models.md that sets the FLOP/s of the families beside DeiT's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fakes import make_record

from vbench.reports import speeds
from vbench.results.frame import frame
from vbench.results.store import Record

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "vig_t": [
        {"module": "blocks.*.gla()", "calls": 12, "own_ms": 60.0, "macs_executed": 10**8},
        {"module": "blocks.*.ffn", "calls": 12, "own_ms": 38.0, "macs_executed": 9 * 10**8},
        {"module": "norm", "calls": 1, "own_ms": 2.0, "macs_executed": 0},
        {"module": "dropped", "calls": 0, "own_ms": None, "macs_executed": 0},
    ]
}


def of(model: str, mode: str, ms: float) -> Record:
    return make_record(
        model, 224, mode, latency={"batch": 1, "samples_ms": [ms] * 7, "throttled": None, "host_ms": None}
    )


def run(vig: tuple[float, float], deit: float = 50.0) -> pd.DataFrame:
    """Records of one run: vig_t in both modes, and deit_t. All have as many MACs."""
    modes = zip(("parallel", "recurrent"), vig, strict=True)
    return frame([*(of("vig_t", mode, ms) for mode, ms in modes), of("deit_t", "parallel", deit)])


def test_a_model_counts_in_its_faster_mode() -> None:
    found = speeds.fastest(run((100.0, 80.0)))
    assert list(found["model"]) == ["deit_t", "vig_t"]
    assert list(found["mode"]) == ["parallel", "recurrent"]
    assert list(found["beside"]) == [1.0, pytest.approx(50 / 80)]
    assert found["gflops_per_s"].iloc[0] == pytest.approx(2 * found["macs"].iloc[0] / 50e-3 / 1e9)


def test_what_is_slow_is_said_to_lose_its_time_somewhere() -> None:
    text = speeds.markdown(run((100.0, 200.0)), MODULES)
    assert "| vig_t | parallel:chunkwise |" in text
    (line,) = (line for line in text.splitlines() if line.startswith("- "))
    assert line.startswith("- vig_t parallel: `blocks.*.gla()` 60% of the time for 10% of the MACs; `norm` 2%")
    assert "ffn" not in line  # at DeiT's rate it would take longer
    assert "is not recorded" in speeds.markdown(run((100.0, 200.0)), {})


def test_what_is_fast_enough_needs_no_reason() -> None:
    text = speeds.markdown(run((60.0, 60.0)), {})
    assert text.endswith("No family is below 70% of DeiT's FLOP/s.")


def test_there_is_no_ratio_without_deit() -> None:
    with pytest.raises(ValueError, match="no time of deit_t"):
        speeds.fastest(frame([of("vig_t", "parallel", 10.0)]))


def test_the_page_shows_what_is_recorded() -> None:
    assert speeds.section(ROOT / "results" / "cpu-224") in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
