"""Rows in windows, of which a few are in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ._rows import Reader, Row
from ._values import is_missing

_SOME = 100
"""Rows that are taken at once, which takes less time for each."""
_MOST_BYTES = 16 * 2**20
"""Of the input, in a window: long lines make windows of fewer rows."""


def windows(
    reader: Reader, size: int, limit: int | None, missing: Callable[[Any], bool] = is_missing
) -> Iterator[list[Row]]:
    """The rows of `reader`, so many at a time, and so many (`limit`) altogether.

    Args:
        reader: Where they come from.
        size: The most rows of a window.
        limit: The most rows.
        missing: Which items are none, and not to be mapped.

    Raises:
        BadInput: the input cannot be read any further.
    """
    window: list[Row] = []
    filled = 0
    texts_are_items = not missing("")  # whatever they say
    rows = itertools.islice(reader, limit)
    while some := list(itertools.islice(rows, min(_SOME, size - len(window)))):
        for row in [row for row in some if not (texts_are_items and type(row.item) is str)]:
            row.missing = row.problem is None and missing(row.item)
        size_of_some = sum([row.size for row in some])
        if filled + size_of_some < _MOST_BYTES:
            window += some
            filled += size_of_some
        else:  # which is looked at more closely
            for row in some:
                window.append(row)
                filled += row.size
                if filled >= _MOST_BYTES:
                    yield window
                    window, filled = [], 0
        if len(window) == size:
            yield window
            window, filled = [], 0
    if window:
        yield window
