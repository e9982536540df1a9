"""The first minute: a suite that says how it is measured, and a sweep that ends with its question and the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import vbench
from fakes import failed, latency, make_record

from vbench import host, plan
from vbench.commands.sweep import How, how_of
from vbench.errors import UsageError
from vbench.reports import closing, readme
from vbench.results.frame import frame
from vbench.results.store import Record, Store, read
from vbench.suites.load import load

RECORDED = Path(__file__).resolve().parent.parent / "results" / readme.MINUTE
SIDES = (224, 640)


def records() -> list[Record]:
    """What the suite gives: ViG twice as slow as DeiT at 224 px, and half as slow at 640 px."""
    ms = {("vig_t", 224): 20.0, ("deit_t", 224): 10.0, ("vig_t", 640): 50.0, ("deit_t", 640): 100.0}
    modes = {"vig_t": "recurrent", "deit_t": "parallel"}
    return [
        make_record(model, side, modes[model], latency=latency(at * share for share in (0.99, 1.0, 1.01) * 5))
        for (model, side), at in ms.items()
    ]


def test_the_suite_asks_one_question_of_four_cells() -> None:
    suite = load("minute")
    cells = plan.union([plan.parse({**plan.USUAL, **axes}, "cpu") for axes in suite.sets])
    assert {(case.model, case.mode, case.height) for case in cells} == {
        (model, mode, side) for model, mode in (("vig_t", "recurrent"), ("deit_t", "parallel")) for side in SIDES
    }
    assert not any(case.unsupported for case in cells)
    assert suite.how == {"seconds": "0.5", "refine": "none", "budget": "75s"}
    assert all(str(side) in suite.question for side in SIDES)


def test_options_replace_what_a_suite_says_and_the_rest_is_as_usual(tmp_path: Path) -> None:
    assert how_of(None, rigor=None, budget=None) == How()
    found = how_of("minute", rigor=None, budget="3m", pairs=None)
    assert found == How("default", 0.5, "auto", "none", "3m", load("minute").question)
    (tmp_path / "mine.toml").write_text('question = "?"\ntime = ""\nmodels = "vig_t"\nres = "32"\nrigor = "slow"\n')
    done = vbench("plan", "--suite", str(tmp_path / "mine.toml"))
    assert done.returncode == 2
    assert "'slow'" in done.stderr
    assert load("resolution").how == {}


@pytest.mark.parametrize("text", ["soon", "nan", "0", "1e9"])
def test_seconds_that_are_none_are_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        f'question = "?"\ntime = ""\nmodels = "vig_t"\nres = "32"\nseconds = "{text}"\n'
    )
    with pytest.raises(UsageError, match=f"mine.toml: seconds: '{text}' is not between 0.001 and 86,400"):
        how_of(str(tmp_path / "mine.toml"))


def test_only_a_whole_suite_says_how_it_is_measured(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'question = "?"\ntime = ""\n[[part]]\nmodels = "a"\nres = "32"\nrigor = "quick"\n'
    )
    with pytest.raises(UsageError, match="part 1: wrong, missing or non-text keys: rigor"):
        load(str(tmp_path / "mine.toml"))


def test_the_last_lines_have_the_question_an_answer_a_size_and_the_figure(tmp_path: Path) -> None:
    (tmp_path / closing.PICTURE).touch()
    said = closing.lines(frame(records()), tmp_path, "Is it?")
    assert said[0] == "Asked: Is it?"
    assert said[1].startswith("- At 224 px vig_t recurrent needs 1.00× the MACs, 2.00× the time (")
    assert said[2].startswith("- At 640 px vig_t recurrent needs 1.00× the MACs, 0.50× the time (")
    assert "95 % interval" in said[3]
    assert said[4:] == [f"Figure: {tmp_path / 'resolution.png'}"]
    assert closing.lines(frame([make_record("deit_t")]), tmp_path, "Is it?") == []


def test_a_suite_in_which_nothing_was_measured_has_no_answer(tmp_path: Path) -> None:
    nothing = frame([failed("timeout", "the time of the sweep was over", model=model) for model in ("vig_t", "deit_t")])
    asked, *said = closing.lines(nothing, tmp_path, "Is it?")
    assert asked == "Asked: Is it?"
    assert said == ["- No answer: no cell was measured; the lines below the table say why."]


def test_many_answers_are_cut_and_the_rest_counted(tmp_path: Path) -> None:
    many = [make_record(m, s) for m in ("vig_t", "vil_t", "vrwkv_t", "vim_t", "deit_t") for s in SIDES]
    said = closing.lines(frame(many), tmp_path)
    assert sum(line.startswith("- At ") for line in said) == closing.MOST
    assert f"- 2 more answers: vbench report {tmp_path} -o report.html" in said


def test_the_readme_shows_the_recorded_minute_or_says_that_there_is_none(tmp_path: Path) -> None:
    assert readme.minute(tmp_path / "minute") == readme.NO_MINUTE
    with Store(tmp_path / "minute") as store:
        for record in records():
            store.append(record)
    (tmp_path / "minute" / "run.json").write_text('{"runs": [{"wall_s": 51.6}]}')
    text = readme.minute(tmp_path / "minute")
    assert text.startswith(f"```text\nAsked: {load('minute').question}\n- At 224 px vig_t recurrent needs")
    assert "Measured for 52 s on a test CPU." in text


@pytest.mark.skipif(not RECORDED.exists(), reason="make minute has not recorded the first minute yet")
def test_the_recorded_minute_is_of_the_code_that_measures_now() -> None:
    assert {record.host["source"] for record in read(RECORDED)} == {host.code_source()}
