"""What of a column is sent: its distinct values as Python has them, and which row has which."""

from __future__ import annotations

import sys
from array import array
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .._messages import describe, kind_of

_NEVER_NULL = frozenset({str, int, bool, bytes, dict, list, date, datetime})
"""Types of which no value is, so that values need not be looked at one by one."""

Column = Any
"""A `pyarrow.Array`, a `pyarrow.ChunkedArray`, or a list of Python values."""


def column_of(values: Any) -> Column:
    """`values` as Arrow has it; a list is left as it is.

    Raises:
        TypeError: It is no column.
    """
    if isinstance(values, (pa.Array, pa.ChunkedArray, list)):
        return values
    frame: Any = getattr(sys.modules.get("pandas"), "DataFrame", ())
    if isinstance(values, frame):
        values = values.reset_index(drop=True)  # else it is members of the rows
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    if hasattr(values, "__arrow_c_array__"):
        return pa.array(values)
    raise TypeError(
        "map_column() takes an Arrow array, chunked or not, what has __arrow_c_array__ or "
        f"__arrow_c_stream__, or a list, got {kind_of(values)}: write pyarrow.array(values)"
    )


def distinct(column: Column) -> tuple[list[Any], Any]:
    """The distinct values that are not null, in the order of first occurrence; and whose row it is.

    The latter is an array of the places of values in the former, null where there is none.

    Raises:
        ValueError: Python has no such value.
    """
    known, codes = _encoded(column)
    used = codes.unique().drop_null()
    if not used.equals(_numbers(len(known))):  # in their order, and without what no row has
        known = _taken(known, used)
        codes = pc.index_in(codes, used)
    values = known if isinstance(known, list) else _as_python(known)
    if _NEVER_NULL.issuperset(map(type, values)):
        return values, codes
    sent, places = list[Any](), list[int | None]()
    for value in values:
        if _is_null(value):
            places.append(None)
        else:
            places.append(len(sent))
            sent.append(value)
    return sent, pa.array(places, pa.int32()).take(codes)


def _encoded(column: Column) -> tuple[Any, Any]:
    """All values that there may be, an array or a list; and the place of each row's among them.

    Some of them may be null, used by no row, or the same as others.
    """
    if isinstance(column, list):
        return column, _numbers(len(column))
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_dictionary(column.type):
        dictionaries = [chunk.dictionary for chunk in chunks]
        known, places = _encoded(pa.chunked_array(dictionaries, column.type.value_type))
        parts, start = [], 0
        for chunk, dictionary in zip(chunks, dictionaries):
            parts.append(places.slice(start, len(dictionary)).take(chunk.indices))
            start += len(dictionary)
        return known, _joined(parts)
    if pa.types.is_run_end_encoded(column.type):
        return _encoded(pc.run_end_decode(column))
    try:
        encoded = pa.chunked_array(chunks, column.type).dictionary_encode().chunks
    except (pa.ArrowNotImplementedError, pa.ArrowCapacityError):
        # Structs, lists, and others that Arrow cannot compare; or more than 2 GiB of texts.
        return _encoded(_as_python(column))
    known = encoded[0].dictionary if encoded else pa.array([], column.type)
    return known, _joined([chunk.indices for chunk in encoded])


def _taken(known: Any, places: Any) -> Any:
    if isinstance(known, list):
        return [known[place] for place in places.to_pylist()]
    return known.take(places)


def _numbers(count: int) -> Any:
    """0, 1, 2, ...."""
    return pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(array("i", range(count)))])


def _joined(codes: list[Any]) -> Any:
    return pa.chunked_array(codes, pa.int32()).combine_chunks()


def _as_python(column: Any) -> list[Any]:
    """
    Raises:
        ValueError: Python has no such value.
    """
    kind = column.type
    try:
        if (exact := _in_microseconds(kind)) != kind:
            column = _cast(column, exact)
        values: list[Any] = column.to_pylist()
        return values
    except (pa.ArrowException, TypeError, ValueError, OverflowError, LookupError) as error:
        raise ValueError(
            f"a column of {kind} has a value that Python has not: {describe(error)}. "
            "Cast the column first (what is smaller than a microsecond goes with safe=False)"
        ) from error


def _cast(column: Any, exact: Any) -> Any:
    """`column` as of the type `exact`.

    Raises:
        ArrowInvalid: That has not all of its values.
    """
    try:
        return column.cast(exact)
    except pa.ArrowInvalid:  # also of what is under a null, or beside a slice
        cut = column.cast(exact, safe=False)
        if cut.cast(column.type).equals(column):
            return cut
        raise


def _in_microseconds(kind: Any) -> Any:
    """`kind`, in the unit that Python's own types have.

    (Of nanoseconds Arrow would make a `pandas.Timestamp`, if pandas is installed, or cut them off.)

    Raises:
        TypeError: There is no such cast.
    """
    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_dictionary(kind):
        return _in_microseconds(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        parts = [pa.field("storage", kind.storage_type)]
    else:
        parts = [kind.field(place) for place in range(kind.num_fields)]
    exact = [part.with_type(_in_microseconds(part.type)) for part in parts]
    if exact == parts:
        return kind
    if types.is_struct(kind):
        return pa.struct(exact)
    if types.is_map(kind):
        return pa.map_(*exact[0].type)
    if types.is_fixed_size_list(kind):
        return pa.list_(exact[0], kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(exact[0])
    if types.is_list(kind):
        return pa.list_(exact[0])
    # Arrow casts no unions and runs, and spoils views of lists; an extension says what it means.
    raise TypeError(f"what is in {kind} cannot be cast from nanoseconds")


def _is_null(value: Any) -> bool:
    """Whether it is None, NaN, or what pandas has for them."""
    if value is None or value is getattr(sys.modules.get("pandas"), "NA", None):
        return True
    if hasattr(value, "__len__"):  # a collection is there, whatever is in it
        return False
    try:
        return bool(value != value)
    except Exception:  # it cannot be compared
        return False
