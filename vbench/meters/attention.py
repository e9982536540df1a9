"""Which kernel computes fused attention: the one that ran, and how to allow one alone.

Torch picks a kernel by the device, the dtype and the shapes of `scaled_dot_product_attention`. "Fused" does not say
which: on an H100 it is cuDNN's in half types and the memory-efficient one in float32.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vbench.errors import UnsupportedError, first_line
from vbench.plan import PINNED, Case

BACKENDS = {  # torch's name of each kernel that can be pinned
    "flash": "FLASH_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
}
OPERATIONS = {  # by which a profile shows that a kernel ran; the backward pass has names of its own
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_attention_math": "math",
    "aten::_scaled_dot_product_attention_math_for_mps": "math",
    "aten::_scaled_dot_product_fused_attention_overrideable": "overrideable",
}
REFUSALS = ("No available kernel", "No viable backend")  # how torch's error begins if no allowed kernel takes an input
HEADS = {"flash": "flash", "cudnn": "cudnn", "efficient": "mem", "math": "math"}  # of "Flash kernel not used because:"
BECAUSE = "not used because"
NONE_RAN = "no kernel of fused attention ran"


@contextmanager
def pinned(attention: str | None) -> Iterator[None]:
    """Within, torch may use one kernel of attention alone, if `attention` names one; else nothing changes.

    Raises: UnsupportedError with torch's reasons if the kernel cannot take an input.
    """
    if attention not in PINNED:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with warnings.catch_warnings(record=True) as said, sdpa_kernel(getattr(SDPBackend, BACKENDS[attention])):
        warnings.simplefilter("default")  # each text once: torch gives its reasons as warnings
        try:
            yield
        except RuntimeError as error:
            if not any(words in str(error) for words in REFUSALS):
                raise
            why = reasons(attention, [str(one.message) for one in said]) or first_line(error)
            raise UnsupportedError(f"the kernel '{attention}' cannot compute this attention: {why}") from error


def reasons(kernel: str, said: Sequence[str]) -> str:
    """What torch's warnings say against a kernel, on one line; empty if they say nothing.

    Torch warns "Flash attention kernel not used because:", then each reason, and so on for each kernel.
    """
    found: dict[str, None] = {}
    own = False
    for text in said:
        words = " ".join(re.sub(r"\(Triggered internally .*", "", text, flags=re.DOTALL).split())
        if BECAUSE in words:
            own = words.lower().startswith(HEADS[kernel])
        elif own:
            found[words.rstrip(".")] = None
    return "; ".join(found)


def ran(call: Callable[[], object]) -> set[str]:
    """The kernels of attention that ran in a call, by their names in `OPERATIONS`. The call is profiled, not timed."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    return {OPERATIONS[event.key] for event in profiled.key_averages() if event.key in OPERATIONS}


def found(call: Callable[[], object], *, expected_s: float, limit_s: float) -> dict[str, Any]:
    """What a record says of the kernels that run in a call, which is made once.

    Args:
        expected_s: what the call takes.
        limit_s: a call that takes longer is not made.

    Returns:
        attention_kernel: "cudnn", or "efficient+flash" if several ran, or None.
        attention_kernel_reason: why there is none, else None.
    """
    try:
        names = ran(call) if expected_s <= limit_s else None
    except Exception as error:  # the row has its figures; this one alone is lacking
        return _said(None, f"the call failed under the profiler: {first_line(error)}")
    if names is None:
        return _said(None, f"one more call would take {expected_s:.3g} s, more than {limit_s:.3g} s")
    return _said("+".join(sorted(names)) or None, None if names else NONE_RAN)


def check(case: Case, known: Mapping[str, Any]) -> None:
    """Raise UnsupportedError if a cell pins a kernel, and by `known` (of `found`) another one ran, or none.

    A compiler may write code of its own in place of the math kernel.
    """
    kernel, compiled = known["attention_kernel"], case.backend == "compile"
    absent = kernel is None and known["attention_kernel_reason"] == NONE_RAN and not compiled
    if case.attention in PINNED and (absent or kernel not in (case.attention, None)):
        raise UnsupportedError(
            f"{case.model} was to compute attention by the kernel '{case.attention}' alone, and {kernel or 'none'} ran"
        )


def _said(kernel: str | None, reason: str | None) -> dict[str, Any]:
    return {"attention_kernel": kernel, "attention_kernel_reason": reason}
