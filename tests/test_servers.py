"""What stores on a server have in common beyond the contract: one that fails, forks, many users."""

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import pytest
from postgres_server import needs_postgres
from process_tools import needs_fork, run_prepared
from redis_server import needs_redis
from store_tools import SERVERS, every_method
from tools import Thread, until

from batchproxy import BatchingMapProxy, Cache, StoreError, stores
from batchproxy.stores import Claimant, Claims, PostgresStore, RedisStore, Usage

P, Q = Claimant("p", 1), Claimant("q", 1)
A, B, C = (bytes([number]) * 20 for number in range(3))

Store = RedisStore | PostgresStore


class Kind(NamedTuple):
    """A kind of store, with a name for what keeps the stores of a test apart from others."""

    make: Callable[..., Store]
    option: str
    name: str
    shared: str  # the fixture that gives the URL of a server
    own: str  # and that of one that can be killed


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> Kind:
    name = f"test_{uuid4().hex}"
    if request.param == "server":
        return Kind(RedisStore, "prefix", name, "redis_url", "server")
    return Kind(PostgresStore, "schema", name, "postgres_url", "own_postgres")


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: Kind) -> str:
    return str(request.getfixturevalue(kind.shared))


@pytest.fixture
def store(url: str, kind: Kind) -> Iterator[Store]:
    with kind.make(url, **{kind.option: kind.name}) as store:
        yield store


@pytest.fixture
def own(request: pytest.FixtureRequest, kind: Kind) -> Any:
    """A server of one's own, which keeps its data when it is killed."""
    return request.getfixturevalue(kind.own)


@pytest.fixture
def make_own(own: Any, kind: Kind) -> Iterator[Callable[..., Store]]:
    """Makes stores on that server."""
    stores: list[Store] = []

    def make(**options: Any) -> Store:
        stores.append(kind.make(own.url, **{kind.option: kind.name}, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


# The server fails


def test_a_server_that_is_gone(own: Any, make_own: Callable[..., Store]) -> None:
    """Every method raises, soon; none of them afterwards, when the server is back."""
    store = make_own(timeout=30)
    store.claim_many("n", [A], P, 1)
    own.kill()
    calls = every_method(store)
    for call in calls:
        with pytest.raises(StoreError, match=r"Store: .*(Connection|Operational)Error") as caught:
            call()
        assert caught.value.__cause__ is not None
    own.start()
    for call in calls:
        call()


def test_a_restarted_server(own: Any, make_own: Callable[..., Store]) -> None:
    """The same store goes on, with values, claims and leases as they were."""
    store = make_own(lease=3600)
    store.set_many("n", {A: b"1"}, None)
    store.claim_many("n", [B], P, 1)
    own.restart()
    assert store.claim_many("n", [A, B, C], Q, 1) == Claims({A: b"1"}, [C], [B])
    store.heartbeat("n", "p")
    assert store.publish_many("n", {A: b"2", B: b"2"}, P, None) == {A: b"1"}


def test_a_server_that_does_not_answer(own: Any, make_own: Callable[..., Store]) -> None:
    """A call ends after the timeout; once the server answers again, so does the store."""
    store = make_own(timeout=0.3)
    store.claim_many("n", [A], P, 1)
    with own.standing_still():
        with pytest.raises(StoreError, match="Timeout"):
            store.get_many("n", [A])
        with pytest.raises(StoreError, match="Timeout"):
            store.publish_many("n", {A: b"1"}, P, None)
    # What the server has not read yet it may do when it goes on.
    assert store.publish_many("n", {A: b"1"}, P, None) in ({}, {A: b"1"})
    assert store.get_many("n", [A]) == {A: b"1"}


def test_a_server_that_stood_still(own: Any, make_own: Callable[..., Store]) -> None:
    """For longer than a lease, which nobody could renew: its owner can, whoever comes first."""
    store = make_own(lease=0.2)
    store.claim_many("n", [A], P, 1)
    with own.standing_still():
        time.sleep(0.5)
    assert store.claim_many("n", [A, B], Q, 2) == Claims({}, [B], [A])
    store.heartbeat("n", "p")
    assert store.claim_many("n", [A], Q, 1) == Claims({}, [], [A])


# Batches above the sizes of one step


def test_batches_in_several_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cut; the result is the same."""
    for size in ("_redis._PAGE", "_redis._CLAIMS", "_postgres._PAGE", "_postgres._ROWS"):
        monkeypatch.setattr(f"batchproxy.stores.{size}", 3)
    monkeypatch.setattr("batchproxy.stores._steps.STEP_KEYS", 3)
    monkeypatch.setattr("batchproxy.stores._steps.STEP_BYTES", 10)
    keys = [bytes([number]) * 20 for number in range(10)]
    assert store.claim_many("n", keys, P, 8) == Claims({}, keys[:8], [])
    assert store.claim_many("n", keys, Q, 1) == Claims({}, keys[8:9], keys[:8])
    store.release_many("n", keys, P)
    values = {key: key[:1] * 4 for key in keys}
    store.set_many("n", {key: values[key] for key in keys[::2]}, None)
    earlier = store.publish_many("n", dict.fromkeys(keys, b"a value of more than 10"), P, None)
    assert earlier == {key: values[key] for key in keys[::2]}
    expected = {**dict.fromkeys(keys, b"a value of more than 10"), **earlier}
    assert store.get_many("n", keys) == expected
    assert sorted(store.scan("n")) == list(expected.items())
    assert store.usage() == {"n": Usage(10, sum(map(len, expected.values())))}
    store.discard_many("n", {**expected, keys[4]: b"another"})
    assert store.usage() == {"n": Usage(1, len(expected[keys[4]]))}
    store.set_many("n", values, None)
    store.set_many("other", values, None)
    store.delete_many("n", None)
    assert store.usage() == {"other": Usage(10, 40)}


def test_the_steps_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step has as many values as are allowed, and bytes; but one value at least."""
    monkeypatch.setattr("batchproxy.stores._steps.STEP_KEYS", 3)
    monkeypatch.setattr("batchproxy.stores._steps.STEP_BYTES", 10)

    def sizes(*sizes: int) -> list[list[int]]:
        values = {bytes([number]): bytes(size) for number, size in enumerate(sizes)}
        return [list(map(len, step.values())) for step in stores._steps.steps(values)]

    assert sizes() == []
    assert sizes(1, 1, 1, 1) == [[1, 1, 1], [1]]
    assert sizes(11, 5, 5, 1, 20) == [[11], [5, 5], [1], [20]]


# usage() and scan()


def test_usage(store: Store) -> None:
    """Values are counted and measured by namespace; claims and what has expired are not."""
    store.set_many("a", {A: b"123", B: b""}, None)
    store.set_many("é {b}", {A: b"12345"}, 3600)
    store.set_many("é {b}", {B: b"12345"}, 0)
    store.claim_many("c", [A], P, 1)
    until(lambda: len(store.get_many("é {b}", [A, B])) < 2)
    assert store.usage() == {"a": Usage(2, 3), "é {b}": Usage(1, 5)}


def test_scan(store: Store) -> None:
    """All values of one namespace come once each, without those of others."""
    values = {os.urandom(20): os.urandom(5) for _ in range(5000)}
    store.set_many("a*", values, None)
    store.set_many("ab", {A: b"1"}, None)
    store.claim_many("a*", [B], P, 1)
    found = list(store.scan("a*"))
    assert len(found) == 5000
    assert dict(found) == values
    assert list(store.scan("nothing here")) == []


def test_names_are_apart(url: str, kind: Kind, store: Store) -> None:
    """Stores of other names share nothing, also when one begins with the other."""
    with kind.make(url, **{kind.option: kind.name + "_x"}) as other:
        store.set_many("n", {A: b"1"}, None)
        assert other.get_many("n", [A]) == {}
        assert other.usage() == {}
        other.set_many("n", {A: b"22"}, None)
        store.delete_many("n", None)
        assert store.usage() == {}
        assert other.usage() == {"n": Usage(1, 2)}


def test_what_is_the_same_place(url: str, kind: Kind) -> None:
    """The same server, database and name, however they were named."""
    one = kind.make(url, **{kind.option: kind.name})
    assert one.identity == kind.make(url, **{kind.option: kind.name}, lease=3).identity
    assert one.identity != kind.make(url, **{kind.option: kind.name + "x"}).identity
    assert kind.name in repr(one)


SECRET = "s%2Fe:c\u00a7ret"


@needs_redis
@needs_postgres
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:{}@example.org:7/3", "example.org:7/3, prefix"),
        ("rediss://ada:{}@example.org", "example.org:6379/0, prefix"),
        ("redis://example.org?password={}&username=ada&db=2", "example.org:6379/2, prefix"),
        ("unix:///run/redis.sock?password={}", "/run/redis.sock/0, prefix"),
        ("unix://ada:{}@/run/redis.sock?db=1", "/run/redis.sock/1, prefix"),
        ("postgresql://ada:{}@example.org:7/mine", "example.org:7/mine, schema"),
        ("postgres://ada:{}@example.org/mine", "example.org:5432/mine, schema"),
        ("postgresql://example.org/mine?password={}&user=ada", "example.org:5432/mine, schema"),
        ("postgresql:///mine?host=/run&password={}", "/run:5432/mine, schema"),
        ("hostaddr=127.0.0.1 dbname=mine port=8 password='{}'", "127.0.0.1:8/mine, schema"),
        ("postgresql://a,b:7/mine?service=x&password={}", "a,b:,7/mine, schema"),
    ],
)
def test_passwords_are_shown_nowhere(url: str, shown: str) -> None:
    """Neither in the repr of what uses the store, nor in what compares stores."""
    made: list[Store] = []
    for secret in (SECRET, "another"):
        text = url.format(quote(secret, safe=""))
        if shown.endswith("schema"):
            made += [PostgresStore(text)]
        else:
            import redis

            made += [RedisStore(text), RedisStore(redis.Redis.from_url(text))]
    for store in made:
        assert f"{shown} 'batchproxy'>" in repr(store)
        assert store.identity == made[0].identity
        cache = Cache[str](store=store, namespace="n")
        for each in (store.identity, cache, BatchingMapProxy[int, str](cache=cache)):
            assert SECRET not in repr(each)
            assert quote(SECRET, safe="") not in repr(each)
            assert "ada" not in repr(each)


def test_caches_that_are_gone(store: Store) -> None:
    """A store remembers nothing of them: there may be one for each request."""

    def requests() -> int:
        for number in range(3):
            cache = Cache[int](store=store, namespace="n")
            assert BatchingMapProxy[int, int](cache=cache).map([number], list) == [number]
            cache.clear()
        return sum(len(each) for each in vars(store).values() if isinstance(each, Sized))

    assert requests() == requests()


# Pickled, closed, forked, threads


def test_it_travels(kind: Kind) -> None:
    """As the URL and the other arguments."""
    url = f"{'redis' if kind.option == 'prefix' else 'postgresql'}://user:secret@localhost:1/0"
    with kind.make(url, **{kind.option: kind.name}, lease=7, timeout=3) as store:
        pickled = pickle.dumps(store)
        assert pickle.loads(pickled) is store
    with pickle.loads(pickled) as made:
        assert made is not store
        assert (made.identity, made.lease) == (store.identity, 7)
        assert pickle.loads(pickled) is made
        assert "secret" not in repr(made)


def test_closed(store: Store) -> None:
    """A closed store refuses everything but to be closed."""
    store.get_many("n", [A])
    store.close()
    store.close()
    calls = every_method(store)
    calls.append(lambda: store.delete_many("n", []))
    for call in calls:
        with pytest.raises(StoreError, match="is closed; make another one"):
            call()


def test_closing_under_way(store: Store) -> None:
    """A store that is closed while threads use it ends their calls with an error, not for ever."""
    started = threading.Barrier(5)

    def use() -> None:
        started.wait()
        while True:
            store.set_many("n", {A: bytes(1000)}, None)

    threads = [Thread(use) for _ in range(4)]
    started.wait()
    store.close()
    for thread in threads:
        assert isinstance(thread.outcome(), Exception)


@needs_fork
def test_forked_children(url: str, kind: Kind) -> None:
    """Children forked while threads read get answers of their own, and so do the threads."""
    script = """
from batchproxy.stores import Claimant, PostgresStore, RedisStore

if sys.argv[2] == "prefix":
    store = RedisStore(sys.argv[1], prefix=sys.argv[3])
else:
    store = PostgresStore(sys.argv[1], schema=sys.argv[3])
keys = [bytes([number]) * 20 for number in range(100)]
values = {key: key * 50 for key in keys}
store.set_many("n", values, None)
stop = threading.Event()

def read():
    while not stop.is_set():
        assert store.get_many("n", keys) == values

def child():
    signal.alarm(20)
    if number < 9:  # the last one uses nothing, and closes nothing that is the parent's
        assert store.get_many("n", keys) == values
        store.claim_many("c", keys, Claimant(f"child-{number}", 1), 1)
        store.heartbeat("c", f"child-{number}")
    if number % 2:
        store.close()
    else:
        del globals()["store"]

readers = [start(read) for _ in range(4)]
for number in range(10):
    forked(child, os._exit)
stop.set()
for reader in readers:
    reader.join()
assert store.get_many("n", keys) == values
claims = store.claim_many("c", keys, Claimant("parent", 1), 100)
assert len(claims.held) == 9, claims
store.close()
"""
    assert run_prepared(script, url, kind.option, kind.name) == ""
