"""The digest of a user's model has what the model imports from beside it, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vbench.models import external

FILES = {
    "one_net.py": "import json, torch\nimport one_layers\nfrom one_blocks.deep import Block\n",
    "one_layers.py": "def late():\n    import importlib\n    return importlib.import_module('one_late')\n",
    "one_late.py": "",
    "one_blocks/__init__.py": "",
    "one_blocks/deep.py": "import one_layers, one_net\n",
    "one_notes.py": "",  # that nothing imports
    "torch.py": "",  # which the installed one hides
    "json.py": "",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("changed", FILES)
def test_a_change_of_what_a_model_imports_is_another_model(folder: Path, changed: str) -> None:
    before = external.source("one_net:net")
    with (folder / changed).open("a") as file:
        file.write("X = 1\n")
    unlike = changed not in ("one_notes.py", "torch.py", "json.py")
    assert (external.source("one_net:net") != before) is unlike
    assert not {"one_net", "one_layers", "one_late", "one_blocks"} & set(sys.modules)


def test_a_file_that_is_no_python_is_still_part_of_the_digest(folder: Path) -> None:
    (folder / "one_layers.py").write_text("this is no Python ((\n")
    before = external.source("one_net:net")
    (folder / "one_layers.py").write_bytes(b"\xff\0")
    assert before != external.source("one_net:net") is not None


def test_a_model_that_imports_nothing_from_beside_it_keeps_its_digest(folder: Path) -> None:
    import hashlib

    assert external.source("one_late:net") == hashlib.sha256(b"").hexdigest()[:16]
