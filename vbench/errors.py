"""Everything vbench raises on purpose.

VbenchError
├── UsageError            what was asked for cannot be; the command line prints it and exits 2
│   ├── UnknownModelError
│   ├── ResolutionError   a size that a model cannot take
│   ├── DeviceError       a device that is not there
│   ├── OutputError       a folder that cannot be written, or that another sweep holds
│   ├── SchemaError       records that this version cannot read
│   └── CheckpointError   a file of weights that cannot be read, or that is not this model's
├── UnsupportedError      a model or an operator has no such mode, form or size; a row, not a failure
│   └── ExportError       a model that cannot be exported, for a runtime
├── UncountedError        work that cannot be counted, though the model runs; its row has no MACs
├── CompileError          a Triton kernel, or a model, that does not compile
├── BuildError            a model of the user's own that ends the process as it is built
└── ShapeError            tensors that do not agree

Each message is one line: what was given, what is allowed, what to do.
"""


class VbenchError(Exception):
    """The root; catch this to catch all of them."""


class UsageError(VbenchError):
    """A request that cannot be met; nothing was run and nothing was written."""


class UnknownModelError(UsageError):
    """A model name that is not in the table; the message names the nearest ones."""


class ResolutionError(UsageError):
    """A malformed size, or one that a model cannot take."""


class DeviceError(UsageError):
    """A device that this machine, or this torch build, does not have."""


class OutputError(UsageError):
    """An output folder that cannot be written, or that another sweep is writing."""


class SchemaError(UsageError):
    """Records written under another schema, or damaged before their last line."""


class UnsupportedError(VbenchError):
    """A combination that does not exist: an attention model has no recurrent mode, say."""


class ExportError(UnsupportedError):
    """A model does not export to a target; the message says why.

    `stopped_by` is the operator, or the line of the model's code, that stops it; None if the cause is another.
    """

    stopped_by: str | None = None


class UncountedError(VbenchError):
    """The work of a model that runs cannot be counted in reasonable time; the message says why."""


class ShapeError(VbenchError, ValueError):
    """Operator inputs whose shapes, or dtypes, do not agree; the message prints them."""


class CompileError(VbenchError):
    """A kernel, or a model, does not compile; the message says which, and what the compiler said last."""


class BuildError(VbenchError):
    """Building a user's model calls `sys.exit`; the message names the model and the exit code."""


class CheckpointError(UsageError, ValueError):
    """Weights that cannot be read or do not fit; the message names missing, unexpected and misshapen keys."""


def first_line(error: BaseException, *, named: bool = False) -> str:
    """The first line of an error, 300 characters at most; after the name of its type if `named`."""
    lines = str(error).strip().splitlines()
    line = lines[0][:300] if lines else "no message"
    return f"{type(error).__name__}: {line}" if named else line
