"""What a frame answers in words: right ratios, the right partner, and a reason where there is no answer."""

from __future__ import annotations

import json
from dataclasses import replace

from fakes import failed, make_record

from vbench.results.answers import Answer, answers, pairs
from vbench.results.frame import frame
from vbench.results.scaling import COSTS, crossover, exponents
from vbench.results.store import Record

SIDES = (224, 512, 1024)


def swept(*models: str, mode: str = "parallel") -> list[Record]:
    return [make_record(model, side, mode) for model in models for side in SIDES]


def texts(found: list[Answer], kind: str) -> list[str]:
    return [answer.text for answer in found if answer.kind == kind]


def test_every_answer_is_computed_from_the_rows() -> None:
    table = frame(swept("vig_t", "deit_t") + swept("vig_t", mode="recurrent"))
    found = answers(table)
    # 4096 tokens: vig_t 2048 ms, deit_t 4096 ** 1.5 / 50 = 5243 ms
    said = texts(found, "ratio")
    assert len(said) == 2
    assert said[0].startswith("At 1024 px vig_t parallel needs 1.00× the MACs, 0.39× the time (0.38–0.40) and ")
    assert said[0].endswith(" and 1.00× the peak memory of deit_t (batch 1).")
    assert f"{crossover(table, 'vig_t parallel', 'deit_t').reading}." in texts(found, "crossover")
    for row in exponents(table, ("macs_executed", "latency_ms")).to_dict("records"):
        mode = f", {row['mode']}" if row["model"] == "vig_t" else ""
        assert f"{COSTS[row['cost']]} of {row['model']}{mode}: {row['reading']}." in texts(found, "growth")
    assert answers(frame([])) == []


def test_a_time_that_was_measured_in_turns_is_named_so() -> None:
    table = frame([make_record(model, 1024) for model in ("vig_t", "deit_t")])
    attention = table["model"] == "deit_t"
    table.loc[~attention, "latency_paired"] = json.dumps(
        {table.loc[attention, "case_id"].item(): [0.41, 0.4, 0.42, 4, 9]}
    )
    assert "0.41× the time (0.40–0.42, in turns) and" in texts(answers(table), "ratio")[0]


def test_a_model_stands_beside_the_attention_model_nearest_in_parameters() -> None:
    small, large = ({**(make_record().work or {}), "params": params} for params in (6_000_000, 29_000_000))
    records = [make_record(model, 512, work=small) for model in ("vig_t", "deit_t")]
    records += [make_record(model, 512, work=large) for model in ("vision_gru_t", "swin_t")]
    beside = {pair.model: pair.baseline for pair in pairs(frame(records))}
    assert beside == {"vig_t": "deit_t", "vision_gru_t": "swin_t"}
    (said,) = texts(answers(frame([records[2], records[1]])), "ratio")
    assert "29.0 M parameters against 6.0 M" in said


def test_what_ended_is_named_with_its_reason() -> None:
    records = [*swept("vig_t"), *swept("deit_t")[:2], failed("oom", "30 GiB asked for", model="deit_t", side=1024)]
    said = texts(answers(frame(records)), "ratio")
    assert [text.split(" px")[0] for text in said] == ["At 512", "At 1024"]
    assert "needs 1.00× the MACs of deit_t" in said[1]
    assert said[1].endswith("the time and the peak memory cannot be compared: deit_t ended in oom (30 GiB asked for).")


def test_settings_stay_apart_and_are_named() -> None:
    records = swept("vig_t", "deit_t")
    for record in swept("vig_t"):
        records.append(make_record(case={**record.case, "dtype": "bfloat16"}, case_id=f"b{record.case_id}"))
    found = answers(frame(records))
    assert len(texts(found, "ratio")) == 1  # DeiT was not measured in bfloat16
    assert texts(found, "ratio")[0].endswith("(batch 1), float32.")
    assert any(text.startswith("time a call of vig_t, bfloat16:") for text in texts(found, "growth"))


def test_settings_that_differ_are_named() -> None:
    usual = [make_record(model, 512) for model in ("vig_t", "deit_t")]
    fixed = [
        replace(
            one,
            case_id=f"{one.case_id}-8",
            case={**one.case, "batch": 8},
            throughput={**(one.throughput or {}), "batch": 8},
        )
        for one in usual
    ]
    said = texts(answers(frame([*usual, *fixed])), "ratio")
    assert {text.rpartition("), ")[2] for text in said} == {"batch 8.", "batch knee."}
