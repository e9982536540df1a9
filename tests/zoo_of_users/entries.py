"""Entry points of every form: classes, functions, partials, instances, with the arguments that users like."""

import threading
from dataclasses import dataclass, field
from functools import partial

import torch
from timm.models import VisionTransformer
from torch import nn

from .base import Base


def vit(pretrained=False, **kwargs):
    """timm's way: whatever else is asked for goes to the class."""
    return VisionTransformer(embed_dim=48, depth=1, num_heads=3, patch_size=16, **kwargs)


def vit_of_14(image_size=518):
    """A patch of 14 px, built for the size that it is asked for."""
    return VisionTransformer(image_size, embed_dim=48, depth=1, num_heads=3, patch_size=14)


def vit_at_64():
    """Takes 64 px and nothing else."""
    return VisionTransformer(64, embed_dim=48, depth=1, num_heads=3, patch_size=16)


class Positions(Base):
    """A table of positions for the size that it is built for."""

    def __init__(self, img_size=(64, 64)):
        super().__init__()
        height, width = img_size
        self.positions = nn.Parameter(torch.zeros(8, height // 4, width // 4))

    def body(self, x):
        return x + self.positions


class WholeNumber(Base):
    """Takes its size as one number."""

    def __init__(self, img_size=224):
        super().__init__()
        side = img_size // 4
        self.positions = nn.Parameter(torch.zeros(8, side, side))

    def body(self, x):
        return x + self.positions


def grey(in_chans=1):
    """Takes one channel by default, and as many as it is told."""
    return Base(colours=in_chans)


def four_channels():
    """Takes four channels and nothing else."""
    return Base(colours=4)


def twelve_bands(in_chans=12):
    return Base(colours=in_chans)


def function():
    return Base()


def with_defaults(depth=2, *, width=8, name="plain"):
    return Base(width)


def keywords(**options):
    """Takes whatever it is told, and needs nothing of it."""
    assert not set(options) - {"img_size", "image_size", "in_chans", "num_classes", "mode"}, options
    return Base()


def picky(**kwargs):
    """Hands its keywords to a class that knows none of them."""
    return Base(**kwargs)


def positional(*args):
    return Base(*args)


partially = partial(Base, classes=10)


def arrow():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


built = arrow()
"""A model that stands ready when the module is imported."""


class Factory:
    """An instance of it is called."""

    def __call__(self):
        return Base()


factory = Factory()


@dataclass(eq=False)
class Configured(nn.Module):
    """A module that is a dataclass too."""

    width: int = 8
    sizes: list[int] = field(default_factory=lambda: [4])

    def __post_init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, self.width, self.sizes[0], self.sizes[0]), nn.Linear(self.width, 10)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


class AnswersEverything(Base):
    """Has every attribute that one asks for."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return None


class AnswersKeyErrors(Base):
    """Looks attributes up in a dict, and raises what that raises."""

    def __getattr__(self, name):
        if name in ("stem", "head") or name.startswith("_"):
            return super().__getattr__(name)
        return {"depth": 1}[name]


class Empty(Base):
    """Is false where one asks whether it is there."""

    def __len__(self):
        return 0


class HasProperties(Base):
    """Properties of the names that others use."""

    @property
    def device(self):
        raise RuntimeError("this model has no single device")

    @property
    def dtype(self):
        return next(self.parameters()).dtype


class Uncopied(Base):
    """Holds what cannot be copied or pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.act = lambda x: x.relu()

    def body(self, x):
        with self.lock:
            return self.act(x)


class CallsItself(Base):
    """Overrides __call__."""

    def __call__(self, x):
        return super().__call__(x.contiguous())


class ImportsLate(Base):
    """Imports a neighbour in its forward pass."""

    def body(self, x):
        from .numbers import Wavelet

        return Wavelet.body(self, x)


class RaisesAtSize(Base):
    def forward(self, x):
        if x.shape[-1] % 48:
            raise ValueError(f"input size {x.shape[-1]} is not a multiple of 48")
        return super().forward(x)


class Unshaped(Base):
    """Its layers do not fit each other."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(7, 10)


class NeedsGpu(Base):
    def forward(self, x):
        assert x.is_cuda, "this kernel needs a GPU"
        return super().forward(x)


def needs_a_width(width):
    return Base(width)


def fails():
    raise OSError("weights.bin is not there\nhave you downloaded it?")


def no_module():
    return {"model": Base()}


number = 3


# A re-parameterised family


class Branches(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution in training, one 3 x 3 in use."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.one = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), None

    def forward(self, x):
        return self.wide(x) + self.narrow(x) if self.one is None else self.one(x)

    def reparameterize(self):
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        with torch.no_grad():
            self.one.weight.copy_(self.wide.weight + nn.functional.pad(self.narrow.weight, (1, 1, 1, 1)))
            self.one.bias.copy_(self.wide.bias + self.narrow.bias)
        del self.wide, self.narrow


class Reparameterisable(Base):
    def __init__(self):
        super().__init__()
        self.branches = Branches()

    def body(self, x):
        return self.branches(x)
