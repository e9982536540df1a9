"""Costs, emissions and images a joule, worked by hand from records whose images/s and joules are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import failed, make_record
from typer.testing import CliRunner

import vbench
from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.reports import html, tables
from vbench.reports.payload import payload
from vbench.reports.runs import Run, table_of
from vbench.results import pick, rates
from vbench.results.frame import frame
from vbench.results.known import Accuracies
from vbench.results.rates import COST, EMISSIONS, Rates
from vbench.results.store import Record, Store

ENERGY = {"net_j_per_image": 0.5, "gross_j_per_image": 0.9, "reason": None}
NONE = {"net_j_per_image": None, "gross_j_per_image": None, "reason": "no counter here"}


BLOCKS = {"batch": 4, "images_per_s": 10.0, "block_calls": 1, "blocks_ms": [395.0 + i / 2 for i in range(21)]}
LATER = {**BLOCKS, "images_per_s": 10.05, "blocks_ms": [393.0 + i / 2 for i in range(21)]}


def records() -> list[Record]:
    return [
        make_record("vig_t", 224, energy=ENERGY, throughput=BLOCKS),
        make_record("deit_t", 224, energy=NONE, throughput=BLOCKS),
        *(
            make_record(model, 224, launch=launch, throughput=LATER)
            for model in ("vig_t", "deit_t")
            for launch in (1, 2)
        ),
        make_record("vig_t", 512, energy=None),
        failed("oom", "out of memory", model="deit_t", side=512),
    ]


def row(table: pd.DataFrame, model: str, side: int) -> Any:
    return table[(table["model"] == model) & (table["height"] == side)].iloc[0]


@pytest.mark.parametrize(
    ("text", "price", "currency", "said"),
    [
        ("2.5/h", 2.5, "", "2.5/h"),
        ("$2.5/h", 2.5, "$", "$2.5/h"),
        ("2.5 EUR/h", 2.5, "EUR", "2.5 EUR/h"),
        ("EUR 2.5 / hour", 2.5, "EUR", "2.5 EUR/h"),
        ("0.40€/hr", 0.4, "€", "€0.4/h"),
        ("1e2/h", 100.0, "", "100/h"),
    ],
)
def test_a_price_is_of_an_hour_in_the_currency_as_given(text: str, price: float, currency: str, said: str) -> None:
    found = rates.parse(text, None)
    assert (found, found.said_price) == (Rates(price, currency), said)


@pytest.mark.parametrize(
    ("text", "grams"), [("400", 400.0), ("400 g/kWh", 400.0), ("0.4 kgCO2eq/kWh", 400.0), ("35.5gCO2/kwh", 35.5)]
)
def test_a_grid_is_grams_a_kwh(text: str, grams: float) -> None:
    assert rates.parse(None, text).carbon == pytest.approx(grams)


@pytest.mark.parametrize("text", ["-2/h", "0/h", "nan/h", "inf EUR/h", "1e400/h"])
def test_a_price_is_positive(text: str) -> None:
    with pytest.raises(UsageError, match=r"--price: '.*' is not a positive number"):
        rates.parse(text, None)


@pytest.mark.parametrize("text", ["2.5", "2.5/day", "2.5/s", "", "/h", "$2 EUR/h", "2,5/h", "two/h", "9" * 5000])
def test_another_unit_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no price of an hour; write 2\.5/h"):
        rates.parse(text, None)


@pytest.mark.parametrize("text", ["-1", "0", "nan", "1e400", "400 lb/kWh", "400 g/MJ", ""])
def test_a_grid_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"--carbon-intensity: '.*' is n"):
        rates.parse(None, text)


def test_costs_and_emissions_follow_from_images_and_joules() -> None:
    plain = frame(records())
    table = rates.priced(plain, Rates(3.6, "EUR", 400.0))
    one = row(table, "vig_t", 224)
    per_second = one["throughput_img_s"]
    assert one[COST] == pytest.approx(3.6 / 3600 * 1e6 / per_second)
    assert one[EMISSIONS] == pytest.approx(0.9 * 1e6 / 3.6e6 * 400)  # 0.25 kWh
    assert one["images_per_joule"] == 2.0
    for low, high in (("_lo", "_hi"), ("_hi", "_lo")):
        ends = table[f"{COST}{low}"] * table[f"throughput_img_s{high}"]
        assert ends.dropna().round(9).eq(1000.0).all()
    assert table[f"{COST}_lo"].notna().any()
    for model, side in (("deit_t", 224), ("vig_t", 512)):
        other = row(table, model, side)
        assert pd.isna(other[EMISSIONS])
        assert pd.isna(other["images_per_joule"])
        assert other[COST] > 0
    assert pd.isna(row(table, "deit_t", 512)[COST])
    assert set(table.columns) - set(plain.columns) == {name for kind in rates.KINDS.values() for name in kind}
    assert rates.rates_of(table) == Rates(3.6, "EUR", 400.0)
    assert rates.priced(plain, Rates()) is plain
    assert COST not in rates.priced(plain, Rates(carbon=400.0))


def test_energy_that_is_lost_in_idle_power_gives_no_images_a_joule() -> None:
    table = frame([make_record(energy={**ENERGY, "net_j_per_image": -0.01})])
    assert table["images_per_joule"].isna().all()


def test_a_table_says_at_what_price_and_why_rows_have_none() -> None:
    table = rates.priced(frame(records()), Rates(3.6, "EUR", 400.0))
    names = tables.header(table)
    assert names[-4:] == ("images/J", "cost (EUR/10⁶)", "gCO₂/10⁶", "flags")
    cells = {(cell[0], cell[2]): dict(zip(names, cell, strict=True)) for cell in tables.rows(table)}
    assert cells["vig_t", "224"]["images/J"] == "2.000"
    assert cells["vig_t", "224"]["gCO₂/10⁶"] == "100.0"
    assert cells["deit_t", "224"]["gCO₂/10⁶"] == ""
    assert "–" in cells["deit_t", "224"]["cost (EUR/10⁶)"]
    said = tables.remarks(table)
    assert said[0].startswith("cost: of 10⁶ images at 3.6 EUR/h of the machine")
    assert said[1].startswith("gCO₂: of 10⁶ images at 400 g/kWh")
    assert [line for line in said if line.startswith("no gCO₂")] == [
        "no gCO₂: no counter here (deit_t parallel 224)",
        "no gCO₂: energy was not measured (vig_t parallel 512)",
    ]
    assert tables.extras(frame(records())) == {"images/J": "images_per_joule"}
    assert tables.header(frame([make_record()])) == tables.HEADER
    made = tables.to_markdown(table)
    assert "3.6 EUR/h" in made
    assert "gCO₂/10⁶" in made


def test_the_command_writes_them_with_their_conditions(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for record in records():
            store.append(record)
    asked = ["--price", "3.6 EUR/h", "--carbon-intensity", "400"]
    done = CliRunner().invoke(app, ["report", str(tmp_path), *asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {(one["price_per_hour"], one["currency"], one["carbon_intensity_g_per_kwh"]) for one in found} == {
        (3.6, "EUR", 400.0)
    }
    kept = pd.read_csv(tmp_path / "summary.csv")
    assert kept[EMISSIONS].dropna().tolist() == [pytest.approx(100.0)]
    assert kept["price_per_hour"].eq(3.6).all()


def test_the_page_has_them_with_their_conditions() -> None:
    runs = [Run("run", records())]
    table = rates.priced(table_of(runs), Rates(3.6, "EUR", 400.0))
    text = html.page(runs, table, [])
    assert "cost: of 10⁶ images at 3.6 EUR/h" in text
    assert "no gCO₂: no counter here" in text
    found = payload(runs, table)
    assert set(found["extras"].values()) == {"images/J", "cost (EUR/10⁶)", "gCO₂/10⁶"}
    assert {*found["extras"], "cost_per_million_lo", "cost_per_million_hi"} <= {
        name for name, column in found["rows"].items() if column
    }


def test_a_budget_may_be_money_or_emissions(tmp_path: Path) -> None:
    table = rates.priced(frame(records()), Rates(3.6, "EUR", 400.0))
    dear = row(table, "vig_t", 224)[COST]
    for limit, meets in ((2 * dear, "yes"), (dear / 2, "no")):
        (found,) = pick.pick(table, pick.parse({"cost": limit}), Accuracies())
        assert next(one for one in found.candidates if one.row["model"] == "vig_t").meets == meets
    assert "at 3.6 EUR/h of the machine" in " ".join(found.notes)
    (found,) = pick.pick(table, pick.parse({"emissions_g": 120.0}), Accuracies())
    assert [one.row["model"] for one in found.candidates] == ["vig_t"]
    assert "gCO₂ (no counter here) not measured" in {why for why, *_ in found.left_out}
    with Store(tmp_path) as store:
        for record in records():
            store.append(record)
    answer = vbench.pick(tmp_path, cost=2 * dear, price="3.6 EUR/h")
    assert answer["cost"].notna().all()
    with pytest.raises(UsageError, match=r"^cost: needs a rate; give price too"):
        vbench.pick(tmp_path, cost=1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cost", "3"], "--cost: needs a rate; give --price too, as in --price 2.5/h"),
        (["--emissions-g", "3"], "--emissions-g: needs a rate; give --carbon-intensity too"),
        (["--latency-ms", "9", "--price", "2/h"], "--price: no limit needs it; give --cost too, or leave it out"),
        (["--cost", "-1", "--price", "2/h"], "--cost: -1 is not a positive number"),
    ],
)
def test_a_budget_names_what_it_needs(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["pick", "nowhere", *words])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
