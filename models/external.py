"""Models of a user's own: "my_pkg.models:my_backbone" names a module and what is called in it.

The module is an installed one, or one in the current folder. What is called is a function, a class or a partial that
returns an nn.Module; or it is an nn.Module itself, of which a copy is taken. The model takes (B, 3, height, width).

A callable is given what it has an argument for:

- the size: `image_size`, `img_size`, `input_size`, `input_resolution` or `resolution`, as (height, width) in px, or as
  one number for a square if it does not take a pair. If it has **kwargs instead, as timm's have, `img_size` and
  `image_size` are tried. If it takes none of these, it is built without a size.
- `mode`, "parallel" or "recurrent". A callable without `mode` has the parallel mode alone.
- `in_chans`, `in_channels` or `num_channels`: 3, the channels of our images, if its default is another number.
- `num_classes`: 1000, if it has no default.

Naming a model imports nothing; building it does.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vbench.errors import BuildError, UnknownModelError, UnsupportedError, UsageError, first_line
from vbench.kernels.registry import Mode
from vbench.models import neighbours, sized
from vbench.models.guest import exit_words, guest
from vbench.options import shown

if TYPE_CHECKING:
    from torch import nn

SIZES = ("image_size", "img_size", "input_size", "input_resolution", "resolution")
THROUGH_KWARGS = ("img_size", "image_size")  # the first is timm's
CHANNELS = ("in_chans", "in_channels", "num_channels")
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
        raise UnknownModelError(f"'{shown(name)}' names no model of your own; write {shown(example)}")
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
    neighbours. Settings of the process are the same afterwards; see `guest`.

    Raises: UnknownModelError if there is no such module, if importing it fails, or if it has no such callable.
    """
    module, function = _parts(name)
    package = _package(name)
    try:
        if _spec(package) is None:
            raise UnknownModelError(
                f"{name}: there is no module '{package}', neither installed nor in the current folder; "
                "go to its folder, or install it (pip install -e .)"
            )
        with guest(_program(name)), _beside(package):
            imported = import_module(module)
    except (UnknownModelError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise UnknownModelError(f"{name}: importing {module} ended the process ({exit_words(error)})") from error
    except BaseException as error:
        raise UnknownModelError(f"{name}: importing {module} failed: {first_line(error, named=True)}") from error
    found = getattr(imported, function, None)
    if not callable(found):
        where = getattr(imported, "__file__", None) or "built in"
        raise UnknownModelError(f"{name}: {module} ({where}) has no callable '{function}'")
    return found


def has_modes(name: str) -> bool:
    """Whether the callable takes a `mode`. Raises: as `load`."""
    return _takes_mode(_parameters(load(name)))


def build(image_size: tuple[int, int], *, name: str, mode: str, **options: Any) -> nn.Module:
    """Call a user's callable and return its model; of a model that is there, return a copy.

    Args:
        image_size: (height, width) in px.
        mode: "parallel" or "recurrent".
        options: further arguments of the callable.

    Raises: UnknownModelError, as `load`; UnsupportedError if the mode is recurrent and the callable takes no `mode`;
        UsageError if the callable does not take an option, needs an argument that it is not given, or does not return
        an nn.Module; BuildError if it calls `sys.exit`. Whatever the callable raises.
    """
    return build_and_tell(image_size, name=name, mode=mode, **options)[0]


def build_and_tell(
    image_size: tuple[int, int], *, name: str, mode: str, **options: Any
) -> tuple[nn.Module, str | None]:
    """As `build`, with the name of the argument by which the callable got the size; None if it got none."""
    from torch import nn

    entry = load(name)
    takes = _parameters(entry)
    if mode != "parallel" and not _takes_mode(takes):
        raise UnsupportedError(f"{name} has no {mode} mode: it takes no argument 'mode'")
    named = [key for key, about in takes.items() if about.kind in _BY_NAME]
    by_kwargs = any(about.kind is Parameter.VAR_KEYWORD for about in takes.values())
    if strange := [] if by_kwargs else [option for option in options if option not in named]:
        raise UsageError(f"{name} has no option {', '.join(strange)}; it has {', '.join(named) or 'none'}")
    if isinstance(entry, nn.Module):
        return _copied(entry, name), None
    given = {**_usual(takes), **({"mode": mode} if _takes_mode(takes) else {}), **options}
    size = _size_argument(takes)
    if missing := [key for key, about in takes.items() if _is_needed(about) and key not in (*given, size)]:
        raise UsageError(
            f"{name} needs {', '.join(missing)}; name a callable that needs no argument but the size and the mode"
        )
    choices: sized.Choices = []
    if size is not None:
        choices = [(size, sized.as_values(image_size, takes[size].default))]
    elif by_kwargs:
        choices = [(key, sized.as_values(image_size)) for key in THROUGH_KWARGS if key not in given]
    with _building(name):
        model, by = sized.call(entry, given, choices)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {_described(model)}")
    return model, by


def size_of(name: str) -> tuple[int, int] | None:
    """(height, width) that the default of a callable's argument for the size says; None if it says none.

    Raises: as `load`.
    """
    takes = _parameters(load(name))
    key = _size_argument(takes)
    return None if key is None else sized.as_size(takes[key].default)


def folder_of(name: str) -> Path | None:
    """The folder of a model's top-level package, or the file of its one module; None if there is none.

    Imports nothing.
    """
    place = _place(_package(name))
    return None if place is None else place.resolve()


def source(name: str) -> str | None:
    """A digest of all Python files of a model's package, and of the neighbours that they import; None if there is none.

    Neighbours are modules and packages in the folder of the package or one-file module; none in a folder of installed
    packages, whose versions a record has. Imports nothing.
    """
    where = folder_of(name)
    if where is None:
        return None
    digest = hashlib.sha256()
    for file in neighbours.closure(where):
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


def _program(name: str) -> str:
    """The first word of a command line, for a model: the file of its module, or the folder of its package."""
    return str(folder_of(name) or _parts(name)[0])


def _place(package: str) -> Path | None:
    """The folder of a top-level package, or the file of a module, as imports find it; None if there is none."""
    try:
        found = _spec(package)
    except (ImportError, ValueError, OSError):
        return None
    places = list(found.submodule_search_locations or []) if found else []
    place = places[0] if places else found and found.origin
    return Path(place) if place else None


def _spec(package: str) -> ModuleSpec | None:
    return find_spec(package) or _in_current_folder(package)


def _in_current_folder(package: str) -> ModuleSpec | None:
    """Where a top-level module lies in the current folder; None if it does not, or if we must not look there."""
    return None if os.environ.get(ONLY_INSTALLED) else PathFinder.find_spec(package, [str(Path.cwd())])


@contextmanager
def _building(name: str) -> Iterator[None]:
    """Within this block a model is built: its code is a `guest`, and may import the neighbours of its module.

    Raises: BuildError in place of SystemExit.
    """
    try:
        with guest(_program(name)), _beside(_package(name)):
            yield
    except SystemExit as error:
        raise BuildError(f"{name}: building it ended the process ({exit_words(error)})") from error


@contextmanager
def _beside(package: str) -> Iterator[None]:
    """Within this block, imports search the folder of a top-level package last, and find its neighbours there."""
    place = _place(package)
    folder = None if place is None else str(place.parent)
    if folder is None or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the code may have made a path of its own
            sys.path.remove(folder)


_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def _parameters(entry: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a callable; none of a model that is there, or where Python does not know them."""
    from torch import nn

    if isinstance(entry, nn.Module):
        return {}
    try:
        return dict(signature(entry).parameters)
    except (TypeError, ValueError):  # of a callable that is not written in Python
        return {}


def _takes_mode(takes: dict[str, Parameter]) -> bool:
    """Whether there is a `mode` that may be ours: a default of another word means something else."""
    if "mode" not in takes:
        return False
    default = takes["mode"].default
    return default in get_args(Mode) if isinstance(default, str) else _is_open(default)


def _size_argument(takes: dict[str, Parameter]) -> str | None:
    """The parameter for the size; None if there is none by name. A default that is no size means something else."""
    for key in SIZES:
        if key in takes and takes[key].kind in _BY_NAME:
            default = takes[key].default
            if _is_open(default) or sized.as_size(default):
                return key
    return None


def _usual(takes: dict[str, Parameter]) -> dict[str, int]:
    """What is handed over beside the size and the mode: the channels of our images, a number of classes."""
    given = {}
    for key in CHANNELS:
        default = takes[key].default if key in takes else 3
        if default is Parameter.empty or (isinstance(default, int) and default != 3):
            given[key] = 3
    if "num_classes" in takes and takes["num_classes"].default is Parameter.empty:
        given["num_classes"] = 1000
    return given


def _is_open(default: Any) -> bool:
    """Whether the default of a parameter says nothing of what it takes."""
    return default is Parameter.empty or default is None


def _is_needed(about: Parameter) -> bool:
    return about.default is Parameter.empty and about.kind in (*_BY_NAME, Parameter.POSITIONAL_ONLY)


def _copied(model: nn.Module, name: str) -> nn.Module:
    """A copy of a model that is there: each build is a model of its own. Raises: UsageError."""
    try:
        return deepcopy(model)
    except Exception as error:
        raise UsageError(
            f"{name} is a model that cannot be copied ({first_line(error, named=True)}); name a function that builds it"
        ) from error


def _described(found: Any) -> str:
    """What a callable returned instead of a model, and what to do."""
    from torch import nn

    kind, do = type(found).__name__, ""
    if isinstance(found, type):
        kind, do = f"the class {found.__name__}", "; call it"
    elif isinstance(found, tuple | list):
        kind += f" of {', '.join(type(one).__name__ for one in found)}"
        place = next((place for place, one in enumerate(found) if isinstance(one, nn.Module)), None)
        do = "" if place is None else f"; name a function that returns item {place} of it alone"
    return f"{kind}; it must return a torch.nn.Module{do}"
