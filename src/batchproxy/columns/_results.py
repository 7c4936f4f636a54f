"""Results as an Arrow array: of the type that was asked for, and with nothing lost in silence."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .. import AnswerTypeError
from .._messages import describe, short, typed

TOO_LONG = (
    "texts, bytes and lists of more than 2 GiB in one chunk, or in all distinct results, need a "
    "type= of large ones, such as pyarrow.large_string(); a pyarrow.dictionary() has each once"
)
_WHOLE = {
    **dict.fromkeys([pa.string(), pa.large_string(), pa.string_view()], str),
    **dict.fromkeys([pa.float64(), pa.float32(), pa.float16()], float),
    **dict.fromkeys([pa.int64(), pa.int32(), pa.int16(), pa.int8()], int),
    **dict.fromkeys([pa.uint64(), pa.uint32(), pa.uint16(), pa.uint8()], int),
    pa.bool_(): bool,
    pa.binary(): bytes,
}
"""Of which type of Python each value that Arrow takes is kept, so that none need be looked at.

(But that a double may become infinite.)
"""

_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def column_of_results(results: list[Any], items: list[Any], kind: Any) -> Any:
    """`results` as an array of the type `kind`, or of the one that they have in common.

    Raises:
        AnswerTypeError: One of them does not fit.
    """
    try:
        return _array(results, kind)
    except _ERRORS as error:
        found = kind
        for item, result in zip(items, results):
            found = _fitting(item, result, found)
        if kind is not None:
            raise AnswerTypeError(
                f"the results fit into {kind}, but not all of them: {describe(error)}. Say another "
                "type="
            ) from error
        raise AnswerTypeError(
            f"the results are of no one type that Arrow has: {describe(error)}. Say type=, or let "
            "the function answer with values of one type"
        ) from error


def column_with_errors(results: list[Any], items: list[Any], kind: Any) -> Any:
    """The same as a struct of ``value`` and ``error``: an exception, or what does not fit, is text.

    Raises:
        AnswerTypeError: `kind` is None, and there is no type that all have in common.
    """
    failed = [isinstance(result, Exception) for result in results]
    errors = [describe(result) if fails else None for result, fails in zip(results, failed)]
    values = [None if fails else result for result, fails in zip(results, failed)]
    try:
        column = _array(values, kind)
    except _ERRORS:
        for place, value in enumerate(values if kind is not None else ()):
            try:
                _fitting(items[place], value, kind)
            except AnswerTypeError as misfit:
                values[place], errors[place] = None, f"AnswerTypeError: {misfit}"
        column = column_of_results(values, items, kind)
    return pa.StructArray.from_arrays([column, pa.array(errors, pa.string())], ["value", "error"])


def _fitting(item: Any, result: Any, kind: Any) -> Any:
    """The type `kind`, or if that is None the one of `result`, if that has any.

    Raises:
        AnswerTypeError: `result` is not of that type.
    """
    try:
        found = _array([result], kind)
    except _ERRORS as error:
        column = "no column" if kind is None else f"no column of {kind}"
        raise AnswerTypeError(
            f"the result of {short(item)} is {typed(result)}, which {column} can have: "
            f"{describe(error)}. The results are kept, and can be mapped with another type="
        ) from error
    return kind if result is None else found.type


def _array(results: list[Any], kind: Any) -> Any:
    if kind is not None and pa.types.is_dictionary(kind):
        return _array(results, kind.value_type).dictionary_encode().cast(kind)
    if isinstance(kind, pa.BaseExtensionType):
        stored = _array(*_stored(results, kind))
        return pa.ExtensionArray.from_storage(kind, stored.cast(kind.storage_type))
    stacked = _stacked(results)
    if stacked is not None and (kind is None or _family(kind) == _family(stacked.type)):
        column = stacked if kind is None else stacked.cast(kind)  # which refuses 2.5 as 2
        kept = _infinities(column) == _infinities(stacked)
    else:
        column = pa.array(results, kind)
        if isinstance(column, pa.ChunkedArray):
            raise ValueError(TOO_LONG)
        kept = _are_kept(results, column)
    if not kept:
        raise ValueError(f"it would become {short(column[0].as_py())}")
    return column


def _stored(results: list[Any], kind: Any) -> tuple[list[Any], Any]:
    """What values of an extension type are made of, and the type of that."""
    if isinstance(kind, pa.Bool8Type):
        return results, pa.bool_()
    if isinstance(kind, pa.FixedShapeTensorType):  # its storage is flat
        results = [result.ravel() if hasattr(result, "ravel") else result for result in results]
    return results, kind.storage_type


def _stacked(results: list[Any]) -> Any:
    """NumPy arrays of one shape as fixed-size lists, and never as lists of Python numbers.

    So are NumPy's moments and durations, since Python has not all of these.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    kinds = numpy.ndarray, numpy.datetime64, numpy.timedelta64
    vectors = [result for result in results if result is not None]
    if not all(isinstance(vector, kinds) for vector in vectors):
        return None
    masked = any(isinstance(vector, numpy.ma.MaskedArray) for vector in vectors)
    forms = {(vector.shape, vector.dtype) for vector in vectors}
    if masked and len(forms) > 1:
        raise ValueError("masked arrays have to be of one shape and dtype")
    if len(forms) != 1 or not vectors[0].size:
        return None
    column = pa.array((numpy.ma if masked else numpy).stack(vectors).ravel())
    for size in reversed(vectors[0].shape):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    if len(vectors) < len(results):
        places = iter(range(len(vectors)))
        rows = [None if result is None else next(places) for result in results]
        column = column.take(pa.array(rows, pa.int64()))
    return column


def _family(kind: Any) -> object:
    """What is alike for types, in lists or not, of which Arrow makes the one out of the other."""
    types = pa.types
    while _is_list(kind):
        kind = kind.value_type
    if types.is_integer(kind) or types.is_floating(kind):
        return "numbers"
    zone = getattr(kind, "tz", None)  # NumPy has none
    return type(kind) if types.is_temporal(kind) and zone is None else kind


def _is_list(kind: Any) -> bool:
    types = pa.types
    return any((types.is_list(kind), types.is_large_list(kind), types.is_fixed_size_list(kind)))


def _infinities(column: Any) -> int:
    """How many infinite numbers there are, in lists or not."""
    while _is_list(column.type):
        column = column.flatten()
    if not pa.types.is_floating(column.type):
        return 0
    count: int = pc.is_inf(column).true_count
    return count


def _are_kept(values: Sequence[Any], column: Any) -> bool:
    """Whether all of each value is in what Arrow has made of it.

    Arrow may cut off (2.5 to 2, times to dates, members of dicts), make lists of texts, texts of
    bytes, and numbers of truths. (A double that becomes a float is less precise, and that is what
    was asked for.)
    """
    kind, types = column.type, pa.types
    if {*map(type, values)} <= {_WHOLE.get(kind), type(None)} and not _infinities(column):
        return True
    if types.is_struct(kind):
        names = [field.name for field in kind]
        rows = [_members({} if value is None else value, names) for value in values]
        return None not in rows and all(map(_are_kept, zip(*rows), column.flatten()))
    there = [value for value in values if value is not None]
    if types.is_map(kind):
        pairs = [value.items() if isinstance(value, Mapping) else value for value in there]
        parts = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
        return _are_kept([*chain(*pairs)], parts)
    if _is_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        texts = any(isinstance(value, (str, bytes, bytearray)) for value in there)
        return not texts and _are_kept([*chain(*there)], column.flatten())
    return all(map(_is_kept, values, column.to_pylist()))


def _members(value: Any, names: list[str]) -> tuple[Any, ...] | None:
    """Those of a struct, in its order; None if `value` has others."""
    if isinstance(value, Mapping) and value.keys() <= {*names}:
        return tuple(map(value.get, names))
    return value if isinstance(value, tuple) else None


def _is_kept(value: Any, back: Any) -> bool:
    if back is None:  # which stands for None, NaT and the like, and for nothing else
        return True
    if isinstance(back, (str, bytes)):
        return isinstance(value, str) == isinstance(back, str)
    itself = value == value
    if (type(itself) is type(value)) != isinstance(back, bool):  # of Python's truths, and NumPy's
        return False
    return bool(value == back or (isinstance(back, float) and not math.isinf(back)))
