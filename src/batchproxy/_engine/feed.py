"""What a stream reads: items with their keys, up to the end of the source or an exception."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Hashable
from itertools import islice
from typing import Any

from .._core.keys import check_hashable, hashable, is_unequal, refuse_tables
from .._core.outcome import Failure
from .._core.weights import checked
from .._core.window import Portion, Window
from .._messages import kind_of

PORTION = 1_000
"""The most items that are read at once where an event loop has to go on."""


class Feed:
    """The source of one stream.

    Args:
        source: Any iterable.
        key: A function from item to key.
        weight: A function from item to weight, if batches are limited by that.
        check: What raises a TypeError for a key that the cache cannot have, if there may be such.
        may_be_async: Whether it may be an asynchronous one, which is preferred if it is both.

    Raises:
        TypeError: it is none.
    """

    def __init__(
        self,
        source: Any,
        key: Callable[[Any], Hashable] | None,
        weight: Callable[[Any], float] | None,
        check: Callable[[Any], None] | None,
        *,
        may_be_async: bool,
    ) -> None:
        self.source = source
        self.is_async = may_be_async and isinstance(source, AsyncIterable)
        self.collected: list[Any] = []  # items of an asynchronous one, not yet added to the window
        self.ended = False
        self.refused = False  # whether that is for what its items are: nothing behind one comes
        self._failure: Failure | None = None  # what ended it
        self._key = key
        self._weight = weight
        self._check = check
        self._count = 0  # of items added
        if not self.is_async:
            refuse_tables("stream", source)
            try:
                self._items = iter(source)
            except TypeError:
                if hasattr(type(source), "__iter__"):  # what it raised says more
                    raise
                raise TypeError(
                    f"stream() takes an iterable of items as its first argument, got "
                    f"{kind_of(source)}; "
                    + (
                        "an asynchronous one is for the stream() of an AsyncBatchingMapProxy"
                        if isinstance(source, AsyncIterable)
                        else "put a single item into a list"
                    )
                ) from None

    def read(self, most: int) -> list[Any]:
        """The next items, `most` at most."""
        items: list[Any] = []
        try:
            items.extend(islice(self._items, most))  # what was read before an exception is kept
        except Exception as error:
            self.end(error)
        else:
            self.ended = len(items) < most
        return items

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes: because of `error`, if that is given."""
        if not self.refused:
            self.ended = True
            self._failure = None if error is None else Failure.of(error)

    def _refuse(self, error: Exception) -> None:
        self.end(error)  # which comes before what the source may have raised since
        self.refused = True

    def add_to(self, window: Window, items: list[Any]) -> Portion:
        """Add `items`, just read; but none from the first on of which something is not to be had.

        That is its key, or its weight.
        """
        keys: list[Hashable] = items
        if self._key is not None:
            keys = []
            try:
                for item in items:
                    keys.append(self._key(item))  # one by one: those before an exception are kept
            except Exception as error:
                self._refuse(error)
                del items[len(keys) :]
        if self._check is not None:
            keys = self._checked(items, keys, self._check)
        if self._weight is not None:
            keys = self._weighed(items, keys, self._weight, window)
        try:
            portion = window.add(items, keys)
        except Exception:
            good = hashable(keys)
            try:
                check_hashable(keys[good:], has_key=self._key is not None, first=self._count + good)
            except Exception as error:
                self._refuse(error)
            keys = keys[:good]
            portion = window.add(items[:good], keys)
        self._count += len(keys)
        return portion

    def _checked(
        self, items: list[Any], keys: list[Hashable], check: Callable[[Any], None]
    ) -> list[Hashable]:
        """The keys before the first that the cache cannot have; `items` has no others then."""
        for place, key in enumerate(keys):
            if type(key) is str or type(key) is int or is_unequal(key):
                continue
            try:
                hash(key)
            except Exception:
                break  # of which `add_to` says more
            try:
                check(key)
            except TypeError as error:
                self._refuse(error)
                del items[place:]
                return keys[:place]
        return keys

    def _weighed(
        self,
        items: list[Any],
        keys: list[Hashable],
        weight: Callable[[Any], float],
        window: Window,
    ) -> list[Hashable]:
        """The keys whose weight is to be had; `items` has no others then."""
        weights, new = window.passing, dict[Hashable, float]()
        assert weights is not None  # it limits batches by weight, too
        for place, key in enumerate(window.named(keys[: hashable(keys)])):
            if key in weights or key in new:
                continue
            try:
                new[key] = checked(items[place], weight(items[place]))
            except Exception as error:
                self._refuse(error)
                keys = keys[:place]
                del items[place:]
                break
        weights.add(new)
        return keys

    def forget(self) -> None:
        """Let go of what ended it: the frame of `read` is in the traceback, a cycle."""
        self._failure = None

    def raise_error(self) -> None:
        """Raise what ended it, if anything did, as the object that it is."""
        if (failure := self._failure) is not None:
            self.forget()
            try:
                raise failure.error.with_traceback(failure.traceback)
            finally:
                failure.restore()
                del failure  # this frame is in the traceback now: a cycle
