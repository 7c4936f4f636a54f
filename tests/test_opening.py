"""Point 16 of the contract: making a store opens nothing; how one is named, and what is refused."""

import os
import re
import sqlite3
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from memory_store import MemoryStore

from batchproxy import AnswerTypeError, BatchingMapProxy, Cache, StoreError
from batchproxy.codecs import PickleCodec, UnreadableValue, digests, loads
from batchproxy.stores import (
    Claimant,
    Claims,
    PostgresStore,
    RedisStore,
    SharedStore,
    SQLiteStore,
    open_store,
)

KEY, OTHER, THIRD = (bytes([number]) * 20 for number in range(3))


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def make_broken(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SharedStore]:
    """Makes stores that cannot be opened."""
    if request.param == "sqlite":
        return lambda: SQLiteStore(tmp_path / "missing" / "results.db")
    if request.param == "redis":
        pytest.importorskip("redis")
        return lambda: RedisStore(f"unix://{tmp_path}/nobody.sock")
    pytest.importorskip("psycopg")
    return lambda: PostgresStore("host=/nobody")


def test_nothing_is_opened_before_it_is_used(
    make_broken: Callable[[], SharedStore], tmp_path: Path
) -> None:
    """Every use tries it, and says what fails; to make and to close a store never fails."""
    with make_broken() as store:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"has no directory|nobody"):
                store.get_many("n", [KEY])
    SQLiteStore(tmp_path / "results.db").close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_be_opened_later(tmp_path: Path) -> None:
    """The same store can be used from then on."""
    with SQLiteStore(tmp_path / "later" / "results.db") as store:
        with pytest.raises(StoreError, match="has no directory"):
            store.set_many("n", {KEY: b"1"}, None)
        (tmp_path / "later").mkdir()
        store.set_many("n", {KEY: b"1"}, None)
        assert store.get_many("n", [KEY]) == {KEY: b"1"}


def test_the_policy_covers_what_cannot_be_opened(make_broken: Callable[[], SharedStore]) -> None:
    """With "continue" a map() goes on without the store; by default it raises."""
    with Cache[int](store=make_broken(), namespace="n", on_store_error="continue") as cache:
        assert BatchingMapProxy[int, int](cache=cache).map([1, 2], list) == [1, 2]
    cache = Cache[int](store=make_broken(), namespace="n")
    with pytest.raises(StoreError, match=r"has no directory|nobody"):
        BatchingMapProxy[int, int](cache=cache).map([1, 2], list)


def test_what_is_the_same_file(tmp_path: Path) -> None:
    """Stores on one file are in the same place, whatever it is called; others are not."""
    (tmp_path / "link").symlink_to(tmp_path)
    one = SQLiteStore(tmp_path / "results.db")
    assert one.identity == SQLiteStore(tmp_path / "link" / "results.db", lease=3).identity
    assert one.identity != SQLiteStore(tmp_path / "other.db").identity
    assert MemoryStore().identity != (store := MemoryStore()).identity == store.identity


@pytest.mark.parametrize(
    "name", ["a\nb", "a\0b", "\x1b]0;pwned\x07", "\ud800", "\u202e", "x" * 1001]
)
def test_a_namespace_can_be_printed(name: str) -> None:
    """One that cannot, or is too long, is refused when the cache is made, and shown escaped."""
    with pytest.raises(ValueError, match="text that can be printed, of 1,000 char") as caught:
        Cache(store=MemoryStore(), namespace=name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["a}{b", "*", "é/:%", "名 \U0001f600", "x" * 1000])
def test_a_namespace_may_be_odd(name: str) -> None:
    """As long as it can be printed."""
    cache = Cache[int](store=MemoryStore(), namespace=name)
    assert BatchingMapProxy[int, int](cache=cache).map([1], list) == [1]


def test_old_namespaces_can_be_listed(tmp_path: Path) -> None:
    """Those that no cache takes any more may be in a store."""
    with SQLiteStore(tmp_path / "results.db") as store:
        for name in ("a\nb", "\ud800", "\x1b[31m", "x" * 100_000):
            store.set_many(name, {KEY: b"1"}, None)
            assert dict(store.scan(name)) == {KEY: b"1"}
        assert len(store.usage()) == 4


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf"), 86_401, "10", None, True])
def test_the_lease_of_a_store_of_ones_own(lease: Any) -> None:
    """It is a number of seconds, and none that would end the thread that renews it."""
    store = MemoryStore()
    store.lease = lease
    with pytest.raises((TypeError, ValueError), match=r"the lease of .*MemoryStore.* must be"):
        Cache(store=store, namespace="n")
    store.lease = 86_400  # the longest there can be is waited for without overflow
    proxy = BatchingMapProxy[int, int](cache=Cache(store=store, namespace="n"))
    assert proxy.map([1], list) == [1]


def test_values_as_large_as_sqlite_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit that the store names they are kept; beyond it the error says what it is."""
    small = 20_000  # what an SQLite may have been built to take
    connect = sqlite3.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, small)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    monkeypatch.setattr("batchproxy.stores._sqlite._LONGEST", small)
    with SQLiteStore(tmp_path / "results.db") as store:
        most = store.max_value_size
        assert small - 1_000 <= most < small
        store.set_many("n" * 1000, {KEY: bytes(most)}, 60.0)
        with pytest.raises(StoreError, match="larger than SQLite can take") as caught:
            store.set_many("n", {OTHER: b"1", THIRD: bytes(small + 1)}, None)
        assert isinstance(caught.value.__cause__, sqlite3.DataError)
        assert store.get_many("n" * 1000, [KEY]) == {KEY: bytes(most)}
        assert store.get_many("n", [OTHER, THIRD]) == {}


def test_more_claims_than_a_row_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may claim any number of keys, and they are all held."""
    monkeypatch.setattr("batchproxy.stores._sqlite._CLAIM", 20 * 7 + 4)
    keys = [number.to_bytes(20, "big") for number in range(50)]
    one, other = Claimant("a", 1), Claimant("b", 1)
    with SQLiteStore(tmp_path / "results.db") as store:
        assert store.claim_many("n", keys, one, 50) == Claims({}, keys, [])
        assert store.claim_many("n", keys, other, 50) == Claims({}, [], keys)
        store.release_many("n", keys[5:], one)
        assert store.claim_many("n", keys, other, 50) == Claims({}, keys[5:], keys[:5])


# --- Where a setting says which store it is ---

needs_redis = pytest.mark.skipif(find_spec("redis") is None, reason="needs the extra redis")
NAMES = ["results.db", "./redis:x", "./a:/b", "a:b", "C:results.db", "redis", "x y?z#@"]


@pytest.mark.parametrize("name", [*NAMES, Path("redis:")])
def test_files(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not look like a URL is a file, which is made when it is first used."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:").mkdir()
    with open_store(name) as store:
        assert isinstance(store, SQLiteStore)
        assert store.identity == SQLiteStore(name).identity
        assert os.listdir() == ["a:"]
        store.set_many("n", {b"k": b"v"}, None)
        assert Path(name).exists()


@needs_redis
@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "rediss://localhost:1", "unix:///no/where.sock?db=1"]
)
def test_servers(url: str) -> None:
    """The URLs of redis-py are servers; nothing is connected yet."""
    with open_store(url) as store:
        assert isinstance(store, RedisStore)
        assert store.identity == RedisStore(url).identity


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/mine", "postgres://ada@/mine?host=/no"])
def test_postgresql(url: str) -> None:
    """The URLs of libpq are servers, too."""
    pytest.importorskip("psycopg")
    with open_store(url) as store:
        assert isinstance(store, PostgresStore)
        assert store.identity == PostgresStore(url).identity


SERVERS = "redis://, rediss://, unix://, postgresql://, postgres://.*"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somebody:s3cret@db/x", f"{SERVERS}got one of mysql:// "),
        ("PostgreSQL://:s3cret@host", f"{SERVERS}got one of PostgreSQL:// "),
        ("postgres:s3cret@host", f"{SERVERS}got what is neither"),
        ("HTTP://:s3cret@host", f"{SERVERS}got one of HTTP:// "),
        ("REDIS://:s3cret@host", f"{SERVERS}got one of REDIS:// "),
        ("redis:/:s3cret@host", f"{SERVERS}got what is neither"),
        ("redis:s3cret@host", f"{SERVERS}got what is neither"),
        (" redis://:s3cret@host", f"{SERVERS}got what is neither"),
        ("s3cret://host", f"{SERVERS}got one of s3cret:// "),
        pytest.param("redis://:s3c/ret@127.0.0.1:1/0", "RedisStore takes a URL", marks=needs_redis),
    ],
)
def test_other_urls(url: str, said: str) -> None:
    """They are refused, as are those that were meant to be one; what is known is named."""
    with pytest.raises(ValueError, match=said) as caught:
        open_store(url)
    assert not re.search("s3cret@|s3c/ret|somebody", str(caught.value))


def test_without_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files need nothing but Python; a server needs its driver, and the error says which."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"needs redis-py: pip install 'batchproxy\[redis\]'"):
        open_store("redis://127.0.0.1:1/0")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"psycopg: pip install 'batchproxy\[postgres\]'"):
        open_store("postgresql://127.0.0.1:1/mine")
    with Cache[str](store=open_store(tmp_path / "r.db"), namespace="n") as cache:
        assert BatchingMapProxy[int, str](cache=cache).map([1], lambda items: ["1"]) == ["1"]


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("", ValueError),
        (":memory:", ValueError),
        (None, TypeError),
        (3, TypeError),
        (b"results.db", TypeError),
    ],
)
def test_what_is_no_name(place: Any, error: type[Exception]) -> None:
    """Text or a path is needed, and it must name a file."""
    with pytest.raises(error, match=r"must name a file|expected str|must be text"):
        open_store(place)


# --- Looking into a store ---


@pytest.mark.parametrize("codec", [None, PickleCodec()])
def test_what_a_cache_has_written(codec: Any, tmp_path: Path) -> None:
    """Keys are found by their digests, values are read by the codec that wrote them."""
    keys = [1, "1", (1, None)]
    with open_store(tmp_path / "r.db") as store:
        cache = Cache[Any](store=store, namespace="n", codec=codec)
        BatchingMapProxy[Any, Any](cache=cache).map(
            keys, lambda items: [[item] for item in keys[:2]] + [None]
        )
        found = store.get_many("n", digests(keys))
        assert [loads(found[digest], codec) for digest in digests(keys)] == [[1], ["1"], None]
        if codec is not None:
            with pytest.raises(UnreadableValue):
                loads(next(iter(found.values())))


def test_which_result_was_refused(tmp_path: Path) -> None:
    """The error has its key; one that is about something else has none."""
    with Cache[Any](store=open_store(tmp_path / "r.db"), namespace="n") as cache:
        proxy: Any = BatchingMapProxy[int, Any](cache=cache)
        with pytest.raises(AnswerTypeError) as caught:
            proxy.map([1, 2], lambda items: [1, {2}])
        assert caught.value.key == 2
        with pytest.raises(AnswerTypeError) as caught:
            proxy.map([3], lambda items: {3})
        assert caught.value.key is None
    assert StoreError("it is not there").key is None
