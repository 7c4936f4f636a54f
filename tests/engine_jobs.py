"""A process of `test_engines.py`: what one engine makes of a column, and of functions that fail.

`python tests/engine_jobs.py ENGINE FOLDER` prints it, as JSON.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pyarrow as pa
import pyarrow.parquet

from batchproxy import BatchingMapProxy, BoundFunction, Cache
from batchproxy.columns import map_column
from batchproxy.stores import SQLiteStore

CITIES = [f"city {number % 30}" if number % 7 else None for number in range(400)]
Run: TypeAlias = Callable[..., pa.Table]


async def locate(log: str, cities: list[str]) -> list[str]:
    """Asynchronous, and notes its call."""
    await anyio.sleep(0.01)
    async with await anyio.open_file(log, "a", encoding="utf-8") as file:
        await file.write(json.dumps(cities) + "\n")
    return [city.upper() for city in cities]


def refuse(cities: list[str]) -> list[str]:
    raise LookupError("no such city") from OSError("no map")


def bound(folder: str, function: Callable[[list[str]], Any], name: str) -> BoundFunction[str, str]:
    cache = Cache[str](store=SQLiteStore(f"{folder}/places.db"), namespace=name)
    return BatchingMapProxy[str, str](10, cache=cache).bind(function)


def with_places(table: pa.Table, function: BoundFunction[str, str], errors: Any) -> pa.Table:
    places = map_column(function, table["city"], pa.string(), errors=errors)
    return table.append_column("place", places)


@contextmanager
def ray() -> Iterator[Run]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    rows = ray.data.from_arrow(pa.table({"city": CITIES})).repartition(4)

    def run(function: BoundFunction[str, str], errors: str = "raise") -> pa.Table:
        mapped = partial(with_places, function=function, errors=errors)
        found = rows.map_batches(mapped, batch_format="pyarrow", batch_size=None)
        return pa.concat_tables(ray.get(found.to_arrow_refs()))

    yield run
    ray.shutdown()


@contextmanager
def spark(connect: bool = False) -> Iterator[Run]:
    from pyspark.sql import SparkSession

    from batchproxy.integrations.spark import udf

    builder = SparkSession.builder
    session = (builder.remote("local[2]") if connect else builder.master("local[2]")).getOrCreate()
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    rows = session.createDataFrame(pa.table({"city": CITIES})).repartition(4)
    for refused in ({"bound": str.upper}, {"bound": bound("", refuse, "n"), "errors": "none"}):
        try:
            udf(return_type="string", **refused)
        except (TypeError, ValueError):
            continue
        raise AssertionError(f"udf() has taken {refused}")

    def run(function: BoundFunction[str, str], errors: Any = "raise") -> pa.Table:
        places = udf(function, "string", errors=errors)("city")
        return rows.withColumn("place", places).toArrow()

    yield run
    session.stop()


@contextmanager
def datasets() -> Iterator[Run]:
    from datasets import Dataset

    file = Path(os.environ["HF_HOME"], "cities.parquet")  # what is only in memory is not kept
    if not file.exists():
        pyarrow.parquet.write_table(pa.table({"city": CITIES}), file)
    rows = Dataset.from_parquet(str(file)).with_format("arrow")

    def run(function: BoundFunction[str, str], errors: str = "raise") -> pa.Table:
        mapped = partial(with_places, function=function, errors=errors)
        found = rows.map(mapped, batched=True, batch_size=100, num_proc=2)
        return found[:]

    yield run


@contextmanager
def daft() -> Iterator[Run]:
    import daft

    def run(function: BoundFunction[str, str], errors: Any = "raise") -> pa.Table:
        text = daft.DataType.string()
        both = daft.DataType.struct({"value": text, "error": text})

        def mapped(cities: Any) -> Any:
            return map_column(function, cities.to_arrow(), pa.string(), errors=errors)

        kind = both if errors == "column" else text
        places = daft.func.batch(return_dtype=kind, batch_size=100)(mapped)
        rows = daft.from_arrow(pa.table({"city": CITIES}))
        return rows.with_column("place", places(rows["city"])).to_arrow()

    yield run


ENGINES: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "ray": ray,
    "spark": spark,
    "spark_connect": partial(spark, connect=True),
    "datasets": datasets,
    "daft": daft,
}


def main() -> None:
    engine, folder = sys.argv[1:]
    log = Path(folder, "calls")
    log.touch()

    def calls() -> list[list[str]]:
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()]

    found: dict[str, Any] = {}
    with ENGINES[engine]() as run:
        located = bound(folder, partial(locate, str(log)), "located")
        found["rows"], found["calls"] = run(located).to_pylist(), calls()
        found["again"], found["calls again"] = run(located).to_pylist(), calls()
        refused = bound(folder, refuse, "refused")
        found["with errors"] = run(refused, errors="column").to_pylist()
        try:
            run(refused)
        except Exception:
            found["failure"] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
