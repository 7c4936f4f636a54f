"""Map lists through an expensive batch function so that each distinct item is computed once."""

import typing as _typing

from ._cache import Cache as Cache
from ._core.counters import Statistics as Statistics
from ._core.progress import Progress as Progress
from ._errors import AnswerTypeError as AnswerTypeError
from ._errors import AnswerValueError as AnswerValueError
from ._errors import BatchProxyError as BatchProxyError
from ._errors import CircularWaitError as CircularWaitError
from ._errors import ClosedError as ClosedError
from ._errors import PortalError as PortalError
from ._errors import SplitBatch as SplitBatch
from ._errors import StoreError as StoreError
from ._faces.async_proxy import AsyncBatchingMapProxy as AsyncBatchingMapProxy
from ._faces.async_proxy import AsyncBoundFunction as AsyncBoundFunction
from ._faces.async_stream import AsyncStream as AsyncStream
from ._faces.proxy import BatchingMapProxy as BatchingMapProxy
from ._faces.proxy import BoundFunction as BoundFunction
from ._faces.stream import Stream as Stream
from ._forks import unforked as _unforked
from ._slots import Limit as Limit

__all__ = [
    "AnswerTypeError",
    "AnswerValueError",
    "AsyncBatchingMapProxy",
    "AsyncBoundFunction",
    "AsyncStream",
    "BatchProxyError",
    "BatchingMapProxy",
    "BoundFunction",
    "Cache",
    "CircularWaitError",
    "ClosedError",
    "Limit",
    "PortalError",
    "Progress",
    "SplitBatch",
    "Statistics",
    "StoreError",
    "Stream",
]

# Tracebacks, documentation and pickles shall name what users import, not the room it lives in.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name

if _typing.TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """`__version__`, which nobody pays for but who asks: pyproject.toml says it."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _unforked():
            from importlib.metadata import version
        return version(__name__)
