"""Which format a file has, and opening it: compression, standard input, readers and writers."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import sys
from contextlib import AbstractContextManager
from pathlib import PurePath
from types import TracebackType
from typing import IO, BinaryIO, Literal, Self, cast

from click import UsageError

from ._delimited import DelimitedReader, DelimitedWriter
from ._jsonl import JsonlReader, JsonlWriter
from ._lines import LinesReader, LinesWriter
from ._rows import BadInput, Names, Reader, Writer

FORMATS = ("jsonl", "csv", "tsv", "lines", "parquet")

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
    ".parquet": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_COMPRESSED = (".gz", ".bz2", ".xz")


def format_of(path: str) -> str | None:
    """What the ending of `path` says, that of a compression not counted; None if nothing."""
    name = PurePath(path)
    if name.suffix == ".zst":
        raise UsageError(
            f"{path}: Zstandard is not read or written; pipe it: zstd -dc {name.name} | batchproxy "
            "map ... -"
        )
    return _ENDINGS.get((name.with_suffix("") if name.suffix in _COMPRESSED else name).suffix)


def compressed(path: str, file: IO[bytes], mode: Literal["rb", "wb"]) -> BinaryIO:
    """`file`, through the compression that the ending of `path` says, or as it is."""
    match PurePath(path).suffix:
        case ".gz":
            # No name and no time in it, so that equal contents are equal files.
            return cast(BinaryIO, gzip.GzipFile("", mode, fileobj=file, mtime=0))
        case ".bz2":
            return cast(BinaryIO, bz2.open(file, mode))
        case ".xz":
            return cast(BinaryIO, lzma.open(file, mode))
        case _:
            return cast(BinaryIO, file)


class Source(AbstractContextManager["Source"]):
    """The input: its name for messages, its bytes, and how far they have been read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "<stdin>" if path == "-" else path
        try:
            self._raw: BinaryIO = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115 - __exit__ closes it
            self.file = self._raw if path == "-" else compressed(path, self._raw, "rb")
        except OSError as error:
            raise UsageError(f"the input cannot be opened: {error}") from error
        status = os.fstat(self._raw.fileno()) if path != "-" else None
        regular = status is not None and stat.S_ISREG(status.st_mode)
        self.total = status.st_size if status is not None and regular else None
        """Its size in bytes, where that is known."""

    def position(self) -> int:
        """How many of these have been read."""
        return self._raw.tell() if self.total is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.path != "-":
            self.file.close()
            self._raw.close()


def make_reader(source: Source, kind: str, names: Names) -> Reader:
    """What reads `source`, which has the format `kind`."""
    match kind:
        case "jsonl":
            return JsonlReader(source.file, names)
        case "lines":
            return LinesReader(source.file)
        case "parquet":
            from ._parquet import ParquetReader

            return ParquetReader(source.file, names, source.name)
        case _:
            return DelimitedReader(source.file, names, _DELIMITERS[kind], source.name)


def make_writer(file: BinaryIO, kind: str, names: Names, reader: Reader, *, same: bool) -> Writer:
    """What writes the format `kind`, rows of `reader`; `same` if that is the input's as well.

    Raises:
        BadInput: the input has columns that the format cannot have.
    """
    columns = reader.columns or []
    if not same and len(set(columns)) < len(columns):
        raise BadInput(
            "there are several columns of the same name, which no other format can have: "
            f"{', '.join(map(repr, columns))}"
        )
    match kind:
        case "jsonl":
            return JsonlWriter(file, names, same=same)
        case "lines":
            return LinesWriter(file, same=same)
        case "parquet":
            from ._parquet import ParquetWriter

            return ParquetWriter(file, names, reader)
        case _:
            header = reader.header if same and isinstance(reader, DelimitedReader) else None
            delimiter = _DELIMITERS[kind]
            return DelimitedWriter(file, names, delimiter, columns=reader.columns, header=header)
