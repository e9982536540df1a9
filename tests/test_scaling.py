"""Exponents and crossovers: known laws come back, noise is covered, and a wrong counter is caught."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import make_record
from scipy.stats import linregress
from scipy.stats import t as student
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.flops import count as flops
from vbench.plan import GRID, Case
from vbench.results.frame import frame
from vbench.results.roots import root
from vbench.results.scaling import (
    FITTED,
    TOLERANCE,
    WIDEST,
    crossover,
    crossovers,
    exponents,
)
from vbench.results.store import Store


def rows(
    model: str = "vig_t",
    mode: str = "parallel",
    *,
    sides: tuple[int, ...] = GRID,
    power: float = 1.0,
    scale: float = 1.0,
    error: float = 0.0,
    cost: str = "latency_ms",
    seed: int | None = None,
    **also: object,
) -> pd.DataFrame:
    """A power law in tokens, (side / 16)², with log-normal noise if there is a seed, and 95 % intervals of `error`."""
    side = np.array(sides)
    tokens = (side // 16) ** 2
    values = scale * tokens.astype(float) ** power
    if seed is not None:
        values = values * np.exp(error * np.random.default_rng(seed).standard_normal(len(values)))
    table = pd.DataFrame({"height": side, "width": side, "tokens": tokens, cost: values})
    table = table.assign(model=model, mode=mode, dtype="float32", status="ok", **also)
    if error:
        table[f"{cost}_lo"], table[f"{cost}_hi"] = values * np.exp(-1.96 * error), values * np.exp(1.96 * error)
    return table


def deit_macs(tokens: float, *, attention: bool = True) -> float:
    """DeiT-T in closed form: 12 blocks of width 192, four projections, an MLP of 4; one class token."""
    n, dim = tokens + 1, 192
    return 12 * (12 * n * dim**2 + 2 * attention * n**2 * dim) + tokens * 768 * dim + 1000 * dim


class TestExponents:
    @pytest.mark.parametrize(("power", "verdict"), [(1.0, "linear"), (2.0, "quadratic"), (1.5, None), (0.7, None)])
    @pytest.mark.parametrize("cost", ["macs_executed", "latency_ms", "activation_bytes"])
    def test_a_power_law_comes_back(self, power: float, verdict: str | None, cost: str) -> None:
        row = exponents(rows(power=power, cost=cost), [cost]).iloc[0]
        assert row["exponent"] == pytest.approx(power)
        assert row["local_exponent"] == pytest.approx(power)
        assert (row["exponent_lo"], row["exponent_hi"]) == (pytest.approx(power), pytest.approx(power))
        assert row["verdict"] == (f"consistent with {verdict}" if verdict else "neither")
        assert (row["points"], row["unit"], row["tokens_lo"], row["tokens_hi"]) == (9, "tokens", 196, 16384)

    def test_agrees_with_numpys_fit(self) -> None:
        table = rows(power=1.3, error=0.1, seed=0)
        expected = np.polyfit(np.log(table["tokens"]), np.log(table["latency_ms"]), 1)[0]
        assert exponents(table).iloc[0]["exponent"] == pytest.approx(expected)

    def test_its_interval_covers(self) -> None:
        hits = 0
        for seed in range(40):
            row = exponents(rows(power=1.2, error=0.05, seed=seed, sides=(224, 512, 768, 1024, 2048))).iloc[0]
            hits += row["exponent_lo"] <= 1.2 <= row["exponent_hi"]
        assert hits >= 36

    def test_points_that_agree_by_chance_keep_the_error_of_their_cells(self) -> None:
        row = exponents(rows(error=0.1)).iloc[0]
        x = np.log(rows()["tokens"])
        expected = 1.96 * 0.1 / np.sqrt(((x - x.mean()) ** 2).sum())
        assert row["exponent_hi"] - row["exponent"] == pytest.approx(expected, rel=1e-3)
        local = 1.96 * 0.1 * np.sqrt(2) / np.log(16384 / 9216)
        assert row["local_hi"] - row["local_exponent"] == pytest.approx(local, rel=1e-3)

    def test_points_off_a_power_law_widen_it_whatever_their_cells_say(self) -> None:
        table = rows(error=0.2, seed=1)
        expected = linregress(np.log(table["tokens"]), np.log(table["latency_ms"])).stderr * student.ppf(0.975, 7)
        for error in (0.2, 0.001):
            table["latency_ms_lo"] = table["latency_ms"] * np.exp(-error)
            table["latency_ms_hi"] = table["latency_ms"] * np.exp(error)
            row = exponents(table).iloc[0]
            assert row["exponent_hi"] - row["exponent"] == pytest.approx(expected)

    def test_a_wide_interval_is_no_verdict(self) -> None:
        table = rows(error=0.5, sides=(224, 512, 1024))
        row = exponents(table).iloc[0]
        assert row["exponent_hi"] - row["exponent_lo"] > 2 * WIDEST
        assert row["verdict"] == "interval too wide"

    @pytest.mark.parametrize("sides", [(224, 512), (224, 256, 320)])
    def test_few_sizes_or_a_short_span_is_no_verdict(self, sides: tuple[int, ...]) -> None:
        row = exponents(rows(sides=sides, cost="macs_executed")).iloc[0]
        assert row["verdict"] == "too few points"
        assert row["local_exponent"] == pytest.approx(1.0)

    def test_one_size_is_no_row_and_an_empty_table_has_its_columns(self) -> None:
        assert exponents(rows(sides=(512,))).empty
        assert "verdict" in exponents(frame([])).columns

    def test_a_linear_start_does_not_hide_what_grows_at_the_top(self) -> None:
        table = rows(error=0.01)
        table.loc[table.index[-1], ["latency_ms", "latency_ms_lo", "latency_ms_hi"]] *= 1.5
        row = exponents(table).iloc[0]
        assert row["exponent_lo"] < 1 + TOLERANCE
        assert row["local_lo"] > 1.5
        assert row["verdict"] == "neither"

    def test_pixels_stand_in_for_tokens(self) -> None:
        row = exponents(rows(cost="macs_executed").assign(tokens=pd.NA)).iloc[0]
        assert (row["unit"], row["tokens_hi"]) == ("pixels", 2048**2)
        assert row["exponent"] == pytest.approx(1.0)

    def test_settings_are_fitted_apart_and_unknown_columns_are_not_needed(self) -> None:
        table = pd.concat([rows(power=1.0), rows(power=2.0).assign(dtype="bfloat16")])
        found = exponents(table).set_index("dtype")["verdict"]
        assert found.to_dict() == {"float32": "consistent with linear", "bfloat16": "consistent with quadratic"}

    def test_batches_that_were_asked_for_are_fitted_apart_and_those_that_were_found_are_not(self) -> None:
        table = rows(throughput_img_s=1.0, batch=range(1, 10))
        assert len(exponents(table.assign(batch_policy="auto"), ["ms_per_image"])) == 1
        two = pd.concat([table.assign(batch=1), table.assign(batch=8)]).assign(batch_policy="fixed")
        assert sorted(exponents(two, ["ms_per_image"])["batch_asked"]) == ["1", "8"]

    def test_activations_are_the_peak_less_weights_and_input_where_they_are_not_known(self) -> None:
        table = rows(cost="peak_memory_bytes", power=1.0, scale=1000).assign(weights_bytes=7, input_bytes=11)
        table["peak_memory_bytes"] += 18
        assert exponents(table, ["activation_bytes"]).iloc[0]["exponent"] == pytest.approx(1.0)

    def test_an_unknown_cost_is_refused(self) -> None:
        with pytest.raises(UsageError, match="'seconds' is not a cost"):
            exponents(rows(), ["seconds"])


class TestDeiT:
    """A counter that misses fused attention makes DeiT look linear; the exponent must give it away."""

    def test_the_counter_finds_attention_between_512_and_1024(self) -> None:
        sides = (512, 1024)
        counted = [
            flops.count(Case("deit_t", n, n, "parallel", None, 1, "float32", "cpu"))["macs_executed"] for n in sides
        ]
        row = exponents(rows("deit_t", sides=sides, cost="macs_executed").assign(macs_executed=counted)).iloc[0]
        assert row["local_exponent"] == pytest.approx(1.63, abs=0.01)
        assert counted == [pytest.approx(deit_macs((n // 16) ** 2), rel=1e-3) for n in sides]

    @pytest.mark.parametrize("attention", [True, False])
    def test_without_attention_it_would_be_called_linear(self, attention: bool) -> None:
        table = rows("deit_t", cost="macs_executed")
        table["macs_executed"] = [deit_macs(n, attention=attention) for n in table["tokens"]]
        row = exponents(table).iloc[0]
        pair = exponents(table[table["height"].isin([512, 1024])]).iloc[0]
        if attention:
            assert row["verdict"] == "neither"
            assert "grows faster than linear, slower than quadratic" in row["reading"]
            assert "1.91 between 1536 and 2048 px" in row["reading"]
            assert pair["local_exponent"] == pytest.approx(1.63, abs=0.01)
        else:
            assert row["verdict"] == "consistent with linear"
            assert abs(pair["local_exponent"] - 1.63) > 0.5


class TestCrossover:
    def two(self, error: float = 0.0, cost: str = "latency_ms") -> pd.DataFrame:
        """vig_t is linear, deit_t quadratic, and they cost the same at 1024 tokens, 512 px."""
        return pd.concat(
            [
                rows("vig_t", power=1, scale=1024, error=error, cost=cost),
                rows("deit_t", power=2, scale=1, error=error, cost=cost),
            ],
            ignore_index=True,
        )

    def test_where_power_laws_cross_is_found_between_sizes_too(self) -> None:
        table = self.two()
        for sides in (GRID, (224, 2048)):
            found = crossover(table[table["height"].isin(sides)], "vig_t", "deit_t")
            assert found.verdict == "crosses"
            assert found.px == pytest.approx(512, rel=1e-6)

    def test_a_cell_that_ties_is_not_cheaper(self) -> None:
        found = crossover(self.two(), "vig_t", "deit_t")
        assert found.px == pytest.approx(512)
        assert crossover(self.two(), "vig_t", "vig_t").verdict == "not reached"

    def test_its_interval_covers(self) -> None:
        hits = 0
        for seed in range(40):
            table = pd.concat(
                [rows("vig_t", scale=900, error=0.04, seed=seed), rows("deit_t", power=2, error=0.04, seed=99 - seed)]
            )
            found = crossover(table, "vig_t", "deit_t")
            assert found.px_lo is not None
            assert found.px_hi is not None
            hits += found.px_lo <= 16 * 30 <= found.px_hi
        assert hits >= 35

    def test_the_interval_opens_where_it_leaves_the_sizes(self) -> None:
        found = crossover(self.two(error=2.0), "vig_t", "deit_t")
        assert found.px_lo is None or found.px_hi is None
        assert "below 224" in found.reading or "beyond 2048" in found.reading

    def planted(self, seed: int, sides: tuple[int, ...], noise: float) -> pd.DataFrame:
        """Two power laws that cross at 500 px, with noise of a known size in every cell."""
        tokens = (500 / 16) ** 2
        return pd.concat(
            [
                rows("vig_t", scale=tokens**0.5, sides=sides, error=noise, seed=2 * seed),
                rows("deit_t", power=1.5, sides=sides, error=noise, seed=2 * seed + 1),
            ],
            ignore_index=True,
        )

    @pytest.mark.parametrize(
        ("sides", "noise"),
        [
            (GRID, 0.03),
            ((224, 384, *range(432, 560, 16), 640, 1024, 2048), 0.1),
        ],
    )
    def test_a_known_crossing_is_covered(self, sides: tuple[int, ...], noise: float) -> None:
        """Also where sizes are closer to each other than the noise, as after refinement."""
        hits = 0
        for seed in range(200):
            found = crossover(self.planted(seed, sides, noise), "vig_t", "deit_t")
            hits += (found.px_lo or 0.0) <= 500 <= (found.px_hi or np.inf)
        assert hits >= 186

    @pytest.mark.parametrize("sides", [(224, 640), (224, 1024), (448, 512), GRID])
    def test_what_lies_between_two_sizes_is_not_known(self, sides: tuple[int, ...]) -> None:
        """Costs of a fixed and a linear, or of a linear and a quadratic part: where they cross is within the bounds."""
        random, fine, off = np.random.default_rng(0), np.arange(min(sides), max(sides) + 1), []
        places = np.searchsorted(fine, sides)
        tokens = (fine / np.sqrt(min(sides) * max(sides))) ** 2
        for _ in range(500):
            fixed, linear, scale = random.uniform([0, 0, 0.3], [1, 1, 3])
            mine = fixed + (1 - fixed) * tokens
            theirs = scale * tokens * (linear + (1 - linear) * tokens)
            apart = np.log(mine / theirs)
            if apart[0] < 0 or apart[-1] >= 0:
                continue
            found = root(np.log(sides), apart[places], np.zeros(len(sides)))
            truth = np.log(fine[np.flatnonzero(apart >= 0)[-1]])
            assert found.lo - 0.01 <= truth <= found.hi + 0.01
            assert found.hi - found.lo < max(np.diff(np.log(sides)))
            off.append(abs(found.at - truth))
        assert len(off) > 20
        if max(np.diff(np.log(sides))) > 1:
            assert max(off) > 0.02  # by the line alone it would be wrong

    def test_bounds_of_a_count_say_no_level(self) -> None:
        table = self.two(cost="macs_executed")
        table = table[table["height"].isin([224, 1024])]
        found = crossover(table, "vig_t", "deit_t", "macs_executed")
        assert found.px_lo is not None
        assert found.px_hi is not None
        assert found.px_lo < 512 < found.px_hi
        assert found.reading.endswith(f"px up (between {found.px_lo:.0f} and {found.px_hi:.0f} px)")

    def test_cells_without_an_interval_leave_it_to_their_neighbours(self) -> None:
        table = self.two(error=0.02)
        ends = ["latency_ms_lo", "latency_ms_hi"]
        table.loc[table["height"].isin([512, 1536, 2048]), ends] = np.nan
        found = crossover(table, "vig_t", "deit_t")
        assert (found.px_lo, found.px_hi) == (pytest.approx(384), pytest.approx(640))
        assert found.reading.endswith("up (between 384 and 640 px, 95 %; no interval at 512, 1536 and 2048 px)")
        table.loc[table["height"] > 400, ends] = np.nan
        found = crossover(table, "vig_t", "deit_t")
        assert (found.px_lo, found.px_hi) == (pytest.approx(384), None)
        assert "(95 % interval: 384 to beyond 2048 px; no interval at" in found.reading
        found = crossover(table.assign(latency_ms_lo=np.nan), "vig_t", "deit_t")
        assert not found.interval_known
        assert found.reading.endswith("(interval not known)")

    def test_a_range_is_no_interval(self) -> None:
        table = self.two(error=0.02).assign(latency_basis="range", latency_level=0.5)
        assert not crossover(table, "vig_t", "deit_t").interval_known

    def test_a_pair_in_turns_stands_before_its_two_cells(self) -> None:
        table = self.two(error=0.3)
        table["case_id"] = table["model"] + table["height"].astype(str)
        wide = crossover(table, "vig_t", "deit_t")
        for side in GRID:
            over = 1.2 * 512**2 / side**2  # the cells' own ratio would cross at 512 px, not at 561
            mine = (table["model"] == "vig_t") & (table["height"] == side)
            paired = json.dumps({f"deit_t{side}": [over, over / 1.01, over * 1.01, 4, 900]})
            table.loc[mine, "latency_paired"] = paired
        found = crossover(table, "vig_t", "deit_t")
        assert found.px == pytest.approx(512 * 1.2**0.5)
        assert None not in (found.px_lo, found.px_hi, wide.px_lo, wide.px_hi)
        assert found.px_hi / found.px_lo < 1.05 < wide.px_hi / wide.px_lo  # type: ignore[operator]
        other = crossover(table, "deit_t", "vig_t")
        assert other.verdict == "not reached"

    def test_for_good_means_after_the_last_time_that_it_is_not_cheaper(self) -> None:
        table = self.two()
        dear = (table["model"] == "vig_t") & (table["height"] == 1280)
        table.loc[dear, "latency_ms"] *= 100
        px = crossover(table, "vig_t", "deit_t").px
        assert px is not None
        assert 1280 < px < 1536

    def test_not_reached_and_at_every_size(self) -> None:
        table = pd.concat([rows("vig_t", scale=2), rows("deit_t")])
        dear, cheap = crossover(table, "vig_t", "deit_t"), crossover(table, "deit_t", "vig_t")
        assert (dear.verdict, cheap.verdict) == ("not reached", "cheaper at every size")
        assert dear.reading == "vig_t needs less time a call than deit_t: not reached by 2048 px (interval not known)"
        assert "at every size from 224 to 2048 px" in cheap.reading

    def test_what_was_counted_crosses_at_a_point(self) -> None:
        found = crossover(self.two(cost="macs_executed"), "vig_t", "deit_t", "macs_executed")
        assert found.px == found.px_lo == found.px_hi == pytest.approx(512)
        assert "interval" not in found.reading

    @pytest.mark.parametrize(
        ("a", "b", "cost", "what"),
        [
            (
                "vig_t recurrent",
                "deit_t",
                "latency_ms",
                "has no vig_t recurrent; it has deit_t parallel, vig_t parallel",
            ),
            ("vig_t", "deit_t", "seconds", "'seconds' is not a cost"),
            ("vig_t", "deit_t", "macs", "fewer than two sizes"),
        ],
    )
    def test_what_cannot_be_is_refused(self, a: str, b: str, cost: str, what: str) -> None:
        with pytest.raises(UsageError, match=what):
            crossover(self.two(), a, b, cost)

    def test_an_ambiguous_model_is_refused(self) -> None:
        table = pd.concat([self.two(), self.two().assign(dtype="bfloat16")])
        with pytest.raises(UsageError, match="differ in dtype"):
            crossover(table, "vig_t", "deit_t")

    def test_every_pair_is_compared_within_its_setting(self) -> None:
        table = pd.concat([self.two(), rows("vig_t", "recurrent", scale=3000), self.two().assign(dtype="bfloat16")])
        found = crossovers(table)
        assert found.groupby("dtype").size().to_dict() == {"float32": 3, "bfloat16": 1}
        assert set(found["verdict"]) == {"crosses", "cheaper at every size"}
        one = crossover(table[table["dtype"] == "float32"], "vig_t", "deit_t")
        row = found[
            (found["dtype"] == "float32") & (found["a"] == "vig_t parallel") & (found["b"] == "deit_t parallel")
        ]
        assert row["px"].item() == one.px
        assert crossovers(frame([])).empty


class TestFit:
    def test_prints_fits_crossovers_and_differences(self, tmp_path: Path) -> None:
        with Store(tmp_path) as store:
            for record in [make_record(model, side) for model in ("vig_t", "deit_t") for side in (224, 512, 1024)]:
                store.append(record)
        before = (tmp_path / "records.jsonl").read_bytes()
        done = CliRunner().invoke(app, ["fit", str(tmp_path), "--cost", "latency_ms"])
        assert done.exit_code == 0, done.output
        assert "consistent with linear" in done.output
        assert "vig_t parallel needs less time a call than deit_t parallel: from 400 px up" in done.output
        found = json.loads(CliRunner().invoke(app, ["fit", str(tmp_path), "--json"]).output)
        assert found.keys() == {"exponents", "crossovers", "unfair"}
        assert {row["cost"] for row in found["exponents"]} == set(FITTED)
        assert {row["cost"] for row in found["crossovers"]} == set(FITTED)
        assert (tmp_path / "records.jsonl").read_bytes() == before
        assert {file.name for file in tmp_path.iterdir()} == {"records.jsonl", ".lock"}

    def test_too_little_to_fit_is_said(self, tmp_path: Path) -> None:
        with Store(tmp_path) as store:
            store.append(make_record())
        assert "nothing can be fitted" in CliRunner().invoke(app, ["fit", str(tmp_path)]).output

    @pytest.mark.parametrize(
        ("arguments", "what"), [((), "no records.jsonl"), (("--cost", "joy"), "'joy' is not a cost")]
    )
    def test_what_cannot_be_is_refused(self, tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
        folder = tmp_path
        if arguments:
            with Store(folder) as store:
                store.append(make_record())
        with pytest.raises(UsageError, match=what):
            CliRunner().invoke(app, ["fit", str(folder), *arguments], catch_exceptions=False)
