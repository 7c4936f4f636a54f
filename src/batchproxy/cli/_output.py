"""The output: under its name only when it is complete, and with the rights that were there."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, TextIO, cast

from click import ClickException, UsageError

from ._formats import compressed
from ._terminal import forgetting_output


class Output(AbstractContextManager["Output"]):
    """A file that is written beside its name and renamed by `complete`, or standard output.

    What is no regular file (a pipe, a device) is written to as it is.

    Args:
        path: A name, or ``-``.
        stdout: Standard output; None if it is closed.

    Raises:
        UsageError: it cannot be written, and why.
    """

    def __init__(self, path: str, stdout: TextIO | None) -> None:
        self.part: Path | None = None
        self._target = Path(os.path.realpath(path))  # a link stays one
        with _refusing():
            self._raw = self._open(path, stdout)
        self.file = compressed(path, self._raw)

    def _open(self, path: str, stdout: TextIO | None) -> IO[bytes]:
        if path == "-":
            if stdout is None:
                raise UsageError("standard output is closed; give -o FILE")
            return cast(BinaryIO, _Stdout(stdout.buffer))
        there = check_output(path)
        if there is not None and not stat.S_ISREG(there.st_mode):
            return open(path, "wb")
        # Nobody can have guessed the name, and nothing that is there is opened. What replaces a
        # file is private until it gets the rights of that; a new one has those of any new file.
        part = self._target.with_name(f".batchproxy-{secrets.token_hex(8)}.part")
        mode = 0o666 if there is None else 0o600
        file = open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115 - __exit__ closes it
        self.part = part
        return file

    def complete(self) -> None:
        """All is written: from now on it is there, also after a power failure."""
        if self.file is not self._raw:
            self.file.close()
        self._raw.flush()
        if self.part is not None:
            file = self._raw.fileno()
            _give_rights(file, self._target)
            os.fsync(file)
            os.replace(self.part, self._target)
            self.part = None
            _sync_folder(self._target.parent)

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


@contextmanager
def _refusing() -> Iterator[None]:
    """Inside, an output that cannot be written is a wrong argument."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"the output cannot be written: {error}") from error


@_refusing()
def check_output(path: str) -> os.stat_result | None:
    """What is there now. Nothing is made, or opened.

    Raises:
        UsageError: it cannot be written, as far as can be known before, and why.
    """
    there = None
    with suppress(FileNotFoundError):
        there = os.stat(path)
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not os.path.basename(path):
        raise UsageError(f"the output has no name: {path!r}")
    if there is not None and not os.access(path, os.W_OK):
        raise UsageError(f"the output {path!r} is read-only")
    if (there is None or stat.S_ISREG(there.st_mode)) and not can_be_made(path):
        raise UsageError(
            "the output cannot be written: no file can be made in "
            f"{os.path.dirname(os.path.realpath(path))!r}, where it is until it is complete"
        )
    return there


def can_be_made(path: str) -> bool:
    """Whether a file can be made in that folder, as far as can be known before."""
    return os.access(os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK)


def _give_rights(file: int, target: Path) -> None:
    """Give `file` the mode, owner and group of what it replaces, as far as that is permitted."""
    if not hasattr(os, "fchown"):  # pragma: no cover - Windows
        return
    try:
        there = os.stat(target)
    except FileNotFoundError:
        return
    mode = there.st_mode & 0o777
    try:
        os.fchown(file, there.st_uid, there.st_gid)
    except OSError:
        try:
            os.fchown(file, -1, there.st_gid)
        except OSError:  # what its group might do, another group might not
            mode = mode & 0o707 | (mode & 0o007) << 3
    os.fchmod(file, mode)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system lets folders be opened, or synced
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


class _Stdout(io.RawIOBase):
    """Standard output; closing it is not ours."""

    def __init__(self, buffer: BinaryIO) -> None:
        self._buffer = buffer

    def write(self, data: Any, /) -> int:
        with forgetting_output():
            return self._buffer.write(data)

    def flush(self) -> None:
        with forgetting_output():
            self._buffer.flush()

    def close(self) -> None:
        pass


@contextmanager
def writing(path: str, ends: Callable[[str], Exception] = ClickException) -> Iterator[None]:
    """Inside, what cannot be written ends the command with status 1, or the run: with `Stopped`."""
    try:
        yield
    except OSError as error:
        raise ends(f"{called(path)} cannot be written: {error}") from error


def called(path: str) -> str:
    """That output, in messages."""
    return "standard output" if path == "-" else path
