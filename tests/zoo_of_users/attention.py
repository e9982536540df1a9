"""Attention by all the ways that torch has, and by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import Base, maps, tokens


class Sdpa(Base):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 24), nn.Linear(8, 8)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]

    def body(self, x):
        return maps(self.o(self.attend(*self.qkv(tokens(x)).chunk(3, -1))), x)


class Causal(Sdpa):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]


class ByHand(Sdpa):
    def attend(self, q, k, v):
        return torch.softmax(q @ k.mT / 8**0.5, -1) @ v


class ByEinsum(Sdpa):
    def attend(self, q, k, v):
        scores = torch.einsum("bnc,bmc->bnm", q, k).softmax(-1)
        return torch.einsum("bnm,bmc->bnc", scores, v)


class Linear(Sdpa):
    """No softmax over tokens: keys and values first."""

    def attend(self, q, k, v):
        return q.relu() @ (k.relu().mT @ v) / 256


class Windows(Sdpa):
    """Windows of 4 x 4 tokens, shifted by two."""

    def attend(self, q, k, v):
        q, k, v = (self.windows(t) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.reshape(-1, 4, 4, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16, 8)
        return torch.roll(y, (2, 2), (1, 2)).flatten(1, 2)

    @staticmethod
    def windows(t):
        t = torch.roll(t.reshape(-1, 16, 16, 8), (-2, -2), (1, 2))
        return t.reshape(-1, 4, 4, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16, 8)


class Biased(Sdpa):
    """A bias for each distance, looked up in a table by integers."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(31 * 31))
        places = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")).flatten(1)
        away = places[:, :, None] - places[:, None] + 15
        self.register_buffer("index", away[0] * 31 + away[1])

    def attend(self, q, k, v):
        mask = self.bias[self.index][None, None]
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask)[:, 0]


class WideValues(Base):
    """Values of 16 channels, queries of 4."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 16), nn.Linear(16, 8)

    def body(self, x):
        t = tokens(x)
        return maps(self.o(F.scaled_dot_product_attention(self.q(t), self.k(t), self.v(t))), x)


class NarrowValues(Base):
    """Values of 2 channels, queries of 8, in heads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(2, 8)

    def body(self, x):
        t = tokens(x)
        q, k, v = (f(t).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return maps(self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), x)


class Grouped(Base):
    """Four heads of queries share two of keys and values."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 8)

    def body(self, x):
        t = tokens(x)
        q, k, v = (f(t).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return maps(self.o(y.transpose(1, 2).flatten(2)), x)


class Multihead(Base):
    """nn.MultiheadAttention, which has a fast path of its own in evaluation."""

    weights = False

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def body(self, x):
        t = tokens(x)
        return maps(self.attention(t, t, t, need_weights=self.weights)[0], x)


class MultiheadWeights(Multihead):
    """It asks for the scores too."""

    weights = True


class Encoder(Base):
    def __init__(self):
        super().__init__(channels=16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)

    def body(self, x):
        return maps(self.encoder(tokens(x)), x)


class EncoderFirstNorm(Base):
    """Norm first, tokens first: no fast path."""

    def __init__(self):
        super().__init__(channels=16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, norm_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def body(self, x):
        return maps(self.encoder(tokens(x).transpose(0, 1)).transpose(0, 1), x)


class Latents(Base):
    """Four learned queries look at all tokens."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, 4, 8))
        self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8)

    def body(self, x):
        t = tokens(x)
        q = self.latents.expand(len(x), -1, -1)
        return F.scaled_dot_product_attention(q, self.k(t), self.v(t)).mT[..., None]
