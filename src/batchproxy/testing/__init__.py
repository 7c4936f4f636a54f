"""For tests: of code that maps, functions that record and a look inside; of stores, a contract.

`Calls` and `AsyncCalls` are batch functions that record what they were called with, and can be held
up. `look` tells what a proxy or a `Cache` has under way; `assert_idle`, that it is nothing.

`StoreContract` and `SharedStoreContract` are the tests that a store must pass: subclass, say how
yours is made, and run pytest.

::

    from batchproxy.testing import SharedStoreContract

    class TestMyStore(SharedStoreContract):
        def make_store(self, lease=60.0):
            return MyStore("postgresql://localhost/tests", lease=lease)

Use `StoreContract` for a store that is no `SharedStore`. The tests are plain methods, which raise
`AssertionError`, so that they run under ``unittest``, too (``class TestMyStore(StoreContract,
unittest.TestCase)``), and under ``python -O``.
"""

from ._calls import AsyncCalls as AsyncCalls
from ._calls import Calls as Calls
from ._probe import Inside as Inside
from ._probe import assert_idle as assert_idle
from ._probe import look as look
from ._probe import wait_released as wait_released
from ._stores import SharedStoreContract as SharedStoreContract
from ._stores import StoreContract as StoreContract

__all__ = [
    "AsyncCalls",
    "Calls",
    "Inside",
    "SharedStoreContract",
    "StoreContract",
    "assert_idle",
    "look",
    "wait_released",
]

# Tracebacks, documentation and pickles shall name what users import, not the room it lives in.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
