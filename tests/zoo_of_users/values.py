"""Forward passes that read values: how far they go, and what they return, depends on the image."""

import numpy as np
import torch
from torch import nn

from .base import Base, maps, tokens


class Prune(Base):
    """Drops tokens by their values."""

    def body(self, x):
        t = tokens(x)[0]
        return t[t.mean(-1) > 0].sum(0)[None, :, None, None] + x


class Branch(Base):
    def body(self, x):
        return x * 2 if x.mean() > 0 else x


class Numpy(Base):
    def body(self, x):
        return torch.from_numpy(np.sort(x.detach().cpu().numpy(), -1))


class NumpyFourier(Base):
    def body(self, x):
        return torch.from_numpy(np.fft.fft2(x.detach().cpu().numpy()).real.astype(np.float32))


class Halting(Base):
    """Repeats until it is still, eight times at most."""

    def body(self, x):
        for _ in range(8):
            if float(x.abs().max()) < 0.1:
                break
            x = x * 0.9
        return x


class Shifted(Base):
    """Rolls by what it sees."""

    def body(self, x):
        return torch.roll(x, int(x.flatten().argmax()) % 16, -1)


class Nonzero(Base):
    def body(self, x):
        return x + len(torch.nonzero(x.mean(1) > 0)) / 256


class Unique(Base):
    def body(self, x):
        return x + torch.unique((x > 0).long()).numel()


class Asserts(Base):
    def body(self, x):
        assert torch.isfinite(x).all(), "not finite"
        assert x.min() >= -1e4, "out of range"
        return x


class Scaled(Base):
    def body(self, x):
        return x / max(x.abs().max().item(), 1e-6)


class Compared(Base):
    def body(self, x):
        return x if torch.equal(x, x.flip(-1)) else x.flip(-1)


class Masked(Base):
    def body(self, x):
        return x + torch.masked_select(x, x > 0).mean()


class Listed(Base):
    def body(self, x):
        weights = x.mean((0, 2, 3)).tolist()
        return x + sum(weights)


class Routed(Base):
    """One of four experts for each image."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def body(self, x):
        t = tokens(x)
        chosen = self.gate(t.mean(1)).argmax(-1)
        y = torch.zeros_like(t)
        for number, expert in enumerate(self.experts):
            here = torch.nonzero(chosen == number)[:, 0]
            if len(here):
                y[here] = expert(t[here])
        return maps(y, x)


class Talks(Base):
    def body(self, x):
        print(f"mean {x.mean():.3f}")
        return x
