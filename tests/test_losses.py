"""A training step of whatever a model returns: its loss, in words, or why there is none.

The maps, the mapping and the map are of a public report of a step that failed on them (TylerYep/torchinfo#141,
Deeplite/deeplite-profiler#13), the model without products of sovrasov/flops-counter.pytorch#84.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import make_record, of_case
from torch import Tensor, nn

from vbench import jobs
from vbench.errors import UnsupportedError
from vbench.flops.peak import predicted_peak
from vbench.meters.outputs import Seen, images_missing, tensors_of
from vbench.meters.training import Trainer
from vbench.plan import RIGORS, Case
from vbench.results.frame import frame
from vbench.results.lint import unfair
from vbench.sweeps import measure
from vbench.verify import timed

FAST = replace(RIGORS["quick"], warmup_s=0.01, warmup_max_s=0.1, sample_s=0.02, sample_max_s=0.1, throughput_s=0.1)


class Base(nn.Module):
    """A stem and a head; `returns` makes what the model returns of the map and of the logits."""

    def __init__(self, returns: Callable[[Tensor, Tensor], Any], classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, classes)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        return self.returns(y, self.head(y.mean((2, 3))))


@dataclass
class Output:
    logits: Tensor
    maps: list[Tensor]


class Pair(NamedTuple):
    logits: Tensor
    more: Tensor


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def trained(returns: Callable[[Tensor, Tensor], Any], classes: int = 10) -> Trainer:
    """After the first forward of a model."""
    torch.manual_seed(0)
    trainer = Trainer(Base(returns, classes), IMAGES)
    trainer.forward()
    return trainer


def cross_entropy(trainer: Trainer) -> float:
    model: Any = trainer.model
    logits = model.head(model.stem(IMAGES).mean((2, 3)))
    labels = torch.randint(logits.shape[1], (2,), generator=torch.Generator().manual_seed(0))
    return float(F.cross_entropy(logits, labels).detach())


@pytest.mark.parametrize(
    ("returns", "of"),
    [
        (lambda y, z: z, "the output"),
        (lambda y, z: [z], "the output"),
        (lambda y, z: (z, None), "the output"),
        (lambda y, z: {"logits": z, "features": y}, "logits"),
        (lambda y, z: Output(z, [y]), "logits"),
        (lambda y, z: Pair(z, y), "logits"),
        (lambda y, z: SimpleNamespace(logits=z, place=torch.device("cpu")), "logits"),
        (lambda y, z: {"out": z, "index": z.argmax(1)}, "the output"),
    ],
)
def test_logits_are_found_wherever_they_are(returns: Callable[[Tensor, Tensor], Any], of: str) -> None:
    trainer = trained(returns)
    assert (trainer.about_loss, trainer.learns) == ({"loss": "cross-entropy", "loss_of": of}, True)
    assert trainer.loss == pytest.approx(cross_entropy(trainer))
    trainer.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in trainer.model.parameters())
    trainer.update()
    before = trainer.loss
    trainer.step()
    assert trainer.loss < before


@pytest.mark.parametrize(
    ("returns", "of", "mean"),
    [
        (lambda y, z: [y, F.avg_pool2d(y, 2), F.avg_pool2d(y, 4)], "3 outputs", lambda y, z: y.mean()),
        (lambda y, z: y, "the output", lambda y, z: y.mean()),
        (lambda y, z: y.flatten(2).mT, "the output", lambda y, z: y.mean()),  # tokens
        (lambda y, z: {"logits": y, "z": z}, "2 outputs", lambda y, z: (y.mean() + z.mean()) / 2),
        (lambda y, z: (z, z + 1), "2 outputs", lambda y, z: z.mean() + 0.5),
        (lambda y, z: {"a": {"b": [y]}, "c": y.argmax()}, "the output", lambda y, z: y.mean()),
        (lambda y, z: torch.complex(y, y), "the output", lambda y, z: y.mean()),
        (lambda y, z: z[:, :1], "the output", lambda y, z: z[:, :1].mean()),  # one class has no cross-entropy
        (lambda y, z: [y, y[:0]], "the output", lambda y, z: y.mean()),
    ],
)
def test_of_all_else_it_is_the_mean(
    returns: Callable[[Tensor, Tensor], Any], of: str, mean: Callable[[Tensor, Tensor], Tensor]
) -> None:
    trainer = trained(returns)
    model: Any = trainer.model
    y = model.stem(IMAGES)
    assert (trainer.about_loss, trainer.learns) == ({"loss": "mean", "loss_of": of}, False)
    assert trainer.loss == pytest.approx(float(mean(y, model.head(y.mean((2, 3)))).detach()), abs=1e-6)
    trainer.backward()
    assert model.stem.weight.grad.any()
    trainer.update()


class Late(Tensor):
    """A tensor that may compute when it is read."""


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(requires_grad=False)


class NoProducts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 16).flatten(1)[:, :10]


class Under(Base):
    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            return super().forward(x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (NoProducts(), "learns nothing, for it has no parameters"),
        (frozen(Base(lambda y, z: z)), "all 482 parameters are frozen"),
        (Base(lambda y, z: z.detach()), "the outputs have no gradient"),
        (Base(lambda y, z: {"logits": z.data, "y": y}), "the outputs have no gradient"),
        (Under(lambda y, z: z), "the outputs have no gradient"),
        (Base(lambda y, z: z.argmax(1)), "without floating-point numbers"),
        (Base(lambda y, z: "cat"), r"an output \(str\) without floating-point numbers"),
        (Base(lambda y, z: z.as_subclass(Late)), "may compute when it is read"),
        (Base(lambda y, z: z.mean(0, keepdim=True)), r"an output of \(1, 10\) for 2 images"),
    ],
)
def test_what_cannot_be_trained_is_unsupported_with_its_reason(model: nn.Module, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        Trainer(model, IMAGES).step()


def test_what_is_frozen_stays() -> None:
    torch.manual_seed(0)
    model = Base(lambda y, z: z)
    frozen(model.stem)
    trainer, before = Trainer(model, IMAGES), model.stem.weight.clone()
    trainer.step()
    assert torch.equal(model.stem.weight, before)
    assert len(trainer.optimizer.state) == 2


def test_complex_parameters_train() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Parameter(torch.randn(3, 32, 17, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x) * self.filter)

    trainer = Trainer(Spectrum(), IMAGES)
    trainer.step()
    trainer.step()
    assert trainer.about_loss == {"loss": "mean", "loss_of": "the output"}


def test_a_mean_may_stay_as_it_is_and_a_cross_entropy_may_not() -> None:
    def found(learns: bool) -> dict[str, Any]:
        return timed.check(Seen(3, 0, losses=(0.1, 0.1, 0.1), learns=learns), "float32", None)

    assert found(learns=False)["differs"] == 0
    assert found(learns=True)["differs"] == 1


def test_containers_of_numbers_and_words_hold_tensors() -> None:
    one = torch.zeros(2, 3)
    output = {"a": nn.Parameter(one), "b": np.ones((2, 3)), "c": SimpleNamespace(d=one), "e": (1j, b"x", np.float32(1))}
    assert [tuple(each.shape) for each in tensors_of(output)] == [(2, 3)] * 3
    for strange in (one.as_subclass(Late), {1, 2}, iter([one]), object()):
        with pytest.raises(TypeError, match="may compute when it is read"):
            list(tensors_of(strange))


@pytest.mark.parametrize(
    ("shapes", "images", "joined"),
    [
        ([(1, 10)], 1, False),
        ([(2, 10)], 2, False),
        ([(1, 10)], 2, True),
        ([(8, 49, 96)], 2, False),  # windows of each image
        ([(49, 2, 96)], 2, False),  # tokens first
        ([()], 2, False),
        ([(1, 5), (4, 5)], 4, False),
    ],
)
def test_an_output_of_fewer_images_is_found(shapes: list[tuple[int, ...]], images: int, joined: bool) -> None:
    assert (images_missing([torch.zeros(shape) for shape in shapes], images) is not None) is joined


NETS = """
import torch
import torch.nn.functional as F
from torch import nn

class Base(nn.Module):
    def __init__(self, c=8, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, c, 4, 4)
        self.head = nn.Linear(c, classes)

class Maps(Base):
    def forward(self, x):
        y = self.stem(x)
        return [y, F.avg_pool2d(y, 2), F.avg_pool2d(y, 4)]

class Dict(Base):
    def forward(self, x):
        y = self.stem(x)
        return {"logits": self.head(y.mean((2, 3))), "features": y}

class Map(Base):
    def forward(self, x):
        return self.stem(x)

class Quiet(Map):
    def train(self, mode=True):
        super().train(mode)

class Softmax(Base):
    def forward(self, x):
        return self.stem(x).softmax(1)

class Frozen(Map):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class One(Base):
    def forward(self, x):
        return self.head(self.stem(x).flatten(2).mean(2).view(1, 8))

class Joins(Base):
    def forward(self, x):
        return self.head(self.stem(x).view(1, 8, -1).mean(2))
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "returning.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("returning", None)


def case(name: str, batch: Any = 2, phase: Any = "train") -> Case:
    return Case(f"returning:{name}", 64, 64, "parallel", None, batch, "float32", "cpu", phase)


def launched(of: Case) -> dict[str, Any]:
    return dict(measure.measure(jobs.measure(of, FAST)[1]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Maps", ("mean", "3 outputs")),
        ("Dict", ("cross-entropy", "logits")),
        ("Map", ("mean", "the output")),
        ("Softmax", ("mean", "the output")),  # which is the same after each step
        ("Quiet", ("mean", "the output")),  # its `train` returns nothing
    ],
)
def test_a_launch_trains_it_and_says_of_what_the_loss_is(name: str, words: tuple[str, str]) -> None:
    found = launched(case(name))
    assert (found["settings"]["loss"], found["settings"]["loss_of"]) == words
    assert (found["outputs"]["differs"], found["outputs"]["nonfinite"]) == (0, 0)
    assert found["throughput"]["batch"] == found["latency"]["batch"] == 2
    assert predicted_peak(case(name)) > 0


def test_a_launch_of_a_frozen_model_is_unsupported() -> None:
    for refused in (lambda: launched(case("Frozen")), lambda: predicted_peak(case("Frozen"))):
        with pytest.raises(UnsupportedError, match="all 482 parameters are frozen"):
            refused()


@pytest.mark.parametrize(
    ("name", "why"), [("One", "RuntimeError: shape"), ("Joins", "ShapeError: an output of (1, 10) for 2 images")]
)
def test_a_model_for_one_image_keeps_its_figures(name: str, why: str) -> None:
    found = launched(case(name, "knee", "infer"))
    assert found["throughput"]["batch"] == 1
    assert found["throughput"]["stop"].startswith(f"batch 2 fails: {why}")
    assert (found["outputs"]["differs"], found["outputs"]["reason"]) == (0, None)
    found = launched(case(name, 2, "infer"))
    assert set(found["throughput"]) == {"batch", "reason"}
    assert found["throughput"]["reason"].startswith(f"batch 2 fails: {why}")
    assert min(found["latency"]["samples_ms"]) > 0
    assert "energy" in found


def test_a_model_for_one_image_does_not_train_on_two() -> None:
    with pytest.raises(
        UnsupportedError, match=r"cannot train on a batch of 2: RuntimeError: shape.*a batch of 1 works"
    ):
        launched(case("One"))
    with pytest.raises(UnsupportedError, match=r"an output of \(1, 10\) for 2 images"):
        launched(case("Joins"))
    assert launched(case("One", "knee"))["throughput"]["batch"] == 1


def test_a_row_without_images_a_second_says_why() -> None:
    from vbench.reports import tables

    record = replace(make_record("deit_t"), throughput={"batch": 4, "reason": "batch 4 fails: RuntimeError: no"})
    record = of_case(record, batch=4)
    row = frame([record]).iloc[0]
    assert (row["status"], row["batch"], row["throughput_reason"]) == ("ok", 4, record.throughput["reason"])  # type: ignore[index]
    assert row["latency_ms"] > 0
    line = "no images/s: batch 4 fails: RuntimeError: no (deit_t parallel 224)"
    assert line in tables.remarks(frame([record]))


def test_losses_that_differ_are_not_compared_in_silence() -> None:
    found = [
        replace(make_record(model), settings={"loss": loss})
        for model, loss in (("vig_t", "cross-entropy"), ("deit_t", "mean"))
    ]
    assert any(line.startswith("rows differ in loss: ") for line in unfair(frame(found)))
    assert unfair(frame([found[0], make_record("deit_t")])) == []


def test_a_train_that_returns_nothing_is_no_matter() -> None:
    class FreezesNorms(Base):
        def train(self, mode: bool = True) -> None:  # type: ignore[override]
            super().train(mode)

    trainer = Trainer(FreezesNorms(lambda y, z: z), IMAGES)
    trainer.step()
    assert trainer.model.training
