"""What a million images cost, and what they emit: from measured images/s and joules, a price and a grid. No measuring.

A price is of an hour of the whole machine, busy with one model at its images/s. Emissions are of the energy that the
counter of the device counted, idle power included, as codecarbon counts it; the rest of the machine is not in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pandas as pd

from vbench.errors import UsageError
from vbench.options import shown

IMAGES = 10**6
JOULES = 3.6e6  # of a kWh
COST, EMISSIONS = "cost_per_million", "emissions_g_per_million"
PRICE, CURRENCY, INTENSITY = "price_per_hour", "currency", "carbon_intensity_g_per_kwh"
KINDS = {  # the columns that are added, and their types
    "price": {COST: "Float64", f"{COST}_lo": "Float64", f"{COST}_hi": "Float64", PRICE: "Float64", CURRENCY: "string"},
    "carbon": {EMISSIONS: "Float64", INTENSITY: "Float64"},
}
NOT_MEASURED = "energy was not measured"
_NUMBER = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+|inf|nan)(?:e[+-]?\d+)?)"
_MONEY = r"([^\W\d_]{1,4}|[$€£¥₹₩])"
_PRICE = re.compile(rf"{_MONEY}?\s*{_NUMBER}\s*{_MONEY}?\s*/\s*(?:h|hr|hour)", re.IGNORECASE)
_CARBON = re.compile(rf"{_NUMBER}\s*(?:(k?)g\s*(?:co2)?(?:[.]?eq?)?\s*/\s*kwh)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rates:
    """The price of an hour, in a currency that is named or not (""), and grams of CO2 a kWh; None if not given."""

    price: float | None = None
    currency: str = ""
    carbon: float | None = None

    def __bool__(self) -> bool:
        return self.price is not None or self.carbon is not None

    @property
    def said_price(self) -> str:
        """ "2.5 EUR/h", "$2.5/h"."""
        words = f"{self.currency}{{}}" if len(self.currency) == 1 else f"{{}} {self.currency}".strip()
        return words.format(f"{self.price:g}") + "/h"


def parse(price: str | None, carbon: str | None) -> Rates:
    """The rates of "2.5/h", "$2.5/h" or "2.5 EUR/h", and of "400", "400 g/kWh" or "0.4 kg/kWh".

    Raises: UsageError for another unit, or a number that is not positive.
    """
    cost, currency = _price(price) if price is not None else (None, "")
    return Rates(cost, currency, _carbon(carbon) if carbon is not None else None)


def _price(text: str) -> tuple[float, str]:
    match = _PRICE.fullmatch(text.strip())
    if match is None or (match[1] and match[3]):
        raise UsageError(f"--price: '{shown(text)}' is no price of an hour; write 2.5/h, '$2.5/h' or '2.5 EUR/h'")
    return _positive("--price", text, float(match[2])), match[1] or match[3] or ""


def _carbon(text: str) -> float:
    match = _CARBON.fullmatch(text.strip())
    if match is None:
        said = f"'{shown(text)}' is no carbon intensity of a grid"
        raise UsageError(f"--carbon-intensity: {said}; write 400 (g CO2 a kWh), '400 g/kWh' or '0.4 kg/kWh'")
    return _positive("--carbon-intensity", text, float(match[1]) * (1000.0 if match[2] else 1.0))


def _positive(option: str, text: str, value: float) -> float:
    if not (isfinite(value) and value > 0):
        raise UsageError(f"{option}: '{shown(text)}' is not a positive number")
    return value


def priced(table: pd.DataFrame, rates: Rates) -> pd.DataFrame:
    """A frame with the columns of `KINDS` that rates allow. Without rates it is the same frame.

    The interval of a cost is that of images/s, the other way round; emissions have none, for energy has none.
    """
    found: dict[str, Any] = {}
    if rates.price is not None:
        per_second = rates.price / 3600 * IMAGES
        ends = {"": "", "_lo": "_hi", "_hi": "_lo"}
        found |= {f"{COST}{end}": per_second / table[f"throughput_img_s{other}"] for end, other in ends.items()}
        found |= {PRICE: rates.price, CURRENCY: rates.currency or None}
    if rates.carbon is not None:
        found |= {EMISSIONS: table["energy_gross_j_per_image"] * IMAGES / JOULES * rates.carbon}
        found |= {INTENSITY: rates.carbon}
    kinds = {name: kind for own in KINDS.values() for name, kind in own.items() if name in found}
    return table.assign(**found).astype(kinds) if found else table


def rates_of(table: pd.DataFrame) -> Rates:
    """The rates behind the columns of a frame; none if `priced` added none."""
    price, currency, carbon = (_first(table, name) for name in (PRICE, CURRENCY, INTENSITY))
    return Rates(price, currency or "", carbon)


def _first(table: pd.DataFrame, name: str) -> Any:
    return next(iter(table[name].dropna()), None) if name in table else None


def head(rates: Rates) -> str:
    """What a column of costs is called: "cost (EUR/10⁶)", "cost (/10⁶)" without a currency."""
    return f"cost ({rates.currency}/10⁶)"


def conditions(table: pd.DataFrame) -> list[str]:
    """One line for each rate behind the columns of a frame: a number carries its conditions."""
    rates, lines = rates_of(table), []
    if rates.price is not None:
        lines.append(
            f"cost: of 10⁶ images at {rates.said_price} of the machine, busy with them at the images/s of the row; as "
            "given, the price holds for every device of the table"
        )
    if rates.carbon is not None:
        lines.append(
            f"gCO₂: of 10⁶ images at {rates.carbon:g} g/kWh, of the energy of the device alone, idle power included; "
            "without an interval, as energy has none"
        )
    return lines


def why_none(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(reason, rows) of measured rows that have no emissions though a grid was named."""
    if rates_of(table).carbon is None:
        return []
    rows = table[(table["status"] == "ok") & table[EMISSIONS].isna()]
    reasons = rows["energy_reason"].fillna(NOT_MEASURED)
    return [(str(reason), own) for reason, own in rows.groupby(reasons, sort=False)]
