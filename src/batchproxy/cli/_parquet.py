"""Parquet, where pyarrow is installed. Columns that are not mapped are never taken out of Arrow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from zoneinfo import ZoneInfoNotFoundError

from click import UsageError

from .._messages import describe, short, short_list
from ._rows import BadInput, Names, Outcome, Reader, Row, Writer, first_columns, no_column

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise UsageError("Parquet needs pyarrow: pip install 'batchproxy[parquet]'") from error

_ROWS_AT_A_TIME = 1000
_MOST_HELD = 64 * 2**20
"""Bytes of rows that wait for a value that says which type a column has."""

_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


class ParquetReader(Reader):
    """Rows of the batches that the file is read in."""

    def __init__(self, file: BinaryIO, names: Names, name: str) -> None:
        self.name = name
        try:
            self._parquet = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{name}: no Parquet: {describe(error)}") from error
        self.schema = self._parquet.schema_arrow
        self.columns = columns = self.schema.names
        self.with_fields = False
        """Whether rows have what is in the other columns, as Python values."""
        known = short_list(columns, 20)
        if names.field is None:
            raise UsageError(f"{name}: --field is missing: which column is mapped? One of {known}")
        path = _path(self.schema, names.field)
        if path is None:
            raise UsageError(f"{name}: no column {short(names.field)}; there are {known}")
        self._column, self._inside = path
        for used in (self._column, *names.written):
            if columns.count(used) > 1:
                raise UsageError(f"{name}: there are several columns {short(used)}")

    def __iter__(self) -> Iterator[Row]:
        number = 0
        batches = self._parquet.iter_batches(_ROWS_AT_A_TIME)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise BadInput(
                    f"{self.name} cannot be read any further: {describe(error)}"
                ) from error
            if batch is None:
                return
            rows = [
                Row(number, batch.nbytes // batch.num_rows, (batch, place))
                for place, number in enumerate(range(number + 1, number + 1 + batch.num_rows))
            ]
            number += batch.num_rows
            if self.with_fields:
                for row in rows:
                    row.fields = {}
                for name, column in zip(batch.schema.names, batch.columns):
                    for row, value in zip(rows, _values(column, name, rows)):
                        row.fields[name] = value  # type: ignore[index] # as said above
            mapped = batch.column(batch.schema.names.index(self._column))
            if self._inside:
                mapped = pc.struct_field(mapped, self._inside)
            for row, row.item in zip(rows, _values(mapped, self._column, rows)):
                if row.problem is not None:
                    row.fields = None
            yield from rows


def _path(schema: Any, field: str) -> tuple[str, list[str]] | None:
    """The column that `field` is in, and the way in it: the longest name that fits goes first."""
    if field in schema.names:
        return field, []
    stop = len(field)
    while (stop := field.rfind(".", 0, stop)) > 0:
        name, rest = field[:stop], field[stop + 1 :]
        if name in schema.names:
            inner = schema.field(schema.names.index(name)).type
            if pa.types.is_struct(inner) and (path := _path(pa.schema(list(inner)), rest)):
                return name, [path[0], *path[1]]
    return None


def _values(column: Any, name: str, rows: list[Row]) -> list[Any]:
    """The values of a column as Python has them. A row whose value it has not has a problem."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (*_ERRORS, LookupError):  # of a time zone
        pass
    values = []
    for row, value in zip(rows, column):
        try:
            values.append(value.as_py())
        except (*_ERRORS, LookupError) as error:
            values.append(None)
            # What Arrow says of a time zone is advice to install another library; up to its version
            # 24 it is what `zoneinfo` says.
            zone = isinstance(error, ZoneInfoNotFoundError) or "pytz" in str(error)
            reason = "its time zone is not known here" if zone else describe(error)
            row.problem = (
                f"column {short(name)}, of type {column.type}, has a value that Python has not: "
                f"{reason}; leave the column out, or write Parquet"
            )
    return values


class ParquetWriter(Writer):
    """A row group for every window of rows. The first value that has one says a column's type."""

    def __init__(self, file: BinaryIO, names: Names, reader: Reader) -> None:
        self._file = file
        self._names = names
        self._schema = reader.schema if isinstance(reader, ParquetReader) else None
        self._source = reader.name
        self._columns = reader.columns
        self._types: dict[str, Any] = {}
        self._rows: list[Row] = []
        self._outcomes: list[Outcome] = []
        self._held: list[tuple[Any, dict[str, Any]]] = []
        self._writer: Any = None

    def prepare(self, rows: list[Row]) -> None:
        if self._schema is not None:
            return
        if self._columns is None:
            self._columns = first_columns(rows, waiting=bool(self._rows))
        for row in rows:
            if row.fields is None:
                continue
            if unknown := [name for name in row.fields if name not in (self._columns or ())]:
                row.problem, row.fields = row.problem or no_column(unknown), None
        for name in self._columns or []:
            if name not in self._names.written:
                self._array(name, [(row.fields or {}).get(name) for row in rows], rows)

    def write(self, row: Row, outcome: Outcome) -> None:
        self._rows.append(row)
        self._outcomes.append(outcome)

    def flush(self) -> None:
        if not self._rows or self._columns is None:
            return  # rows without columns wait for the first that has some
        self._hold()
        known = all(name in self._types for _, arrays in self._held for name in arrays)
        if known or sum(table.nbytes for table, _ in self._held) > _MOST_HELD:
            self._write_groups()

    def close(self) -> None:
        if self._rows or (self._writer is None and not self._held):
            self._hold()  # no rows: a file with columns
        self._write_groups()
        with _parquet_errors():
            self._writer.close()

    def release(self) -> None:
        if self._writer is not None:
            # Whoever wrote knows; what is there is no whole file.
            with suppress(OSError, pa.ArrowException):
                self._writer.close()

    def _hold(self) -> None:
        """Put what was written into columns, of which some may not know their type yet."""
        values: dict[str, list[Any]] = {}
        if self._schema is not None:
            table = pa.Table.from_batches(_slices(self._rows), self._schema)
        else:
            table = pa.table({"": pa.nulls(len(self._rows))}).select([])
            for name in self._columns or []:
                values[name] = [(row.fields or {}).get(name) for row in self._rows]
        values[self._names.into] = [_of_lists(done.result) for done in self._outcomes]
        if self._names.error is not None:
            values[self._names.error] = [done.error for done in self._outcomes]
        arrays = {name: self._array(name, values[name], self._rows) for name in values}
        self._held.append((table, arrays))
        self._rows.clear()
        self._outcomes.clear()

    def _array(self, name: str, values: list[Any], rows: list[Row]) -> Any:
        """A column of these values, which `rows` have, of the type that the values before had."""
        known = self._types.get(name)
        try:
            column = _column(values, known)
        except _ERRORS as error:
            count = bisect_left(
                range(len(values)), True, key=lambda count: _fails(values[:count], known)
            )
            before = _column(values[: count - 1], None).type if known is None else known
            what = f"is not of type {before}, as those of the rows before are"
            if pa.types.is_null(before):
                what = "has no place in Parquet"
            raise BadInput(
                f"{self._source}:{rows[count - 1].line}: column {short(name)}: "
                f"{short(values[count - 1])} {what}: {describe(error)}; use --output-format jsonl"
            ) from error
        if not _is_open(column.type):
            self._types[name] = column.type
        return column

    def _write_groups(self) -> None:
        with _parquet_errors():
            for name in self._held[0][1] if self._held else ():
                if name not in self._types:
                    values = [
                        value for _, arrays in self._held for value in arrays[name].to_pylist()
                    ]
                    self._types[name] = _closed(pa.array(values).type)
            for table, arrays in self._held:
                self._write_group(table, arrays)
        self._held.clear()

    def _write_group(self, table: Any, arrays: dict[str, Any]) -> None:
        for name, column in arrays.items():
            final = self._types[name]
            if lost := _lost(column.type, final):
                raise TypeError(f"column {short(name)}: there is no {short(lost)} later")
            if column.type != final:  # not `cast`, which makes no list of one that has nulls only
                column = pa.array(column.to_pylist(), final)
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, column)
            else:
                table = table.append_column(name, column)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)


@contextmanager
def _parquet_errors() -> Iterator[None]:
    """Inside, what Parquet has no place for ends the command."""
    try:
        yield
    except _ERRORS as error:
        raise BadInput(
            f"this cannot be written as Parquet: {describe(error)}; use --output-format jsonl"
        ) from error


def _column(values: list[Any], known: Any) -> Any:
    """A column of these values; of the type `known`, if there is one.

    Raises:
        Exception: one of `_ERRORS`; they do not fit.
    """
    column = pa.array(values)
    if _has_empty(column.type):  # for which Parquet has no type
        column = pa.array(list(map(_without_empty, values)))
    if known is not None and column.type != known:
        if lost := _lost(column.type, known):
            raise TypeError(f"there was no {short(lost)} before")
        column.cast(known)  # which refuses 2.5 as a whole number, and the next 2 as text
        column = pa.array(values, known)
    return column


def _fails(values: list[Any], known: Any) -> bool:
    try:
        _column(values, known)
    except _ERRORS:
        return True
    return False


def _slices(rows: list[Row]) -> list[Any]:
    """The rows as they were read: a slice for each run of neighbours, which any type can be."""
    slices: list[Any] = []
    start = 0
    for end in range(1, len(rows) + 1):
        batch, place = rows[end - 1].raw
        if end < len(rows) and rows[end].raw[0] is batch and rows[end].raw[1] == place + 1:
            continue
        slices.append(batch.slice(rows[start].raw[1], end - start))
        start = end
    return slices


def _of_lists(result: Any) -> Any:
    """Arrow takes arrays of one dimension only."""
    return result.tolist() if getattr(result, "ndim", 0) > 1 else result


def _is_open(found: Any) -> bool:
    """Whether there was no value yet that says what is in a list, a struct or the column."""
    return pa.types.is_null(found) or any(
        _is_open(found.field(place).type) for place in range(found.num_fields)
    )


def _has_empty(found: Any) -> bool:
    """Whether there is a struct without members in it."""
    parts = [found.field(place).type for place in range(found.num_fields)]
    return (pa.types.is_struct(found) and not parts) or any(map(_has_empty, parts))


def _without_empty(value: Any) -> Any:
    """`value` with null for what has no members."""
    if isinstance(value, dict):
        return {name: _without_empty(part) for name, part in value.items()} or None
    if isinstance(value, list):
        return list(map(_without_empty, value))
    return value


def _closed(found: Any) -> Any:
    """Text, where nothing ever said what it is."""
    return pa.string() if pa.types.is_null(found) else found


def _lost(found: Any, known: Any) -> str | None:
    """A member of a struct that there is no place for: Arrow would leave it out in silence."""
    if pa.types.is_struct(found) and pa.types.is_struct(known):
        names = {field.name for field in known}
        for field in found:
            if field.name not in names:
                return field.name  # type: ignore[no-any-return] # text
            if lost := _lost(field.type, known.field(field.name).type):
                return lost
    if pa.types.is_list(found) and pa.types.is_list(known):
        return _lost(found.value_type, known.value_type)
    return None
