"""vbench: is a recurrent vision backbone really cheaper than attention at high resolution?"""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the sub-packages (models, kernels, ...) lie beside this folder, in a wheel inside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "kernels").is_dir():
    __path__.append(str(_checkout))
