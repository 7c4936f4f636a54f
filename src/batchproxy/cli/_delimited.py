"""CSV and TSV. Results are put into the text of a record, of which nothing else changes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Self

from click import UsageError

from ._rows import (
    BadInput,
    BadResult,
    Names,
    Outcome,
    Row,
    Writer,
    first_columns,
    make_portable,
    no_column,
    to_text,
)
from ._text import Text, TextOutput, TextReader
from ._words import short, short_list

_END = re.compile(r"[\r\n]*\Z")
_LARGEST_FIELD = 16 * 2**20
"""Characters. What an opening quote without a closing one costs at most."""


_RESULT, _FAILURE = itemgetter(0), itemgetter(1)
_TEXTS = frozenset({str, NoneType})
_MOST_FIELDS = 100_000
"""Fields that are kept as they are written, beside those of one window."""


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
        for used in names:
            if columns.count(used or "") > 1 and used:
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
            yield row

    def _plain_rows(self, bodies: list[str], columns: list[str]) -> Iterator[Row]:
        """Of lines without quotes, as most are."""
        delimiter, place, count = self.dialect.delimiter, self._place, len(columns)
        with_fields, end = self.with_fields, self.text.end
        for number, body in enumerate(bodies, self.text.number + 1 - len(bodies)):
            fields = body.split(delimiter)
            raw = body + end
            if len(fields) == count and body:
                named = dict(zip(columns, fields)) if with_fields else None
                yield Row(number, len(raw), raw, named, fields[place])
            elif body:
                doubt = f"{len(fields)} columns, expected {count}"
                yield Row(number, len(raw), raw, None, None, doubt)

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


class DelimitedWriter(Writer):
    """Records; if the input is of the same format (`header` is its first), with their text."""

    def __init__(
        self,
        out: TextOutput,
        names: Names,
        dialect: Dialect,
        *,
        columns: list[str] | None,
        header: str | None,
    ) -> None:
        self._out = out
        self._names = names
        self._delimiter = dialect.delimiter
        self._quoted_fields = dialect.quoted is not False
        self._columns = columns
        self._header = header
        rest = re.escape(dialect.delimiter)
        # A quoted field, or a plain one, up to its delimiter.
        quotes = '"(?:[^"]|"")*+"|' if self._quoted_fields else ""
        self._field = re.compile(rf"({quotes}[^{rest}]*)(?:{rest}|\Z)", re.DOTALL)
        self._fields: dict[str | None, str] = {}  # how results are written; most come again
        self._begun = False
        self._waiting: list[dict[str, str]] = []
        """Values of rows that came before one that says which columns there are."""
        if header is not None:
            self._columns = columns = columns or []
            added = {
                name: name for name in (names.into, names.error) if name and name not in columns
            }
            self._put(header, added)
        elif columns is not None:
            self._begin()

    def write_all(self, rows: list[Row]) -> bool:
        into, error, columns = self._names.into, self._names.error, self._columns or []
        if self._header is None or {into, error} & {*columns}:
            return False
        outcomes = [row.outcome for row in rows]
        if {*map(_FAILURE, outcomes)} - {None}:
            return False
        results = [*map(_RESULT, outcomes)]
        if not _TEXTS.issuperset(map(type, results)):
            return False
        known = self._fields
        if len(known) > _MOST_FIELDS:
            known.clear()
        rest = self._delimiter if error is not None else ""
        try:
            for result in {*results}.difference(known):
                known[result] = f"{self._delimiter}{self._quoted(to_text(result))}{rest}"
            # In lists as wholes, which takes less time for each row.
            raws = [row.raw for row in rows]
            bodies = [raw.rstrip("\r\n") for raw in raws]
            ends = [raw[len(body) :] for raw, body in zip(raws, bodies)]
            lines = zip(bodies, map(known.__getitem__, results), ends)
            self._out.write("".join(chain.from_iterable(lines)))
        except BadResult:
            return False  # one by one, to see which
        return True

    def prepare(self, rows: list[Row]) -> None:
        if self._header is not None:
            return
        for row in rows:
            make_portable(row)
        if self._columns is None:
            self._columns = first_columns(rows, waiting=bool(self._waiting))
        for row in rows:
            if row.fields is None:
                continue
            if unknown := [name for name in row.fields if name not in (self._columns or ())]:
                row.problem, row.fields = row.problem or no_column(unknown), None
                continue
            try:
                row.fields = {
                    name: to_text(value, f"column {short(name)}")
                    for name, value in row.fields.items()
                }
            except BadResult as error:
                row.problem, row.fields = row.problem or str(error), None

    def write(self, row: Row, outcome: Outcome) -> None:
        values = {self._names.into: to_text(outcome.result)}
        if self._names.error is not None:
            values[self._names.error] = self._error(outcome.error or "")
        if self._header is not None:
            blank = self._delimiter * (len(self._columns or "-") - 1) + "\n"
            self._put(row.raw if row.problem is None else blank, values)
            return
        texts = (row.fields or {}) | values
        if self._columns is None:
            self._waiting.append(texts)
            return
        if not self._begun:
            self._begin()
        self._write(texts)

    def close(self) -> None:
        if self._waiting:
            self._begin()

    def _begin(self) -> None:
        added = [name for name in (self._names.into, self._names.error) if name]
        self._columns = list(dict.fromkeys((self._columns or []) + added))
        self._out.write(self._record(self._columns))
        self._begun = True
        for texts in self._waiting:
            self._write(texts)
        self._waiting.clear()

    def _write(self, texts: Mapping[str, str]) -> None:
        self._out.write(self._record([texts.get(name, "") for name in self._columns or []]))

    def _record(self, texts: list[str]) -> str:
        line = self._delimiter.join(map(self._quoted, texts))
        return (line or '""' * self._quoted_fields) + "\n"

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
        self._out.write((body or '""' * self._quoted_fields) + end[0])

    def _span(self, body: str, place: int) -> tuple[int, int]:
        """Where the field of that number is."""
        position = 0
        while True:
            field = self._field.match(body, position)
            assert field is not None  # the record was read
            if not place:
                return field.span(1)
            place, position = place - 1, field.end()

    def _error(self, text: str) -> str:
        if not self._quoted_fields:
            for mark in (self._delimiter, "\r", "\n"):
                text = text.replace(mark, " ")
        return self._out.sayable(text)

    def _quoted(self, text: str) -> str:
        if self._quoted_fields:
            if any(mark in text for mark in (self._delimiter, '"', "\r", "\n")):
                return '"' + text.replace('"', '""') + '"'
        elif found := next((mark for mark in (self._delimiter, "\r", "\n") if mark in text), None):
            raise BadResult(
                f"the result has {found!r}, for which there is no place without quotes; use "
                "--output-format jsonl"
            )
        return text


def _split(line: str, delimiter: str) -> list[str]:
    body = line.rstrip("\r\n")
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
