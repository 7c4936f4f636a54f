"""How proxies and the functions that are bound to them travel to other processes."""

from __future__ import annotations

from functools import update_wrapper
from typing import Any, Self

from .._messages import short
from .._recipes import Travels, arrive, by_name, found_by_name
from .engine import Engine
from .loading import Loads


class TravellingProxy(Travels):
    """A proxy, of either kind, that is pickled as its options, of which one is its cache."""

    _engine: Engine

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine!r}>"

    def _check_travels(self) -> None:
        if self._engine.cache._backing is None:
            raise TypeError(
                f"{self!r} cannot be pickled or copied, nor a method of it: without a store its "
                "results are those of this process. Give it one that others can share, "
                "cache=Cache(store=SQLiteStore(path), namespace=name); or make the proxy in each "
                "process, and bind functions to it at the top of a module"
            )

    def _is_closed(self) -> bool:
        return self._engine.closed

    @classmethod
    def _make(cls, *recipe: Any) -> Self:
        batch_size, max_concurrency, limit, key, cache, weight, max_weight, *backend = recipe
        if max_concurrency is not None:  # for all that arrive with that cache: it is one service
            limit = cache._shared_limit(max_concurrency)
        options = {"key": key, "cache": cache, "weight": weight, "max_weight": max_weight}
        if backend:
            options["backend"] = backend[0]
        return cls(batch_size, limit=limit, **options)  # type: ignore[call-arg] # as both do


class TravellingFunction(Travels):
    """A function bound to a proxy, of either kind, that is pickled by its name, or as these two."""

    _loads: Loads

    def _bind(self, proxy: TravellingProxy, function: Any) -> None:
        """Bind `function` to `proxy`: be called as that is, too.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(function):
            raise TypeError(
                "bind() takes a function from a list of items to their results, got "
                f"{short(function)}"
            )
        names = ("__module__", "__name__", "__qualname__", "__doc__")
        update_wrapper(self, function, names, ())  # type: ignore[arg-type] # it has no call
        self._loads = Loads(proxy._engine, function)
        self._recipe = (proxy, function)
        proxy._engine.cache._ask(function)

    def __repr__(self) -> str:
        proxy, function = self._recipe
        name = getattr(function, "__qualname__", None)
        name = name if isinstance(name, str) else short(function)
        return f"<{type(self).__name__} {name} of {proxy!r}>"

    def _check_travels(self) -> None:
        if not found_by_name(self):
            self._recipe[0]._check_travels()

    def __reduce__(self) -> str | tuple[Any, ...]:
        if found_by_name(self):
            return by_name(self, arrive, type(self), *self._recipe)
        return super().__reduce__()
