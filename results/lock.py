"""One sweep at a time in a folder: a lock of the kernel, or a file with the holder's name where there are none.

filelock 4.3 does the first part as well. It knows a file system without locks by ENOSYS alone, and ends with an error
on those that answer ENOTSUP, ENOLCK or EINVAL, as shared folders of clusters may; so this is our own.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from vbench.errors import OutputError
from vbench.files import alive, place

FILE, HOLDER = ".lock", ".lock-holder"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Lock:
    """Held from the beginning until `close`. Use as a context manager.

    Raises: OutputError if another sweep holds it, or if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._holder = folder, folder / HOLDER
        self._owned = False
        try:
            self._file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                if error.errno not in NO_LOCKS:
                    raise OutputError(
                        f"another sweep is writing {folder}; wait for it, or use another folder"
                    ) from None
                self._claim()
            except BaseException:
                os.close(self._file)
                raise

    def _claim(self) -> None:
        """Write the holder's file, which only one process can make; that of a dead one is taken over."""
        for _ in range(2):
            try:
                file = os.open(self._holder, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                if not self._left_over():
                    break
                self._holder.unlink(missing_ok=True)
                continue
            except OSError as error:
                raise OutputError(f"{self._folder} cannot be written: {error.strerror}") from None
            os.write(file, json.dumps({"pid": os.getpid(), "place": place()}).encode())
            os.close(file)
            self._owned = True
            return
        raise OutputError(
            f"another sweep is writing {self._folder}, on a file system without locks; wait for it, use another "
            f"folder, or, if there is none, delete {self._holder}"
        )

    def _left_over(self) -> bool:
        """Whether the holder was a process of this machine that is dead."""
        try:
            holder = json.loads(self._holder.read_bytes())
            return bool(holder["place"] == place() and not alive(holder["pid"]))
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def close(self) -> None:
        if self._owned:
            self._owned = False
            with suppress(OSError):
                self._holder.unlink(missing_ok=True)
        os.close(self._file)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
