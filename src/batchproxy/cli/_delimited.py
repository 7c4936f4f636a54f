"""CSV and TSV, as they are read: rows that know the text of their records."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from click import UsageError

from .._messages import short, short_list
from ._rows import (
    BadInput,
    Names,
    Row,
)
from ._text import Text, TextReader

_LARGEST_FIELD = 16 * 2**20
"""Characters. What an opening quote without a closing one costs at most."""


@dataclass(frozen=True)
class Dialect:
    """How the fields of a record are told apart."""

    delimiter: str
    quoted: bool | None = True
    """Whether quotes mean anything; None if that is to be doubted, as in TSV."""


class DelimitedReader(TextReader):
    """Records, the first of which names the columns; blank lines are no rows."""

    def __init__(self, text: Text, names: Names, dialect: Dialect) -> None:
        super().__init__(text)
        self.dialect = dialect
        self._lines = _Lines(text)
        self._records: Iterator[list[str]]
        if dialect.quoted is False:
            self._records = (_split(line, dialect.delimiter) for line in self._lines)
        else:
            csv.field_size_limit(_LARGEST_FIELD)
            self._records = csv.reader(self._lines, delimiter=dialect.delimiter, strict=True)
        self.columns = columns = self._header()
        self.header = self._lines.take()
        name, known = text.name, short_list(columns, 20) + self._hint()
        if names.field is None:
            raise UsageError(f"{name}: --field is missing: which column is mapped? One of {known}")
        if names.field not in columns:
            raise UsageError(f"{name}: no column {short(names.field)}; there are {known}")
        for used in (names.field, *names.written):
            if columns.count(used) > 1:
                raise UsageError(f"{name}: there are several columns {short(used)}")
        self._place = columns.index(names.field)

    def __iter__(self) -> Iterator[Row]:
        columns = self.columns or []
        while True:
            while bodies := self.text.plain(_LARGEST_FIELD):
                yield from self._plain_rows(bodies, columns)
            self._lines.take()
            row = Row(self.text.number + 1, 0)
            try:
                record = next(self._records)
            except StopIteration:
                return
            except csv.Error as error:
                record, doubt = [], f"no record: {_said(error)}"
            else:
                if not record:
                    continue
                doubt = ""
                if len(record) == len(columns):
                    row.fields = dict(zip(columns, record)) if self.with_fields else None
                    row.item = record[self._place]
                else:
                    doubt = f"{len(record)} columns, expected {len(columns)}"
            row.raw = self._lines.take()
            row.size = len(row.raw)
            self._check_quotes(row, doubt)
            row.problem, self.text.problem = self.text.problem or doubt or None, None
            if row.problem is not None:
                row.fields = None
            row.raw, row.end = parted(row.raw)
            yield row

    def _plain_rows(self, bodies: list[str], columns: list[str]) -> list[Row]:
        """Of lines without quotes, as most are."""
        rows: list[Row] = []
        delimiter, place, count = self.dialect.delimiter, self._place, len(columns)
        with_fields, end = self.with_fields, self.text.end
        for number, body in enumerate(bodies, self.text.number + 1 - len(bodies)):
            fields = body.split(delimiter)
            if len(fields) == count and body:
                named = dict(zip(columns, fields)) if with_fields else None
                rows.append(Row(number, len(body), body, end, named, fields[place]))
            elif body:
                doubt = f"{len(fields)} columns, expected {count}"
                rows.append(Row(number, len(body), body, end, None, None, doubt))
        return rows

    def _header(self) -> list[str]:
        try:
            columns = next(record for record in self._records if record)
        except StopIteration:
            raise BadInput(f"{self.text.name}: no line that names the columns") from None
        except csv.Error as error:
            problem = _said(error)
        else:
            if self.text.problem is None:
                return columns
            problem = self.text.problem
        raw = self._lines.take()
        record = raw.lstrip("\r\n")
        line = 1 + raw.count("\n", 0, len(raw) - len(record)) + self._opening(record)
        raise BadInput(f"{self.text.name}:{line}: no header: {problem}")

    def _hint(self) -> str:
        columns = self.columns or []
        found = [mark for mark in ";\t|," if len(columns) == 1 and mark in columns[0]]
        if not found or found[0] == self.dialect.delimiter:
            return ""
        mark = repr(found[0])
        return f", a single one; if {mark} stands between columns, give --delimiter {mark}"

    def _check_quotes(self, row: Row, doubt: str) -> None:
        """Refuse a record of which it is not sure where it ends: what follows would be paid for."""
        lines = row.raw.rstrip("\r\n").split("\n")
        if self.dialect.quoted is False or (len(lines) == 1 and not self._lines.ended):
            return
        remedy = "mend it, or give --quoting none if quotes are text like any other"
        if not doubt and self.dialect.quoted is None and len(lines) > 1:
            marks = len(self.columns or []) - 1
            if all(line.count(self.dialect.delimiter) == marks for line in lines):
                doubt = "and each of these lines could be a record"
                remedy = "give --quoting csv if that is one field, else --quoting none"
        if doubt:
            if self._lines.ended:
                closed = "is not closed before the file ends"
            elif len(row.raw) > _LARGEST_FIELD:
                closed = f"is not closed within {_LARGEST_FIELD >> 20} MiB"
            else:
                closed = f"closes in line {self.text.number} ({doubt})"
            line = row.line + self._opening(row.raw)
            raise BadInput(f"{self.text.name}:{line}: the quote that opens here {closed}; {remedy}")

    def _opening(self, record: str) -> int:
        """In which line of a record, from 0, the quote opens that closes in another, or nowhere."""
        rest = re.escape(self.dialect.delimiter)
        field = re.compile(rf'("(?:[^"]|"")*+"|(?!")[^{rest}\r\n]*)(?:{rest}|[\r\n]*\Z)', re.DOTALL)
        position = opening = 0
        while position < len(record) and (found := field.match(record, position)):
            if "\n" in found[1]:
                opening = position
            position = found.end()
        if record.startswith('"', position):
            opening = position
        return record.count("\n", 0, opening)


def parted(record: str) -> tuple[str, str]:
    """A record without what ends its last line, and that."""
    body = record.rstrip("\r\n")
    return body, record[len(body) :]


def _split(line: str, delimiter: str) -> list[str]:
    body, _ = parted(line)
    return body.split(delimiter) if body else []


def _said(error: csv.Error) -> str:
    return str(error).partition(" - ")[0]  # what follows is advice to who calls the module


class _Lines:
    """Lines for the parser, which takes as many as a record has; it can be asked which."""

    def __init__(self, text: Text) -> None:
        self._text = iter(text)
        self._taken: list[str] = []
        self.ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._text)
        except StopIteration:
            self.ended = True
            raise
        self._taken.append(line)
        return line

    def take(self) -> str:
        """The text of all lines since the last time."""
        text = "".join(self._taken)
        self._taken.clear()
        return text
