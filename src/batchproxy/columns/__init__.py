"""Columns: an Arrow array through a bound function, each distinct value once, nulls left out.

It needs pyarrow: ``pip install 'batchproxy[arrow]'``. What `batchproxy.integrations` has for
pandas, polars and DuckDB is made of it.
"""

try:
    import pyarrow as _  # noqa: F401 - only whether it is there
except ImportError as _missing:
    raise ImportError(
        "batchproxy.columns needs pyarrow: pip install 'batchproxy[arrow]'"
    ) from _missing

from ._map import map_column as map_column

__all__ = ["map_column"]

# Tracebacks and documentation shall name what users import, not the room it lives in.
map_column.__module__ = __name__
