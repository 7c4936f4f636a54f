"""The jobs of `engines.py`, one engine each: a column of cities gets one of places beside it.

    python benchmarks/engines_jobs.py ENGINE PLACE LOG

Starts the engine, says that it is ready, and then, for each line that it is given, runs its job
once more, and answers with what came of it. ENGINE is one of `JOBS`. Those that end in
``_distinct`` are what one would write without a store: distinct values, a call for each batch of
them, and a join.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from engines_work import BATCH, DISTINCT, PARTITIONS, ROWS, WORKERS, column, in_batches, shared

from batchproxy.columns import map_column

Run: TypeAlias = Callable[[], pa.Table]
Job: TypeAlias = Callable[[str, str], AbstractContextManager[Run]]


def cities() -> pa.Table:
    return pa.table({"city": column()})


@contextmanager
def _dask() -> Iterator[Any]:
    """A cluster of processes, and the rows in it."""
    import dask.dataframe
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"n_workers": WORKERS, "threads_per_worker": 1}
    with LocalCluster(dashboard_address=None, **options) as cluster, Client(cluster):
        rows = dask.dataframe.from_pandas(cities().to_pandas(), npartitions=PARTITIONS).persist()
        yield rows


@contextmanager
def dask(place: str, log: str) -> Iterator[Run]:
    from batchproxy.integrations.pandas import map_series

    locate = partial(map_series, shared(place, log))
    with _dask() as rows:

        def run() -> pa.Table:
            places = rows.city.map_partitions(locate, meta=("place", "str"))
            return pa.Table.from_pandas(rows.assign(place=places).compute())

        yield run


@contextmanager
def dask_distinct(place: str, log: str) -> Iterator[Run]:
    def locate(frame: Any) -> Any:
        return frame.assign(place=in_batches(log, frame.city.to_list()))

    with _dask() as rows:

        def run() -> pa.Table:
            distinct = rows[["city"]].drop_duplicates(split_out=WORKERS)
            places = distinct.map_partitions(locate, meta={"city": "str", "place": "str"})
            return pa.Table.from_pandas(rows.merge(places, on="city").compute())

        yield run


@contextmanager
def _ray() -> Iterator[Any]:
    """Worker processes, and the rows."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        yield ray.data.from_arrow(cities()).repartition(PARTITIONS).materialize()
    finally:
        ray.shutdown()


def _ray_table(rows: Any) -> pa.Table:
    import ray

    return pa.concat_tables(ray.get(rows.to_arrow_refs()))


@contextmanager
def ray(place: str, log: str) -> Iterator[Run]:
    locate = shared(place, log)

    def with_places(table: pa.Table) -> pa.Table:
        return table.append_column("place", map_column(locate, table["city"]))

    with _ray() as rows:
        options = {"batch_format": "pyarrow", "batch_size": None}
        yield lambda: _ray_table(rows.map_batches(with_places, **options))


@contextmanager
def ray_distinct(place: str, log: str) -> Iterator[Run]:
    import ray

    def with_places(table: pa.Table) -> pa.Table:
        return table.append_column("place", [in_batches(log, table["city"].to_pylist())])

    with _ray() as rows:

        def run() -> pa.Table:
            distinct = ray.data.from_arrow(pa.table({"city": rows.unique("city")}))
            options = {"batch_format": "pyarrow", "batch_size": BATCH}
            places = distinct.repartition(WORKERS).map_batches(with_places, **options)
            return _ray_table(rows.join(places, "inner", num_partitions=WORKERS, on=("city",)))

        yield run


@contextmanager
def _spark(master: str, *, connect: bool = False) -> Iterator[Any]:
    """A session, and the rows, in the memory of its executors."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.config("spark.ui.enabled", "false")
    builder = builder.remote(master) if connect else builder.master(master)
    spark = builder.getOrCreate()
    try:
        rows = spark.createDataFrame(cities()).repartition(PARTITIONS).cache()
        rows.mapInArrow(lambda batches: batches, "city string").count()  # starts the workers
        yield rows
    finally:
        spark.stop()


@contextmanager
def _spark_job(master: str, place: str, log: str, *, connect: bool = False) -> Iterator[Run]:
    from batchproxy.integrations.spark import udf

    with _spark(master, connect=connect) as rows:
        locate = udf(shared(place, log), "string")
        yield lambda: rows.withColumn("place", locate("city")).toArrow()


CLUSTER = f"local-cluster[{WORKERS},1,1024]"  # executors that are processes of their own
LOCAL = f"local[{WORKERS},4]"  # Python workers that may be lost


def spark(place: str, log: str) -> AbstractContextManager[Run]:
    return _spark_job(CLUSTER, place, log)


def spark_connect(place: str, log: str) -> AbstractContextManager[Run]:
    return _spark_job(LOCAL, place, log, connect=True)


@contextmanager
def spark_distinct(place: str, log: str) -> Iterator[Run]:
    from pyspark.sql.functions import arrow_udf

    def locate(cities: pa.Array) -> pa.Array:
        return pa.array(in_batches(log, cities.to_pylist()))

    with _spark(CLUSTER) as rows:
        distinct = rows.distinct().repartition(WORKERS)
        places = distinct.withColumn("place", arrow_udf(locate, "string")("city"))
        yield lambda: rows.join(places, "city").toArrow()


@contextmanager
def datasets(place: str, log: str) -> Iterator[Run]:
    from datasets import Dataset

    rows, locate = Dataset(cities()).with_format("arrow"), shared(place, log)

    def with_places(table: pa.Table) -> pa.Table:
        return table.append_column("place", map_column(locate, table["city"]))

    options = {"batched": True, "batch_size": 25_000, "num_proc": WORKERS}
    yield lambda: rows.map(with_places, load_from_cache_file=False, **options)[:]


@contextmanager
def daft(place: str, log: str) -> Iterator[Run]:
    import daft

    locate = shared(place, log)

    def mapped(cities: Any) -> pa.Array:
        return map_column(locate, cities.to_arrow())

    options = {"batch_size": 25_000, "use_process": True}
    places = daft.func.batch(return_dtype=daft.DataType.string(), **options)(mapped)

    rows = daft.from_arrow(cities())
    yield lambda: rows.with_column("place", places(rows["city"])).to_arrow()


@contextmanager
def bare(place: str, log: str) -> Iterator[Run]:
    """One process, and nothing else."""
    rows = cities()

    def run() -> pa.Table:
        distinct = rows["city"].unique().to_pylist()
        known = dict(zip(distinct, in_batches(log, distinct)))
        return rows.append_column("place", [[known[city] for city in rows["city"].to_pylist()]])

    yield run


JOBS: dict[str, Job] = {
    "bare": bare,
    "dask": dask,
    "dask_distinct": dask_distinct,
    "ray": ray,
    "ray_distinct": ray_distinct,
    "spark": spark,
    "spark_connect": spark_connect,
    "spark_distinct": spark_distinct,
    "datasets": datasets,
    "daft": daft,
}


def correct(table: pa.Table) -> bool:
    """Whether every city is there as often as it was, and has its place."""
    counts = pc.value_counts(table["city"]).field("counts")
    often = len(counts) == DISTINCT and pc.all(pc.equal(counts, ROWS // DISTINCT)).as_py()
    return bool(often and pc.all(pc.equal(pc.utf8_upper(table["city"]), table["place"])).as_py())


def main() -> None:
    engine, place, log = sys.argv[1:]
    with JOBS[engine](place, log) as run:
        print(json.dumps("ready"), flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            table = run()
            wall = time.perf_counter() - start
            print(json.dumps({"wall": wall, "correct": correct(table)}), flush=True)


if __name__ == "__main__":
    main()
