"""What the options mean, and what they may not mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbench.errors import ResolutionError, UnknownModelError, UsageError
from vbench.models import names, spec
from vbench.plan import (
    GRID,
    MODES,
    USUAL,
    Case,
    Sweep,
    parse,
    parse_batches,
    parse_models,
    parse_modes,
    parse_rigor,
    parse_sizes,
    plan,
)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("224:2048", [(px, px) for px in GRID]),
        ("500:800", [(512, 512), (640, 640), (768, 768)]),
        ("224:480:128", [(224, 224), (352, 352), (480, 480)]),
        ("224:224", [(224, 224)]),
        ("512x1024", [(512, 1024)]),
        ("224, 512,224", [(224, 224), (512, 512)]),
        ("224:384,512x1024", [(224, 224), (384, 384), (512, 1024)]),
    ],
)
def test_sizes(text: str, sizes: list[tuple[int, int]]) -> None:
    assert list(parse_sizes(text)) == sizes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2048:224", "reversed; write 224:2048"),
        ("0", "between 1 and"),
        ("-224", "between 1 and"),
        ("224:-1", "between 1 and"),
        ("224:512:0", "between 1 and"),
        ("512x0", "between 1 and"),
        ("9999999", "between 1 and"),
        ("large", "is not a size"),
        ("512x", "is not a size"),
        ("22٤", "is not a size"),
        ("1:2:3:4", "too many parts"),
        ("230:240", "add a step"),
        ("224,,512", "empty item"),
        ("", "empty item"),
    ],
)
def test_wrong_sizes(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_sizes(text)
    assert "\n" not in str(caught.value)


def test_unknown_models_name_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="'vig_tt': did you mean vig_t"):
        parse_models("deit_t,vig_tt")
    with pytest.raises(UsageError, match="no model matches"):
        parse_models("vog_*")
    assert parse_models("vig_?,deit_t,vig_t") == ("vig_t", "vig_s", "vig_b", "deit_t")
    assert parse_models("all") == tuple(names())
    assert parse_models("timm/resnet50") == ("timm/resnet50",)
    assert parse_models("deit_tiny_patch16_224") == ("deit_t",)


def test_modes_and_batches() -> None:
    assert parse_modes("recurrent") == ("recurrent",)
    assert parse_batches("knee,1,8,max") == ("knee", 1, 8, "max")
    assert parse_batches("auto") == ("knee",)  # its name before there were others
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(UsageError, match="--batch"):
            parse_batches(text)
    with pytest.raises(UsageError, match="not one of parallel, recurrent"):
        parse_modes("paralel")


def test_a_size_that_a_model_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(ResolutionError, match=r"deit_t cannot take 1000x1000.*take 992 or 1008"):
        plan(Sweep(("vig_t", "deit_t"), ((1000, 1000),)))
    with pytest.raises(ResolutionError, match=r"vig_t cannot take 6x224.*too small; the least is 7"):
        plan(Sweep(("vig_t",), ((6, 224),)))
    assert plan(Sweep(("vig_t",), ((1000, 1000),)))


@given(
    models=st.lists(st.sampled_from(names()), min_size=1, max_size=4),
    sides=st.lists(st.sampled_from(GRID), min_size=1, max_size=4),
    modes=st.lists(st.sampled_from(MODES), min_size=1, max_size=2),
    batches=st.lists(st.sampled_from(["knee", "max", 1, 8]), min_size=1, max_size=3),
)
def test_a_plan_has_every_cell_once_in_a_stable_order(
    models: list[str], sides: list[int], modes: list, batches: list
) -> None:
    sweep = Sweep(tuple(models), tuple((s, s) for s in sides), tuple(modes), tuple(batches))
    cases = plan(sweep)
    assert cases == plan(sweep)
    assert len({case.id for case in cases}) == len(cases)
    assert len(cases) == len(set(models)) * len(set(sides)) * len(set(modes)) * len(set(batches))
    areas = [case.height * case.width for case in cases]
    assert areas == sorted(areas)
    for case in cases:
        assert (case.unsupported is not None) == (case.mode not in spec(case.model).modes)


def test_the_other_axes() -> None:
    usual = {**USUAL, "models": "vig_t,deit_t", "res": "224"}
    assert len(plan(parse(usual, "cpu"))) == 4
    wide = {**usual, "phase": "infer,train", "backend": "eager,compile,cudagraph", "attention": "fused,unfused"}
    cases = plan(parse(wide, "cpu"))
    assert len(cases) == 2 * 2 * 3 + 2 * 2 * 3 * 2  # the attention of a model that has none is no axis
    assert {case.attention for case in cases if case.model == "vig_t"} == {None}
    assert {case.unsupported for case in cases if case.backend == "cudagraph" and case.mode == "parallel"} == {
        "cpu replays no recorded calls, as the back end cudagraph does"
    }
    for axis, says in (("phase", "infer, train"), ("backend", "eager, compile, cudagraph"), ("layout", "nchw, nhwc")):
        with pytest.raises(UsageError, match=f"--{axis}: 'x' is not one of {says}"):
            parse({**usual, axis: "x"}, "cpu")
    assert [parse_rigor(name).launches for name in ("quick", "default", "paper")] == [1, 8, 16]


def test_a_case_id_never_changes_or_old_records_are_lost_to_resuming() -> None:
    case = plan(Sweep(("vig_t",), ((224, 224),), ("parallel",)))[0]
    assert case.id == "c2e652d84b145ce5"


def test_an_axis_that_came_later_has_no_part_in_the_id_of_its_default() -> None:
    """So that records of an older release are still those of the same cell."""

    @dataclass(frozen=True, slots=True)
    class Later(Case):
        pixels: str = "noise"

    case = plan(Sweep(("vig_t",), ((224, 224),), ("parallel",)))[0]
    assert Later(**asdict(case)).id == case.id
    assert Later(**asdict(case), pixels="zeros").id != case.id


def test_another_release_is_sent_only_fields_that_it_may_know() -> None:
    case = plan(Sweep(("timm/repvgg_a0",), ((224, 224),), ("parallel",), reparams=("no", "yes")))
    assert ["reparam" in one.to_json() for one in case] == [False, True]
    assert [Case(**one.to_json()) for one in case] == case
