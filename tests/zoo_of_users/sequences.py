"""Tokens one after another: torch's recurrent layers, scans in Python, convolutions along the tokens."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import Base, maps, tokens


def rows(x):
    """(B, C, H, W) -> (B * H, W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 1)


def unrows(y, like):
    """Back again."""
    return y.unflatten(0, (like.shape[0], -1)).permute(0, 3, 1, 2)


class Lstm(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 4, batch_first=True, bidirectional=True)

    def body(self, x):
        return unrows(self.rnn(rows(x))[0], x)


class Gru(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 8)

    def body(self, x):
        return unrows(self.rnn(rows(x).transpose(0, 1))[0].transpose(0, 1), x)


class TwoLayers(Base):
    """A plain recurrent net of two layers."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(8, 8, num_layers=2, batch_first=True)

    def body(self, x):
        return unrows(self.rnn(rows(x))[0], x)


class Cells(Base):
    """An LSTM cell, column by column."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(8, 8)

    def body(self, x):
        columns, state, found = rows(x).unbind(1), None, []
        for column in columns:
            state = self.cell(column, state)
            found.append(state[0])
        return unrows(torch.stack(found, 1), x)


class GruCells(Base):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(8, 8)

    def body(self, x):
        h, found = None, []
        for column in rows(x).unbind(1):
            h = self.cell(column, h)
            found.append(h)
        return unrows(torch.stack(found, 1), x)


class Cumsum(Base):
    """Running means."""

    def body(self, x):
        t = tokens(x)
        return maps(t.cumsum(1) / torch.arange(1, t.shape[1] + 1, device=x.device)[:, None], x)


class Scan(Base):
    """A decay for each channel, step by step in Python."""

    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.zeros(8))

    def body(self, x):
        decay, h, found = self.decay.sigmoid(), 0, []
        for column in rows(x).unbind(1):
            h = h * decay + column
            found.append(h)
        return unrows(torch.stack(found, 1), x)


class InPlaceScan(Scan):
    """It writes into a tensor that it made before."""

    def body(self, x):
        t = rows(x)
        found, h = torch.zeros_like(t), torch.zeros_like(t[:, 0])
        for i in range(t.shape[1]):
            h = h * self.decay.sigmoid() + t[:, i]
            found[:, i] = h
        return unrows(found, x)


class Selective(Base):
    """A selective state of 4 values a channel, read by a product each step."""

    def __init__(self):
        super().__init__()
        self.rates = nn.Parameter(torch.zeros(8, 4))
        self.project = nn.Linear(8, 16)

    def body(self, x):
        t = rows(x)
        step, b, c = self.project(t).split((8, 4, 4), -1)
        step, h, found = F.softplus(step), 0, []
        for i in range(t.shape[1]):
            decay = torch.exp(-step[:, i, :, None] * self.rates.exp())
            h = h * decay + step[:, i, :, None] * b[:, i, None] * t[:, i, :, None]
            found.append(torch.einsum("bcs,bs->bc", h, c[:, i]))
        return unrows(torch.stack(found, 1), x)


class Cumprod(Base):
    """A scan by products of gates and a sum, all at once."""

    def body(self, x):
        t = tokens(x)
        gates = t.sigmoid().cumprod(1).clamp_min(1e-6)
        return maps((t / gates).cumsum(1) * gates, x)


class Along(Base):
    """A convolution along the tokens."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(8, 8, 3, padding=1)

    def body(self, x):
        return self.mix(x.flatten(2)).view_as(x)


class CausalAlong(Base):
    """Padded on both sides and cut off, as Mamba's convolution is."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(8, 8, 4, groups=8, padding=3)

    def body(self, x):
        return F.silu(self.mix(x.flatten(2))[..., :256]).reshape(x.shape)
