"""What one map() asks for: distinct keys in order, the next batch, results put back in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from ._errors import AnswerTypeError, AnswerValueError

if TYPE_CHECKING:
    from ._flights import Flight

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Indexable(Protocol[T_co]):
    """Sized and indexable: lists, tuples, arrays, Series."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


Answer: TypeAlias = Indexable[T | Exception] | Mapping[Any, T | Exception]
"""What a ``map_func`` may answer."""


class Missing(Enum):
    """The mark of a key without an answer; `None` is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Failure(NamedTuple):
    """An exception on its way to whoever waits for it, possibly to several callers.

    Every ``raise`` adds frames to the traceback of the one exception object; each caller starts
    again from the traceback that the failing call left.
    """

    error: BaseException
    traceback: TracebackType | None


class Plan:
    """What one ``map()`` wants and what it knows so far. Belongs to one caller; takes no lock."""

    __slots__ = (
        "_drawn_back",
        "_firsts",
        "_todo",
        "awaited",
        "failure",
        "keep_failures",
        "keys",
        "left",
        "running",
        "shared",
        "values",
    )

    def __init__(
        self, items: list[Any], keys: list[Hashable], *, keep_failures: bool = False
    ) -> None:
        self.keys = keys
        # One entry per distinct key, in the order of first occurrence. The only copy of the
        # answers that deliver() reads, so that no cache can lose or change one.
        self.values: dict[Hashable, Any] = dict.fromkeys(keys, MISSING)
        # The first item of each key; the keys are the items themselves unless key= is given.
        self._firsts = None if keys is items else dict(zip(reversed(keys), reversed(items)))
        # Keys still to be computed: those put back by draw_back(), then the rest of an iterator.
        self._drawn_back: list[Hashable] = []
        self._todo: Iterator[Hashable] = iter(())
        self.left = 0
        # Somebody else's calls under way, with the keys that this map() gets from each.
        self.awaited: dict[Flight, list[Hashable]] = {}
        # Its own calls under way.
        self.running: set[Flight] = set()
        self.keep_failures = keep_failures
        self.failure: Failure | None = None
        self.shared = 0

    def start(self, missing: Iterable[Hashable], count: int) -> None:
        """Set the `count` keys to be computed, in the order of first occurrence."""
        self._todo = iter(missing)
        self._drawn_back = []
        self.left = count

    def draw(self, size: int) -> list[Hashable]:
        """Take the next `size` keys, or as many as there are."""
        batch = self._drawn_back[:size]
        del self._drawn_back[:size]
        batch += islice(self._todo, size - len(batch))
        self.left -= len(batch)
        return batch

    def draw_back(self, batch: list[Hashable]) -> None:
        """Put `batch`, just drawn, back to the front."""
        self._drawn_back[:0] = batch
        self.left += len(batch)

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        """Note the answers of `known` keys, and who is computing those in flight."""
        self.values.update(known)
        for key, flight in flying.items():
            self.awaited.setdefault(flight, []).append(key)

    def items_of(self, batch: list[Hashable]) -> list[Any]:
        """The first item of each key of `batch`, as a list of its own for ``map_func``."""
        firsts = self._firsts
        return batch.copy() if firsts is None else [firsts[key] for key in batch]

    def fail(self, failure: Failure) -> None:
        """Note a failing call of this ``map()``: the first is raised, the others are its notes.

        But an exception that is no `Exception` (an interrupt, say) is not for any list or note.
        """
        if self.failure is None or (
            isinstance(self.failure.error, Exception) and not isinstance(failure.error, Exception)
        ):
            self.failure = failure
        elif self.failure.error is not failure.error and not self.keep_failures:
            with suppress(Exception):  # some refuse attributes; the repr of others raises
                self.failure.error.add_note(
                    f"another call of the same map() failed too: {failure.error!r}"
                )

    @property
    def over(self) -> bool:
        """Whether a failure ends this ``map()``."""
        failure = self.failure
        return failure is not None and (
            not self.keep_failures or not isinstance(failure.error, Exception)
        )

    def take(self, flight: Flight) -> None:
        """Take the outcome of a call of this ``map()`` itself."""
        self.values.update(flight.values)
        if flight.failures:
            for key, failure in flight.failures.items():
                self.values[key] = failure.error
            self.fail(next(iter(flight.failures.values())))

    def take_awaited(self) -> None:
        """Take the outcomes of somebody else's calls that have ended.

        Keys of calls that were given up have no outcome: they are to be computed again.
        """
        if not self.awaited:
            return
        lost: set[Hashable] = set()
        for flight in [flight for flight in self.awaited if flight.done]:
            for key in self.awaited.pop(flight):
                if key in flight.values:
                    self.values[key] = flight.values[key]
                    self.shared += 1
                elif (failure := flight.failures.get(key)) is not None:
                    self.values[key] = failure.error
                    self.failure = self.failure or failure
                else:
                    lost.add(key)
        if lost:
            lost.update(self.draw(self.left))
            self.start([key for key in self.values if key in lost], len(lost))

    def deliver(self) -> list[Any]:
        """The answers, one per item, in the order of the items."""
        values = self.values
        if len(values) == len(self.keys):  # nothing repeats: the dict is in the items' order
            return list(values.values())
        return list(map(values.__getitem__, self.keys))


def listed(items: Iterable[Any]) -> list[Any]:
    """`items` as a list of its own, which no caller can change while its ``map()`` is under way.

    Raises:
        TypeError: `items` cannot be iterated.
    """
    try:
        return list(items)
    except TypeError:
        if isinstance(items, Iterable):  # iterating raised; what it raised says more
            raise
        raise TypeError(
            f"map() takes an iterable of items as its first argument, got {_kind(items)}; "
            "put a single item into a list, and collect an asynchronous iterable first"
        ) from None


def keyed(items: list[Any], key: Callable[[Any], Hashable] | None) -> list[Hashable]:
    """The key of each of `items`."""
    return items if key is None else list(map(key, items))


def unhashable(keys: Sequence[Any], *, has_key: bool) -> TypeError | None:
    """The error for `keys` if one of them cannot be hashed."""
    for position, key in enumerate(keys):
        try:
            hash(key)
        except TypeError:
            return TypeError(
                f"the key= function gave the unhashable {_kind(key)} for item {position}: "
                "let it return something hashable, such as a str or a tuple"
                if has_key
                else f"item {position} is an unhashable {_kind(key)}: give the proxy a key= "
                "function that maps an item to something hashable, e.g. key=lambda item: item['id']"
            )
    return None


def check_answer(answer: Any, keys: list[Hashable]) -> list[Any]:
    """The results in `answer`, one per key of the batch, in the order of the batch.

    Raises:
        AnswerTypeError: `answer` is of a kind that cannot be matched with the batch.
        AnswerValueError: it has another length than the batch, or lacks a key of it.
    """
    if isinstance(answer, list | tuple):
        count = len(answer)
    elif isinstance(answer, Mapping):
        if missing := [key for key in keys if key not in answer]:
            raise AnswerValueError(
                f"map_func answered with a mapping that lacks {_some(missing)} of its "
                f"{len(keys)} keys; give every key an entry, None where there is no result"
            )
        return [answer[key] for key in keys]
    elif isinstance(answer, Awaitable):
        if close := getattr(answer, "close", None):
            close()  # it will never be awaited, and Python need not say so
        raise _wrong_kind(answer, "use AsyncBatchingMapProxy for asynchronous functions")
    elif isinstance(answer, str | bytes | bytearray | memoryview):
        raise _wrong_kind(answer, "split it into one result per item")
    elif not hasattr(type(answer), "__len__") or not hasattr(type(answer), "__getitem__"):
        raise _wrong_kind(answer, "return a list with one result per item")
    else:
        try:
            count, answer = len(answer), list(answer)
        except TypeError:  # an array of no dimension has the methods, but no length
            raise _wrong_kind(answer, "return a list with one result per item") from None
    if not len(answer) == count == len(keys):
        raise AnswerValueError(
            f"map_func answered with {count} results to a batch of {len(keys)} items; "
            "return exactly one result per item, in the order of the batch"
        )
    return list(answer)


def split_failures(
    keys: list[Hashable], results: list[Any]
) -> tuple[dict[Hashable, Any], dict[Hashable, Failure]]:
    """Results by key, and apart from them the items that failed: the exceptions in `results`.

    Raises:
        AnswerTypeError: one of them is no result, and not the failure of a single item either.
    """
    values = dict(zip(keys, results))
    exceptions = [kind for kind in set(map(type, results)) if issubclass(kind, BaseException)]
    if not exceptions:
        return values, {}
    for kind in exceptions:
        if not issubclass(kind, Exception):
            raise AnswerTypeError(
                f"map_func answered with a {kind.__qualname__} as the result of an item; raise it "
                "if it is to end the map(), or answer with an Exception for an item that failed"
            )
    failures = {
        key: Failure(value, value.__traceback__)
        for key, value in values.items()
        if isinstance(value, Exception)
    }
    return {key: value for key, value in values.items() if key not in failures}, failures


def _wrong_kind(answer: object, remedy: str) -> AnswerTypeError:
    return AnswerTypeError(
        f"map_func answered with {_kind(answer)}, expected a list (or another sized and indexable "
        f"sequence) as long as its batch, or a mapping from key to result; {remedy}"
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__qualname__!r}"


def _some(keys: Sequence[Hashable], most: int = 5) -> str:
    named = ", ".join(map(repr, keys[:most]))
    return f"{named} and {len(keys) - most} more" if len(keys) > most else named
