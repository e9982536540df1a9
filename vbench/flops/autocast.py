"""`torch.autocast` and the choice of an attention kernel, as CUDA does them, for tensors without a device.

Torch applies neither on the meta device. The lists are those of PyTorch 2.11 (the documentation of torch.amp). Autocast
on the CPU casts the same to half types, and next to nothing to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from vbench.devices import on_host
from vbench.errors import UnsupportedError
from vbench.plan import Case

HALF = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu"),
    *("matmul", "__matmul__", "__rmatmul__", "mm", "mv", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "chain_matmul"),
    *("einsum", "scaled_dot_product_attention", "multi_head_attention_forward"),
}
FLOAT32 = {
    *("layer_norm", "group_norm", "instance_norm", "norm", "softmax", "log_softmax", "softmin", "cross_entropy"),
    *("nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "cosine_similarity", "cdist", "normalize", "softplus"),
    *(
        "sum",
        "prod",
        "cumsum",
        "cumprod",
        "exp",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "pow",
        "__pow__",
        "__rpow__",
    ),
    *("rsqrt", "reciprocal", "acos", "asin", "cosh", "sinh", "tan", "erfinv", "renorm", "logsumexp"),
}

FLOAT32_ON_HOST = {"prod", "nll_loss", "mse_loss", "l1_loss", "cdist", "renorm"}


class Autocast(TorchFunctionMode):
    """Casts what enters a function as autocast would; a weight is cast once in a `with` block.

    Args:
        dtype: of matrix products and convolutions; None casts nothing.
        host: whether the CPU's lists hold, not CUDA's.
        attention: as `Case.attention`, whose "math" is computed by torch's products; None for any fused kernel.
    """

    def __init__(self, dtype: torch.dtype | None, *, host: bool = False, attention: str | None = None) -> None:
        super().__init__()
        self._dtype, self._attention = dtype, attention
        self._float32 = FLOAT32_ON_HOST if host else FLOAT32
        self._cast: dict[int, Tensor] = {}

    def __exit__(self, *error: Any) -> None:
        self._cast.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._dtype is not None and name in HALF | self._float32:
            wanted = self._dtype if name in HALF else torch.float32
            args, kwargs = tree_map_only(Tensor, lambda x: self._to(x, wanted), (tuple(args), kwargs))
        if self._attention != "math" and func is F.scaled_dot_product_attention:
            return attention(*args, **{**kwargs, "kernel": self._attention})
        return func(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, nothing is cast: our operators leave autocast."""
        dtype, self._dtype = self._dtype, None
        try:
            yield
        finally:
            self._dtype = dtype

    def _to(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16) or x.dtype == dtype:
            return x
        if not (isinstance(x, torch.nn.Parameter) and x.requires_grad and dtype != torch.float32):
            return x.to(dtype)
        if id(x) not in self._cast:
            self._cast[id(x)] = x.to(dtype)
        return self._cast[id(x)]


@contextmanager
def casting(case: Case) -> Iterator[Autocast]:
    """Within, a pass on tensors without a device casts as the cell's autocast does. Attention stays one operation."""
    half = getattr(torch, case.autocast) if case.autocast else None
    cast = Autocast(half, host=on_host(case.device), attention="math")
    with cast if half else nullcontext():
        yield cast


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    kernel: str | None = None,
) -> Tensor:
    """Fused attention by the operator that CUDA has for it: flash for half types without a mask, else the
    memory-efficient one. Where neither takes the input, torch computes all scores. Shapes and arguments as
    `F.scaled_dot_product_attention`.

    Both want four dimensions and one batch. Flash wants values as wide as queries; if told to (`enable_gqa`), several
    heads of queries share one of keys. The memory-efficient one wants as many heads of keys as of queries.

    Args:
        kernel: "flash", "cudnn" (which holds as much) or "efficient" allows that kernel alone.

    Raises: UnsupportedError if the kernel that is allowed cannot take the input.
    """
    whole = all(x.ndim == 4 for x in (q, k, v)) and q.shape[0] == k.shape[0] == v.shape[0]
    paired = whole and q.shape[1] == k.shape[1] == v.shape[1]
    halves = q.dtype in (torch.bfloat16, torch.float16) and attn_mask is None and q.ndim == 4
    flashes = halves and (paired or (whole and enable_gqa)) and q.shape[-1] == v.shape[-1]
    if kernel in ("flash", "cudnn") and not halves:
        shown = str(q.dtype).removeprefix("torch.")
        raise UnsupportedError(f"the kernel '{kernel}' takes half types, four dimensions and no mask; this is {shown}")
    takes = {"flash": flashes, "cudnn": flashes or paired, "efficient": paired}
    if not takes.get(kernel or "", True):
        shown = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise UnsupportedError(f"the kernel '{kernel}' does not take queries, keys and values of {shown}")
    if not (paired or flashes):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if flashes and kernel != "efficient":
        width, scale = q.shape[-1], q.shape[-1] ** -0.5 if scale is None else scale
        if width % 8:  # the kernel wants heads of whole 16 bytes
            q, k, v = (F.pad(x, (0, -width % 8)) for x in (q, k, v))
        found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)
        return cast(Tensor, found[0])[..., :width]
    if attn_mask is not None:
        if attn_mask.shape[-1] % 16:  # a row of the mask must be aligned too
            attn_mask = F.pad(attn_mask, (0, -attn_mask.shape[-1] % 16))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    logsumexp = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    found = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, logsumexp, dropout_p, is_causal, scale=scale
    )
    return cast(Tensor, found[0])
