"""`--models field`: one model of each family, wherever models are named."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UnknownModelError
from vbench.models import MODELS, create, spec
from vbench.models.field import FIELD, NAME, TIMM
from vbench.plan import USUAL, parse, parse_models, plan
from vbench.suites.load import load


def test_it_has_every_family_of_ours_and_no_model_twice() -> None:
    families = {spec(name).family for name in FIELD if name in MODELS}
    assert families == {row.family for row in MODELS.values()}
    assert len(set(FIELD)) == len(FIELD)
    assert all(name in MODELS or name in TIMM for name in FIELD)


def test_it_is_a_list_of_names_like_any_other() -> None:
    assert parse_models(NAME) == parse_models("FIELD") == FIELD
    assert parse_models(f"vig_s,{NAME},deit_t") == ("vig_s", *FIELD)
    cases = plan(parse({**USUAL, "models": NAME, "res": "224,512", "modes": "parallel"}, "cpu"))
    assert {case.model for case in cases} == set(FIELD)
    assert not [case.unsupported for case in cases if case.unsupported]
    assert load("field").axes["models"] == NAME


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("side", [224, 512])
def test_a_model_of_timm_takes_both_sizes(name: str, side: int) -> None:
    with torch.device("meta"):
        model = create(name, side)
        if "efficientvit" in name and not autocast_on_meta():
            pytest.skip("it asks for autocast, which this torch has none of on the meta device")
        assert model(torch.empty(1, 3, side, side)).shape == (1, 1000)
    assert 20e6 < sum(each.numel() for each in model.parameters()) < 30e6


def test_as_the_name_of_one_model_it_is_refused_in_a_line() -> None:
    with pytest.raises(UnknownModelError, match="'field' stands for several models, in --models alone") as caught:
        create(NAME)
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownModelError, match="did you mean field"):
        parse_models("feild")


def test_it_is_listed() -> None:
    done = CliRunner().invoke(app, ["models"])
    assert f"--models field names one of each family: {FIELD[0]}, " in " ".join(done.output.split())
    assert "field" in " ".join(CliRunner().invoke(app, ["sweep", "--help"]).output.split())


def autocast_on_meta() -> bool:
    """Torch 2.11 has no such thing."""
    try:
        torch.get_autocast_dtype("meta")
    except RuntimeError:
        return False
    return True
