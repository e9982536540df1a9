"""What papers leave out of the MACs that they print, so that their figures can be made again. It imports no torch.

Each is inferred from the printed figures, not said by a paper; tests hold each to those figures within 1 %. ViG's lacks
what its released code does inside fused functions, which a trace does not see. VMamba's is what its released counter
does, to the last operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vbench.errors import UsageError
from vbench.models.closed_forms import closed_form
from vbench.models.registry import spec


@dataclass(frozen=True, slots=True)
class Counting:
    """A paper's way of counting: in words, and what it lacks of the full count (negative where it has more)."""

    words: str
    lacks: Callable[[str, int], int]  # (model, side in px) -> MACs of one image


def published_macs(counting: str, model: str, side: int) -> int:
    """MACs of one image of side × side px as that paper counts them.

    Raises: KeyError for an unknown counting; UsageError for a model of timm's beyond the zoo; ResolutionError.
    """
    full = closed_form(model, side, side)
    if full is None:
        raise UsageError(f"{model} has no closed form; take one of 'vbench models'")
    return full - COUNTINGS[counting].lacks(model, side)


def _tokens(model: str, side: int) -> int:
    grid = spec(model).grid(side, side)
    if grid is None:
        raise UsageError(f"the tokens of {model} are not known")
    return grid[0] * grid[1]


def _vig(model: str, side: int) -> int:
    """Plain ViG: the MLP's second matrix, M · C, and a direction of the scan, 2 · H · D · E = C · C/H, in 12 blocks."""
    if spec(model).family != "vig" or "mlp_dim" not in (args := spec(model).args):
        return 0
    C, H, M = int(args["dim"]), int(args["heads"]), int(args["mlp_dim"])
    return 12 * _tokens(model, side) * (M * C + C * C // H)


def _vision_gru(model: str, side: int) -> int:
    """DeiT: q, k, v and output, 4 · C² a token, in 12 blocks."""
    C = {"deit_t": 192, "deit_s": 384, "deit_b": 768}.get(model)
    return 12 * (_tokens(model, side) + 1) * 4 * C * C if C else 0


def _vil(model: str, side: int) -> int:
    """Vision-LSTM: the recurrence, less the causal half of the quadratic form, 2 · N² · d, that stands in its place."""
    if spec(model).family != "vil":
        return 0
    d, depth, N = spec(model).args["dim"], spec(model).args["depth"], _tokens(model, side)
    D = d // 2  # of each of four heads
    return int(depth * (N * 4 * 2 * D * (D + 1) - 2 * N * N * d))


def _vmamba(model: str, side: int) -> int:
    """VMamba: seven more a state of the scan, five an element of a norm, and one an element of the mean at the end."""
    row = spec(model)
    grid = row.grid(side, side)
    if row.family != "vmamba" or grid is None:
        return 0
    (h, w), C, v0 = grid, row.args["dim"], "ratio" not in row.args
    ratio, states = (2, 16) if v0 else (row.args["ratio"], 1)
    normed = h * w * C + (0 if v0 else (-(-side // 2)) ** 2 * C // 2)  # in the stem
    scanned = 0
    for stage, depth in enumerate(row.args["depths"]):
        if stage:
            h, w, C = -(-h // 2), -(-w // 2), 2 * C
            normed += h * w * C * (2 if v0 else 1)  # between stages
        normed += depth * h * w * C * (1 + ratio + (0 if v0 else 1))  # before the scan, after it, before the MLP
        scanned += depth * h * w * 4 * ratio * C * states
    last = h * w * C
    return -int(7 * scanned + 5 * (normed + last) + last)


COUNTINGS: dict[str, Counting] = {
    "full": Counting("with everything counted", lambda model, side: 0),
    "vig": Counting("as ViG's figure seems to be, without the MLP's second matrix and one direction of the scan", _vig),
    "vision_gru": Counting("as VisionGRU's figure seems to be, without DeiT's QKV and output projections", _vision_gru),
    "vmamba": Counting(
        "as VMamba's authors do, with nine a state of the scan, five an element of a norm, one of the mean", _vmamba
    ),
    "vil": Counting(
        "as Vision-LSTM's table seems to be, by the causal half of the quadratic form in place of the recurrence", _vil
    ),
}
