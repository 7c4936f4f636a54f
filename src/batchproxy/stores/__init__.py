"""Stores: values that outlive the process, in a file or on a server, shared by all who use it."""

from .._store import Claimant as Claimant
from .._store import Claims as Claims
from .._store import SharedStore as SharedStore
from .._store import Store as Store
from .._store import Usage as Usage
from ._memory import MemoryStore as MemoryStore
from ._open import open_store as open_store
from ._postgres import PostgresStore as PostgresStore
from ._redis import RedisStore as RedisStore
from ._sqlite import SQLiteStore as SQLiteStore

__all__ = [
    "Claimant",
    "Claims",
    "MemoryStore",
    "PostgresStore",
    "RedisStore",
    "SQLiteStore",
    "SharedStore",
    "Store",
    "Usage",
    "open_store",
]

# Tracebacks, documentation and pickles shall name what users import, not the room it lives in.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
