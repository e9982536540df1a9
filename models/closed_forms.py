"""Multiply-accumulates (MACs) of every family by hand: each layer is written out as a sum of products.

This is a third count beside two counters. It shares no code with them: nothing here builds a model or calls an
operator's formula. The architecture comes from the papers, the sizes come from the table. It counts what the algorithm
needs: matrix products, convolutions, attention, and recurrences token by token. Norms, activations and gates have no
MACs. Nothing here imports torch.

    N tokens, C channels, H heads, D key and E value dimension of a head, M inner width of an MLP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vbench.models.registry import MODELS

CLASSES = 1000
Sides = tuple[int, int]


def closed_form(name: str, height: int, width: int) -> int | None:
    """MACs that the algorithm of a model needs for one image of height × width px; None if it is not in the table.

    Raises: ResolutionError if the model cannot take the size.
    """
    if name not in MODELS:
        return None
    row = MODELS[name]
    row.grid(height, width)
    return _FAMILIES[row.family](name, row.args, (height, width))


def _conv(sides: Sides, kernel: int, stride: int, padding: int, channels: int, features: int) -> tuple[int, Sides]:
    """A dense convolution: its MACs, and the sides of its output."""
    h, w = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return h * w * kernel * kernel * channels * features, (h, w)


def _halved(sides: Sides, channels: int, features: int) -> tuple[int, Sides]:
    """A 3×3 convolution of stride 2: its MACs, and the halved sides, rounded up."""
    return _conv(sides, 3, 2, 1, channels, features)


def _pyramid(dim: int, depths: tuple[int, ...], sides: Sides, block: Callable[[int, int, int], int]) -> int:
    """Two halvings to 1/4 of the image, then stages of blocks; between stages sides halve and channels double.

    `block(stage, N, C)` gives the MACs of one block. The classifier is included.
    """
    total, sides = _halved(sides, 3, dim // 2)
    more, sides = _halved(sides, dim // 2, dim)
    total += more
    for stage, depth in enumerate(depths):
        if stage:
            more, sides = _halved(sides, dim << (stage - 1), dim << stage)
            total += more
        total += depth * block(stage, sides[0] * sides[1], dim << stage)
    return total + (dim << (len(depths) - 1)) * CLASSES


def _gla_block(N: int, C: int, H: int, M: int) -> int:
    """Depthwise 3×3; q and k of C/2, v of C; low-rank gates of both directions; output gate; output; SwiGLU.

    In each direction and head, each token writes and reads a state of D · E = C/2H · C/H numbers.
    """
    D, E, rank = C // (2 * H), C // H, 16
    token = 9 * C
    token += C * 2 * C  # q, k, v
    token += C * rank + rank * C  # gates: H · D for each of two directions
    token += C * C + C * C  # output gate, output
    token += 2 * H * 2 * D * E
    token += C * 2 * M + M * C
    return N * token


def _vig(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    C, H = args["dim"], args["heads"]
    if "depths" in args:
        widths = args["mlp_dims"]
        return _pyramid(C, args["depths"], sides, lambda stage, N, C_: _gla_block(N, C_, H << stage, widths[stage]))
    stem, sides = _conv(sides, 9, 8, 1, 3, C // 2)
    more, sides = _halved(sides, C // 2, C)
    return stem + more + 12 * _gla_block(sides[0] * sides[1], C, H, args["mlp_dim"]) + C * CLASSES


def _vrwkv(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Spatial mix, then channel mix with a key of 4C, value and receptance; the image is padded to patches of 16."""
    C = args["dim"]
    N = -(-sides[0] // 16) * -(-sides[1] // 16)
    if name.startswith("vrwkv6"):
        token = 5 * C * C  # receptance, key, value, gate, output
        token += C * 5 * 32 + 5 * 32 * C  # five low-rank mixes
        token += C * 64 + 64 * C  # low-rank decay
        token += 2 * 2 * C * 64  # heads of 64: each token writes and reads a state of 64 · 64 in each direction
    else:
        token = 4 * C * C  # key, value, receptance, output
        token += 2 * 2 * C  # each token is added to numerator and denominator, in each direction
    token += 4 * C * C + 4 * C * C + C * C
    total = N * 16 * 16 * 3 * C + args["depth"] * N * token
    features = args.get("head_dim")
    return total + (C * features + features * CLASSES if features else C * CLASSES)


def _vil(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Patches; blocks with an inner width of E = 2d and four heads; the classifier reads the first and last token."""
    d, version = args["dim"], args["version"]
    total, (h, w) = _conv(sides, 16, args.get("stride", 16), 0, 3, d)
    E, H = 2 * d, 4
    D = E // H
    token = d * 2 * E + E * d  # projections: up to the stream and its gate, and down
    token += (9 if version == 2 else 4) * E  # depthwise convolution: 3×3 on the image, or 4 along the sequence
    token += 3 * E * 4  # q, k, v in blocks of 4 channels
    token += 2 * 3 * E * H  # input and forget gates, from q, k and v
    token += H * 2 * D * (D + 1)  # each token writes and reads C and n
    return total + args["depth"] * h * w * token + version * d * CLASSES  # version 2 concatenates both tokens


def _vir(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Whole patches and a class token; q, k, v, output, and an MLP of 4C.

    With retention, each token writes and reads a state of D · D in each head. The softmax has no state: each token
    takes a score and a weighted value from itself and from every token before it.
    """
    C, H, patch = args["dim"], args["heads"], args["patch"]
    P = (sides[0] // patch) * (sides[1] // patch)
    N, D = P + 1, C // H
    layer = N * (C * 3 * C + C * C + 2 * C * 4 * C)
    layer += H * N * 2 * D * D if args["op"] == "retention" else H * N * (N + 1) // 2 * 2 * D
    return P * patch * patch * 3 * C + args["depth"] * layer + C * CLASSES


def _vision_gru(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Depthwise 3×3; an MLP of 4C; and twice: candidate and gate of 2C, one MAC a number of state, projection to C."""
    return _pyramid(
        args["dim"],
        args["depths"],
        sides,
        lambda _, N, C: N * (9 * C + 2 * (C * 2 * 2 * C + 2 * C + 2 * C * C) + 2 * C * 4 * C),
    )


def _vim(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Patches and a class token; blocks with D = 2C inner channels, 16 states a channel and steps of rank C/16.

    Everything between the two projections is there for each of two directions: a causal convolution of 4 tokens; steps,
    B and C; and in the scan each token writes and reads the states of each channel, and adds the skip.
    """
    C = args["dim"]
    total, (h, w) = _conv(sides, 16, args.get("stride", 16), 0, 3, C)
    D, S, R = 2 * C, 16, C // 16
    token = C * 2 * D + D * C  # projections: in, to the stream and its gate, and out
    token += 2 * (4 * D + D * (R + 2 * S) + R * D)
    token += 2 * (2 * D * S + D)
    return total + args["depth"] * (h * w + 1) * token + C * CLASSES


def _vmamba(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Depthwise 3×3; four walks over one map, each token of which writes, reads and skips D states; an MLP of 4C.

    The first design has patches, a gate's half of the input projection and no MLP; a linear layer halves its maps.
    """
    C, depths, v0 = args["dim"], args["depths"], "ratio" not in args
    ratio, S = (2, 16) if v0 else (args["ratio"], 1)

    def block(stage: int, N: int, C: int) -> int:
        D, R = ratio * C, -(-C // 16)
        token = C * D + 9 * D + D * C  # input, convolution, output
        token += 4 * (D * (R + 2 * S) + R * D)  # step, B and C of each walk; the step's way to D channels
        token += 4 * (2 * D * S + D)
        return N * (token + (C * D if v0 else 2 * C * 4 * C))

    if not v0:
        return _pyramid(C, depths, sides, block)
    total, (h, w) = _conv(sides, 4, 4, 0, 3, C)
    for stage, depth in enumerate(depths):
        if stage:
            h, w, C = -(-h // 2), -(-w // 2), 2 * C
            total += h * w * 2 * C * C
        total += depth * block(stage, h * w, C)
    return total + C * CLASSES


def _mlla(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """A stem of five convolutions; stages of blocks; between stages 1×1 to 8C, depthwise 3×3, 1×1 to 2C.

    A block has projections in, of the gate, of q and k, and out, an MLP of 4C, and four depthwise convolutions of 3×3.
    In heads of 32, a token writes and reads a state of 32 · 32, and the normaliser takes a sum and a product of 32.
    """
    C = args["dim"]
    total, sides = _halved(sides, 3, C // 2)
    total += 2 * sides[0] * sides[1] * 9 * (C // 2) ** 2
    more, sides = _halved(sides, C // 2, 4 * C)
    total += more + sides[0] * sides[1] * 4 * C * C
    for stage, depth in enumerate(args["depths"]):
        if stage:
            total += sides[0] * sides[1] * C * 8 * C
            sides = -(-sides[0] // 2), -(-sides[1] // 2)
            total += sides[0] * sides[1] * (9 * 8 * C + 8 * C * 2 * C)
            C *= 2
        token = C * C + C * C + C * 2 * C + C * C + 2 * C * 4 * C + 4 * 9 * C + 2 * 32 * C + 2 * C
        total += depth * sides[0] * sides[1] * token
    return total + C * CLASSES


def _deit(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Patches and a class token; q, k, v, scores and weighted values of all pairs, output, an MLP of 4C."""
    C = {"deit_t": 192, "deit_s": 384, "deit_b": 768, "deit3_t": 192}[name]
    P = (sides[0] // 16) * (sides[1] // 16)
    N = P + 1
    return P * 16 * 16 * 3 * C + 12 * (N * (4 * C * C + 2 * C * 4 * C) + 2 * N * N * C) + C * CLASSES


def _swin(name: str, args: Mapping[str, Any], sides: Sides) -> int:
    """Stages with attention in windows of 7 × 7 tokens; between stages four tokens are merged into one.

    A map is padded to whole windows for q, k, v, attention and output, but not for the MLP. It is padded to even sides
    before tokens are merged. A map smaller than a window has a window of its own size.
    """
    C, depths = {"swin_t": (96, (2, 2, 6, 2)), "swin_s": (96, (2, 2, 18, 2)), "swin_b": (128, (2, 2, 18, 2))}[name]
    total, (h, w) = _conv(sides, 4, 4, 0, 3, C)
    for stage, depth in enumerate(depths):
        if stage:
            h, w = -(-h // 2), -(-w // 2)
            total += h * w * 4 * C * 2 * C
            C *= 2
        window_h, window_w = min(7, h), min(7, w)
        padded = -(-h // window_h) * window_h * -(-w // window_w) * window_w
        total += depth * (padded * (4 * C * C + 2 * window_h * window_w * C) + h * w * 2 * C * 4 * C)
    return total + C * CLASSES


_FAMILIES: dict[str, Callable[[str, Mapping[str, Any], Sides], int]] = {
    "vig": _vig,
    "vrwkv": _vrwkv,
    "vil": _vil,
    "vir": _vir,
    "vision_gru": _vision_gru,
    "vim": _vim,
    "vmamba": _vmamba,
    "mlla": _mlla,
    "deit": _deit,
    "swin": _swin,
}
