"""Input, output and store are different files, whatever they are called."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import IO

from click import UsageError

from ._store import Place

_BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to the name of its file, and to nothing."""


def check_apart(
    source: str | None, target: str, place: Place | None, code: Iterable[str] = ()
) -> set[Hashable]:
    """Refuse to write to what is read; what tells the output from other files, for `check_code`.

    Args:
        source: The input, if there is one.
        target: The output.
        place: The store, if there is one.
        code: Files of Python that are named.

    Raises:
        UsageError: two of them are one file, by whatever names.
    """
    read = set() if source is None else _names(source, sys.stdin)
    written = _names(target, sys.stdout)
    kept: set[Hashable] = set()
    if place is not None and not place.is_url:
        for path in {place.text, os.path.realpath(place.text)}:
            kept.update(*(_names(path + more) for more in _BESIDE))
    if read & written:
        raise UsageError(
            "the output is the input: rows that are left out, or not reached, would be lost. Write "
            "to another file, and rename that"
        )
    check_code(written, code)
    for what, names in (("output", written), ("input", read)):
        if names & kept:
            raise UsageError(f"the {what} is the store {place!r}, or a file that belongs to it")
    return written


def check_code(written: set[Hashable], code: Iterable[str]) -> None:
    """Refuse to write to one of the files `code`.

    Raises:
        UsageError: one of them is what is `written`.
    """
    for path in code:
        if _names(path) & written:
            raise UsageError(f"the output is the code that is run: {path!r}")


def _names(path: str, standard: IO[str] | None = None) -> set[Hashable]:
    """All that tells a regular file, or one that is not there yet, from others."""
    status = None
    with suppress(OSError, ValueError):  # it is not there, or no file at all
        status = os.fstat(standard.fileno()) if path == "-" and standard else os.stat(path)
    if status is None:
        return set() if path == "-" else {os.path.realpath(path)}
    if not stat.S_ISREG(status.st_mode):
        return set()
    return {(status.st_dev, status.st_ino)}
