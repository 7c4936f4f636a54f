"""Look up a long column with many repetitions in SQLite, through one connection.

The column is every name in the source of Python's own library, which is wherever Python is; the
table says where the library defines functions and classes. `map()` asks for each distinct name
once, five hundred to a statement; the naive loop runs a statement for every row.
"""

import re
import sqlite3
import sysconfig
import time
from collections import Counter
from pathlib import Path

from batchproxy import BatchingMapProxy

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SOURCES = {path.name: path.read_text("utf-8", "replace") for path in LIBRARY.glob("[a-h]*.py")}


def make_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE definitions (name TEXT, file TEXT)")
    connection.execute("CREATE INDEX by_name ON definitions (name)")
    for file, source in SOURCES.items():
        names = re.findall(r"^\s*(?:def|class)\s+(\w+)", source, re.MULTILINE)
        connection.executemany("INSERT INTO definitions VALUES (?, ?)", [(n, file) for n in names])
    return connection


def main() -> None:
    connection = make_database()
    column = re.findall(r"\b[A-Za-z_]\w*", "\n".join(SOURCES.values()))

    def count_definitions(names: list[str]) -> dict[str, int]:
        # Runs in the thread that called map(), so the connection does not complain.
        marks = ",".join("?" * len(names))
        statement = f"SELECT name, count(*) FROM definitions WHERE name IN ({marks}) GROUP BY name"
        # A name without a row has its answer too, and is cached like any other.
        return dict.fromkeys(names, 0) | dict(connection.execute(statement, names).fetchall())

    proxy = BatchingMapProxy[str, int](batch_size=500)
    start = time.perf_counter()
    counts = proxy.map(column, count_definitions)
    elapsed = time.perf_counter() - start

    start = time.perf_counter()
    assert counts == [count_definitions([name])[name] for name in column]
    naive_elapsed = time.perf_counter() - start
    connection.close()

    done = proxy.statistics()
    print(f"{len(column):9,} rows, {done.computed:,} of them distinct")
    print(f"{done.calls:9,} statements in {elapsed:.2f} s with batchproxy")
    print(f"{len(column):9,} statements in {naive_elapsed:.2f} s in a loop, with equal results")
    defined = Counter(name for name, count in zip(column, counts) if count)
    print("used most, of what is defined there:", *[name for name, _ in defined.most_common(5)])


if __name__ == "__main__":
    main()
