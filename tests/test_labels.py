"""--labels: names for readers in place of models' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import vbench
from eval_rows import first, write
from fakes import make_record

from vbench.errors import UsageError
from vbench.reports.labels import Labels, parse
from vbench.results.store import Store

MODELS = ["vig_t", "vig_t_plus", "deit_t", "my_pkg.nets:net"]


def test_a_label_stands_for_its_model_and_others_keep_their_names() -> None:
    labels = parse(" vig_t = ViG-T ,DeiT-T=DeiT-Tiny (ours), my_pkg.nets:net=Ours", MODELS)
    assert [labels(model) for model in MODELS] == ["ViG-T", "vig_t_plus", "DeiT-Tiny (ours)", "Ours"]
    assert parse(None, MODELS)("vig_t") == Labels()("vig_t") == "vig_t"


def test_a_text_has_labels_for_whole_words_alone() -> None:
    labels = parse(r"vig_t=ViG\1,deit_t=DeiT,my_pkg.nets:net=Ours", MODELS)
    text = "vig_t recurrent/deit_t: vig_t_plus, other.vig_t, my_pkg.nets:net. At 512 px vig_t, or deit_t."
    assert labels.within("deit_t, vig_t recurrent") == r"DeiT, ViG\1 recurrent"
    shown = r"ViG\1 recurrent/DeiT: vig_t_plus, other.vig_t, Ours. At 512 px ViG\1, or DeiT."
    assert labels.within(text) == shown
    assert Labels().within(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vig_t", """'vig_t' is not MODEL=LABEL; write it like "vig_t=ViG-T,deit_t=DeiT-T\""""),
        ("vig_t=", "'vig_t=' is not MODEL=LABEL"),
        ("=ViG", "'=ViG' is not MODEL=LABEL"),
        ("vig_t=a,,deit_t=b", "has an empty item"),
        ("vil_t=ViL", "the records have no model 'vil_t'; they have vig_t, vig_t_plus, deit_t, my_pkg.nets:net"),
        ("vig_t=a,ViG-T=b", "vig_t is named twice; give it one label"),
        ("vig_t=Net,deit_t=Net", "vig_t and deit_t would both be shown as 'Net'"),
        ("vig_t=deit_t", "vig_t and deit_t would both be shown as 'deit_t'"),
        (f"vig_t={'x' * 41}", "has 41 characters; a label has up to 40"),
    ],
)
def test_what_is_no_label_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, MODELS)
    assert str(caught.value).startswith("--labels: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_has_labels_wherever_people_read_and_names_where_programs_do(tmp_path: Path) -> None:
    run = tmp_path / "vig_t"  # a folder keeps its name
    with Store(run) as store:
        for model in ("vig_t", "deit_t"):
            store.append(make_record(model))
    asked = ("report", str(run), "--labels", "vig_t=ViG-T,deit_t=DeiT-Tiny")
    done = vbench(*asked)
    assert done.returncode == 0, done.stderr
    files = [(run / name).read_text() for name in ("table.md", "resolution.txt")]
    for text in (done.stdout.replace(str(run), "RUN"), *files):
        assert "ViG-T" in text
        assert "DeiT-Tiny" in text
        assert "vig_t" not in text
        assert "deit_t" not in text
    assert f"Figure: {run}/resolution.png" in done.stdout
    assert {row["model"] for row in json.loads(vbench(*asked, "--json").stdout)} == {"vig_t", "deit_t"}
    rows = (run / "summary.csv").read_text().splitlines()
    model = rows[0].split(",").index("model")
    assert {row.split(",")[model] for row in rows[1:]} == {"vig_t", "deit_t"}


def test_a_report_of_accuracies_has_labels_too(tmp_path: Path) -> None:
    write(tmp_path, {("vig_t", 224): first(70, of=100)})
    text = vbench("report", str(tmp_path), "--labels", "vig_t=ViG-T").stdout
    assert "ViG-T " in text
    assert "vig_t " not in text
    done = vbench("report", str(tmp_path), "--labels", "deit_t=DeiT-T")
    assert done.returncode == 2
    assert "--labels: the records have no model 'deit_t'; they have vig_t" in done.stderr
