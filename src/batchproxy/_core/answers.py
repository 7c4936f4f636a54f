"""What a map_func answered, matched with its batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from types import NoneType
from typing import Any, Protocol, TypeAlias, TypeVar

from .._errors import AnswerTypeError, AnswerValueError
from .._messages import kind_of, out_of_a_table, short_list
from .outcome import NO_FAILURES, Answers, Failure

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

# Types of results that are neither failures nor to be awaited, as most are.
_PLAIN = frozenset({str, int, float, bool, bytes, list, dict, tuple, NoneType})


class Indexable(Protocol[T_co]):
    """Sized and indexable: lists, tuples, arrays, Series."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


Answer: TypeAlias = Indexable[T | Exception] | Mapping[Any, T | Exception]
"""What a ``map_func`` may answer."""


def accept(
    answer: Any, keys: list[Hashable], items_of: Callable[[list[Hashable]], list[Any]] = list
) -> Answers:
    """The results in `answer`, one per key of the batch, in the order of the batch.

    A mapping is by key if it has all of them, else by item: those that `items_of` gives.

    Raises:
        AnswerTypeError: `answer` is of a kind that cannot be matched with the batch, or one of the
            results is none, and not the failure of a single item either.
        AnswerValueError: it has another length than the batch, or lacks a key of it.
    """
    if type(answer) is list and len(answer) == len(keys):
        results = answer.copy()
    else:
        results = _matched(answer, keys, items_of)
    plain = _PLAIN.issuperset(map(type, results))
    return Answers(results, NO_FAILURES if plain else _failures(keys, results))


def _matched(
    answer: Any, keys: list[Hashable], items_of: Callable[[list[Hashable]], list[Any]]
) -> list[Any]:
    if isinstance(answer, (list, tuple)):
        count, results = len(answer), list(answer)
    elif isinstance(answer, Mapping):
        names: list[Any] = keys
        if missing := [key for key in keys if key not in answer]:
            names = items_of(keys)
            if not _has_all(answer, names):
                raise AnswerValueError(
                    f"map_func answered with a mapping that lacks {len(missing)} of its "
                    f"{len(keys)} keys: {short_list(missing)}; give every key an entry, None where "
                    "there is no result"
                )
        return [answer[name] for name in names]
    elif isinstance(answer, Awaitable):
        if close := getattr(answer, "close", None):
            close()  # it will never be awaited, and Python need not say so
        raise _wrong_kind(answer, "await it in map_func")
    elif isinstance(answer, str | bytes | bytearray | memoryview):
        raise _wrong_kind(answer, "split it into one result per item")
    elif hasattr(type(answer), "columns"):
        raise _wrong_kind(
            answer,
            out_of_a_table("results"),
        )
    elif not hasattr(type(answer), "__len__") or not hasattr(type(answer), "__getitem__"):
        raise _wrong_kind(answer, "return a list with one result per item")
    else:
        try:
            count, results = len(answer), list(answer)
        except TypeError:  # an array of no dimension has the methods, but no length
            raise _wrong_kind(answer, "return a list with one result per item") from None
    if not len(results) == count == len(keys):  # of a subclass they may differ
        number = len(results) if count == len(keys) else count
        raise AnswerValueError(
            f"map_func answered with {number} results to a batch of {len(keys)} items; "
            "return exactly one result per item, in the order of the batch"
        )
    return results


def _failures(keys: list[Hashable], results: list[Any]) -> dict[Hashable, Failure]:
    failed = False
    for kind in set(map(type, results)):
        if hasattr(kind, "__await__"):
            for result in results:
                if isinstance(result, Coroutine):
                    result.close()  # as an answer that is one itself
            raise AnswerTypeError(
                f"map_func answered with a {kind.__qualname__} as the result of an item, which is "
                "still to be awaited; answer with what it gives, as in "
                "`return await asyncio.gather(*results)`"
            )
        if issubclass(kind, BaseException):
            failed = True
            if not issubclass(kind, Exception):
                raise AnswerTypeError(
                    f"map_func answered with a {kind.__qualname__} as the result of an item; raise "
                    "it if it is to end the map(), or answer with an Exception for an item that "
                    "failed"
                )
    if not failed:
        return {}
    return {
        key: Failure.of(result)
        for key, result in zip(keys, results)
        if isinstance(result, Exception)
    }


def _wrong_kind(answer: object, remedy: str) -> AnswerTypeError:
    return AnswerTypeError(
        f"map_func answered with {kind_of(answer)}, expected a list (or another sized and "
        f"indexable sequence) as long as its batch, or a mapping from key to result; {remedy}"
    )


def _has_all(answer: Mapping[Any, Any], items: list[Any]) -> bool:
    try:
        return all(item in answer for item in items)
    except TypeError:  # one is not hashable
        return False
