"""Constructors that read values, or that make what the meta device does not know."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from users_nets.base import Base, image, tokens


def mixer(channels: int = 8) -> nn.Conv2d:
    return nn.Conv2d(8, channels, 1)


class Rates(Base):
    """Drop-path rates by `.item()`: the line of most forks of Swin, ConvNeXt and DeiT.

    facebookresearch/dinov2#477, OpenGVLab/VideoMAEv2#87, huggingface/transformers#43957
    """

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, 0.1, depth)]
        self.blocks = nn.Sequential(*(nn.Sequential(mixer(), nn.Dropout(rate)) for rate in rates))

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


@lru_cache
def kept_rates(depth: int) -> Tensor:
    return torch.linspace(0, 0.1, depth)


class Kept(Base):
    """Rates that the module keeps from one constructor to the next."""

    def __init__(self) -> None:
        super().__init__()
        rates = [rate.item() for rate in kept_rates(3)]
        self.blocks = nn.Sequential(*(nn.Sequential(mixer(), nn.Dropout(rate)) for rate in rates))

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


class Widths(Base):
    """A width that is computed as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        width = int(torch.tensor([8.0, 8.6]).round().max())
        self.mix, self.back = mixer(width), nn.Conv2d(width, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.back(self.mix(x))
        return found


class Tied(Base):
    """Two layers with one weight, in a model that is built on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1).item()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def body(self, x: Tensor) -> Tensor:
        return image(self.second(self.first(tokens(x))), x)


class Recurrent(Base):
    """An LSTM keeps a list of its weights. The model is built on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1).item()
        self.walk = nn.LSTM(8, 8, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        return image(self.walk(tokens(x))[0], x)


class Scripted(Base):
    """A part that torch.jit has scripted; it takes no hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.block = torch.jit.script(nn.Sequential(mixer(), nn.ReLU()))

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return found


class Simple(nn.Module):
    """What torch.jit can script whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), mixer(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.mix(self.stem(x)).mean((2, 3)))
        return found


def scripted() -> nn.Module:
    """A model that is scripted as a whole, and built on the CPU."""
    torch.ones(1).item()
    found: nn.Module = torch.jit.script(Simple())
    return found
