"""Points 24 and 25 of the contract: a column in the parts of Dask, in threads and in processes."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from batchproxy import BatchingMapProxy, BoundFunction, Cache
from batchproxy.stores import SQLiteStore

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
dask = pytest.importorskip("dask")
dd = pytest.importorskip("dask.dataframe")
from dask.base import tokenize  # noqa: E402 - it needs dask

from batchproxy.integrations.pandas import map_series  # noqa: E402 - it needs pandas

CITIES = [f"city {number % 30}" if number % 7 else None for number in range(400)]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes that have imported pandas once; Dask would make new ones each time."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["threads", "processes"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How Dask is to compute."""
    if request.param == "threads":
        return {"scheduler": "threads"}
    return {"scheduler": "processes", "pool": request.getfixturevalue("pool")}


def locate(log: str, cities: list[str]) -> list[str]:
    """Notes its call in a file, which all processes have."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(cities) + "\n")
    return [city.upper() for city in cities]


async def locate_async(log: str, cities: list[str]) -> list[str]:
    await anyio.lowlevel.checkpoint()
    return locate(log, cities)


def refuse(cities: list[str]) -> list[str]:
    raise LookupError("no such city")


def bound(folder: Path, function: Any) -> BoundFunction[Any, Any]:
    cache = Cache[Any](store=SQLiteStore(folder / "places.db"), namespace="places")
    return BatchingMapProxy[Any, Any](10, cache=cache).bind(function)


def parts() -> Any:
    return dd.from_pandas(pd.DataFrame({"city": CITIES}), npartitions=4)


@pytest.mark.parametrize("function", [locate, locate_async])
def test_each_value_is_sent_once(tmp_path: Path, options: dict[str, Any], function: Any) -> None:
    """Over all parts, workers and actions; and no null is."""
    log = tmp_path / "calls"
    located = partial(map_series, bound(tmp_path, partial(function, str(log))))
    for _ in range(2):
        rows = parts()
        places = rows.city.map_partitions(located, meta=("place", "str"))
        found = rows.assign(place=places).compute(**options)
        assert [None if pd.isna(place) else place for place in found.place] == [
            city and city.upper() for city in CITIES
        ]
        sent = [city for line in log.read_text().splitlines() for city in json.loads(line)]
        assert sorted(sent) == sorted({city for city in CITIES if city})


def test_failures(tmp_path: Path, options: dict[str, Any]) -> None:
    """The exception of the function is that of `compute()`; or there is a column of errors."""
    function = bound(tmp_path, refuse)
    places = parts().city.map_partitions(partial(map_series, function), meta=("place", "str"))
    with pytest.raises(LookupError, match="no such city"):
        places.compute(**options)
    with_errors = partial(map_series, function, type=pa.string(), errors="column")
    meta = {"value": "str", "error": "str"}
    found = parts().city.map_partitions(with_errors, meta=meta).compute(**options)
    assert found.value.isna().all()
    assert {*found.error.dropna()} == {"LookupError: no such city"}
    assert (found.error.isna() == [city is None for city in CITIES]).all()


def test_its_name_in_the_graph_stays(tmp_path: Path) -> None:
    """What Dask calls a task depends on what is bound, and not on what has been computed."""
    function = bound(tmp_path, partial(locate, str(tmp_path / "calls")))
    before = tokenize(partial(map_series, function))
    function.map(["a"])
    assert tokenize(partial(map_series, function)) == before
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        assert tokenize(partial(map_series, function)) == before
    other = bound(tmp_path, partial(locate, "elsewhere"))
    assert tokenize(partial(map_series, other)) != before
