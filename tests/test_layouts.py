"""Point 16 of the contract, for years: what a version has written is read by those after it.

`data/` has a store of each layout that there was, and this file what is in it. A layout that was
released stays as it is. `python tests/test_layouts.py` writes the stores of today's.
"""

import gzip
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from postgres_server import PostgresServer, dumped, needs_postgres
from redis_server import RedisServer, needs_redis

from batchproxy import BatchingMapProxy, Cache
from batchproxy.codecs import Codec, MsgspecCodec, PickleCodec, PydanticCodec, digests
from batchproxy.stores import Claimant, PostgresStore, RedisStore, SharedStore, SQLiteStore

DATA = Path(__file__).parent / "data"
SQLITE, REDIS, POSTGRES = "sqlite-1.db.gz", "redis-1.json", "postgres-1.sql"
PREFIX, SCHEMA = "layout-1", "layout_1"  # of what is on a server

# What is in the stores of layout 1.
PLAIN = "plain/1 {é}"
RESULTS: dict[Any, Any] = {
    None: {"a": {"b": [1, 2.5, None, True, "é"]}},
    False: 2**70,
    7: "text é",
    "7": b"bytes \0\xff",
    7.5: -0.0,
    b"7": None,
    (7, ("a", None), ()): [],
    date(2026, 1, 2): 1,
    datetime(2026, 1, 2, 3, 4, 5, 6): 2,
    datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=1))): 3,
    time(3, 4, 5): 4,
    timedelta(days=-1, microseconds=1): 5,
    Decimal("1.50"): 6,
    UUID(int=7): 7,
}
CLAIMED = 8  # in the same namespace, by a process that is gone
OF_CODECS = {"msgspec": (1, "a"), "pydantic": (2, "b"), "pickle": complex(1, 2), "numpy": b"1\2"}


def codec_of(name: str) -> Codec | None:
    """With which the result of the namespace of that name is written."""
    if name == "msgspec":
        return MsgspecCodec(tuple[int, str])
    if name == "pydantic":
        return PydanticCodec(tuple[int, str])
    return PickleCodec() if name == "pickle" else None


def result_of(name: str) -> Any:
    """That of the key 1 in the namespace of that name."""
    if name == "numpy":
        return import_module("numpy").frombuffer(OF_CODECS[name], "uint8")
    return OF_CODECS[name]


def fill(store: SharedStore) -> None:
    """Put all of it in."""
    Cache[Any](store=store, namespace=PLAIN).prime(RESULTS)
    for name in OF_CODECS:
        cache = Cache[Any](store=store, namespace=name, codec=codec_of(name))
        cache.prime({1: result_of(name)})
    store.claim_many(PLAIN, digests([CLAIMED]), Claimant("gone", 1), 1)


def load(client: Any, stored: dict[str, Any]) -> None:
    """Have a server know all that is `stored`, by name, as bytes that are written as Latin-1."""
    for name, value in stored.items():
        if isinstance(value, str):
            client.set(name.encode("latin-1"), value.encode("latin-1"))
        elif name.endswith(":leases"):
            client.zadd(name, value)
        else:
            plain = {key.encode("latin-1"): each.encode("latin-1") for key, each in value.items()}
            client.hset(name, mapping=plain)


def found_on(client: Any) -> dict[str, Any]:
    """The other way. Nothing is said of when what is there ends, or who has not been doubted."""
    found: dict[str, Any] = {}
    for name in sorted(client.scan_iter(f"{PREFIX}:*")):
        text, kind = name.decode("latin-1"), client.type(name)
        if text.endswith(":halves"):
            continue
        if kind == b"string":
            found[text] = client.get(name).decode("latin-1")
        elif kind == b"zset":
            found[text] = {key.decode(): 0 for key, _ in client.zscan_iter(name)}
        else:
            both = client.hgetall(name).items()
            found[text] = {key.decode("latin-1"): each.decode("latin-1") for key, each in both}
    return found


@pytest.fixture
def client(postgres_url: str) -> Iterator[Any]:
    """Of a PostgreSQL, whose schema is removed at last."""
    with import_module("psycopg").connect(postgres_url, autocommit=True) as client:
        yield client
        client.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


@pytest.fixture(
    params=[
        SQLITE,
        pytest.param(REDIS, marks=needs_redis),
        pytest.param(POSTGRES, marks=needs_postgres),
    ]
)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    """A store that another version has filled."""
    stored = (DATA / request.param).read_bytes()
    if request.param == SQLITE:
        (tmp_path / "results.db").write_bytes(gzip.decompress(stored))
        with SQLiteStore(tmp_path / "results.db") as store:
            yield store
    elif request.param == POSTGRES:
        request.getfixturevalue("client").execute(stored)
        with PostgresStore(request.getfixturevalue("postgres_url"), schema=SCHEMA) as store:
            yield store
    else:
        url = request.getfixturevalue("server").url
        with import_module("redis").Redis.from_url(url) as client:
            load(client, json.loads(stored))
        with RedisStore(url, prefix=PREFIX) as store:
            yield store


def never(items: list[Any]) -> list[Any]:
    raise AssertionError(f"not found: {items}")


def test_results_are_found(old: SharedStore) -> None:
    """Those of all kinds of keys, of the same types as they were."""
    proxy = BatchingMapProxy[Any, Any](cache=Cache(store=old, namespace=PLAIN))
    assert list(map(repr, proxy.map(RESULTS, never))) == list(map(repr, RESULTS.values()))


@pytest.mark.parametrize("name", OF_CODECS)
def test_results_of_codecs_are_found(old: SharedStore, name: str) -> None:
    """Those of each codec, and of NumPy."""
    if name != "pickle":
        pytest.importorskip(name)
    cache = Cache[Any](store=old, namespace=name, codec=codec_of(name))
    [found] = BatchingMapProxy[int, Any](cache=cache).map([1], never)
    assert repr(found) == repr(result_of(name))


def test_claims_of_a_process_that_is_gone(old: SharedStore) -> None:
    """They are known as such, and hold up nobody."""
    proxy = BatchingMapProxy[int, str](cache=Cache(store=old, namespace=PLAIN))
    assert proxy.map([CLAIMED], lambda items: ["new"]) == ["new"]


def test_the_layout_of_a_file_is_the_last_of_these(tmp_path: Path) -> None:
    """What is written today has the same tables and rows, so that older versions can read it."""
    for name in OF_CODECS.keys() - {"pickle"}:
        pytest.importorskip(name)
    (tmp_path / "old.db").write_bytes(gzip.decompress((DATA / SQLITE).read_bytes()))
    with SQLiteStore(tmp_path / "new.db") as store:
        fill(store)
    old, new = (
        [line for line in lines_of(tmp_path / name) if 'INTO "leases"' not in line]
        for name in ("old.db", "new.db")
    )
    assert new == old


@needs_redis
def test_the_layout_of_a_server_is_the_last_of_these(server: RedisServer) -> None:
    """What is written today has the same names and values."""
    for name in OF_CODECS.keys() - {"pickle"}:
        pytest.importorskip(name)
    with RedisStore(server.url, prefix=PREFIX) as store:
        fill(store)
    with import_module("redis").Redis.from_url(server.url) as client:
        new = found_on(client)
    assert new == json.loads((DATA / REDIS).read_text("utf-8"))


@needs_postgres
def test_the_layout_of_a_schema_is_the_last_of_these(postgres_url: str, client: Any) -> None:
    """What is written today has the same tables, functions and rows."""
    for name in OF_CODECS.keys() - {"pickle"}:
        pytest.importorskip(name)
    with PostgresStore(postgres_url, schema=SCHEMA) as store:
        fill(store)
    new = dumped(postgres_url, SCHEMA)
    client.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    client.execute((DATA / POSTGRES).read_bytes())
    old, new = (
        [line for line in lines if f"INTO {SCHEMA}.leases" not in line]
        for lines in (dumped(postgres_url, SCHEMA), new)
    )
    assert new == old


def lines_of(path: Path) -> list[str]:
    """What is in a file, as statements."""
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()
        return [f"version {version}", *connection.iterdump()]


def write() -> None:
    """The stores of today's layout. What is claimed there has been doubted, and nobody said no."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.db"
        with SQLiteStore(path) as store:
            fill(store)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE leases SET boot = 'another', ends = 0, doubted = 1")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (DATA / SQLITE).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        with RedisServer(Path(folder)) as server:
            with RedisStore(server.url, prefix=PREFIX) as store:
                fill(store)
            with import_module("redis").Redis.from_url(server.url) as client:
                stored = found_on(client)
    (DATA / REDIS).write_text(json.dumps(stored, indent=1) + "\n", "utf-8")
    with PostgresServer() as server:
        with PostgresStore(server.url, schema=SCHEMA) as store:
            fill(store)
        with import_module("psycopg").connect(server.url) as client:
            client.execute(f"UPDATE {SCHEMA}.leases SET ends = 'epoch', doubted = true")
        (DATA / POSTGRES).write_text("\n".join(dumped(server.url, SCHEMA)) + "\n", "utf-8")


if __name__ == "__main__":
    write()
