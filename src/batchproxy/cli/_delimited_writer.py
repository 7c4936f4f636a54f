"""CSV and TSV, as they are written: results are put into records of which nothing else changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from .._messages import short
from ._delimited import Dialect, parted
from ._rows import (
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
from ._text import TextOutput


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
        # Whether a result that is no failure is just what stands behind a record as it was read.
        self._behind = header is not None and {*names.written}.isdisjoint(columns or ())
        self._begun = False
        self._waiting: list[dict[str, str]] = []
        """Values of rows that came before one that says which columns there are."""
        if header is not None:
            self._columns = columns = columns or []
            added = [name for name in names.written if name not in columns]
            self._put(*parted(header), dict(zip(added, added)))
        elif columns is not None:
            self._begin()

    def rendered(self, result: Any) -> str:
        text = to_text(result)
        if not self._behind:
            return text
        no_error = self._delimiter if self._names.error is not None else ""
        return f"{self._delimiter}{self._quoted(text)}{no_error}"

    def write_all(self, rows: list[Row], results: list[Any]) -> bool:
        if not self._behind:
            return False
        # In lists as wholes, which takes less time for each row.
        lines = zip([row.raw for row in rows], results, [row.end for row in rows])
        try:
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
        if self._behind and outcome.error is None:
            self._out.write(row.raw + outcome.result + row.end)
            return
        values = {self._names.into: outcome.result or ""}
        if self._names.error is not None:
            values[self._names.error] = self._error(outcome.error or "")
        if self._header is not None:
            body, end = self._delimiter * (len(self._columns or "-") - 1), "\n"
            if row.problem is None:
                body, end = row.raw, row.end
            self._put(body, end, values)
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
        self._columns = list(dict.fromkeys([*(self._columns or []), *self._names.written]))
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

    def _put(self, body: str, end: str, values: Mapping[str, str]) -> None:
        columns = self._columns or []
        for name, text in values.items():
            if name in columns:
                start, stop = self._span(body, columns.index(name))
                body = body[:start] + self._quoted(text) + body[stop:]
            else:
                body += self._delimiter + self._quoted(text)
        self._out.write((body or '""' * self._quoted_fields) + end)

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
            if '"' in text or self._delimiter in text or "\r" in text or "\n" in text:
                return '"' + text.replace('"', '""') + '"'
        elif found := next((mark for mark in (self._delimiter, "\r", "\n") if mark in text), None):
            what = "the delimiter" if found == self._delimiter else "the end of a line"
            raise BadResult(  # in words: it may be recorded beside what it has no place for
                f"a text with {what} in it has no place without quotes; use --output-format jsonl"
            )
        return text
