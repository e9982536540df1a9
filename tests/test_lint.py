"""Rows that differ in more than what is compared are named; padding is counted."""

from __future__ import annotations

import pandas as pd
import pytest
from fakes import HOST, make_record

from vbench.models.registry import MODELS, spec
from vbench.plan import GRID
from vbench.results.axes import EQUAL
from vbench.results.frame import frame
from vbench.results.lint import unfair


def fair(**columns: object) -> pd.DataFrame:
    """Two models at two sizes under one setting, and what else is given."""
    size = [224, 512, 224, 512]
    table = pd.DataFrame({"model": ["vig_t"] * 2 + ["deit_t"] * 2, "mode": "parallel", "height": size, "width": size})
    return table.assign(status="ok", **columns)


def test_a_comparison_of_models_modes_and_sizes_is_fair() -> None:
    found = [make_record(model, side) for model in ("vig_t", "deit_t") for side in (224, 512)]
    assert unfair(frame([*found, make_record("vig_t", 224, "recurrent")])) == []
    assert unfair(frame([])) == []


@pytest.mark.parametrize("setting", EQUAL)
def test_each_setting_that_differs_is_one_line(setting: str) -> None:
    table = fair(**{setting: ["one", "one", "one", "other"]})
    assert unfair(table) == [f"rows differ in {setting}: one (3), other (1); compare within one"]
    assert unfair(fair(**{setting: "one"})) == []


def test_several_dtypes_are_one_line() -> None:
    assert unfair(fair(dtype=["float32", "bfloat16"] * 2)) == [
        "rows differ in dtype: bfloat16 (2), float32 (2); compare within one"
    ]


def test_what_is_not_known_differs_from_what_is() -> None:
    assert unfair(fair(tf32=[True, pd.NA, True, True])) == [
        "rows differ in tf32: True (3), not known (1); compare within one"
    ]
    assert unfair(fair(attention=[pd.NA, pd.NA, "fused", "fused"])) == []  # the others have none


def test_rows_without_a_measurement_are_not_compared() -> None:
    table = fair(threads=[1, 1, 1, 8])
    table.loc[3, "status"] = "oom"
    assert unfair(table) == []


def test_commits_are_shortened_and_changes_kept() -> None:
    one, other = make_record("vig_t"), make_record("deit_t", host={**HOST, "commit": "f" * 40, "dirty": True})
    assert unfair(frame([one, other])) == [
        "rows differ in commit: 0123456789abcdef (1), ffffffffffff-dirty (1); compare within one"
    ]


def test_the_digest_of_conditions_is_named_only_where_nothing_else_says_what_differs() -> None:
    apart = {"conditions": ["a", "a", "a", "b"]}
    (line,) = unfair(fair(**apart))
    assert line.startswith("rows differ in conditions: a (3), b (1)")
    (line,) = unfair(fair(**apart, torch=["2.11.0", "2.11.0", "2.11.0", "2.12.0"]))
    assert line.startswith("rows differ in torch")


def test_batches_that_were_found_are_said_mildly_and_those_asked_for_are_not() -> None:
    batches = {"batch": [1, 8, 1, 4], "throughput_img_s": 9.0}
    (line,) = unfair(fair(**batches, batch_policy="auto"))
    assert line == "throughput is at several batches: 1 (2), 4 (1), 8 (1); under policy auto each row has its own"
    (line,) = unfair(fair(**batches, batch_policy="fixed"))
    assert line == "rows differ in batch: 1 (2), 4 (1), 8 (1); compare throughput within one"


class TestPadding:
    def test_is_said_with_its_share(self) -> None:
        table = fair().assign(model=["swin_t", "swin_t", "vig_t", "vig_t"])
        assert unfair(table) == ["swin_t pads at 1 of 2 sizes: 10.8% of what it computes on is padding at 512 px"]
        assert unfair(table.assign(padded_share=[0.25, 0.5, None, 0.0])) == [
            "swin_t pads at 2 of 2 sizes: 50.0% of what it computes on is padding at 512 px, the most"
        ]

    def test_what_is_cut_off_is_said(self) -> None:
        table = fair().assign(model="vir_s", height=[224, 500, 224, 500], width=[224, 500, 224, 500])
        assert unfair(table) == ["vir_s ignores part of the image at 500 px: no whole patches"]

    def test_share_of_window_tokens(self) -> None:
        """At 512 px the maps of 128, 64, 32 and 16 become 133, 70, 35 and 21."""
        real = [2 * 128**2, 2 * 64**2, 6 * 32**2, 2 * 16**2]
        full = [2 * 133**2, 2 * 70**2, 6 * 35**2, 2 * 21**2]
        assert spec("swin_t").padded_share(512, 512) == pytest.approx(1 - sum(real) / sum(full))
        assert spec("swin_t").padded_share(224, 224) == 0
        assert spec("swin_t").padded_share(28, 28) == 0  # one window, which shrinks to the map

    def test_share_of_a_filled_image(self) -> None:
        assert spec("vrwkv_t").padded_share(250, 256) == pytest.approx(6 / 256)
        assert spec("vrwkv_t").padded_share(256, 256) == 0

    def test_what_cuts_pads_nothing_and_what_is_not_known_is_none(self) -> None:
        assert spec("vir_s").padded_share(500, 500) == 0
        assert spec("timm/resnet50").padded_share(224, 224) is None

    @pytest.mark.parametrize("name", MODELS)
    def test_share_and_words_agree(self, name: str) -> None:
        for side in (64, *GRID):
            row = spec(name)
            words, share = row.padding(side, side), row.padded_share(side, side)
            assert share is not None
            assert (share > 0) == bool(words and "pad" in words)
            assert 0 <= share < 1

    @pytest.mark.parametrize("name", ["swin_t", "swin_s", "swin_b"])
    def test_depths_are_those_of_the_model(self, name: str) -> None:
        import timm
        import torch

        with torch.device("meta"):
            model = timm.create_model(spec(name).args["name"])
        assert spec(name).depths == tuple(len(stage.blocks) for stage in model.layers)
