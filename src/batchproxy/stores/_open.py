"""From text, as in a setting or an argument, to a store."""

from __future__ import annotations

import os
import re

from ._postgres import PostgresStore
from ._redis import RedisStore
from ._sqlite import SQLiteStore

_POSTGRES = ("postgresql://", "postgres://")
_REDIS = ("redis://", "rediss://", "unix://")
# What is meant to be a URL, and is no file by mistake, with a password for a name.
_MEANT = re.compile(
    r"(?!\.{0,2}/)(.*://|\W*[a-z][\w+.-]+:/|\W*(rediss?|valkeys?|unix|postgres(ql)?):)",
    re.DOTALL | re.I,
)


def open_store(place: str | os.PathLike[str]) -> SQLiteStore | RedisStore | PostgresStore:
    """The store that `place` names: a file, or a server by its URL.

    ``"results.db"`` is ``SQLiteStore("results.db")``, and ``"redis://localhost:6379/0"`` is
    ``RedisStore("redis://localhost:6379/0")``; so are URLs that begin with ``rediss://`` and
    ``unix://``. ``"postgresql://localhost/mine"`` is a `PostgresStore`. For a setting or argument
    that says where results are kept. Like these classes it connects to nothing: a store does so
    when it is first used.

    Args:
        place: The name of a file, or a URL. What looks like a URL is no file: for one of such a
            name write ``./NAME``, or give a `pathlib.Path`.

    Returns:
        A new store, to be closed by whoever uses it.

    Raises:
        ValueError: It is a URL of another kind, or not as it should be. No password of it is shown.
        ImportError: It is the URL of a server, and redis-py or psycopg is not installed.
        TypeError: It is neither text nor a path.
    """
    if not isinstance(place, str) or not _MEANT.match(place):
        return SQLiteStore(place)
    if place.startswith(_REDIS):
        return RedisStore(place)
    if place.startswith(_POSTGRES):
        return PostgresStore(place)
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", place, re.ASCII | re.I)
    raise ValueError(
        f"open_store() takes the name of a file, or a URL of {', '.join(_REDIS + _POSTGRES)}; "
        f"got {f'one of {scheme[0]}' if scheme else 'what is neither'} (a file of such a name is "
        "./NAME)"
    )
