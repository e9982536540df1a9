"""What a user may name as a model, and what it is given: sizes by any argument, channels, and what is refused in words.

The function with **kwargs is timm's way to write one; public reports of it: lightly-ai/lightly-train#29,
prov-gigapath/prov-gigapath#7.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vbench.errors import UnsupportedError, UsageError
from vbench.flops.count import count, count_in_full
from vbench.meters.refusals import explained, refusal, sizes
from vbench.models import create, external, sized
from vbench.plan import Case

ENTRIES = """
from functools import lru_cache, partial

import torch
from timm.models import VisionTransformer
from torch import nn


class Net(nn.Module):
    \"\"\"Patches of 8 px and a table of positions; it notes what it was given.\"\"\"

    def __init__(self, img_size=64, in_chans=3, num_classes=10, patch=8):
        super().__init__()
        self.given = img_size
        height, width = img_size if isinstance(img_size, tuple) else (img_size, img_size)
        self.stem = nn.Conv2d(in_chans, 8, patch, patch)
        self.places = nn.Parameter(torch.zeros(1, 8, height // patch, width // patch))
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head((self.stem(x) + self.places).mean((2, 3)))


class OfNumbers(Net):
    def __init__(self, img_size=64):
        super().__init__((img_size // 8 * 8, img_size // 8 * 8))
        self.given = img_size


def timms(pretrained=False, **kwargs):
    return VisionTransformer(embed_dim=48, depth=1, num_heads=3, patch_size=16, **kwargs)

def taken(**kwargs): return Net(img_size=64, **kwargs)

def other(**kwargs):
    image_size = kwargs.pop("image_size", 64)
    return Net(img_size=image_size, **kwargs)

def numbers(**kwargs): return OfNumbers(**kwargs)
def swallows(**kwargs): return Net()
def shape(input_size=(3, 64, 64)): return Net(input_size[1:], in_chans=input_size[0])
def resolution(input_resolution): return Net(input_resolution)
def no_size(resolution="high"): return Net()
def of_another_mode(mode="original"): return Net() if mode == "original" else None
def needs(config, depth, /): return Net()
def classes(img_size, num_classes): return Net(img_size, num_classes=num_classes)
def spectral(img_size=64, in_chans=12): return Net(img_size, in_chans=in_chans)
def grey(): return Net(in_chans=1)
def broken(img_size=64): raise TypeError("'NoneType' object is not subscriptable")
def with_transform(): return Net(), lambda x: x
def a_class(): return Net
def for_96(): return Net(96)
def for_160(): return Net(160)
def strict(img_size=64):
    if img_size[0] % 64:
        raise ValueError("the size must be a multiple of 64")
    return Net(img_size)

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)

    def forward(self, x):
        raise RuntimeError("a bug")

narrow = partial(Net, patch=16)
ready = Net(32)
cached = lru_cache(Net)
"""


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "entries.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("entries", None)


def build(name: str, size: Any = 32) -> Any:
    return create(f"entries:{name}", size)


def case(name: str, height: int, width: int | None = None, **changes: Any) -> Case:
    model = name if "/" in name else f"entries:{name}"
    return Case(model, height, width or height, "parallel", None, 1, "float32", "cpu", **changes)


@pytest.mark.parametrize(
    ("name", "size", "given"),
    [
        ("Net", (32, 48), (32, 48)),
        ("OfNumbers", 32, 32),
        ("narrow", (32, 48), (32, 48)),
        ("cached", 32, (32, 32)),
        ("other", (32, 48), (32, 48)),
        ("numbers", 32, 32),
        ("shape", (32, 48), (32, 48)),
        ("resolution", 32, (32, 32)),
        ("taken", 32, 64),  # it has a size already
        ("swallows", 32, 64),
        ("no_size", 32, 64),
        ("of_another_mode", 32, 64),
        ("grey", 32, 64),
        ("ready", 64, 32),
    ],
)
def test_a_size_is_handed_over_as_it_is_taken(name: str, size: Any, given: Any) -> None:
    model = build(name, size)
    assert isinstance(model, nn.Module)
    assert model.given == given


def test_timms_way_is_built_at_the_size() -> None:
    work = count(case("timms", 64))
    assert (work["macs"], work["params"]) == (1_135_584, 115_144)
    assert build("timms", (64, 96))(torch.zeros(1, 3, 64, 96)).shape == (1, 1000)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "swin_v2_t"])
def test_entry_points_of_torchvision(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    assert hasattr(models, name)
    with torch.device("meta"):
        model = create(f"torchvision.models:{name}", 64)
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


def test_channels_and_classes_that_must_be_given_are() -> None:
    assert build("spectral").stem.in_channels == 3
    assert build("classes").head.out_features == 1000
    assert build("Net").head.out_features == 10


def test_a_model_that_is_there_is_copied() -> None:
    import entries  # type: ignore[import-not-found]

    one, other = build("ready"), build("ready")
    assert len({id(model) for model in (one, other, entries.ready)}) == 3
    assert torch.equal(one.head.weight, entries.ready.head.weight)
    with pytest.raises(UnsupportedError, match="takes no argument 'mode'"):
        create("entries:ready", 32, "recurrent")
    with pytest.raises(UsageError, match="has no option depth; it has none"):
        create("entries:ready", 32, depth=3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("with_transform", r"returned tuple of Net, function; .* name a function that returns item 0 of it alone"),
        ("a_class", r"returned the class Net; it must return a torch.nn.Module; call it"),
        ("needs", r"entries:needs needs config, depth; name a callable that needs no argument"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_an_error_within_is_not_taken_for_a_refusal_of_the_size() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        build("broken")
    calls: list[Any] = []

    def fails(img_size: Any) -> None:
        calls.append(img_size)
        raise TypeError("unsupported operand")

    with pytest.raises(TypeError, match="unsupported operand"):
        sized.call(fails, {}, [("img_size", sized.as_values((32, 32))), ("image_size", [1])])
    assert calls == [(32, 32), 32]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (224, (224, 224)),
        ((224, 192), (224, 192)),
        ([3, 64, 96], (64, 96)),
        (True, None),
        ("224", None),
        (None, None),
        ((1, 2, 3, 4), None),
        (0.5, None),
    ],
)
def test_what_says_a_size(value: Any, size: Any) -> None:
    assert sized.as_size(value) == size


def test_the_size_that_a_default_says() -> None:
    assert external.size_of("entries:shape") == (64, 64)
    assert external.size_of("entries:timms") is None
    assert external.size_of("entries:ready") is None


UNSIZED = "; it is built without a size: name a callable with an argument img_size"


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            ("for_96", 64),
            "for_96 cannot take 64x64: RuntimeError: The size of tensor a (8) must match the size of tensor b (12) at "
            "non-singleton dimension 3; 96x96 works" + UNSIZED,
        ),
        (("strict", 96), "strict cannot take 96x96: ValueError: the size must be a multiple of 64; 64x64 works"),
        (
            ("OfNumbers", 32, 64),
            "OfNumbers cannot take 32x64: TypeError: unsupported operand type(s) for //: 'tuple' and 'int'; "
            "64x64 works",
        ),
        (
            ("Net", 1),
            "Net cannot take 1x1: RuntimeError: Calculated padded input size per channel: (1 x 1). Kernel size: "
            "(8 x 8). Kernel size can't be greater than actual input size; 64x64 works",
        ),
    ],
)
def test_a_size_that_a_model_cannot_take_is_unsupported_in_its_own_words(of: tuple[Any, ...], said: str) -> None:
    for job in (lambda: run(case(*of)), lambda: list(count_in_full({"case": vars_of(case(*of)), "depth": None}))):
        with pytest.raises(UnsupportedError) as caught:
            job()
        assert str(caught.value) == f"entries:{said}"


def vars_of(of: Case) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(of)


def run(of: Case) -> None:
    """What a launch does first."""
    from vbench.meters.build import build as built
    from vbench.meters.build import images

    with explained(of), torch.inference_mode():
        built(of)(images(of, 1, torch.device("cpu")))


@pytest.mark.parametrize("side", [64, 96])
def test_other_channels_are_unsupported_in_words(side: int) -> None:
    with pytest.raises(UnsupportedError, match=r"entries:grey takes images of 1 channel, ours have 3: RuntimeError"):
        run(case("grey", side))


@pytest.mark.parametrize("name", ["Fails", "broken"])
def test_what_fails_at_every_size_is_an_error(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"a bug|NoneType"):
        run(case(name, 64))


def test_what_works_as_asked_failed_for_another_reason() -> None:
    assert refusal(case("Net", 64)) is None
    with pytest.raises(RuntimeError, match="of a back end"), explained(case("Net", 64)):
        raise RuntimeError("of a back end")
    with pytest.raises(MemoryError), explained(case("for_96", 64)):
        raise MemoryError


def test_a_model_that_names_its_size_is_tried_at_it_first() -> None:
    import entries

    assert sizes(case("Net", 32), [])[0] == (64, 64)
    entries.ready.image_size = 40
    assert sizes(case("ready", 32), [entries.ready])[0] == (40, 40)
    assert (32, 32) not in sizes(case("Net", 32), [])


@pytest.mark.parametrize(
    ("model", "side"),
    [
        ("timm/levit_128s", 100),
        ("timm/maxvit_rmlp_pico_rw_256", 100),
        ("timm/coatnet_pico_rw_224", 100),
        ("timm/pit_ti_224", 1),
        ("timm/nest_tiny", 100),
    ],
)
def test_timms_models_at_sizes_that_they_cannot_take(model: str, side: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"^{model} cannot take {side}x{side}: ."):
        run(case(model, side))


@pytest.mark.parametrize(
    ("model", "side"), [("timm/vit_small_patch14_dinov2", 518), ("timm/resnet18", 33), ("timm/poolformer_s12", 64)]
)
def test_timms_models_at_sizes_that_they_can_take(model: str, side: int) -> None:
    from vbench.flops.count import enter

    assert enter(case(model, side)).ledger.total().macs_matmul > 0


def test_the_file_of_a_partial_or_a_model_is_that_of_its_module(tmp_path: Path) -> None:
    from vbench import host

    ((_, files),) = host.whereabouts({"models": ["entries:narrow", "entries:ready", "entries:Net"]})
    assert set(files.values()) == {str(tmp_path / "entries.py")}
