"""Constructors that no meta device likes, though the models run: values are read, and tensors come from elsewhere."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .base import Base


class ItemRates(Base):
    """Reads its drop-path rates with item()."""

    def __init__(self, drop_path_rate=0.1, depth=3):
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, drop_path_rate, depth)]
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout(p)) for p in rates))

    def body(self, x):
        return self.blocks(x)


class FloatOfTensor(Base):
    def __init__(self):
        super().__init__()
        self.p = float(torch.linspace(0, 0.1, 3)[-1])


class TolistRates(Base):
    def __init__(self):
        super().__init__()
        self.drops = nn.ModuleList(nn.Dropout(p) for p in torch.linspace(0, 0.1, 3).tolist())

    def body(self, x):
        for drop in self.drops:
            x = drop(x)
        return x


class NumpyBuffer(Base):
    """A table of sines made by numpy, kept as a buffer."""

    def __init__(self):
        super().__init__()
        table = np.sin(np.arange(8, dtype=np.float32))[None, :, None, None]
        self.register_buffer("table", torch.from_numpy(table), persistent=False)

    def body(self, x):
        return x + self.table


class NumpyParameter(Base):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.from_numpy(np.ones((8, 1, 1), np.float32)))

    def body(self, x):
        return x * self.gain


class PlainAttribute(Base):
    """Its table is neither a buffer nor a parameter, so that no .to() reaches it."""

    def __init__(self):
        super().__init__()
        self.table = torch.from_numpy(np.linspace(0, 1, 16, dtype=np.float32))

    def body(self, x):
        return x + self.table


class ListOfTensors(Base):
    """Tables in a list, one for each half of the channels."""

    def __init__(self):
        super().__init__()
        self.tables = [torch.full((4, 1, 1), float(i)) for i in range(2)]

    def body(self, x):
        return x + torch.cat(self.tables)


class ArangeInForward(Base):
    """Positions without a device."""

    def body(self, x):
        return x + torch.arange(x.shape[-1]) / x.shape[-1]


class Lazy(nn.Module):
    """Its layers learn their widths from the first image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.LazyConv2d(8, 4, 4)
        self.head = nn.LazyLinear(10)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def scripted():
    return torch.jit.script(Plain())


def traced():
    return torch.jit.trace(Plain().eval(), torch.zeros(1, 3, 64, 64))


class HalfScripted(Base):
    """A scripted part in an ordinary model."""

    def __init__(self):
        super().__init__()
        self.mix = torch.jit.script(nn.Conv2d(8, 8, 1))

    def body(self, x):
        return self.mix(x)


class WarmsUp(Base):
    """Asks its own stem how many tokens there are, to have a table of that size."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            shape = self.stem(torch.zeros(1, 3, 64, 64)).shape
        self.position = nn.Parameter(torch.zeros(shape))

    def body(self, x):
        return x + self.position


class LoadsItself(Base):
    """Loads its weights from a file, as `pretrained=True` does."""

    def __init__(self):
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.pth"
            torch.save(nn.Conv2d(3, 8, 4, 4, device="cpu").state_dict(), file)
            self.stem.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


class Mapped(Base):
    """Has a weight in a mapped file."""

    def __init__(self):
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weight.bin"
            np.eye(8, dtype=np.float32).tofile(file)
            weight = torch.from_numpy(np.memmap(file, np.float32, "c", shape=(8, 8)))
        self.mix = nn.Parameter(weight)

    def body(self, x):
        return torch.einsum("bchw,dc->bdhw", x, self.mix)


class Seeded(Base):
    """Random features from a generator of its own."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("features", torch.randn(8, 1, 1, generator=generator))

    def body(self, x):
        return x * self.features


class Diagonalised(Base):
    """A matrix of states by numpy's eigenvalues, as S4 begins."""

    def __init__(self):
        super().__init__()
        values, _ = np.linalg.eigh(np.diag(np.arange(8.0)) + 1.0)
        self.rate = nn.Parameter(torch.tensor(values, dtype=torch.float32)[:, None, None])

    def body(self, x):
        return x * torch.exp(-self.rate)


class DeepCopied(Base):
    """An averaged copy of the stem rides along and is not called."""

    def __init__(self):
        super().__init__()
        self.averaged = copy.deepcopy(self.stem).requires_grad_(False)


class OnItsDevice(Base):
    """Names the device itself."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1, device="cpu")

    def body(self, x):
        return self.mix(x)


class MovesItself(Base):
    def __init__(self):
        super().__init__()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.to(self.device)


class ChecksItsWeights(Base):
    """Asserts about the values that it was initialised with."""

    def __init__(self):
        super().__init__()
        nn.init.orthogonal_(self.head.weight)
        assert self.head.weight.abs().sum() > 0, "weights are zero"
