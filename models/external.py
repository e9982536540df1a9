"""Models of a user's own: "my_pkg.models:my_backbone" names a module and a callable in it.

The module is an installed one, or one in the current folder. The callable returns an nn.Module that takes
(B, 3, height, width). It is called with `image_size` or `img_size`, (height, width) in px, if it has such an argument,
and with `mode`, "parallel" or "recurrent", if it has that one. A callable without `mode` has the parallel mode alone.
Naming a model imports nothing; building it does.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench.errors import UnknownModelError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from torch import nn

SIZES = ("image_size", "img_size")
ONLY_INSTALLED = "VBENCH_ONLY_INSTALLED"  # variable; if set, the current folder is not searched


def is_external(name: str) -> bool:
    """Whether a model's name is "module:callable".

    Raises: UnknownModelError for a name with a colon whose parts are no identifiers.
    """
    if ":" not in name:
        return False
    module, function = _parts(name)
    if module.endswith(".py") or not _identifiers(module, function):
        example = meant(name) or "module:callable, as in my_pkg.models:net"
        raise UnknownModelError(f"'{name}' names no model of your own; write {example}")
    return True


def meant(name: str) -> str | None:
    """How to write a model of one's own that was named otherwise; None if no such name is meant.

    "my_net.Net", "my_net.py:Net", "./my_net.py:Net" -> "my_net:Net"; "my_net.py" -> "my_net:NAME"
    """
    module, colon, function = name.partition(":")
    function = function.lstrip(":")
    if not colon and module.endswith(".py"):
        function = "NAME"
    elif not colon:
        module, _, function = module.rpartition(".")
    module = module.removeprefix("./").removesuffix(".py").replace("/", ".")
    return f"{module}:{function}" if _identifiers(module, function) else None


def load(name: str) -> Callable[..., Any]:
    """Import the callable that "module:callable" names.

    An installed module comes first, then one in the current folder. That folder is searched while the module is
    imported, after everything else: a `torch.py` in it stands for nothing but itself, and the module may import its
    neighbours.

    Raises: UnknownModelError if there is no such module, if importing it fails, or if it has no such callable.
    """
    module, function = _parts(name)
    package = _package(name)
    try:
        installed = find_spec(package) is not None
        if not installed and _in_current_folder(package) is None:
            raise UnknownModelError(
                f"{name}: there is no module '{package}', neither installed nor in the current folder; "
                "go to its folder, or install it (pip install -e .)"
            )
        with nullcontext() if installed else _searching_current_folder():
            imported = import_module(module)
    except UnknownModelError:
        raise
    except Exception as error:
        raise UnknownModelError(f"{name}: importing {module} failed: {type(error).__name__}: {error}") from error
    found = getattr(imported, function, None)
    if not callable(found):
        where = getattr(imported, "__file__", None) or "built in"
        raise UnknownModelError(f"{name}: {module} ({where}) has no callable '{function}'")
    return found


def has_modes(name: str) -> bool:
    """Whether the callable takes a `mode`. Raises: as `load`."""
    return "mode" in _arguments(load(name))


def build(image_size: tuple[int, int], *, name: str, mode: str, **options: Any) -> nn.Module:
    """Call a user's callable and return its model.

    Args:
        image_size: (height, width) in px.
        mode: "parallel" or "recurrent".
        options: further arguments of the callable.

    Raises: UnknownModelError, as `load`; UnsupportedError if the mode is recurrent and the callable takes no `mode`;
        UsageError if the callable does not take an option, or does not return an nn.Module.
    """
    from torch import nn

    function = load(name)
    takes = _arguments(function)
    if mode != "parallel" and "mode" not in takes:
        raise UnsupportedError(f"{name} has no {mode} mode: it takes no argument 'mode'")
    if strange := [option for option in options if option not in takes]:
        raise UsageError(f"{name} has no option {', '.join(strange)}; it has {', '.join(takes) or 'none'}")
    given = dict(options)
    if size := next((key for key in SIZES if key in takes), None):
        given[size] = image_size
    if "mode" in takes:
        given["mode"] = mode
    model = function(**given)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}; it must return a torch.nn.Module")
    return model


def folder_of(name: str) -> Path | None:
    """The folder of a model's top-level package, or the file of its one module; None if there is none.

    Imports nothing.
    """
    package = _package(name)
    try:
        found = find_spec(package) or _in_current_folder(package)
    except (ImportError, ValueError, OSError):
        return None
    if found is None:
        return None
    places = list(found.submodule_search_locations or [])
    place = places[0] if places else found.origin
    return Path(place).resolve() if place else None


def source(name: str) -> str | None:
    """A digest of all Python files of a model's package; None if there is no such package. Imports nothing."""
    where = folder_of(name)
    if where is None:
        return None
    digest = hashlib.sha256()
    for file in sorted(where.rglob("*.py")) if where.is_dir() else [where]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _parts(name: str) -> tuple[str, str]:
    """ "my_pkg.models:net" -> "my_pkg.models" and "net"."""
    module, _, function = name.partition(":")
    return module, function


def _identifiers(module: str, function: str) -> bool:
    return all(part.isidentifier() for part in [*module.split("."), function])


def _package(name: str) -> str:
    """ "my_pkg.models:net" -> "my_pkg"."""
    return name.partition(":")[0].partition(".")[0]


def _in_current_folder(package: str) -> ModuleSpec | None:
    """Where a top-level module lies in the current folder; None if it does not, or if we must not look there."""
    return None if os.environ.get(ONLY_INSTALLED) else PathFinder.find_spec(package, [str(Path.cwd())])


@contextmanager
def _searching_current_folder() -> Iterator[None]:
    """Within this block, imports search the current folder last."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _arguments(function: Callable[..., Any]) -> list[str]:
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [key for key, about in signature(function).parameters.items() if about.kind in named]
