"""The zoo: a literal table (`registry`), one file a backbone, and how published weights are loaded.

    from vbench.models import create, load_published, names, spec
    model = create("vig_t", image_size=(384, 384), mode="parallel")

Importing this package, `names` and `spec` import no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vbench.models.registry import MODELS, create, load_published, names, spec
from vbench.models.row import ModelSpec

if TYPE_CHECKING:
    from vbench.models.timm_entries import register_timm

__all__ = ["MODELS", "ModelSpec", "create", "load_published", "names", "register_timm", "spec"]


def __getattr__(name: str) -> Any:
    """Import `register_timm` when it is first asked for: its module imports torch and timm."""
    if name == "register_timm":
        from vbench.models.timm_entries import register_timm

        return register_timm
    raise AttributeError(f"module {__name__} has no attribute {name}")
