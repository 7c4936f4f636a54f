"""Which format a file has, and opening it: standard input, readers and writers."""

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
from typing import IO, BinaryIO, NamedTuple, Self, cast

from click import UsageError

from .._messages import short_list
from ._contents import UNREAD, ending_of
from ._delimited import DelimitedReader, Dialect
from ._delimited_writer import DelimitedWriter
from ._json import JsonReader, JsonWriter
from ._jsonl import JsonlReader, JsonlWriter
from ._lines import LinesReader, LinesWriter
from ._rows import BadInput, BadResult, Names, Reader, Writer
from ._text import Text, TextOutput, TextReader

FORMATS = ("jsonl", "json", "csv", "tsv", "lines", "parquet")

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
    ".parquet": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_TABLES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".db", ".sqlite")
_ARROW = (".feather", ".arrow", ".ipc", ".avro", ".orc")


def format_of(path: str, given: str | None = None) -> str | None:
    """What the ending of `path` says, that of a compression not counted; None if nothing.

    Args:
        path: A name, or - for standard input or output.
        given: What the user says, whatever the ending.

    Raises:
        UsageError: it is of a format or a compression that is not read or written.
    """
    ending, compression = ending_of(path)
    if ending in UNREAD or ending == ".zip":
        pipe = f"; pipe it: zstd -dc {PurePath(path).name} | batchproxy map ... -"
        hint = pipe if ending == ".zst" else ""
        raise UsageError(f"{path}: {ending} is not read or written{hint}; .gz, .bz2 and .xz are")
    found = given or _ENDINGS.get(ending)
    if found is None and ending in _TABLES:
        raise UsageError(
            f"{path}: {ending} is not read or written; use .csv, which spreadsheets can "
            "save and open, or .parquet"
        )
    if found is None and ending in _ARROW:
        raise UsageError(f"{path}: {ending} is not read or written; use .parquet or .jsonl")
    if found == "parquet" and compression:
        raise UsageError(
            f"{path}: Parquet is compressed inside, and not once more: leave {compression} out"
        )
    return found


def compressed(path: str, file: IO[bytes]) -> BinaryIO:
    """`file` for writing, through the compression that the ending of `path` says, if any."""
    match ending_of(path)[1]:
        case ".gz":
            # No name and no time in it, so that equal contents are equal files.
            return cast(BinaryIO, gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        case ".bz2":
            return cast(BinaryIO, bz2.open(file, "wb"))
        case ".xz":
            return cast(BinaryIO, lzma.open(file, "wb"))
        case _:
            return cast(BinaryIO, file)


class Form(NamedTuple):
    """What the user says of the text of the input."""

    encoding: str | None = None
    delimiter: str | None = None
    quoting: str | None = None

    def dialect(self, kind: str) -> Dialect:
        """How CSV or TSV is to be read."""
        delimiter = self.delimiter or _DELIMITERS[kind]
        if self.quoting is None:
            return Dialect(delimiter, None if delimiter == "\t" else True)
        return Dialect(delimiter, self.quoting == "csv")


class Source(AbstractContextManager["Source"]):
    """The input: its name for messages, its bytes, and how far they have been read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "<stdin>" if path == "-" else path
        if path == "-" and sys.stdin is None:
            raise UsageError("standard input is closed: give a file, or < FILE")
        try:
            self.file: BinaryIO = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115 - __exit__ closes it
        except OSError as error:
            raise UsageError(f"the input cannot be opened: {error}") from error
        status = os.fstat(self.file.fileno()) if path != "-" else None
        regular = status is not None and stat.S_ISREG(status.st_mode)
        self.total = status.st_size if status is not None and regular else None
        """Its size in bytes, where that is known."""

    def position(self) -> int:
        """How many of these have been read."""
        return self.file.tell() if self.total is not None else 0

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


def make_reader(source: Source, kind: str, names: Names, form: Form = Form()) -> Reader:  # noqa: B008 - it cannot be changed
    """What reads `source`, which has the format `kind`."""
    if kind == "parquet":
        from ._parquet import ParquetReader

        return ParquetReader(source.file, names, source.name)
    text = Text(source.path, source.name, source.file, form.encoding)
    match kind:
        case "jsonl":
            return JsonlReader(text, names)
        case "json":
            return JsonReader(text, names)
        case "lines":
            return LinesReader(text)
        case _:
            return DelimitedReader(text, names, form.dialect(kind))


def make_writer(file: BinaryIO, kind: str, names: Names, reader: Reader, *, same: bool) -> Writer:
    """What writes the format `kind`, rows of `reader`; `same` if that is the input's as well.

    Raises:
        BadInput: the input has columns that the format cannot have.
    """
    columns = reader.columns or []
    if not same and len(set(columns)) < len(columns):
        raise BadInput(
            "there are several columns of the same name, which no other format can have: "
            f"{short_list(columns, 20)}"
        )
    if kind == "parquet":
        from ._parquet import ParquetWriter

        return ParquetWriter(file, names, reader)
    # Lines have results only, and to CSV from CSV goes the text of a record.
    reader.with_fields = kind != "lines" and not (same and kind in _DELIMITERS)
    out = TextOutput(file, reader.text if same and isinstance(reader, TextReader) else None)
    match kind:
        case "jsonl":
            return JsonlWriter(out, names, same=same)
        case "json":
            return JsonWriter(out, names, same=same)
        case "lines":
            return LinesWriter(out, same=same)
    dialect, header = Dialect(_DELIMITERS[kind]), None
    if same:
        known = cast(DelimitedReader, reader)
        dialect, header = known.dialect, known.header
    try:
        return DelimitedWriter(out, names, dialect, columns=reader.columns, header=header)
    except BadResult as error:  # the names of the columns that are added
        raise BadInput(f"the header cannot be written: {error}") from error
