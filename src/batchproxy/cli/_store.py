"""From what `--store` says to the store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from click import UsageError

from .._errors import StoreError

if TYPE_CHECKING:
    from ..stores import RedisStore, SQLiteStore

Opened: TypeAlias = "SQLiteStore | RedisStore"

_SCHEMES = ("redis://", "rediss://", "unix://")


def is_url(text: str) -> bool:
    """Whether it names a server, and not a file."""
    return text.startswith(_SCHEMES)


def open_store(text: str, *, create: bool) -> Opened:
    """The store that `text` names: a server's URL, or a file.

    Args:
        text: What the user wrote.
        create: Whether a file that is not there is made.

    Raises:
        UsageError: it cannot be opened, and why.
    """
    if not is_url(text):
        if "://" in text:
            raise UsageError(f"--store takes a file, or a URL of {', '.join(_SCHEMES)}: {text!r}")
        if not create and not os.path.exists(text):
            raise UsageError(f"there is no store {text!r}")
    from ..stores import RedisStore, SQLiteStore

    try:
        return RedisStore(text) if is_url(text) else SQLiteStore(text)
    except (ImportError, ValueError, StoreError) as error:
        raise UsageError(f"the store {text!r} cannot be opened: {error}") from error
