"""--labels: names for readers in place of models' names."""

from __future__ import annotations

import pytest

from vbench.errors import UsageError
from vbench.reports.labels import Labels, parse

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
