"""A `vbench` process that lacks something: a `sitecustomize` takes it away, in the children too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NO_FVCORE = 'import sys\n\nsys.modules["fvcore"] = None\n'
NO_LEDGER = 'import sys\n\nsys.modules["vbench.flops.ledger"] = None\n'
NO_ATTENTION_ON_META = '''
import sys
from importlib.util import find_spec

NAME = "timm.layers.attention"


class Finder:
    """Has timm's attention call `.item()` while it is built, as timm 1.0.20 does; tensors on meta cannot."""

    def find_spec(self, name, path, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(NAME)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            build = module.Attention.__init__

            def built(self, *args, **kwargs):
                import torch

                torch.zeros(1).item()
                build(self, *args, **kwargs)

            module.Attention.__init__ = built

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
'''


def environment(code: str, folder: Path) -> dict[str, str]:
    """Variables under which every Python runs `code` first; nothing is remembered from elsewhere."""
    preload = folder / "preload"
    preload.mkdir(exist_ok=True)
    (preload / "sitecustomize.py").write_text(code)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(preload), *(p for p in sys.path if p)]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def without(code: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`vbench ARGS` in `folder` where every Python runs `code` first."""
    return run([sys.executable, "-P", "-m", "vbench", *args], environment(code, folder), folder)


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in `folder` under these variables, with what it prints."""
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=300
    )
