"""How many different keys there were."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

_MOST = 1_000_000
"""Keys that are told apart: 64 bits of each are kept, in less than 100 MiB altogether."""


class Distinct:
    """Counts different keys, in bounded memory: beyond a million only that there are more."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._more = False

    def add(self, keys: Iterable[Hashable]) -> None:
        """Count those of `keys` that are new."""
        if not self._more:
            self._seen.update(map(hash, keys))
            self._more = len(self._seen) > _MOST

    def __str__(self) -> str:
        return f"more than {_MOST:,}" if self._more else f"{len(self._seen):,}"
