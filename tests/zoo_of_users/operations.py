"""Operations that are no plain layers: gathers, folds, resizes, weights that are computed, functions of one's own."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from .base import Base, maps, tokens


class Antialias(Base):
    def body(self, x):
        return F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)


class Warped(Base):
    """Samples at places that it was not told."""

    def body(self, x):
        theta = torch.eye(2, 3, device=x.device, dtype=x.dtype).expand(len(x), 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)


class Deformed(Base):
    """Offsets from a convolution, gathered by integers."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(8, 1, 3, padding=1)

    def body(self, x):
        place = torch.arange(256, device=x.device) + self.offset(x).flatten(1).round().long()
        return torch.gather(x.flatten(2), 2, place.clamp(0, 255)[:, None].expand(-1, 8, -1)).view_as(x)


class Unfolded(Base):
    """A convolution as patches and a linear layer."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(72, 8)

    def body(self, x):
        return maps(self.mix(F.unfold(x, 3, padding=1).mT), x)


class Folded(Base):
    def body(self, x):
        return F.fold(F.unfold(x, 2, stride=2), x.shape[-2:], 2, stride=2)


class Shuffled(Base):
    def __init__(self):
        super().__init__()
        self.widen = nn.Conv2d(8, 32, 1)

    def body(self, x):
        return F.pixel_shuffle(self.widen(x), 2)


class Same(Base):
    def __init__(self):
        super().__init__()
        self.dw = nn.Conv2d(8, 8, 7, groups=8, padding="same")

    def body(self, x):
        return self.dw(x)


class SameEven(Base):
    """padding="same" with an even kernel pads unequally."""

    def __init__(self):
        super().__init__()
        self.dw = nn.Conv2d(8, 8, 4, groups=8, padding="same")

    def body(self, x):
        return self.dw(x)


class Reflected(Base):
    def __init__(self):
        super().__init__()
        self.dw = nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="reflect")

    def body(self, x):
        return self.dw(x)


class Transposed(Base):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)

    def body(self, x):
        return self.up(x)


class Volume(Base):
    """The channels as a third dimension."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv3d(1, 1, 3, padding=1)

    def body(self, x):
        return self.mix(x[:, None])[:, 0]


class RandomMask(Base):
    """Keeps a quarter of the tokens, drawn anew each time."""

    def body(self, x):
        t = tokens(x)
        keep = torch.argsort(torch.rand(t.shape[:2], device=x.device), 1)[:, : t.shape[1] // 4]
        return torch.gather(t, 1, keep[..., None].expand(-1, -1, t.shape[2])).mean(1)[:, :, None, None]


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.einsum("bchw,dc->bdhw", x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return torch.einsum("bdhw,dc->bchw", g, w), torch.einsum("bdhw,bchw->dc", g, x)


class OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        return torch.einsum("bchw,dc->bdhw", x, w)


class Function(Base):
    """An autograd function of its own."""

    function = Product

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8))

    def body(self, x):
        return self.function.apply(x, self.w)


class FunctionWithoutBackward(Function):
    function = OneWay


class Checkpointed(Base):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)

    def body(self, x):
        return checkpoint(self.mix, x, use_reentrant=False)


class CheckpointedOldWay(Checkpointed):
    def body(self, x):
        return checkpoint(self.mix, x, use_reentrant=True)


class WeightNorm(Base):
    def __init__(self):
        super().__init__()
        self.c = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))

    def body(self, x):
        return self.c(x)


class SpectralNorm(Base):
    def __init__(self):
        super().__init__()
        self.c = parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))

    def body(self, x):
        return self.c(x)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


class Parametrized(Base):
    """A linear layer whose weight is symmetric."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        parametrize.register_parametrization(self.mix, "weight", Symmetric())

    def body(self, x):
        return maps(self.mix(tokens(x)), x)


class Pruned(Base):
    """Half of its weights are masked."""

    def __init__(self):
        super().__init__()
        self.mix = prune.l1_unstructured(nn.Conv2d(8, 8, 1), "weight", amount=0.5)

    def body(self, x):
        return self.mix(x)


class Functional(Base):
    """Calls a layer with other weights than its own."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)

    def body(self, x):
        weights = {name: value * 0.5 for name, value in self.mix.named_parameters()}
        return torch.func.functional_call(self.mix, weights, (x,))


class Mixed(Base):
    """The weight of a convolution is mixed from four, by the image."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.Parameter(torch.randn(4, 64) * 0.1)

    def body(self, x):
        b, c, h, w = x.shape
        weight = (self.gate(x.mean((2, 3))).softmax(-1) @ self.experts).view(b * c, c, 1, 1)
        return F.conv2d(x.reshape(1, b * c, h, w), weight, groups=b).view(b, c, h, w)


class Looked(Base):
    """Looks pixels up in a table of vectors."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 8)

    def body(self, x):
        return x + self.table((x.mean(1) > 0).long()).permute(0, 3, 1, 2)


class Compiled(Base):
    """A compiled part."""

    def __init__(self):
        super().__init__()
        self.mix = torch.compile(nn.Conv2d(8, 8, 1), backend="eager")

    def body(self, x):
        return self.mix(x)


@torch.library.custom_op("zoo_of_users::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@doubled.register_fake
def _(x):
    return torch.empty_like(x)


doubled.register_autograd(lambda ctx, g: g * 2)


class Unknown(Base):
    """An operation that nobody else knows."""

    def body(self, x):
        return doubled(x)


class ChannelsLast(Base):
    def body(self, x):
        return x.contiguous(memory_format=torch.channels_last).relu()
