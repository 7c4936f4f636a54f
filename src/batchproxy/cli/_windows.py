"""Rows in windows, of which one is in memory at a time."""

from __future__ import annotations

import itertools
import lzma
import zlib
from collections.abc import Iterator

from ._rows import BadInput, Reader, Row

_MOST_BYTES = 16 * 2**20
"""Of the input, in a window: long lines make windows of fewer rows."""


def windows(reader: Reader, size: int, limit: int | None, name: str) -> Iterator[list[Row]]:
    """The rows of `reader`, so many at a time, and so many (`limit`) altogether.

    Raises:
        BadInput: the input cannot be read any further.
    """
    window: list[Row] = []
    filled = 0
    rows = itertools.islice(reader, limit)
    while True:
        try:
            row = next(rows, None)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise BadInput(f"{name} cannot be read any further: {error}") from error
        if row is not None:
            window.append(row)
            filled += row.size
        if window and (row is None or len(window) == size or filled >= _MOST_BYTES):
            yield window
            window, filled = [], 0
        if row is None:
            return
