"""Numbers of other kinds: complex weights, transforms, doubles, halves, integers and booleans."""

import math

import numpy as np
import torch
from torch import nn

from .base import Base, maps, tokens


class ComplexMix(Base):
    """A complex product between two transforms."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8, dtype=torch.cfloat))

    def body(self, x):
        f = tokens(torch.fft.fft2(x)) @ self.mix
        return torch.fft.ifft2(maps(f, x)).real


class ComplexGain(Base):
    """A complex gain of each frequency."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(8, 16, 9, dtype=torch.cfloat))

    def body(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:]).relu()


class ComplexBuffer(Base):
    """Rotations that do not learn."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(4, 1, 1), torch.arange(4.0).view(4, 1, 1)))

    def body(self, x):
        pairs = torch.complex(x[:, :4], x[:, 4:]) * self.turns
        return torch.cat((pairs.real, pairs.imag), 1)


class ComplexConvolution(Base):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1, bias=False, dtype=torch.cfloat)

    def body(self, x):
        return self.mix(x.to(torch.cfloat)).abs()


class PairsOfReals(Base):
    """A gain of each frequency, kept as pairs of real numbers, as GFNet has it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(8, 16, 9, 2) * 0.02)

    def body(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.gain), s=x.shape[-2:])


class ViewsAsComplex(Base):
    def body(self, x):
        return torch.view_as_real(torch.view_as_complex(torch.stack((x, x), -1)))[..., 0]


class Cosines(Base):
    """A cosine transform as two products with a matrix that numpy made."""

    def __init__(self):
        super().__init__()
        k, n = np.mgrid[:16, :16]
        self.register_buffer("matrix", torch.from_numpy(np.cos(math.pi / 16 * (n + 0.5) * k).astype(np.float32)))

    def body(self, x):
        return self.matrix @ x @ self.matrix.T


class Wavelet(Base):
    """Sums and differences of neighbours."""

    def body(self, x):
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.cat((even + odd, even - odd), -1)


class DoubleGain(Base):
    """One parameter in double precision."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8, 1, 1, dtype=torch.float64))

    def body(self, x):
        return (x * self.gain).to(x.dtype)


class HalfTable(Base):
    """A buffer in half precision."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(8, 1, 1, dtype=torch.float16))

    def body(self, x):
        return x + self.table.to(x.dtype)


def double():
    return Base().double()


def half():
    return Base().half()


class Permuted(Base):
    """Tokens in another order, by a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(255, -1, -1))
        self.register_buffer("calls", torch.tensor(0))

    def body(self, x):
        return maps(tokens(x)[:, self.order], x)


class BooleanMask(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(16, 16, dtype=torch.bool).tril())

    def body(self, x):
        return x.masked_fill(self.mask, 0.0)
