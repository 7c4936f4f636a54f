"""What makes two items the same: their type and value, as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .._plan import check_answer


def key_of(item: Any) -> Hashable:
    """Text is its own key, as for a proxy without ``key=``; for the rest a canonical JSON text.

    To a dict `1`, `1.0` and `true` would be one key, and objects and lists none at all.
    """
    return (
        item if type(item) is str else ("json", json.dumps(item, sort_keys=True, default=_tagged))
    )


def _tagged(value: object) -> dict[str, str]:
    """For what Parquet has beyond JSON: bytes, dates, times, decimals."""
    return {f"!{type(value).__qualname__}": str(value)}


def by_items(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """`function`, but that a mapping it answers with is by item and not by what `key_of` gives."""

    def call(items: list[Any]) -> Any:
        return _listed(function(items), items)

    return call


def by_items_async(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """The same for an asynchronous function."""

    async def call(items: list[Any]) -> Any:
        return _listed(await function(items), items)

    return call


def _listed(answer: Any, items: list[Any]) -> Any:
    return check_answer(answer, items) if isinstance(answer, Mapping) else answer
