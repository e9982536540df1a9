"""Models that return something else than (B, classes)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .base import Base, tokens


class Maps(Base):
    """Maps of three sizes, as a detector wants them."""

    def forward(self, x):
        y = self.stem(x)
        return [y, F.avg_pool2d(y, 2), F.avg_pool2d(y, 4)]


class TupleOfMaps(Base):
    def forward(self, x):
        y = self.stem(x)
        return y, F.avg_pool2d(y, 2)


class Dict(Base):
    def forward(self, x):
        y = self.stem(x)
        return {"logits": self.head(y.mean((2, 3))), "features": y}


class Ordered(Base):
    """An OrderedDict of maps, as torchvision's IntermediateLayerGetter returns."""

    def forward(self, x):
        return OrderedDict(out=self.stem(x))


class Map(Base):
    """One map."""

    def forward(self, x):
        return self.stem(x)


class Tokens(Base):
    """(B, N, C)."""

    def forward(self, x):
        return tokens(self.stem(x))


@dataclass
class Output:
    logits: torch.Tensor
    attentions: tuple | None = None


class Dataclass(Base):
    def forward(self, x):
        return Output(super().forward(x))


class Pair(NamedTuple):
    features: torch.Tensor
    mask: torch.Tensor


class Named(Base):
    """Features, and a mask of booleans."""

    def forward(self, x):
        y = self.stem(x)
        return Pair(y, y > 0)


class WithLoss(Base):
    """Logits and a loss of its own."""

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits.square().mean()


class Nested(Base):
    def forward(self, x):
        y = self.stem(x)
        return {"stages": [{"map": y}, {"map": F.avg_pool2d(y, 2)}], "size": (16, 16), "name": "nested", "more": None}


class Regressor(Base):
    """One number an image: (B,)."""

    def forward(self, x):
        return super().forward(x)[:, 0]


class OneLogit(Base):
    """(B, 1)."""

    def __init__(self):
        super().__init__(classes=1)


class Scalar(Base):
    """The mean of all, no batch left."""

    def forward(self, x):
        return super().forward(x).mean()


class Labels(Base):
    """Integers."""

    def forward(self, x):
        return super().forward(x).argmax(-1)


class ComplexMap(Base):
    def forward(self, x):
        return torch.fft.rfft2(self.stem(x))


class ByPhase(Base):
    """Logits in evaluation; in training also those of a second head."""

    def forward(self, x):
        y = self.stem(x).mean((2, 3))
        return (self.head(y), self.head(y * 2)) if self.training else self.head(y)


class ListInTraining(Base):
    """One map in evaluation, a list of maps in training."""

    def forward(self, x):
        y = self.stem(x)
        return [y, F.avg_pool2d(y, 2)] if self.training else y


class Nan(Base):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Nothing(Base):
    """Returns None."""

    def forward(self, x):
        self.last = super().forward(x)


class Strings(Base):
    """Names of classes."""

    def forward(self, x):
        return [f"class {number}" for number in super().forward(x).argmax(-1).tolist()]


class Lambdas(Base):
    """A function that would compute the rest."""

    def forward(self, x):
        y = self.stem(x)
        return lambda: self.head(y.mean((2, 3)))
