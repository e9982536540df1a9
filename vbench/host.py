"""What a record says of its origin: the machine, the versions, the code. No host name, user name or path."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import vbench
from vbench import runtimes
from vbench.devices import open_device
from vbench.models import external

PACKAGES = ("torch", "timm", "triton", "numba", "fvcore", "numpy", "scipy")


def fingerprint(
    device: str, gpu: dict[str, Any] | None, models: Iterable[str] = (), backends: Iterable[str] = ()
) -> dict[str, Any]:
    """All that the reader of a figure needs to know about its origin; JSON-able.

    Args:
        device: as torch has it, "cpu" or "cuda:0".
        gpu: what a child process said of the device (`probe`); None for the CPU.
        models: what is measured. The code of a user's own models becomes a part of the fingerprint.
        backends: by which it is measured. The versions of those that are runtimes become a part of it too.
    """
    code = _code()
    own = {name: _own_code(name) for name in models if external.is_external(name)}
    return {
        "device": device,
        "device_name": gpu["name"] if gpu else cpu_name(),
        "gpu": gpu,
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "versions": {
            "vbench": vbench.__version__,
            "python": platform.python_version(),
            **_versions(),
            **runtimes.versions(backends),
        },
        **code,
        **({"models": own} if own else {}),
    }


def conditions(host: dict[str, Any], protocol: dict[str, Any]) -> str:
    """A digest of all that may move a number: device, versions, measuring code and protocol."""
    facts = {
        "protocol": protocol,
        **{k: host[k] for k in ("device_name", "gpu", "cpu", "cpu_count", "versions", "source")},
        **{name: code["source"] for name, code in host.get("models", {}).items()},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def code_digest() -> str:
    """A digest of what may change a count: the code that measures, and the versions of packages."""
    return hashlib.sha256(json.dumps([_code()["source"], _versions()]).encode()).hexdigest()[:16]


def code_source() -> str:
    """A digest of the code that measures, as `fingerprint` has it: `source`."""
    return str(_code()["source"])


def load() -> dict[str, Any]:
    """What else the machine was doing: {"load_1min": runnable processes, "free_bytes": available memory}."""
    return {"load_1min": os.getloadavg()[0], "free_bytes": psutil.virtual_memory().available}


@cache
def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def probe(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device", "models"} -> "gpu", what torch says of the device, None for the CPU; and "model", the one whose
    code runs next: if the process ends, that code has ended it.

    Raises: DeviceError, UnknownModelError.
    """
    from vbench.models.baselines import check_name

    yield "gpu", open_device(argument["device"]).about()  # first: a module may hide devices as it is imported
    for name in argument["models"]:
        if external.is_external(name):
            yield "model", name
            external.load(name)
        else:
            check_name(name.removeprefix("timm/"))


def fingerprint_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device", "gpu", "models"} -> "host", what `fingerprint` returns for one side of a comparison."""
    yield "host", fingerprint(argument["device"], argument["gpu"], argument["models"])


def whereabouts(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"models"} -> "files": for each model the file from which its code is imported."""
    import inspect
    import sys

    from vbench.models import registry

    files = {}
    for name in argument["models"]:
        module = inspect.getmodule(registry.create)
        if external.is_external(name):
            external.load(name)
            module = sys.modules[name.partition(":")[0]]  # of a partial or a model, inspect finds another
        files[name] = str(Path(module.__file__).resolve()) if module and module.__file__ else None
    yield "files", files


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


CHANGES = (  # how git lists changes; new files of a committed run, and the README that shows them, are none of the code
    *("status", "--porcelain", "--untracked-files=no"),
    *("--", ":(top)", ":(top,exclude,glob)results/*/*", ":(top,exclude)README.md"),
)
CHECKOUT = ("repository", "commit", "dirty")  # of a user's own model
OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")  # variables
# Rooms whose code can move a number.
MEASURING = (
    *(
        "devices",
        "exports",
        "flops",
        "jobs",
        "kernels",
        "meters",
        "models",
        "operators",
        "runtimes",
        "sweeps",
        "verify",
    ),
)


@cache
def _code() -> dict[str, Any]:
    """`commit` and `dirty` of a checkout, None elsewhere; `source`, a digest of the code that measures."""
    here = Path(vbench.__file__).resolve().parent
    commit = _git(here, "rev-parse", "HEAD")
    digest = hashlib.sha256()
    for name, file in measuring_files().items():
        digest.update(name.encode() + file.read_bytes())
    dirty = None if commit is None else bool(_git(here, *CHANGES))
    return {"commit": commit, "dirty": dirty, "source": digest.hexdigest()[:16]}


def measuring_files() -> dict[str, Path]:
    """The files that can change a measured number, code and tables, by their names in the package."""
    files: dict[str, Path] = {}
    for root in map(Path, vbench.__path__):
        inside = [file for room in MEASURING for kind in ("*.py", "*.toml") for file in (root / room).rglob(kind)]
        own = root.glob("*.py") if root == Path(vbench.__file__).parent else []
        files |= {file.relative_to(root).as_posix(): file for file in [*own, *inside]}
    return dict(sorted(files.items()))


def _own_code(name: str) -> dict[str, Any]:
    """The code of a user's model: `source`, a digest of its package; and `checkout` of it."""
    where = external.folder_of(name)
    if where is None:
        return dict.fromkeys(("source", *CHECKOUT))
    return {"source": external.source(name), **checkout(where)}


def checkout(place: Path) -> dict[str, Any]:
    """The git checkout that holds a file or a folder: the name of its `repository`, its `commit`, and `dirty`.

    `dirty`: whether the place has changes that the commit lacks; what Python compiles is none. All three are None if
    the place is in no checkout, or in one that ignores it, such as an environment within a checkout.
    """
    folder, own = (place, ".") if place.is_dir() else (place.parent, place.name)
    commit, changes = git(folder, "rev-parse", "HEAD"), changed_files(folder, "--untracked-files=all", "--", own)
    tracked = git(folder, "ls-files", "--error-unmatch", own) is not None
    if commit is None or not (tracked or changes):
        return dict.fromkeys(CHECKOUT)
    return {"repository": repository(folder), "commit": commit, "dirty": bool(changes)}


def repository(folder: Path) -> str | None:
    """The name of the git repository of a folder: of its origin, else of its main folder. None if there is none."""
    origin = (git(folder, "config", "--local", "--get", "remote.origin.url") or "").partition("?")[0]
    if last := re.split(r"[/:\\]", origin.rstrip("/").removesuffix("/.git"))[-1].removesuffix(".git"):
        return last
    common = git(folder, "rev-parse", "--git-common-dir")
    if common is None:
        return None
    path = (folder / common).resolve()
    return (path.parent.name if path.name == ".git" else path.name.removesuffix(".git")) or None


def changed_files(folder: Path, *how: str) -> list[str]:
    """The files that `git status` lists in a folder, from the top of its checkout; none of those of `__pycache__`."""
    entries = iter((git(folder, "status", "--porcelain", "-z", *how) or "").split("\0"))
    files = []
    for entry in entries:
        files += [entry[3:]] if entry else []
        if entry[:1] in ("R", "C"):
            next(entries)  # the former name
    return [file for file in files if "__pycache__" not in file]


def git(folder: Path, *args: str) -> str | None:
    """What git prints in `folder`, without the line's end; None if it fails.

    A git that calls us, as for a hook, names its own repository in variables. They do not hold for other folders.
    """
    variables = {key: value for key, value in os.environ.items() if key not in OF_A_HOOK}
    try:
        done = subprocess.run(
            ["git", *args], cwd=folder, env=variables, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.rstrip("\n")


def _git(folder: Path, *args: str, tracked: str = "__init__.py") -> str | None:
    """What git prints in `folder`; None if the file `tracked` there is in no repository."""
    return None if git(folder, "ls-files", "--error-unmatch", tracked) is None else git(folder, *args)
