"""`RedisStore` where it is more than a store: a server that fails, restarts, forgets; a cluster."""

import os
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from redis_server import RedisServer, free_ports, needs_redis
from store_tools import every_method

from batchproxy import StoreError
from batchproxy.stores import Claimant, Claims, RedisStore, Usage, _redis
from batchproxy.testing import SharedStoreContract

redis = pytest.importorskip("redis")
pytestmark = needs_redis

P, Q = Claimant("p", 1), Claimant("q", 1)
A, B, C = (bytes([number]) * 20 for number in range(3))


@pytest.fixture
def prefix() -> str:
    """Keeps tests that share a server apart."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def store(redis_url: str, prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, prefix=prefix) as store:
        yield store


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


# The server fails


def test_a_server_that_wants_a_password(server: RedisServer) -> None:
    """A store cannot be used with a wrong password, nor is that repeated."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")
    with RedisStore(f"{server.url}?password=sesame") as store:
        with pytest.raises(StoreError) as caught:
            store.get_many("n", [A])
        assert "sesame" not in "".join(traceback.format_exception(caught.value))
    with RedisStore(f"{server.url}?password=right") as store:
        assert store.get_many("n", [A]) == {}


def test_a_server_whose_memory_is_full(server: RedisServer) -> None:
    """Nothing is written then, not even a part, no claim ends; what is there can be read."""
    with redis.Redis.from_url(server.url) as client, RedisStore(server.url) as store:
        store.set_many("n", {A: b"1"}, None)
        store.claim_many("n", [B], P, 1)
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="OutOfMemoryError"):
            store.publish_many("n", {B: b"2", C: b"2"}, P, None)
        with pytest.raises(StoreError, match="OutOfMemoryError"):
            store.set_many("n", {B: b"2", C: b"2"}, None)
        assert store.get_many("n", [A, B, C]) == {A: b"1"}
        client.config_set("maxmemory", 0)
        assert store.claim_many("n", [B], Q, 1) == Claims({}, [], [B])


def test_evicted_leases(store: RedisStore, client: Any, prefix: str) -> None:
    """Where a server evicted the leases, their claims are free, rather than held for ever."""
    store.claim_many("n", [A], P, 1)
    client.delete(f"{prefix}:{{n}}:leases")
    assert store.claim_many("n", [A, B], Q, 2) == Claims({}, [A, B], [])


def test_forgotten_scripts(store: RedisStore, client: Any) -> None:
    """Scripts that the server has forgotten are sent again."""
    for _ in range(2):
        for call in every_method(store):
            client.script_flush()
            call()
        store.set_many("n", {A: b"1"}, None)
        client.script_flush()
        assert store.publish_many("n", {A: b"2"}, P, None) == {A: b"1"}


# What it leaves on the server


def test_names(store: RedisStore, client: Any, prefix: str) -> None:
    """All that a namespace has is under its prefix and in one slot, however it is called."""
    for namespace, encoded in {
        "embed-v3": "embed-v3",
        "{a}}b{": "%7Ba%7D%7Db%7B",
        "é: *?[x]\n%": "%C3%A9%3A%20%2A%3F%5Bx%5D%0A%25",
    }.items():
        store.set_many(namespace, {A: b"1"}, None)
        store.claim_many(namespace, [B], P, 1)
        start = f"{prefix}:{{{encoded}}}:".encode()
        shared = {start + name for name in (b"leases", b"halves", b"claims")}
        names = {start + b"v:" + A, *shared}
        assert {name for name in client.keys(f"{prefix}*") if name.startswith(start)} == names
        assert len({redis.crc.key_slot(name) for name in names}) == 1
    assert len(client.keys(f"{prefix}*")) == 12


def test_claims_do_not_stay_for_ever(store: RedisStore, client: Any, prefix: str) -> None:
    """When all processes are dead, what is left goes a day later, but while one lives nothing."""
    names = [f"{prefix}:{{n}}:{what}" for what in ("leases", "halves", "claims")]
    day = 86_400_000
    store.claim_many("n", [A], P, 1)
    for name in names:
        assert day < client.pttl(name) <= 2 * day
        client.pexpire(name, 5000)
    store.heartbeat("n", "p")
    for name in names:
        assert day < client.pttl(name) <= 2 * day


def test_claims_of_the_dead_are_cleared(store: RedisStore, client: Any, prefix: str) -> None:
    """When a lease has run out, the next to claim removes all claims of its process."""
    leases, claims = f"{prefix}:{{n}}:leases", f"{prefix}:{{n}}:claims"
    store.claim_many("n", [A, B], P, 2)
    store.claim_many("n", [C], Q, 1)
    client.zadd(leases, {"p": 1})
    assert store.claim_many("n", [A], Q, 1).held == [A]  # it is doubted only
    client.zadd(leases, {"p": 1})
    store.claim_many("n", [bytes(20)[:19] + b"x"], Q, 1)
    assert client.zrange(leases, 0, -1) == [b"q"]
    assert client.hvals(claims) == [b"q 1", b"q 1"]


def test_a_late_claimant_keeps_its_own(store: RedisStore, client: Any, prefix: str) -> None:
    """A process whose lease ran out and that nobody noticed has its claims again."""
    store.claim_many("n", [A], P, 1)
    client.zadd(f"{prefix}:{{n}}:leases", {"p": 1})
    store.claim_many("n", [B], P, 1)
    assert store.claim_many("n", [A, B], Q, 2) == Claims({}, [], [A, B])


# Large batches


def test_a_batch_is_little_work(
    store: RedisStore, client: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent in few pieces, claimed in a table, and written by one command.

    None is so large that a slow link could not take it in time.
    """
    sent: list[list[bytes | memoryview]] = []
    send = redis.UnixDomainSocketConnection.send_packed_command

    def note(connection: Any, pieces: Any, *options: Any, **more: Any) -> None:
        sent.append(pieces)
        send(connection, pieces, *options, **more)

    keys = [b"%020d" % number for number in range(1000)]
    store.claim_many("n", [A], P, 1)
    assert client.object("encoding", f"{prefix}:{{n}}:claims") == b"hashtable"
    with monkeypatch.context() as patch:
        patch.setattr(redis.UnixDomainSocketConnection, "send_packed_command", note)
        store.get_many("n", keys)
        store.set_many("n", {B: bytes(2**17)}, None)  # which is not copied
        assert [*map(len, sent)] == [1, 3]
        large, values = os.urandom(2**19 + 1), {key: os.urandom(2000) for key in keys}
        store.set_many("n", {C: large}, None)
        assert [piece.obj is large for piece in sent[-1] if isinstance(piece, memoryview)] == [
            True
        ] * 5
        store.set_many("m", values, None)
        store.publish_many("o", values, P, None)
    assert max(len(piece) for pieces in sent for piece in pieces) == 2**17
    assert store.get_many("n", [C]) == {C: large}
    assert store.get_many("m", keys) == store.get_many("o", keys) == values
    client.config_resetstat()
    store.publish_many("n", dict.fromkeys(keys[1:], b"1"), P, None)
    store.set_many("n", {keys[0]: b"1"}, None)
    stats = client.info("commandstats")
    assert {stats["cmdstat_msetnx"]["calls"], stats["cmdstat_mset"]["calls"]} == {1}
    assert "cmdstat_set" not in stats


def test_a_batch_of_which_a_part_is_there(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest stays claimed until it is written, too."""
    store.claim_many("n", [A, B], P, 2)
    store.set_many("n", {A: b"1"}, None)
    run, seen = store._client.evalsha, list[Claims]()

    def look_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        seen.append(store.claim_many("n", [B], Q, 1))
        return run(*arguments)

    monkeypatch.setattr(store._client, "evalsha", look_first)
    assert store.publish_many("n", {A: b"2", B: b"2"}, P, None) == {A: b"1"}
    assert seen == [Claims({}, [], [B])]


# usage() and scan()


def test_what_others_have_put_there(store: RedisStore, client: Any, prefix: str) -> None:
    """Under names that look like ours, or of other types: it is left out, and harms nobody."""
    store.set_many("n", {A: b"1"}, None)
    start = f"{prefix}:{{n}}:v:".encode()
    client.rpush(start + B, b"a list")
    client.set(prefix.encode() + b":{\xff}:v:x", b"1")
    for name in ("no brace", "{a b}:v:x", "{%zz}:v:x", "{n}x:v:x}:v:"):
        client.set(f"{prefix}:{name}", b"1")
    assert store.usage() == {"n": Usage(1, 1)}
    assert list(store.scan("n")) == [(A, b"1")]
    assert store.get_many("n", [A, B]) == {A: b"1"}
    store.set_many("n", {B: b"2"}, None)
    assert store.usage() == {"n": Usage(2, 2)}


def test_a_value_larger_than_the_server_takes(server: RedisServer) -> None:
    """It is an error, and those up to the limit are fine, as is whatever comes later."""
    limit = 2**20
    with redis.Redis.from_url(server.url) as client, RedisStore(server.url) as store:
        client.config_set("proto-max-bulk-len", limit)
        store.set_many("n", {A: bytes(limit)}, None)
        with pytest.raises(StoreError, match="RedisStore"):
            store.set_many("n", {B: bytes(limit + 1)}, None)
        assert store.get_many("n", [A, B]) == {A: bytes(limit)}
    assert store.max_value_size == 512 * 2**20


def test_names_that_the_server_repeats(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SCAN may give a name twice; it is counted once."""
    store.set_many("n", {A: b"1", B: b"23"}, None)
    scan = store._client.scan_iter
    monkeypatch.setattr(store._client, "scan_iter", lambda *args: [*scan(*args)] * 2)
    monkeypatch.setattr(_redis, "_PAGE", 2)
    assert store.usage() == {"n": Usage(2, 3)}
    assert sorted(store.scan("n")) == [(A, b"1"), (B, b"23")]


# What it is made from


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_of_ones_own(redis_url: str, prefix: str, protocol: int) -> None:
    """A client can be used, and stays open when the store is closed."""
    with redis.Redis.from_url(redis_url, protocol=protocol) as client:
        with RedisStore(client, prefix=prefix) as store:
            store.claim_many("n", [A, B], P, 1)
            store.publish_many("n", {A: b"\xff"}, P, 60)
            assert store.claim_many("n", [A, B], Q, 1) == Claims({A: b"\xff"}, [B], [])
            assert list(store.scan("n")) == [(A, b"\xff")]
            assert store.usage() == {"n": Usage(1, 1)}
        assert client.ping()


def test_closed(redis_url: str) -> None:
    """A closed store has no connections left."""
    with redis.Redis.from_url(redis_url) as client:
        store = RedisStore(f"{redis_url}?client_name=closed")
        store.get_many("n", [A])
        assert [each for each in client.client_list() if each["name"] == "closed"]
        store.close()
        # The server notices in its own time, but before it answers whoever connects afterwards.
        with redis.Redis.from_url(redis_url) as later:
            assert not [each for each in later.client_list() if each["name"] == "closed"]


def test_repr(store: RedisStore, prefix: str) -> None:
    """It says which server and prefix it is for."""
    assert prefix in repr(store)
    assert "redis.sock/0" in repr(store)


def test_sentinels() -> None:
    """A client of theirs is named by the service; its passwords are not."""
    sentinel = redis.Sentinel([("localhost", 1)], sentinel_kwargs={"password": "secret"})
    store = RedisStore(sentinel.master_for("mine", password="secret", db=3))
    assert repr(store) == "<RedisStore: mine of sentinels/3, prefix 'batchproxy'>"


def test_what_is_the_same_place(redis_url: str, prefix: str) -> None:
    """The same server, database and prefix, by a URL or a client."""
    with redis.Redis.from_url(redis_url) as client:
        one = RedisStore(client, prefix=prefix)
        assert one.identity == RedisStore(redis_url, prefix=prefix).identity
        assert one.identity != RedisStore(f"{redis_url}?db=1", prefix=prefix).identity


WRONG_OPTIONS = [
    *("socket_timeout=soon", "tiemout=5", "max_connections=-1", "parser_class=1"),
    *("protocol=5", "protocol=two"),
]
UNQUOTED = ["sec/ret", "sec?ret", "sec#ret", "1/secret", "1?secret", "1?secret=ret", "1#secret"]
WRONG_URLS = [
    *("", "localhost:6379", "valkey://localhost", "redis://:secret@localhost:port"),
    *("redis://:secret@[localhost", "redis://:secret@localhost/first"),
    "redis://:1?x=1&sec@ret=localhost",
    *(f"redis://:secret@localhost?{option}" for option in WRONG_OPTIONS),
    *(f"redis://:{password}@localhost" for password in UNQUOTED),
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_wrong_urls(url: str) -> None:
    """They are refused with an example of a right one; a password is not repeated."""
    with pytest.raises(ValueError, match="such as 'redis://localhost:6379/0'") as caught:
        RedisStore(url)
    assert caught.value.__context__ is None
    for part in ("secret", "'sec", "ret@", "'ret"):
        assert part not in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "option",
    [
        *("decode_responses=True", "decode_responses=False", "decode_responses=yes"),
        *("decode%5Fresponses=1", "encoding=utf-16", "encoding=none"),
    ],
)
def test_urls_of_clients_that_decode(redis_url: str, option: str) -> None:
    """They are refused as such a client is."""
    with pytest.raises(ValueError, match="answers in bytes and writes UTF-8"):
        RedisStore(f"{redis_url}?{option}")
    RedisStore(f"{redis_url}?encoding=UTF8").close()


@pytest.mark.parametrize("most", [1, 2])
def test_few_connections(redis_url: str, prefix: str, most: int) -> None:
    """Who needs one waits for one; no more are used."""
    url = f"{redis_url}?max_connections={most}&client_name=few-{prefix}"
    with RedisStore(url, prefix=prefix) as store:
        start = threading.Barrier(8)

        def use(number: int) -> None:
            start.wait()
            for _ in range(20):
                store.set_many("n", {bytes([number]) * 20: b"1"}, None)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
        assert store.usage() == {"n": Usage(8, 8)}
        with redis.Redis.from_url(redis_url) as client:
            names = [each["name"] for each in client.client_list()]
            assert names.count(f"few-{prefix}") <= most


def test_no_server_at_all(redis_url: str) -> None:
    """What is neither a URL nor a client, or one that makes text of values, is refused."""
    with pytest.raises(TypeError, match=r"or a redis\.RedisCluster, got redis\.asyncio\.client\.R"):
        RedisStore(redis.asyncio.Redis())
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    with client, pytest.raises(ValueError, match="decode_responses=True and encoding="):
        RedisStore(client)


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a*", "é"])
def test_wrong_prefixes(redis_url: str, prefix: str) -> None:
    """What would mix up slots or patterns is refused as a prefix."""
    with pytest.raises(ValueError, match="ASCII letters, digits"):
        RedisStore(redis_url, prefix=prefix)


# Processes and threads


def test_a_store_of_the_parent(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that closes what it has inherited leaves the connections to the parent."""
    store = RedisStore(redis_url, prefix=prefix)
    store.set_many("n", {b"1" * 20: b"value"}, None)
    disconnected: list[object] = []
    disconnect = redis.BlockingConnectionPool.disconnect

    def note(pool: Any, *options: Any) -> None:
        disconnected.append(pool)
        disconnect(pool, *options)

    monkeypatch.setattr(redis.BlockingConnectionPool, "disconnect", note)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 0)
        store.close()
    assert disconnected == []
    store.close()
    assert len(disconnected) == 1


# A cluster


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A cluster of one node. It refuses what crosses slots, as any other does."""
    port, bus = free_ports(2)
    directory = tmp_path_factory.mktemp("cluster")
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
    with RedisServer(directory, *options, port=port) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        yield port


class TestCluster(SharedStoreContract):
    """The contract holds on a cluster."""

    @pytest.fixture(autouse=True)
    def _use_cluster(self, cluster_port: int) -> Iterator[None]:
        with redis.RedisCluster(host="127.0.0.1", port=cluster_port) as self.client:
            yield

    def make_store(self, lease: float = 60.0) -> RedisStore:
        return RedisStore(self.client, lease=lease)

    def test_usage_and_scan(self) -> None:
        """They work across slots."""
        with RedisStore(self.client, prefix="usage") as store:
            for namespace in "abc":
                store.set_many(namespace, {A: b"1", B: b"22"}, None)
            assert store.usage() == dict.fromkeys("abc", Usage(2, 3))
            assert sorted(store.scan("b")) == [(A, b"1"), (B, b"22")]
