"""Models of a user's own: "my_pkg.models:my_backbone", a callable that this Python can import.

It returns an nn.Module that takes (B, 3, height, width). Where its signature has these arguments it is called with
`image_size` or `img_size`, (height, width) in px, and with `mode`, "parallel" or "recurrent"; one without `mode` has
the parallel mode alone. Naming one imports nothing; building one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench.errors import UnknownModelError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from torch import nn

SIZES = ("image_size", "img_size")


def is_external(name: str) -> bool:
    """Whether a model's name is a module and a callable in it.

    Raises: UnknownModelError for a name with a colon that can be neither.
    """
    if ":" not in name:
        return False
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        raise UnknownModelError(f"'{name}' names no model of your own; write module:callable, as in my_pkg.models:net")
    return True


def load(name: str) -> Callable[..., Any]:
    """The callable. Raises: UnknownModelError if its module cannot be imported, or has none of that name."""
    module, _, function = name.partition(":")
    top = module.partition(".")[0]
    try:
        if find_spec(top) is None:
            raise UnknownModelError(
                f"{name}: this Python has no module '{top}'; install the package (pip install -e .), or set PYTHONPATH"
            )
        found = getattr(import_module(module), function, None)
    except UnknownModelError:
        raise
    except Exception as error:
        raise UnknownModelError(f"{name}: importing {module} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UnknownModelError(f"{name}: {module} has no callable '{function}'")
    return found  # type: ignore[no-any-return]


def has_modes(name: str) -> bool:
    """Whether the callable takes a `mode`. Raises: as `load`."""
    return "mode" in _arguments(load(name))


def build(image_size: tuple[int, int], *, name: str, mode: str, **options: Any) -> nn.Module:
    """The model of a user's callable, at a size in px and in a mode.

    Args:
        options: further arguments of the callable.

    Raises: UnknownModelError, as `load`; UnsupportedError for a recurrent mode if it takes no `mode`; UsageError for
        an option that it does not have, or if what it returns is no nn.Module.
    """
    from torch import nn

    function = load(name)
    takes = _arguments(function)
    if mode != "parallel" and "mode" not in takes:
        raise UnsupportedError(f"{name} has no {mode} mode: it takes no argument 'mode'")
    if strange := [option for option in options if option not in takes]:
        raise UsageError(f"{name} has no option {', '.join(strange)}; it has {', '.join(takes) or 'none'}")
    size = {key: image_size for key in SIZES if key in takes}
    model = function(**dict(list(size.items())[:1]), **({"mode": mode} if "mode" in takes else {}), **options)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}, no torch.nn.Module")
    return model


def _arguments(function: Callable[..., Any]) -> list[str]:
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [key for key, about in signature(function).parameters.items() if about.kind in named]


@cache
def folder_of(name: str) -> Path | None:
    """The folder of a model's top-level package, or the file of its one module; None if it cannot be found.

    Imports nothing.
    """
    try:
        found = find_spec(name.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    places = list(found.submodule_search_locations or [])
    place = places[0] if places else found.origin
    return Path(place).resolve() if place else None


def source(name: str) -> str | None:
    """A digest of all Python files of a model's package; None if it cannot be found. Imports nothing."""
    where = folder_of(name)
    if where is None:
        return None
    digest = hashlib.sha256()
    for file in sorted(where.rglob("*.py")) if where.is_dir() else [where]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
