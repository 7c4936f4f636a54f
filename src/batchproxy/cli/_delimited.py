"""CSV and TSV. Results are put into the text of a record, of which nothing else changes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Self

from click import UsageError

from ._rows import BadInput, BadResult, Names, Outcome, Reader, Row, Writer, to_text

_END = re.compile(r"\r?\n?\Z")
_LARGEST_FIELD = 16 * 2**20
"""Characters. What an opening quote without a closing one costs at most."""


class DelimitedReader(Reader):
    """Records, the first of which names the columns; blank lines are no rows."""

    def __init__(self, file: BinaryIO, names: Names, delimiter: str, name: str) -> None:
        csv.field_size_limit(_LARGEST_FIELD)
        self._lines = _Lines(file)
        self._records = csv.reader(self._lines, delimiter=delimiter, strict=True)
        try:
            self.columns = next(record for record in self._records if record)
        except StopIteration:
            raise BadInput(f"{name}: no line that names the columns") from None
        except (ValueError, csv.Error) as error:
            raise BadInput(f"{name}:{self._lines.number}: no header: {error}") from error
        self.header = self._lines.take()
        known = ", ".join(map(repr, self.columns))
        if names.field is None:
            raise UsageError(f"{name}: --field is missing: which column is mapped? One of {known}")
        if names.field not in self.columns:
            raise UsageError(f"{name}: no column {names.field!r}; there are {known}")
        for used in names:
            if self.columns.count(used or "") > 1 and used:
                raise UsageError(f"{name}: there are several columns {used!r}")
        self._place = self.columns.index(names.field)

    def __iter__(self) -> Iterator[Row]:
        columns = self.columns or []
        while True:
            self._lines.take()
            row = Row(self._lines.number + 1, 0)
            try:
                record = next(self._records)
            except StopIteration:
                return
            except (ValueError, csv.Error) as error:
                row.problem = f"no record: {error}"
            else:
                if not record:
                    continue
                if len(record) == len(columns):
                    row.fields = dict(zip(columns, record))
                    row.item = record[self._place]
                else:
                    row.problem = f"{len(record)} columns, expected {len(columns)}"
            row.raw = self._lines.take()
            row.size = len(row.raw)
            yield row


class DelimitedWriter(Writer):
    """Records; if the input is of the same format (`header` is its first), with their text."""

    def __init__(
        self,
        file: BinaryIO,
        names: Names,
        delimiter: str,
        *,
        columns: list[str] | None,
        header: str | None,
    ) -> None:
        self._file = file
        self._names = names
        self._delimiter = delimiter
        self._columns = columns
        self._header = header
        # A quoted field, or a plain one, up to its delimiter.
        rest = re.escape(delimiter)
        self._field = re.compile(rf'("(?:[^"]|"")*+"|[^{rest}]*)(?:{rest}|\Z)', re.DOTALL)
        if header is not None:
            self._columns = columns = columns or []
            added = {
                name: name for name in (names.into, names.error) if name and name not in columns
            }
            self._put(header, added)
        elif columns is not None:
            self._begin(columns)

    def write(self, row: Row, outcome: Outcome) -> None:
        values = {self._names.into: to_text(outcome.result)}
        if self._names.error is not None:
            values[self._names.error] = outcome.error or ""
        if self._header is not None:
            blank = self._delimiter * (len(self._columns or "-") - 1) + "\n"
            self._put(blank if row.fields is None else row.raw, values)
            return
        fields = row.fields or {}
        if self._columns is None:
            self._begin(list(fields))
        columns = self._columns or []
        if unknown := [name for name in fields if name not in columns]:
            raise BadResult(
                f"no column for {', '.join(map(repr, unknown))}: the first row had none; use "
                "--output-format jsonl"
            )
        texts = {name: to_text(value) for name, value in fields.items()} | values
        self._file.write(self._record([texts.get(name, "") for name in columns]))

    def _begin(self, columns: list[str]) -> None:
        added = [name for name in (self._names.into, self._names.error) if name]
        self._columns = list(dict.fromkeys(columns + added))
        self._file.write(self._record(self._columns))

    def _record(self, texts: list[str]) -> bytes:
        line = self._delimiter.join(map(self._quoted, texts))
        return ((line or '""') + "\n").encode()

    def _put(self, raw: str, values: Mapping[str, str]) -> None:
        end = _END.search(raw)
        assert end is not None  # it matches nothing at all, too
        body, columns = raw[: end.start()], self._columns or []
        for name, text in values.items():
            if name in columns:
                start, stop = self._span(body, columns.index(name))
                body = body[:start] + self._quoted(text) + body[stop:]
            else:
                body += self._delimiter + self._quoted(text)
        self._file.write(((body or '""') + end[0]).encode())

    def _span(self, body: str, place: int) -> tuple[int, int]:
        """Where the field of that number is."""
        position = 0
        while True:
            field = self._field.match(body, position)
            assert field is not None  # the record was read
            if not place:
                return field.span(1)
            place, position = place - 1, field.end()

    def _quoted(self, text: str) -> str:
        if any(mark in text for mark in (self._delimiter, '"', "\r", "\n")):
            return '"' + text.replace('"', '""') + '"'
        return text


class _Lines:
    """Lines for the parser, which takes as many as a record has; it can be asked which."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.number += 1
        text = line.decode()
        self._taken.append(text)
        return text.removeprefix("\ufeff") if self.number == 1 else text

    def take(self) -> str:
        """The text of all lines since the last time."""
        text = "".join(self._taken)
        self._taken.clear()
        return text
