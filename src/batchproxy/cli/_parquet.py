"""Parquet, where pyarrow is installed. Columns of the input keep their types and metadata."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO

from click import UsageError

from ._rows import BadInput, BadResult, Names, Outcome, Reader, Row, Writer

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise UsageError("Parquet needs pyarrow: pip install 'batchproxy[parquet]'") from error

_ROWS_AT_A_TIME = 1000


class ParquetReader(Reader):
    """Rows of the batches that the file is read in."""

    def __init__(self, file: BinaryIO, names: Names, name: str) -> None:
        try:
            self._parquet = pq.ParquetFile(file)
        except pa.ArrowException as error:
            raise BadInput(f"{name}: no Parquet: {error}") from error
        self.schema = self._parquet.schema_arrow
        self.columns = columns = self.schema.names
        known = ", ".join(map(repr, columns))
        if names.field is None:
            raise UsageError(f"{name}: --field is missing: which column is mapped? One of {known}")
        if names.field not in columns:
            raise UsageError(f"{name}: no column {names.field!r}; there are {known}")
        self._field = names.field

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for batch in self._parquet.iter_batches(_ROWS_AT_A_TIME):
            size = batch.nbytes // batch.num_rows
            for place, fields in enumerate(batch.to_pylist()):
                number += 1
                yield Row(number, size, (batch, place), fields, fields[self._field])


class ParquetWriter(Writer):
    """A row group for every window of rows. The first says which type the results have.

    Args:
        columns: The schema of the input if it is Parquet too (`same`), or the names of its columns,
            or None if those of its first row count.
    """

    def __init__(self, file: BinaryIO, names: Names, reader: Reader) -> None:
        self._file = file
        self._names = names
        self._schema = reader.schema if isinstance(reader, ParquetReader) else None
        self._columns = reader.columns
        self._rows: list[Row] = []
        self._outcomes: list[Outcome] = []
        self._writer: Any = None

    def write(self, row: Row, outcome: Outcome) -> None:
        fields = row.fields or {}
        if self._columns is None:
            self._columns = list(fields)
        if unknown := [name for name in fields if name not in self._columns]:
            raise BadResult(
                f"no column for {', '.join(map(repr, unknown))}: the first row had none; use "
                "--output-format jsonl"
            )
        self._rows.append(row)
        self._outcomes.append(outcome)

    def flush(self) -> None:
        if self._rows:
            self._write_group()
            self._rows.clear()
            self._outcomes.clear()

    def close(self) -> None:
        if self._writer is None:
            self._write_group()  # of no rows: a file with columns
        self._writer.close()

    def _write_group(self) -> None:
        try:
            table = self._table()
            added: dict[str, list[Any]] = {
                self._names.into: [done.result for done in self._outcomes]
            }
            if self._names.error is not None:
                added[self._names.error] = [done.error for done in self._outcomes]
            for name, values in added.items():
                column = _typed(pa.array(values))
                if name in table.column_names:
                    table = table.set_column(table.column_names.index(name), name, column)
                else:
                    table = table.append_column(name, column)
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, table.schema)
            table = table.cast(self._writer.schema)
        except (pa.ArrowException, TypeError) as error:
            raise BadInput(
                f"rows up to this one do not fit into the columns of Parquet: {error}; use "
                "--output-format jsonl"
            ) from error
        self._writer.write_table(table)

    def _table(self) -> Any:
        if self._schema is not None and self._rows:
            groups = itertools.groupby((row.raw for row in self._rows), lambda raw: id(raw[0]))
            return pa.Table.from_batches(
                [raws[0][0].take([place for _, place in raws]) for raws in map(_second, groups)],
                self._schema,
            )
        if self._schema is not None:
            return self._schema.empty_table()
        columns = {
            name: _typed(pa.array([(row.fields or {}).get(name) for row in self._rows]))
            for name in self._columns or []
        }
        return pa.table(columns)


def _second(group: tuple[int, Iterator[Any]]) -> list[Any]:
    return list(group[1])


def _typed(column: Any) -> Any:
    """`column`, of text if there is nothing in it that says what it is of."""
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column
