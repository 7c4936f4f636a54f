"""Engines that hold tables: each module is a thin layer over `batchproxy.columns.map_column`.

``batchproxy.integrations.pandas``, ``.polars``, ``.duckdb`` and ``.spark`` need what they are
called after, and pyarrow: ``pip install 'batchproxy[pandas]'``, and so on.
"""
