"""What one map() asks for: distinct keys in order, the next batch, results put back in order."""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from ._errors import AnswerTypeError, AnswerValueError
from ._keys import unequal
from ._messages import describe, short_list

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

NOTE = "another call of the same map() failed too: "
MOST_NOTES = 10
"""Further failures that an exception names; the others are counted."""


class Failure(NamedTuple):
    """An exception on its way to whoever waits for it, possibly to several callers.

    Every ``raise`` adds frames to the traceback of the one exception object; each caller starts
    again from the traceback that the failing call left.
    """

    error: BaseException
    traceback: TracebackType | None


class StoreFailure(Failure):
    """That of a store: it ends every ``map()`` that it reaches, and is in no list."""

    __slots__ = ()


class Asking:
    """What one ``map()`` knows of a store while it asks there for what it is to compute."""

    __slots__ = ("flight", "held", "lock", "names", "polls", "size", "waited")

    def __init__(self, lock: Any) -> None:
        self.lock = lock  # one call at a time asks for its keys: those it does not get come back
        self.names: dict[Hashable, bytes] = {}  # what keys are called in the store
        self.flight: Flight | None = None  # that of the keys now being asked for
        self.size = 0  # how many are asked for at once, if a batch is not larger
        self.held: list[Hashable] = []  # what other processes are computing now, ...
        self.waited: set[Hashable] = set()  # ... or were when this map() asked for it
        self.polls = 0  # how often in a row nothing came of asking for those again

    def hold(self, keys: list[Hashable]) -> None:
        """Note that other processes are computing `keys`."""
        self.held += keys
        self.waited.update(keys)


class Plan:
    """What one ``map()`` wants and what it knows so far. Belongs to one caller; takes no lock."""

    __slots__ = (
        "_claimed",
        "_computed",
        "_drawn_back",
        "_firsts",
        "_learned",
        "_next",
        "_notes",
        "_todo",
        "asking",
        "awaited",
        "calls",
        "computed",
        "distinct",
        "failed",
        "failure",
        "further",
        "hits",
        "keep_failures",
        "keys",
        "left",
        "over",
        "running",
        "shared",
        "stored",
        "unkept",
    )

    def __init__(
        self, items: list[Any], keys: list[Hashable], *, keep_failures: bool = False
    ) -> None:
        keyed = keys is not items
        distinct = _distinct(keys)
        # Keys of which nothing is kept, neither here nor in a store.
        self.unkept: Collection[Hashable] = ()
        if same := unequal(distinct):
            self.unkept = frozenset(same.values())
            keys = [same.get(key, key) for key in keys]
            distinct = _distinct(keys)
        self.keys = keys  # one per item
        self.distinct = distinct  # in the order of first occurrence
        # The first item of each key; the keys are the items themselves unless key= is given.
        self._firsts = dict(zip(reversed(keys), reversed(items))) if keyed else None
        self.start(self.distinct)
        # The only copies of the answers that deliver() reads, so that no cache can lose or change
        # one: those that this map() computes, beside their keys in the order of the claims ...
        self._claimed: list[Hashable] = []
        self._computed: list[Any] = []
        # ... and those that it gets from the cache and from somebody else's calls.
        self._learned: dict[Hashable, Any] = {}
        # Somebody else's calls under way, with the keys that this map() gets from each.
        self.awaited: dict[Flight, list[Hashable]] = {}
        # Its own calls under way.
        self.running: set[Flight] = set()
        self.keep_failures = keep_failures
        self.failure: Failure | None = None
        self.further = 0  # failing calls after that one
        self._notes: list[str] = []  # of the first of those
        self.over = False  # whether that failure ends this map()
        # Keys known from the cache, from a store, from other calls, from its own; keys that failed.
        self.hits = self.stored = self.shared = self.computed = self.failed = 0
        self.calls = 0  # of its own
        self.asking: Asking | None = None  # where there is a store

    def start(self, missing: list[Hashable]) -> None:
        """Set the keys to be computed, in the order of first occurrence."""
        self.left = len(missing)
        # Those put back by draw_back(), then those of the list from the next one on.
        self._drawn_back: list[Hashable] = []
        self._todo = missing
        self._next = 0

    def draw(self, size: int) -> list[Hashable]:
        """Take some of the next keys: `size` at most, and none only if none are left."""
        if self._drawn_back:
            batch = self._drawn_back[:size]
            del self._drawn_back[:size]
        else:
            batch = self._todo[self._next : self._next + size]
            self._next += len(batch)
        self.left -= len(batch)
        return batch

    def draw_back(self, batch: list[Hashable]) -> None:
        """Put `batch`, just drawn, back to the front."""
        self._drawn_back[:0] = batch
        self.left += len(batch)

    def learn(self, known: Mapping[Hashable, Any], flying: Mapping[Hashable, Flight]) -> None:
        """Note the answers of `known` keys, and who is computing those in flight."""
        self._learned.update(known)
        self.hits += len(known)
        for key, flight in flying.items():
            self.awaited.setdefault(flight, []).append(key)

    def learn_stored(self, found: Mapping[Hashable, Any]) -> None:
        """Note the answers that a store had, some of which other processes were computing."""
        self._learned.update(found)
        assert self.asking is not None
        shared = len(self.asking.waited.intersection(found))
        self.shared += shared
        self.stored += len(found) - shared

    def again(self, keys: Collection[Hashable]) -> None:
        """Have `keys`, and what is left, computed in the order of first occurrence."""
        wanted = set(keys)
        while self.left:
            wanted.update(self.draw(self.left))
        self.start([key for key in self.distinct if key in wanted])

    def claim(self, flight: Flight) -> None:
        """Make room for the results of a call of this ``map()`` itself."""
        self.calls += 1
        flight.place = len(self._claimed)
        self._claimed += flight.keys
        self._computed += [MISSING] * len(flight.keys)

    def items_of(self, batch: list[Hashable]) -> list[Any]:
        """The first item of each key of `batch`, as a list of its own for ``map_func``."""
        firsts = self._firsts
        return batch.copy() if firsts is None else [firsts[key] for key in batch]

    def fail(self, failure: Failure) -> None:
        """Note a failing call of this ``map()``: the first is raised, the others are its notes.

        But an exception that is no `Exception` (an interrupt, say) is not for any list or note, and
        that of a store for no list.
        """
        if self.failure is None or (_ends_all(failure) and not _ends_all(self.failure)):
            self.failure = failure
            self.over = not self.keep_failures or _ends_all(failure)
        elif self.failure.error is not failure.error and not self.keep_failures:
            self.further += 1
            if len(self._notes) < MOST_NOTES:
                self._notes.append(NOTE + describe(failure.error))

    def annotate(self, error: BaseException) -> None:
        """Attach the further failures to `error`, the first, as notes; its own ones stay.

        They replace those of another ``map()``: functions may raise one object again and again.
        """
        if not self.further:
            return
        notes = self._notes
        if self.further > len(notes):
            notes = [*notes, f"{NOTE}... and {self.further - len(notes)} more"]
        with suppress(Exception):  # some refuse attributes
            others = [note for note in getattr(error, "__notes__", ()) if not _is_ours(note)]
            error.__notes__ = others + notes

    def take(self, flight: Flight, results: list[Any]) -> None:
        """Take the results of a call of this ``map()`` itself, exceptions where there is none."""
        self.failed += len(flight.failures)
        self.computed += len(results) - len(flight.failures)
        self._computed[flight.place : flight.place + len(results)] = results

    def take_awaited(self) -> None:
        """Take the outcomes of somebody else's calls that have ended.

        Keys of calls that were given up have no outcome: they are to be computed again.
        """
        lost: set[Hashable] = set()
        ended = [flight for flight in self.awaited if flight.done]
        for flight in ended:  # which may grow, also by one that it has already
            if flight not in self.awaited:
                continue
            values, failures = flight.values(), flight.failures
            onward, moved = flight.moved or (None, ())
            for key in self.awaited.pop(flight):
                if key in values:
                    self._learned[key] = values[key]
                    self.shared += 1
                elif (failure := failures.get(key)) is not None:
                    self._learned[key] = failure.error
                    self.failed += 1
                    if self.failure is None or _ends_all(failure):
                        self.fail(failure)
                elif onward is not None and key in moved:
                    self.awaited.setdefault(onward, []).append(key)
                else:
                    lost.add(key)
            if onward is not None and onward.done and onward in self.awaited:
                ended.append(onward)
        if lost:
            self.again(lost)

    def forget(self) -> None:
        """Let go of every exception, now that this ``map()`` is over.

        Tracebacks have the frames that were inside of it, and those have this plan: a cycle.
        """
        self.failure = self.asking = None
        self._computed, self._learned = [], {}
        self.awaited.clear()

    def deliver(self) -> list[Any]:
        """The answers, one per item, in the order of the items."""
        if self._todo is self.keys and len(self._claimed) == len(self.keys):
            return self._computed  # all computed here, in order, and none asked for twice
        answers = dict(zip(self._claimed, self._computed))
        answers.update(self._learned)
        return list(map(answers.__getitem__, self.keys))


def _distinct(keys: list[Hashable]) -> list[Hashable]:
    distinct = dict.fromkeys(keys)
    return keys if len(distinct) == len(keys) else list(distinct)


def _is_ours(note: object) -> bool:
    return isinstance(note, str) and note.startswith(NOTE)


def _ends_all(failure: Failure) -> bool:
    return isinstance(failure, StoreFailure) or not isinstance(failure.error, Exception)


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


def check_hashable(keys: Sequence[Any], *, has_key: bool) -> None:
    """
    Raises:
        TypeError: one of `keys` cannot be hashed.
    """
    for position, key in enumerate(keys):
        try:
            hash(key)
        except TypeError:
            raise TypeError(
                f"the key= function gave the unhashable {_kind(key)} for item {position}: "
                "let it return something hashable, such as a str or a tuple"
                if has_key
                else f"item {position} is an unhashable {_kind(key)}: give the proxy a key= "
                "function that maps an item to something hashable, e.g. key=lambda item: item['id']"
            ) from None


def check_answer(
    answer: Any,
    keys: list[Hashable],
    items_of: Callable[[list[Hashable]], list[Any]] = list,
) -> list[Any]:
    """The results in `answer`, one per key of the batch, in the order of the batch.

    A mapping is by key if it has all of them, else by item: those that `items_of` gives.

    Raises:
        AnswerTypeError: `answer` is of a kind that cannot be matched with the batch.
        AnswerValueError: it has another length than the batch, or lacks a key of it.
    """
    if isinstance(answer, (list, tuple)):
        count = len(answer)
    elif isinstance(answer, Mapping):
        names: list[Any] = keys
        if missing := [key for key in keys if key not in answer]:
            names = items_of(keys)
            if not _has_all(answer, names):
                raise AnswerValueError(
                    f"map_func answered with a mapping that lacks {short_list(missing)} of its "
                    f"{len(keys)} keys; give every key an entry, None where there is no result"
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
            "a table gives its columns, and not its rows: take the one with the results out of it, "
            "as in list(frame['column'])",
        )
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


def failures_in(keys: list[Hashable], results: list[Any]) -> dict[Hashable, Failure]:
    """The items that failed, by key: the exceptions in `results`.

    Raises:
        AnswerTypeError: one of them is no result, and not the failure of a single item either.
    """
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
        key: Failure(result, result.__traceback__)
        for key, result in zip(keys, results)
        if isinstance(result, Exception)
    }


def _wrong_kind(answer: object, remedy: str) -> AnswerTypeError:
    return AnswerTypeError(
        f"map_func answered with {_kind(answer)}, expected a list (or another sized and indexable "
        f"sequence) as long as its batch, or a mapping from key to result; {remedy}"
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__qualname__!r}"


def _has_all(answer: Mapping[Any, Any], items: list[Any]) -> bool:
    try:
        return all(item in answer for item in items)
    except TypeError:  # one is not hashable
        return False
