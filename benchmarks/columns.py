"""What does a column cost beside a map() of its rows, and how full are the batches of each engine?

200,000 rows of which 20,000 are distinct. The first table is of what is known already: the very
function of columns beside ``bound.map(array.to_pylist())``, alternating, in one process. The second
counts the calls that it takes when nothing is known, in batches of 100, outside of the product.
Prints both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from measuring import HEADING, Row, ratios

from batchproxy import BatchingMapProxy, BoundFunction
from batchproxy.columns import map_column
from batchproxy.integrations import duckdb as in_duckdb
from batchproxy.integrations import pandas as in_pandas
from batchproxy.integrations import polars as in_polars

ROWS, DISTINCT, BATCH = 200_000, 20_000, 100

CHANCE = random.Random(1)
CITIES = [f"city number {CHANCE.randrange(DISTINCT)}" for _ in range(ROWS)]
CITIES[:DISTINCT] = [f"city number {number}" for number in range(DISTINCT)]
CHANCE.shuffle(CITIES)


class Counted:
    """A function that does next to nothing, and counts."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.calls = self.sent = self.full = 0

    def __call__(self, items: list[Any]) -> list[Any]:
        self.calls += 1
        self.sent += len(items)
        self.full += len(items) == BATCH
        return [self.answer(item) for item in items]


def city_of(struct: dict[str, str]) -> str:
    """The key of a struct."""
    return struct["city"]


def known() -> list[Row]:
    """All in memory: what it costs to give each row its result."""
    strings = pa.array(CITIES)
    numbers = pa.array([int(city.rpartition(" ")[2]) for city in CITIES])
    rows = []

    def compare(
        what: str,
        array: Any,
        mapped: Callable[[BoundFunction[Any, Any]], object] | None = None,
        answer: Callable[[Any], Any] = str,
        most: float | None = 1,
        key: Callable[[Any], str] | None = None,
    ) -> None:
        bound = BatchingMapProxy[Any, Any](BATCH, key=key).bind(Counted(answer))
        bound.map(array.to_pylist())
        values = ratios(
            lambda: mapped(bound) if mapped else map_column(bound, array),
            lambda: bound.map(array.to_pylist()),
        )
        rows.append(Row(what, "bound.map(array.to_pylist())", most, values))

    vectors = {city: np.full(384, 0.5, np.float32) for city in {*CITIES}}
    series = pd.Series(CITIES)
    frame = pl.DataFrame({"city": CITIES})
    compare("strings", strings)
    compare("strings in 20 chunks", pa.chunked_array(np.array_split(CITIES, 20), pa.string()))
    compare("strings, as a dictionary", strings.dictionary_encode())
    compare("integers", numbers)
    structs = pa.StructArray.from_arrays([strings], ["city"])
    compare("structs, with key=", structs, answer=city_of, key=city_of, most=None)
    compare("strings to vectors of 384", strings, answer=vectors.__getitem__, most=None)
    compare("pandas, str", strings, lambda bound: in_pandas.map_series(bound, series))
    compare(
        "polars, an expression",
        strings,
        lambda bound: frame.select(in_polars.map_expr(bound, pl.col("city"), pl.String)),
    )
    return rows


def cold() -> list[tuple[str, Counted]]:
    """Nothing is known: how many calls it takes."""
    table = pa.table({"city": CITIES})
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)

    def by_polars(bound: BoundFunction[Any, Any]) -> pl.LazyFrame:
        return frame.lazy().select(in_polars.map_expr(bound, pl.col("city"), pl.String))

    def by_duckdb(bound: BoundFunction[Any, Any], query: str) -> object:
        with duckdb.connect() as connection:
            connection.register("visits", table)
            in_duckdb.create_function(connection, "up", bound, "VARCHAR", "VARCHAR")
            return connection.sql(query).fetchall()

    def joined(bound: BoundFunction[Any, Any]) -> object:
        with duckdb.connect() as connection:
            connection.register("visits", table)
            cities = connection.sql("select distinct city from visits").to_arrow_table()
            places = cities.append_column("place", map_column(bound, cities["city"], pa.string()))
            connection.register("places", places)
            return connection.sql("select * from visits left join places using (city)").fetchall()

    distinct = "select city, up(city) from (select distinct city from visits)"
    ways: list[tuple[str, Callable[[BoundFunction[Any, Any]], object]]] = [
        ("map_column()", lambda bound: map_column(bound, table["city"])),
        ("pandas", lambda bound: in_pandas.map_series(bound, pd.Series(CITIES))),
        ("polars, in memory", lambda bound: by_polars(bound).collect()),
        ("polars, streamed", lambda bound: by_polars(bound).collect(engine="streaming")),
        ("DuckDB, a function", lambda bound: by_duckdb(bound, "select up(city) from visits")),
        ("DuckDB, a function of distinct values", lambda bound: by_duckdb(bound, distinct)),
        ("DuckDB, distinct, mapped and joined", joined),
    ]
    found = []
    for name, way in ways:
        counted = Counted(str.upper)
        way(BatchingMapProxy[Any, Any](BATCH).bind(counted))
        found.append((name, counted))
    return found


def main() -> None:
    """Measure, and print the tables."""
    print(HEADING)
    for row in known():
        print(row)
    print(f"\n| in batches of {BATCH} | calls | of which full | values sent |\n|---|--:|--:|--:|")
    for name, counted in cold():
        print(f"| {name} | {counted.calls:,} | {counted.full:,} | {counted.sent:,} |")


if __name__ == "__main__":
    main()
