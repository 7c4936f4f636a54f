"""Results as an Arrow array: of the type that was asked for, and with nothing lost in silence."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from .. import AnswerTypeError
from .._messages import describe, short, typed

TOO_LONG = (
    "texts, bytes and lists of more than 2 GiB in one chunk, or in all distinct results, need a "
    "type= of large ones, such as pyarrow.large_string(); a pyarrow.dictionary() has each once"
)
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
    stacked = _stacked(results)
    if stacked is not None and (kind is None or _family(kind) == _family(stacked.type)):
        return stacked if kind is None else stacked.cast(kind)  # which refuses 2.5 as 2
    column = pa.array(results, kind)
    if isinstance(column, pa.ChunkedArray):
        raise ValueError(TOO_LONG)
    if _may_lose(column.type):
        for result, back in zip(results, column.to_pylist()):
            if not _is_kept(result, back):
                raise ValueError(f"it would become {short(back)}")
    return column


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
    if len({(vector.shape, vector.dtype) for vector in vectors}) != 1 or not vectors[0].size:
        return None
    column = pa.array(numpy.stack(vectors).ravel())
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
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if types.is_integer(kind) or types.is_floating(kind):
        return "numbers"
    zone = getattr(kind, "tz", None)  # NumPy has none
    return type(kind) if types.is_temporal(kind) and zone is None else kind


def _may_lose(kind: Any) -> bool:
    """Whether Arrow may cut values off for this type: 2.5 to 2, times to dates, members of dicts.

    (A double that becomes a float is less precise, and that is what was asked for.)
    """
    parts = (kind.field(place).type for place in range(kind.num_fields))
    return (
        pa.types.is_integer(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_struct(kind)
        or any(map(_may_lose, parts))
    )


def _is_kept(value: Any, back: Any) -> bool:
    """Whether all of `value` is in what Arrow has made of it."""
    if back is None:  # which stands for None, NaT and the like, and for nothing else
        return True
    if isinstance(back, dict):
        if not isinstance(value, Mapping):  # members in their order
            return all(map(_is_kept, value, back.values()))
        return all(name in back and _is_kept(part, back[name]) for name, part in value.items())
    if isinstance(back, (list, tuple)):
        parts = value.items() if isinstance(value, Mapping) else value
        return all(map(_is_kept, parts, back))
    return isinstance(back, (float, str, bytes)) or bool(value == back)
