"""Files for runtimes, made of an exported program. Each appears whole or not at all."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench.errors import ExportError, VbenchError
from vbench.exports.program import quiet
from vbench.exports.stops import refused
from vbench.files import write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

PROTOBUF = 2**31 - 2**20  # bytes of a file, with some room beside the weights


def save(program: ExportedProgram, folder: Path) -> Path:
    """`model.pt2`, which torch.export.load reads. Raises: ExportError; OutputError."""
    import torch

    return _written("torch.export", folder / "model.pt2", lambda path: torch.export.save(program, path))


def to_aoti(program: ExportedProgram, folder: Path) -> Path:
    """`model.aoti.pt2`, machine code by AOTInductor, which `torch._inductor.aoti_load_package` loads; minutes.

    It needs a C++ compiler, and runs on this kind of CPU alone.

    Raises: ExportError, if Inductor, or the compiler, does not take an operator; OutputError.
    """
    import torch._inductor

    def write(path: Path) -> None:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))

    return _written("AOTInductor", folder / "model.aoti.pt2", write)


def to_onnx(program: ExportedProgram, folder: Path) -> Path:
    """`model.onnx`, with its weights, its input named "image" and its output "logits". It names none of our files.

    Raises: ExportError, if ONNX has no form of an operator, if the weights are more than one file can hold, or without
        the packages `onnx` and `onnxscript`; OutputError.
    """
    import torch

    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ExportError(f"ONNX needs {' and '.join(missing)}: pip install 'vbench-backbones[onnx]'")
    weights = sum(x.nbytes for x in program.state_dict.values())
    if weights > PROTOBUF:
        raise ExportError(f"ONNX holds {PROTOBUF:,} bytes of weights in one file; the model has {weights:,}")

    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    def write(path: Path) -> None:
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
        # The exporter's own optimizer takes time with the square of the graph; runtimes have theirs.
        made = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, external_data=False, **names)
        assert made is not None
        ClearMetadataAndDocStringPass()(made.model)  # of each node, its lines of Python: megabytes
        made.save(path, external_data=False)

    return _written("ONNX", folder / "model.onnx", write)


def _written(target: str, path: Path, write: Callable[[Path], object]) -> Path:
    with writing(path.parent, path):
        try:
            with quiet():
                write_whole(path, write)
        except (VbenchError, OSError):
            raise
        except Exception as error:  # whatever an exporter raises
            raise refused(target, error) from error
    return path
