"""How many different keys there were."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..codecs import digests

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
            new = {*keys}
            texts = {key for key in new if type(key) is str}
            self._seen.update(map(hash, texts))
            # Of others not by `hash`, which is one for -1 and -2.
            others = digests([*new - texts])
            self._seen.update(int.from_bytes(each[:8], "big") for each in others)
            self._more = len(self._seen) > _MOST

    @property
    def count(self) -> int:
        """How many there were; beyond a million any number beyond it."""
        return len(self._seen)

    def __str__(self) -> str:
        return said(self.count)


def said(count: int) -> str:
    """So many different keys."""
    return f"more than {_MOST:,}" if count > _MOST else f"{count:,}"
