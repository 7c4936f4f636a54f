"""The table of a cache: what is known and what is in flight, changed under one lock."""

from collections.abc import Callable
from typing import Any

from tools import is_held

from batchproxy import BatchingMapProxy
from batchproxy._core.flights import Flight
from batchproxy._core.table import Table
from batchproxy._core.values import Mapped


class Watched(dict[Any, Any]):
    """A mapping that notes by which of its methods it was used while `watch()` was false."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Callable[[], bool] = bool
        self.used: set[str] = set()
        self.unguarded: set[str] = set()


def _watched(name: str) -> Any:
    def method(self: Watched, *args: Any) -> Any:
        self.used.add(name)
        if not self.watch():
            self.unguarded.add(name)
        return getattr(dict, name)(self, *args)

    return method


for _name in ("get", "__setitem__", "pop", "clear", "__len__", "__contains__"):
    setattr(Watched, _name, _watched(_name))


def test_a_mapping_is_used_under_the_lock_only() -> None:
    """Every access to the user's mapping is made with the lock of its cache held."""
    mapping = Watched()
    proxy = BatchingMapProxy[int, str](2, cache=mapping)
    cache = proxy._engine.cache
    mapping.watch = lambda: is_held(cache._table._lock)
    assert proxy.map([1, 2, 3], lambda items: [str(item) for item in items]) == ["1", "2", "3"]
    cache.prime({4: "4"})
    cache.invalidate([1])
    assert (len(cache), 4 in cache) == (3, True)
    cache.clear()
    assert mapping.used == {"get", "__setitem__", "pop", "clear", "__len__", "__contains__"}
    assert mapping.unguarded == set()


def test_a_forgotten_call_may_end_inside_the_lock() -> None:
    """The collector may end one, in whatever uses the table: that has the lock already."""

    class Collecting(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            table.end(forgotten)
            return super().get(key, default)

    table = Table(Mapped(Collecting()))
    forgotten = Flight(None)
    table._flights.claim(forgotten, [1])
    assert table.lookup([2]) is None
    assert table.in_flight() == []
