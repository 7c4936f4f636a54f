"""Look up a column full of duplicates with `SELECT … WHERE … IN (…)`, through one connection.

The rows are the 256 characters of every single-byte code page in the `encodings` package, from ASCII
to EBCDIC. The database holds the names of the Basic Multilingual Plane, out of `unicodedata`.
Control characters and unassigned bytes have no name there.
"""

import pkgutil
import sqlite3
import unicodedata
from collections import Counter
from importlib import import_module
from time import perf_counter

from batchproxy import BatchingMapProxy


def code_pages() -> dict[str, str]:
    """The decoding table of each code page: a string of one character per byte."""
    names = [module.name for module in pkgutil.iter_modules(import_module("encodings").__path__)]
    portable = [name for name in names if name not in {"mbcs", "oem"}]  # those two need Windows
    modules = {name: import_module(f"encodings.{name}") for name in portable}
    return {n: m.decoding_table for n, m in modules.items() if hasattr(m, "decoding_table")}


db = sqlite3.connect("")  # a temporary database on disk; the connection belongs to this thread
db.execute("CREATE TABLE unicode (char TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID")
named = ((char, unicodedata.name(char, None)) for char in map(chr, range(0x10000)))
db.executemany("INSERT INTO unicode VALUES (?, ?)", [row for row in named if row[1]])


def look_up(chars: list[str]) -> dict[str, str | None]:
    """The name of each of `chars`, `None` where the table has no row: one query for them all.

    The proxy runs this in the thread that called `map()`, so SQLite's thread check passes.
    """
    marks = ", ".join("?" * len(chars))
    found = db.execute(f"SELECT char, name FROM unicode WHERE char IN ({marks})", chars)
    return dict.fromkeys(chars) | dict(found)


pages = code_pages()
column = [char for table in pages.values() for char in table]

start = perf_counter()
naive = [look_up([char])[char] for char in column]
naive_time = perf_counter() - start

with BatchingMapProxy[str, str | None](batch_size=200) as proxy:
    start = perf_counter()
    names = proxy.map(column, look_up)
    time = perf_counter() - start
    done = proxy.statistics()

assert names == naive
scripts = Counter(name.split()[0] for name in names if name and " LETTER " in name)
print(f"{len(pages)} code pages:", ", ".join(f"{n} {s}" for s, n in scripts.most_common(6)), "…")
print(f"{len(column):,} rows, {done.computed:,} distinct, {names.count(None):,} without a name")
print(f"one query per row: {len(column):6,} queries  {naive_time * 1000:6.0f} ms")
print(f"through the proxy: {done.calls:6,} queries  {time * 1000:6.0f} ms")
