"""The output: under its name only when it is complete."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, cast

from ._formats import compressed
from ._rows import BadInput

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where two runs of one output stay unnoticed
    fcntl = None  # type: ignore[assignment] # as said


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


class Output(AbstractContextManager["Output"]):
    """A file that is written beside its name and renamed by `complete`, or standard output.

    What is no regular file (a pipe, a device) is written to as it is.
    """

    def __init__(self, path: str, stdout: BinaryIO) -> None:
        self.part: Path | None = None
        self._target = Path(os.path.realpath(path))  # a link stays one
        if path == "-":
            self._raw: IO[bytes] = cast(BinaryIO, _Stdout(stdout))
        elif self._target.exists() and not self._target.is_file():
            self._raw = open(self._target, "wb")  # noqa: SIM115 - __exit__ closes it
        else:
            self.part = self._target.with_name(self._target.name + ".part")
            self._raw = _locked(self.part, path)
        self.file = compressed(path, self._raw, "wb")

    def complete(self) -> None:
        """All is written: from now on it is there, also after a power failure."""
        if self.file is not self._raw:
            self.file.close()
        self._raw.flush()
        if self.part is not None:
            os.fsync(self._raw.fileno())
            os.replace(self.part, self._target)
            self.part = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.part is not None:
            # Resuming does not need it: what was computed is in the store.
            self.part.unlink(missing_ok=True)
        for file in (self.file, self._raw):
            with suppress(OSError):  # all was written by `complete`, or the run has failed
                file.close()


class _Stdout(io.RawIOBase):
    """Standard output; closing it is not ours."""

    def __init__(self, buffer: BinaryIO) -> None:
        self._buffer = buffer

    def write(self, data: Any, /) -> int:
        with _noticing_the_end():
            return self._buffer.write(data)

    def flush(self) -> None:
        with _noticing_the_end():
            self._buffer.flush()

    def close(self) -> None:
        pass


@contextmanager
def _noticing_the_end() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # What is still in the buffer goes nowhere, lest Python complain about it at its end.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.__stdout__.fileno())  # type: ignore[union-attr] # there was a pipe
        os.close(null)
        raise OutputClosed from None


def _locked(part: Path, path: str) -> IO[bytes]:
    """The file to write to, empty, and nobody else's as long as it is open."""
    while True:
        file = open(part, "ab")  # noqa: SIM115 - that of the Output closes it
        if fcntl is not None:  # pragma: no branch - as above
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise BadInput(f"another run is writing {path}; let it finish, or end it") from None
        try:
            ours = os.path.samestat(os.fstat(file.fileno()), os.stat(part))
        except FileNotFoundError:
            ours = False
        if ours:
            file.truncate(0)
            return file
        file.close()  # between opening and locking, the other run has renamed it
