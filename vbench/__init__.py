"""vbench: is a recurrent vision backbone really cheaper than attention at high resolution?

    import vbench
    table = vbench.sweep("vig_t,deit_t", res=224)  # measures; a frame, one row a cell
    table = vbench.read("vbench-run")              # the same, from the records
    found = vbench.compare("before", "after")      # a frame, one row a finding
    vbench.merge("monday", "tuesday", out="week")  # one run of several

Importing this package imports nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbench.commands.python import compare, merge, read, sweep

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "merge", "read", "sweep"]
DISTRIBUTION = "vbench-backbones"  # what pip calls this package; its `vbench` is another project

# In a checkout the sub-packages (models, kernels, ...) lie beside this folder, in a wheel inside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "kernels").is_dir():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Import a call when it is first asked for."""
    if name in __all__:
        from vbench.commands import python

        return getattr(python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
