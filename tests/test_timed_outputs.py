"""What timed calls return is checked: each cheat that would make a model look fast is found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vbench import jobs
from vbench.devices.cpu import Cpu
from vbench.meters.outputs import POOL, Pool, Seen, seen, tensors_of
from vbench.plan import RIGORS, Case
from vbench.sweeps import measure
from vbench.verify import timed

PACKAGE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 5)
        self.calls = 0

    def depth(self):
        return len(self.layers)

    def forward(self, x):
        self.calls += 1
        x = self.stem(x).mean((2, 3))
        for layer in self.layers[: self.depth()]:
            x = x + layer(x).tanh()
        return self.head(x)

class Cached(Net):  # returns the first output again
    def forward(self, x):
        if self.calls == 0:
            self.kept = super().forward(x)
        return self.kept

class ByPlace(Net):  # keeps an output for each image that it was given, by its place in memory
    def forward(self, x):
        self.kept = getattr(self, "kept", {})
        if x.data_ptr() not in self.kept:
            self.kept[x.data_ptr()] = super().forward(x)
        return self.kept[x.data_ptr()]

class Shallow(Net):  # skips layers from its second call on
    def depth(self):
        return 4 if self.calls == 1 else 2

class Early(Net):  # returns early after some calls, while nobody differentiates
    def depth(self):
        return 4 if self.calls < 6 or torch.is_grad_enabled() else 0

calls = 0
class Sly(Net):  # as Shallow, and a model that is built once more does the same
    def depth(self):
        global calls
        calls += 1
        return 4 if calls == 1 else 2

class Half(Net):  # not a number in half types
    def forward(self, x):
        y = super().forward(x)
        return y if y.dtype == torch.float32 else y + (y - y) / (y - y)

class Late(torch.Tensor):  # a tensor that computes when it is read
    pass

class Lazy(Net):
    def forward(self, x):
        return super().forward(x).as_subclass(Late)

class Promise:
    def __init__(self, net, x):
        self.read = lambda: Net.forward(net, x)

class Promised(Net):
    def forward(self, x):
        return Promise(self, x)

class Zeros(Net):  # honest: its head starts at zero
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.weight)

class Pair(Net):  # honest: several outputs
    def forward(self, x):
        y = super().forward(x)
        return {"logits": y, "more": (y * 2, None)}
"""
FAST = replace(RIGORS["quick"], warmup_s=0.01, sample_s=0.02, sample_max_s=0.1)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cheats.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("cheats", None)


def outputs_of(name: str, dtype: str = "float32", launch: int = 0, **changes: Any) -> dict[str, Any]:
    """What a launch says of the outputs of cheats.NAME."""
    case = Case(f"cheats:{name}", 32, 32, "parallel", None, 1, dtype, "cpu")  # type: ignore[arg-type]
    _, argument = jobs.measure(case, replace(FAST, **changes), launch=launch)
    found: dict[str, Any] = dict(measure.measure(argument))["outputs"]
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["Net", "Zeros", "Pair"])
def test_an_honest_model_passes(name: str, dtype: str) -> None:
    found = outputs_of(name, dtype)
    assert (found["nonfinite"], found["differs"], found["reason"]) == (0, 0, None)
    assert found["checked"] > POOL
    assert found["compared"] == 2
    assert found["worst"] <= found["bound"] < 0.1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Cached", "the outputs of different images are equal"),
        ("ByPlace", "a timed output is not what the model computes"),
        ("Shallow", "a timed output is not what the model computes"),
        ("Early", "a later call does not return what the first one did"),
        ("Sly", "a later call does not return what the first one did"),
        ("Lazy", "the output holds a Late, which may compute when it is read"),
        ("Promised", "the output holds a Promise, which may compute when it is read"),
    ],
)
def test_a_cheat_is_found(name: str, said: str) -> None:
    found = outputs_of(name)
    assert found["differs"] >= 1
    assert said in found["reason"]
    if name == "Shallow":
        assert outputs_of(name, "bfloat16")["differs"] >= 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_not_a_number_in_a_half_type_is_found(dtype: str) -> None:
    assert outputs_of("Half")["nonfinite"] == 0
    found = outputs_of("Half", dtype)
    assert found["nonfinite"] == found["checked"] > 0
    assert "not finite" in found["reason"]


@pytest.mark.parametrize(("launch", "changes"), [(1, {}), (0, {"warmup_max_s": 0.0, "warmup_s": 0.0})])
def test_without_a_reference_calls_are_compared_with_the_first_and_it_says_so(launch: int, changes: Any) -> None:
    found = outputs_of("Net", launch=launch, **changes)
    assert (found["differs"], found["compared"]) == (0, 1)
    assert found["reason"].startswith("compared with the first call alone: ")
    for name in ("Cached", "Sly"):
        assert outputs_of(name, launch=launch, **changes)["differs"] == 1


def test_a_pool_changes_its_images_outside_of_the_time_and_leaves_the_first_as_it_is() -> None:
    images = [torch.zeros(1, 3, 16, 16) for _ in range(POOL)]
    order: list[str] = []

    def function(image: Tensor) -> Tensor:
        order.append("call")
        return image.sum().reshape(1)

    pool = Pool(function, images)
    before = pool.before
    pool.before = lambda: (order.append("before"), before())[1]  # type: ignore[method-assign,func-returns-value]
    Cpu("cpu").samples(pool, 2 * POOL)
    assert order == ["before", "call"] * (2 * POOL)
    found = pool.seen()
    assert (found.calls, found.nonfinite) == (2 * POOL, 0)
    assert not images[0].any()
    assert all(image.any() and not image.all() for image in images[1:])
    sums = [image.sum().reshape(1) for image in images]
    assert all(torch.equal(output[0], total) for output, total in zip(found.outputs, sums, strict=True) if output)


def test_a_recorded_graph_finds_its_image_in_its_buffer() -> None:
    buffer, out = torch.zeros(1, 3, 16, 16), torch.zeros(1)

    def replay(_: Tensor) -> Tensor:
        return out.copy_(buffer.sum().reshape(1))  # the same place for every output

    pool = Pool(replay, [torch.ones(1, 3, 16, 16) * n for n in range(POOL)], buffer=buffer)
    Cpu("cpu").samples(pool, POOL + 1)
    found = pool.seen()
    for image, output in zip(found.images, found.outputs, strict=True):
        assert output is not None
        assert float(output[0]) == pytest.approx(float(image.sum()))


def test_calls_that_nobody_announced_are_not_looked_at() -> None:
    pool = Pool(lambda image: image, [torch.zeros(1, 3, 8, 8)] * 2)
    pool()
    assert pool.seen().calls == 0
    assert timed.check(pool.seen(), "float32", None)["reason"] == "no timed call was announced to its pool"
    assert seen(lambda: None) is None
    assert timed.check(None, "float32", None)["checked"] == 0


def training(losses: tuple[float, ...], nonfinite: int = 0) -> dict[str, Any]:
    return timed.check(Seen(len(losses), nonfinite, losses=losses), "float32", None)


def test_a_training_step_must_change_its_loss() -> None:
    assert training((2.0, 1.5, 1.0))["differs"] == 0
    assert training((2.0, 1.5, 0.0, 0.0))["differs"] == 0
    assert "nothing is learned" in training((2.0, 2.0, 2.0))["reason"]
    assert training((2.0, float("nan")), nonfinite=1)["nonfinite"] == 1


def test_the_losses_of_timed_steps_are_seen() -> None:
    case = Case("cheats:Net", 32, 32, "parallel", None, 2, "float32", "cpu", "train")
    found = dict(measure.measure(jobs.measure(case, FAST)[1]))["outputs"]
    assert found["checked"] == found["compared"] > 2
    assert (found["nonfinite"], found["differs"]) == (0, 0)


def test_a_network_that_amplifies_rounding_has_a_wider_bound() -> None:
    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.double()[:, :, 0] * 1e4).sin().float()

    image = torch.randn(1, 3, 32, 32)
    close = Steep()(image * (1 + 2.0**-23))

    def found(output: Tensor, twin: Callable[[], nn.Module]) -> dict[str, Any]:
        return timed.check(Seen(9, 0, (image,), ((output,),)), "float32", twin)

    assert found(close, Steep)["differs"] == 0
    assert 1e-5 < found(close, Steep)["worst"] < found(close, Steep)["bound"] < 0.1
    assert found(Steep()(image) + 1.0, Steep)["differs"] == 1


def test_tensors_are_found_in_what_models_return() -> None:
    one = torch.zeros(1)
    assert [id(each) for each in tensors_of({"a": one, "b": [one, None, 3]})] == [id(one)] * 2
    with pytest.raises(TypeError, match="a set, which may compute"):
        list(tensors_of({1}))
