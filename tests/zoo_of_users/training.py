"""Models that train in a way of their own, or not at all."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import Base, maps, tokens


class NoProducts(nn.Module):
    """Neither products nor parameters."""

    def forward(self, x):
        return F.avg_pool2d(x, 16).flatten(1)[:, :10]


class OnlyAGain(nn.Module):
    """A parameter, and no product."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return (x * self.gain).mean((2, 3))


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class HalfFrozen(Base):
    """The head alone learns."""

    def __init__(self):
        super().__init__()
        self.stem.requires_grad_(False)


class NoGrad(Base):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Inference(Base):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


class Detached(Base):
    """Its features leave the graph, and so does its head."""

    def forward(self, x):
        return super().forward(x).detach()


class BatchNormTail(Base):
    """A norm over the batch after the pooling."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.head(self.norm(self.stem(x).mean((2, 3))))


class OneImage(Base):
    """Takes one image a call, and says so."""

    def forward(self, x):
        assert x.shape[0] == 1, "batch must be 1"
        return super().forward(x)


class OneImageByShape(Base):
    """Takes one image a call, and does not say so."""

    def body(self, x):
        return x.reshape(1, 8, 256).mean(-1)[..., None, None]

    def forward(self, x):
        return self.head(self.body(self.stem(x)).view(1, 8))


class TwoImages(Base):
    """Compares pairs: the batch must be even."""

    def forward(self, x):
        first, second = super().forward(x).chunk(2)
        return first - second


class HugeUnused(Base):
    """16 MiB that no pass touches."""

    def __init__(self):
        super().__init__()
        self.queue = nn.Parameter(torch.zeros(2**22))


class Tied(Base):
    """Two layers share a weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def body(self, x):
        return maps(self.second(self.first(tokens(x)).relu()), x)


class Shared(Base):
    """One layer, three times."""

    def __init__(self):
        super().__init__()
        layer = nn.Conv2d(8, 8, 1)
        self.layers = nn.ModuleList([layer] * 3)

    def body(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class SynchronisedNorm(Base):
    """A norm that only trains on GPUs."""

    def __init__(self):
        super().__init__()
        self.norm = nn.SyncBatchNorm(8)

    def body(self, x):
        return self.norm(x)


class TrainReturnsNothing(Base):
    """Keeps a norm in evaluation, and forgets to return itself."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def body(self, x):
        return self.norm(x)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()


class DropsPaths(Base):
    """Leaves layers out by Python's chance."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)

    def body(self, x):
        if self.training and torch.rand(()) < 0.5:
            return x
        return x + self.mix(x)


class WantsLabels(Base):
    """Returns its loss where it is given labels."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        return logits if labels is None else F.cross_entropy(logits, labels)


class OwnHooks(Base):
    """Scales its gradients."""

    def __init__(self):
        super().__init__()
        self.stem.weight.register_hook(lambda g: g * 0.5)
        self.head.register_forward_hook(lambda module, given, out: out * 2)
