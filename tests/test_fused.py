"""The files that need Triton interpreted pass where it is: in two processes, so that two cores share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vbench.kernels.registry import interpreted

pytest.importorskip("triton")

HALVES = (("test_fused_chunks.py", "test_fused_selective.py"), ("test_fused_scans.py", "test_fused_linear.py"))


@pytest.mark.skipif(interpreted(), reason="this is that process")
@pytest.mark.parametrize("names", HALVES, ids=" ".join)
def test_all_of_this_passes_where_triton_is_interpreted(names: tuple[str, ...]) -> None:
    files = [str(Path(__file__).with_name(name)) for name in names]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-n", "0", "-q", *files],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
