"""Cache: results by key, as users see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from ._backing.asked import Question, question
from ._backing.backing import Backing
from ._backing.claims import BackedClaims
from ._backing.codecs import Codec
from ._backing.digests import digests
from ._backing.options import check_bounds, check_store, is_same_store
from ._core.claims import Claims
from ._core.keys import hashable, unequal
from ._core.table import Table
from ._core.values import Bounded, Expiring, Mapped, Unbounded
from ._errors import AnswerTypeError
from ._messages import kind_of, short
from ._recipes import Travels, enlist, is_same
from ._slots import Limit
from ._store import Store

T = TypeVar("T")
D = TypeVar("D")

MOST_ARRIVED = 10_000
"""The most values in the memory of a cache that has arrived without a `max_size`."""


class Cache(Travels, Generic[T]):
    """Results by key, and the calls under way, for one or several proxies.

    Proxies that are given the same `Cache` share results *and* work under way: a key is computed
    once among them, whether they are synchronous or not and whatever event loop or thread they are
    used from. A cache belongs to one question: give each ``map_func`` a cache of its own.

    Calls under way never count towards `max_size`, and nothing that the cache forgets is lost to a
    ``map()`` already waiting for it: a bound costs recomputations, never answers. Values are given
    out as they are, not as copies: everybody who asks for a key gets the same object. Nothing is
    kept for a key that is not equal to itself, such as NaN, or for a tuple with one in it. A cache
    is true, also when it is empty.

    With a `store` the results outlive the process. Memory stays in front: what is missing there is
    looked up in the store, in bulk, and every batch is written before anybody is told of its
    results. Processes that use the same store and namespace at the same time share the work, if
    the store is a `SharedStore`, as those of `batchproxy.stores` are. Values in memory are not
    looked up again: what another process deletes or replaces is not noticed.

    Args:
        max_size: The most values kept in memory, 0 or more; None (the default) for no bound. With 0
            nothing is kept and only work under way is shared. A full cache replaces its oldest
            value that was not used lately. A list larger than the cache, mapped again and again,
            finds as much of itself as there is room for: mapped whole, or page by page if it is not
            larger than four times the cache.
        ttl: Seconds, 0 or more, after which a value is forgotten, counted from the end of the call
            that gave it, on the monotonic clock; None (the default) for never. In a store they are
            counted on its own clock; a value that was read from there is not kept in memory.
        store: Where results are kept beyond this process, or by several caches: a `SQLiteStore`, a
            `RedisStore`, a `PostgresStore`, a `MemoryStore`, or a `Store` of your own.
        namespace: What the results in the store are the results of. It stands for the function, the
            model and the version of the prompt: give it another name when one of these changes.
        codec: How values become bytes; by default bytes, text, JSON and NumPy arrays do, and others
            are refused. See `batchproxy.codecs`.
        on_store_error: ``"raise"`` (the default): a store that fails ends the ``map()`` with a
            `StoreError`; what could not be written is kept, and is written for whoever asks for
            it, and with the next batch for which the store works. ``"continue"``: that is logged,
            and ``map()`` computes without the store, which is left alone for a while: for a pause
            that grows from one second to thirty.

    Raises:
        TypeError: `max_size` is no integer, `ttl` no number, `store` no `Store`, `namespace` no
            text, or `codec` no `Codec`.
        ValueError: `max_size` or `ttl` is negative, `ttl` is NaN, a store has no namespace, or one
            that is too long or cannot be printed, `on_store_error` is neither of the two, the tag
            of `codec` is none, or there is something for a store and none is given.

    Threads: every method may be called from any thread; none is a checkpoint or blocks, except as
    long as another thread is inside one. With a store, `prime`, `invalidate`, `clear` and `close`
    write to it, and block so long: in an event loop, call them in a worker thread.

    Pickling: With a store, as all of these arguments, and without what is in memory. In another
    process that is one cache for each store, namespace and options, however often it arrives, which
    is kept there until it is closed; without a `max_size` it has at most 10,000 values in memory.
    """

    _stays = True

    def __init__(
        self,
        max_size: int | None = None,
        ttl: float | None = None,
        *,
        store: Store | None = None,
        namespace: str | None = None,
        codec: Codec | None = None,
        on_store_error: Literal["raise", "continue"] = "raise",
    ) -> None:
        check_bounds(max_size, ttl)
        check_store(store, namespace, codec, on_store_error)
        values = Unbounded() if max_size is None else Bounded(max_size)
        self._table = Table(values if ttl is None else Expiring(values, ttl))
        self._table_claims = Claims(self._table)
        self._backing: Backing | None = None
        if store is not None and namespace is not None:
            self._backing = Backing(store, namespace, codec, ttl, on_store_error, self._table)
            self._recipe = (max_size, ttl, store, namespace, codec, on_store_error)
            self._limits: dict[int, Limit] = {}
            self._question: Question | None = None
            enlist(self)

    @classmethod
    def _over(cls, mapping: MutableMapping[Any, T]) -> Cache[T]:
        """A cache that keeps its values in the user's `mapping`, and claims of its own."""
        cache = cls.__new__(cls)
        # Only a real dict is known to have no __missing__ and to be readable while others write.
        cache._table = Table(Unbounded(mapping) if type(mapping) is dict else Mapped(mapping))
        cache._table_claims = Claims(cache._table)
        cache._backing = None
        return cache

    @classmethod
    def _make(cls, max_size: int | None, ttl: float | None, store: Store, *options: Any) -> Self:
        namespace, codec, on_store_error = options
        return cls(
            MOST_ARRIVED if max_size is None else max_size,
            ttl,
            store=store,
            namespace=namespace,
            codec=codec,
            on_store_error=on_store_error,
        )

    def _check_travels(self) -> None:
        backing = self._backing
        if backing is None:
            raise TypeError(
                f"{self!r} cannot be pickled or copied: without a store its results are those of "
                "this process. Give it one that others can share, Cache(store=SQLiteStore(path), "
                "namespace=name); or make a cache in each process"
            )
        store = backing.store
        if type(store).identity is Store.identity:
            raise TypeError(
                f"{self!r} cannot be pickled or copied: its store does not say what it has in "
                f"common with one in another process. Give {kind_of(store)} an identity"
            )

    def _is_closed(self) -> bool:
        store = self._recipe[2]
        return self._closing or (isinstance(store, Travels) and store._is_closed())

    def _is_of(self, recipe: tuple[Any, ...]) -> bool:
        max_size, ttl, store, namespace, codec, on_store_error = self._recipe
        return (
            (max_size, ttl, namespace, on_store_error) == (*recipe[:2], recipe[3], recipe[5])
            and is_same_store(store, recipe[2])
            and is_same(codec, recipe[4])
        )

    def _shared_limit(self, total: int) -> Limit:
        """That of all proxies that arrive with this cache and that number."""
        return self._limits.setdefault(total, Limit(total))

    def _ask(self, function: Callable[..., Any]) -> None:
        """Note that `function` is bound to this cache."""
        if self._backing is not None:
            if self._question is None:
                self._question = question(self._backing.store.identity, self._recipe[3])
            self._question.ask(function, self)

    def _claims(self, home: object, loop: object) -> Claims:
        """Those of one ``map()`` in `loop`, whose calls need the event loop `home`."""
        if self._backing is None:
            return self._table_claims
        return BackedClaims(self._table, self._backing, home, loop)

    def _check(self, key: Any) -> None:
        """Refuse what cannot be a key here.

        Raises:
            TypeError: there is a store, which cannot have it.
        """
        if self._backing is not None:
            self._backing.encoding.digests([key], {})

    @overload
    def get(self, key: Any) -> T | None: ...

    @overload
    def get(self, key: Any, default: T | D) -> T | D: ...

    def get(self, key: Any, default: object = None) -> object:
        """Give the result of `key` that is in memory, without a call, a store or a checkpoint.

        It counts as a use, as in a ``map()``: a full cache forgets others first.

        Args:
            key: What ``key=`` gives, where a proxy has one. One that is not equal to itself, such
                as NaN, is never found.
            default: What is given if there is none; `None` may be a result, too.

        Raises:
            TypeError: `key` is not hashable.
        """
        try:
            found = self._table.lookup([key])
        except TypeError:
            _check_hashable("get", [key])
            raise
        return default if found is None or unequal([key]) else found[0]

    def get_many(self, keys: Iterable[Any]) -> dict[Any, T]:
        """Give those results of `keys` that are in memory, as `get`, in one step.

        Args:
            keys: Any iterable of keys; it is read once.

        Returns:
            A new dict from key to result, in the order of `keys`. What is not in memory is not in
            it.

        Raises:
            TypeError: `keys` is a single string or bytes object, or no iterable; or a key is not
                hashable.
        """
        return self._table.known(_listed("get_many", keys)[1])

    def prime(self, mapping: Mapping[Any, T]) -> None:
        """Put results in that are known from elsewhere.

        A primed value is newer than every call that is under way: callers already waiting for such
        a call get its result, but everybody else the primed one.

        Args:
            mapping: Results by key (by what ``key=`` gives, where a proxy has one). Those of keys
                that are not equal to themselves, such as NaN, are not kept.

        Raises:
            TypeError: `mapping` is no mapping, or a key is one that no store can have.
            ValueError: one of its values is an exception; those are never cached.
            AnswerTypeError: a value is still to be awaited, or of a type that no store can have.
            AnswerValueError: a value would not come back equal from the store.
            StoreError: the store failed; it is not known what it has of these keys.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"prime() takes a mapping from key to result, got {short(mapping)}; "
                "dict(zip(keys, results)) makes one"
            )
        for key, value in mapping.items():
            if isinstance(value, BaseException):
                raise ValueError(
                    f"prime() got an exception for {short(key)}: exceptions are not cached"
                )
            if hasattr(type(value), "__await__"):
                raise AnswerTypeError(
                    f"prime() got {kind_of(value)} for {short(key)}, which is still to be awaited: "
                    "give what comes of that"
                )
        unkept = unequal(mapping)
        answers = {key: value for key, value in mapping.items() if key not in unkept}
        prime = partial(self._table.prime, answers)
        if (backing := self._backing) is None:
            prime()
            return
        names: dict[Any, bytes] = {}
        backing.encoding.digests(list(answers), names)
        encoded, refused = backing.encoding.encoded(answers, names)
        if refused:
            try:
                raise next(iter(refused.values())).error
            finally:
                del refused  # this frame is in the traceback now: a cycle
        # First: no call under way may write its own any more.
        forget = partial(self._table.invalidate, answers)
        backing.writers.forget(forget, partial(backing.replace, encoded), prime)

    def invalidate(self, keys: Iterable[Any]) -> None:
        """Forget the results of `keys`, also those that calls under way are about to give.

        When it returns, no later ``map()`` gets a result whose computation began before. Callers
        already waiting for a call under way still get its result.

        Args:
            keys: Any iterable of keys; those that are not cached are no error.

        Raises:
            TypeError: `keys` is a single string or bytes object, or no iterable; or a key is not
                hashable, or one that no store can have. Nothing is forgotten then.
            StoreError: the store failed; it is not known what it still has.
        """
        keys, kept = _listed("invalidate", keys)
        forget = partial(self._table.invalidate, keys)
        if (backing := self._backing) is None:
            forget()
            return
        # Of all that are listed: what is one key in memory may be several in the store.
        names = list(dict.fromkeys(digests(kept)))
        # First: no call under way may write its result any more. And what was read in the meantime.
        backing.writers.forget(forget, partial(backing.delete, names), forget)

    def clear(self) -> None:
        """`invalidate` everything, in a store all that its namespace has.

        Raises:
            StoreError: the store failed; it is not known what it still has.
        """
        forget = self._table.clear
        if (backing := self._backing) is None:
            forget()
        else:  # as `invalidate`
            backing.writers.forget(forget, partial(backing.delete, None), forget)

    def close(self) -> None:
        """Close the store, if there is one; deletes nothing. Closing twice is fine.

        What is being written is waited for, ten seconds at most; results that could not be written
        are written, if that is possible now, else how many were not is logged; and claims of calls
        that were given up are released, for which it waits a second at most. It may be called in an
        `atexit` handler.
        """
        if self._backing is not None:
            self._closing = True
            if isinstance(store := self._backing.store, Travels):
                store._closing = True  # before what is waited for here: so nobody is given it
            self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        """True, also for an empty cache."""
        return True

    def __len__(self) -> int:
        """The number of values in memory; calls under way do not count, nor does the store."""
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        """Whether there is a value for `key` in memory; a call under way is none."""
        return key in self._table

    def __repr__(self) -> str:
        in_flight, waiting = len(self._table.in_flight()), self._table.waiting()
        under_way = f"{in_flight} keys in flight, {waiting} waiting"
        backing = "" if self._backing is None else f", {self._backing!r}"
        return f"<Cache: {len(self)} values, {under_way}{backing}>"


def _listed(method: str, keys: Any) -> tuple[list[Any], list[Any]]:
    """All `keys`, also equal ones, which may differ in type; and those that may have a value."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise TypeError(
            f"{method}() takes an iterable of keys, got {kind_of(keys)}; put a "
            f"single key into a list: {method}([{short(keys)}])"
        )
    keys = list(keys)
    try:
        unkept = unequal(dict.fromkeys(keys))
    except TypeError:
        _check_hashable(method, keys)
        raise
    return keys, [key for key in keys if key not in unkept]


def _check_hashable(method: str, keys: list[Any]) -> None:
    place = hashable(keys)
    if place < len(keys):
        raise TypeError(
            f"{method}() takes keys, got something that is not hashable: {kind_of(keys[place])}; "
            "the key of an item is what key= gives for it"
        ) from None
