"""The claims of papers about the costs of their models: the table `published/claims.toml`, loaded and checked."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from vbench.errors import UsageError
from vbench.results.countings import COUNTINGS

Quantity = Literal["macs", "params", "memory", "speed", "operator_speed", "accuracy", "equivalence"]
Unit = Literal["x", "% saved", "% of", "G", "images/s", "ms", "points", "linear", "grows", "any", "equal", "none"]
Seen = Literal["title", "abstract", "readme", "table", "figure", "secondary"]
Direction = Literal["less", "more", "linear", "equal"]
ClaimPhase = Literal["infer", "train"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim. A field is None or empty if the source does not say.

    `value` is the printed number in `unit`: "x", a ratio; "% saved" and "% of", shares of the baseline's cost; "G",
    "images/s" or "ms", with the baseline's in `baseline_value`; "points" of top-1, likewise or as a gain. Units
    without a number: "linear" in tokens; "grows", an advantage from `res_from` to `res`; "any", some advantage;
    "equal", to the baseline, or one mode to the other; "none", not even a direction. `stated` and `missing` are the
    paper's conditions, `inferred` is what its figures show, `batch` and `phase` belong to a claim on memory or speed.
    """

    id: str
    paper: str
    source: str
    locator: str
    says: str  # who
    seen: Seen  # where the claim was found; "secondary": quoted by others
    quantity: Quantity
    subject: str
    res: int  # px
    printed: str  # in the words and digits of the source
    unit: Unit
    direction: Direction  # of the quantity of the subject, compared with the baseline
    stated: tuple[str, ...]
    missing: tuple[str, ...]
    inferred: tuple[str, ...] = ()
    baseline: str | None = None
    res_from: int | None = None  # px
    value: float | None = None
    baseline_value: float | None = None
    batch: int | None = None
    phase: ClaimPhase = "infer"
    counting: str = "full"  # for MACs: a key of `countings.COUNTINGS`
    notes: str = ""

    @property
    def ratio(self) -> float | None:
        """The printed advantage: the baseline's cost over the subject's, or the subject's speed over the baseline's."""
        if self.value is None or self.unit == "points":
            return None
        if self.unit in _BOTH:
            over = self.baseline_value / self.value if self.baseline_value else None
            return 1 / over if over and self.unit == "images/s" else over
        if self.unit == "x":
            return self.value
        return 100 / (self.value if self.unit == "% of" else 100 - self.value)


_BOTH = ("G", "images/s", "ms")  # units in which the number of the baseline is printed too


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the order of the table."""
    return parse((files("vbench.results") / "published" / "claims.toml").read_text(encoding="utf-8"), "claims.toml")


def parse(text: str, name: str) -> tuple[Claim, ...]:
    """The claims in the text of a TOML file; `name` is its name in errors.

    Raises: UsageError for text that is not TOML, an unknown or missing key, a value that is not allowed, a number that
        does not fit its unit, or an id that occurs twice.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not TOML: {error}") from None
    rows = found.get("claim")
    if set(found) != {"claim"} or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{name} must have only [[claim]] tables; it has {', '.join(found) or 'none'}")
    table = tuple(_claim(row, f"{name}: claim {row.get('id', number)}") for number, row in enumerate(rows, start=1))
    ids = [claim.id for claim in table]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise UsageError(f"{name}: ids occur twice: {', '.join(twice)}")
    return table


_WHOLE = ("res", "res_from", "batch")
_NUMBER = ("value", "baseline_value")
_LIST = ("stated", "missing", "inferred")
_ONE_OF: dict[str, tuple[str, ...]] = {
    "quantity": get_args(Quantity),
    "unit": get_args(Unit),
    "seen": get_args(Seen),
    "direction": get_args(Direction),
    "phase": get_args(ClaimPhase),
    "counting": tuple(COUNTINGS),
}
_NUMBERED = ("x", "% saved", "% of", *_BOTH, "points")
_ALONE = ("linear", "equal", "none")  # units that need no baseline


def _claim(row: dict[str, Any], where: str) -> Claim:
    known = [field.name for field in fields(Claim)]
    needed = [field.name for field in fields(Claim) if field.default is MISSING]
    if wrong := [key for key in row if key not in known] + [key for key in needed if key not in row]:
        raise UsageError(f"{where}: unknown or missing keys: {', '.join(wrong)}; a claim has {', '.join(known)}")
    for key, value in row.items():
        if allowed := _wanted(key, value):
            raise UsageError(f"{where}: {key} is {value!r}; it must be {allowed}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    claim = Claim(**values)
    needs = {
        "value": claim.unit in _NUMBERED,
        "baseline_value": claim.unit in _BOTH or (claim.unit == "points" and claim.baseline_value is not None),
        "res_from": claim.unit == "grows",
        "baseline": claim.unit not in _ALONE or claim.baseline is not None,
    }
    for key, must in needs.items():
        if (getattr(claim, key) is not None) != must:
            raise UsageError(f"{where}: a claim in '{claim.unit}' {'needs' if must else 'has no'} {key}")
    if claim.unit == "% saved" and claim.value is not None and claim.value >= 100:
        raise UsageError(f"{where}: value is {claim.value:g}; less than 100 % can be saved")
    return claim


def _wanted(key: str, value: object) -> str | None:
    """What the value must be, in words; None if it is right."""
    if key in _ONE_OF:
        fits, words = value in _ONE_OF[key], ", ".join(_ONE_OF[key])
    elif key in _LIST:
        fits, words = isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of texts"
    elif key in (*_WHOLE, *_NUMBER):
        kinds, words = ((int,), "a positive whole number") if key in _WHOLE else ((int, float), "a positive number")
        fits = isinstance(value, kinds) and not isinstance(value, bool) and value > 0
    else:
        fits, words = isinstance(value, str) and bool(value), "text"
    return None if fits else words
