"""What is in a file, whatever its name says: compression, and formats that are not read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, cast

from ._rows import BadInput

HEAD = 2**16
"""How many bytes of a file are looked at before it is read, at most."""

_LEAST = 16
_CHUNK = 2**18


class _Kind(NamedTuple):
    begins: bytes
    what: str
    remedy: str


_COMPRESSIONS = {
    ".gz": _Kind(b"\x1f\x8b", "gzip", "gzip -dc"),
    ".bz2": _Kind(b"BZh", "bzip2", "bzip2 -dc"),
    ".xz": _Kind(b"\xfd7zXZ\0", "xz", "xz -dc"),
    ".zst": _Kind(b"\x28\xb5\x2f\xfd", "Zstandard", "zstd -dc"),
    ".lz4": _Kind(b"\x04\x22\x4d\x18", "LZ4", "lz4 -dc"),
}
READ = (".gz", ".bz2", ".xz")
UNREAD = (".zst", ".lz4", ".br", ".z", ".7z", ".rar", ".tar", ".tgz")
"""Endings of compressions and archives that are neither read nor written."""

_AS_CSV = "write the table as CSV or Parquet"
_OTHERS = (
    _Kind(b"PAR1\x15", "Parquet", "give --input-format parquet"),
    _Kind(
        b"PK\x03\x04",
        "a ZIP archive, such as .xlsx and .ods are",
        f"unpack it, or {_AS_CSV}",
    ),
    _Kind(b"\xd0\xcf\x11\xe0", "an old Office document (.xls)", _AS_CSV),
    _Kind(b"ARROW1", "Arrow (Feather)", "write it as Parquet"),
    _Kind(b"Obj\x01", "Avro", "write it as Parquet or JSON Lines"),
    _Kind(b"SQLite format 3\0", "an SQLite database", _AS_CSV),
    _Kind(b"%PDF-", "PDF", "write its text as plain lines"),
)


def ending_of(path: str) -> tuple[str, str]:
    """The ending of a name, in small letters, and that of a compression behind it, or nothing."""
    name = PurePath(path.lower())
    if name.suffix in READ:
        return name.with_suffix("").suffix, name.suffix
    return name.suffix, ""


def opened(path: str, name: str, file: BinaryIO) -> tuple[bytes, io.BufferedReader]:
    """How the text in `file` begins, and the whole of it, decompressed as `path` says.

    Raises:
        BadInput: it is something else than its name says. The stream raises it, too.
    """
    ending = ending_of(path)[1]
    head, stream = begun(file, name)
    said = _COMPRESSIONS.get(ending)
    if said is not None and not head.startswith(said.begins):
        what = f"begins with {head[:8]!r}" if head else "is empty"
        raise BadInput(f"{name} is not {said.what}, as its name says: it {what}; rename it")
    if said is None:
        for other_ending, kind in _COMPRESSIONS.items():
            if head.startswith(kind.begins):
                rename = f"name it {other_ending}, or " if other_ending in READ else ""
                raise BadInput(
                    f"{name} is compressed, with {kind.what}: {rename}pipe it: {kind.remedy} FILE "
                    "| batchproxy map ... -"
                )
    match ending:
        case ".gz":
            file = cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb"))
        case ".bz2":
            file = _decompressed(stream, bz2.BZ2Decompressor)
        case ".xz":
            file = _decompressed(stream, lzma.LZMADecompressor)
    if ending:
        head, stream = begun(file, name)
    for kind in _OTHERS:
        if head.startswith(kind.begins):
            raise BadInput(f"{name} is {kind.what}, which is not text: {kind.remedy}")
    return head, stream


def begun(file: BinaryIO, name: str) -> tuple[bytes, io.BufferedReader]:
    """How `file` begins, and all of it; no seeking and no waiting for more, as pipes want it."""
    stream = _Stream(file, name)
    head = b""
    while len(head) < _LEAST and (more := stream.read(HEAD)):
        head += more
    stream.ahead = memoryview(head)
    return head, io.BufferedReader(stream, _CHUNK)


def _decompressed(file: BinaryIO, begin: Callable[[], Any]) -> BinaryIO:
    return io.BufferedReader(_Decompressed(file, begin), _CHUNK)


class _Stream(io.RawIOBase):
    """A file from where it has been read to, with what was read of it before in front.

    What goes wrong in reading is an error of the input, whoever reads it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file: Any = file  # a buffered one
        self._name = name
        self.ahead = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.ahead:
            try:
                self.ahead = memoryview(self._file.read1(len(buffer)))
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise BadInput(f"{self._name} cannot be read any further: {error}") from error
        size = min(len(buffer), len(self.ahead))
        buffer[:size] = self.ahead[:size]
        self.ahead = self.ahead[size:]
        return size


class _Decompressed(io.RawIOBase):
    """Streams of bzip2 or xz, one after another. The modules for these ignore what follows them."""

    def __init__(self, file: BinaryIO, begin: Callable[[], Any]) -> None:
        self._file = file
        self._begin = begin
        self._stream = begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            more = b""
            if self._stream.eof:
                more = self._stream.unused_data.lstrip(b"\0") or self._file.read(_CHUNK)
                if not more.strip(b"\0"):  # zeros are padding
                    return 0
                self._stream = self._begin()
            elif self._stream.needs_input and not (more := self._file.read(_CHUNK)):
                raise EOFError("it ends before what was compressed does")
            data = self._stream.decompress(more, len(buffer))
        buffer[: len(data)] = data
        return len(data)
