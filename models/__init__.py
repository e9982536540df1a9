"""The zoo: a literal table (`registry`), one file a backbone, and how published weights are loaded.

    from vbench.models import create, load_published, names, spec
    model = create("vig_t", image_size=(384, 384), mode="parallel")

Importing this package, `names` and `spec` import no torch.
"""

from vbench.models.registry import MODELS, ModelSpec, create, load_published, names, register_timm, spec

__all__ = ["MODELS", "ModelSpec", "create", "load_published", "names", "register_timm", "spec"]
