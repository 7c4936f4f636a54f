"""`PostgresStore` where it is more than a store: what it makes on a server, and its connections."""

import gc
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from postgres_server import PostgresServer
from tools import Clock, Thread, until

from batchproxy import StoreError
from batchproxy.stores import Claimant, Claims, PostgresStore, Usage, _postgres, _postgres_pool

psycopg = pytest.importorskip("psycopg")

P, Q = Claimant("p", 1), Claimant("q", 1)
A, B, C, D = (bytes([number]) * 20 for number in range(4))


@pytest.fixture
def schema() -> str:
    """Keeps tests that share a server apart."""
    return f"test_{uuid4().hex}"


@pytest.fixture
def store(postgres_url: str, schema: str) -> Iterator[PostgresStore]:
    with PostgresStore(postgres_url, schema=schema) as store:
        yield store


@pytest.fixture
def client(postgres_url: str) -> Iterator[Any]:
    with psycopg.connect(postgres_url, autocommit=True) as client:
        yield client


def sessions(client: Any, name: str) -> int:
    """How many connections of that name the server has."""
    found = client.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name]
    )
    return int(found.fetchone()[0])


@contextmanager
def locked(url: str, schema: str) -> Iterator[None]:
    """Nobody reads or writes a result meanwhile."""
    with psycopg.connect(url) as client:
        client.execute(f"LOCK TABLE {schema}.results")
        yield


# The server crashes


def test_a_server_that_crashed(own_postgres: PostgresServer, schema: str) -> None:
    """What is durable is there, whole batches at a time; claims are gone, and can be made anew."""
    with PostgresStore(own_postgres.url, schema=schema, lease=3600, durable=True) as store:
        store.claim_many("n", [A, B], P, 2)
        store.publish_many("n", {A: b"1"}, P, None)
        own_postgres.kill()
        own_postgres.start()
        assert store.claim_many("n", [A, B], Q, 1) == Claims({A: b"1"}, [B], [])
        assert store.publish_many("n", {B: b"2"}, P, None) == {}
        assert store.publish_many("n", {B: b"3"}, Q, None) == {B: b"2"}


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_waited_for(postgres_url: str, schema: str, client: Any, durable: bool) -> None:
    """Only a durable store waits for the disk, and its connections are as they were."""
    asked: list[tuple[bytes, Any]] = []

    def note(statement: bytes, parameters: Any, slack: float) -> list[Any]:
        asked.append((statement, parameters))
        return []

    with PostgresStore(postgres_url, schema=schema, durable=durable) as store:
        store.set_many("n", {A: b"1"}, None)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(store._pool, "run", note)
            store.publish_many("n", {B: b"1"}, P, None)
        [(statement, parameters)] = asked
        how = "SELECT current_setting('synchronous_commit')"
        with client.transaction():
            client.execute(statement, [*parameters[:2], [B], [b"1"], *parameters[4:]])
            assert client.execute(how).fetchone() == ("on" if durable else "off",)
        assert client.execute(how).fetchone() == ("on",)


# Servers that are set up in another way


def test_a_database_without_an_encoding(postgres_url: str, schema: str, client: Any) -> None:
    """Where clients are not told which one to use, it is found again all the same."""
    client.execute(f"CREATE DATABASE {schema} ENCODING 'SQL_ASCII' TEMPLATE template0")
    for number in range(2):
        with PostgresStore(postgres_url.replace("/postgres?", f"/{schema}?")) as store:
            store.set_many("é", {bytes([number]) * 20: b"1"}, None)
            assert store.usage() == {"é": Usage(number + 1, number + 1)}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_another_isolation(postgres_url: str, schema: str, level: str) -> None:
    """Who waited would not see what for: it is refused, with what to do, before it is used."""
    options = quote(f"-cdefault_transaction_isolation={level}".replace(" ", "\\ "))
    said = f"'read committed', here it is '{level}'; ask for"
    store = PostgresStore(f"{postgres_url}&options={options}", schema=schema)
    with store, pytest.raises(StoreError, match=said):
        store.get_many("n", [A])


def test_an_old_server(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by its version, rather than with what it does not know."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 120_022)
    with pytest.raises(StoreError, match="needs PostgreSQL 13 or newer, this is "):
        store.get_many("n", [A])


def test_a_server_that_may_only_be_read(postgres_url: str, schema: str) -> None:
    """As a standby: what is there is found, and why nothing can be written is said."""
    with PostgresStore(postgres_url, schema=schema) as store:
        store.set_many("n", {A: b"1"}, None)
    url = f"{postgres_url}&options=-cdefault_transaction_read_only%3Don"
    with PostgresStore(url, schema=schema) as store:
        with pytest.raises(StoreError, match="read-only"):
            store.set_many("n", {B: b"1"}, None)
        with pytest.raises(StoreError, match="read-only"):
            store.claim_many("n", [B], P, 1)
        assert store.get_many("n", [A, B]) == dict(store.scan("n")) == {A: b"1"}


# The schema


def test_several_make_it_at_once(postgres_url: str, schema: str) -> None:
    """One is first; for the others it is there."""
    stores = [PostgresStore(postgres_url, schema=schema) for _ in range(4)]
    start = threading.Barrier(4)

    def use(store: PostgresStore) -> None:
        start.wait()
        store.set_many("n", {A: b"1"}, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, stores))
    for store in stores:
        store.close()


def test_a_schema_that_was_made_empty(postgres_url: str, schema: str, client: Any) -> None:
    """It is used, so who may make none can be given one."""
    client.execute(f"CREATE SCHEMA {schema}")
    client.execute(f"CREATE ROLE {schema} LOGIN")
    client.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {schema}")
    url = postgres_url.replace("tests@", f"{schema}@")
    with PostgresStore(url, schema=schema) as store:
        store.set_many("n", {A: b"1"}, None)
    store = PostgresStore(url, schema=f"{schema}x")
    with pytest.raises(StoreError, match="InsufficientPrivilege"):
        store.get_many("n", [A])


def test_a_schema_that_was_dropped(
    postgres_url: str, store: PostgresStore, schema: str, client: Any
) -> None:
    """By who wants to be rid of all that is in it, say: after one error it is made again."""
    store.set_many("n", {A: b"1"}, None)
    with locked(postgres_url, schema):
        threads = [Thread(store.get_many, "n", [A]) for _ in range(2)]
        until(lambda: store._pool._open == 2)
    assert [thread.outcome() for thread in threads] == [{A: b"1"}] * 2
    client.execute(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(StoreError, match="InvalidSchemaName"):
        store.get_many("n", [A])
    assert store.get_many("n", [A]) == {}
    store.set_many("n", {A: b"2"}, None)
    assert store.get_many("n", [A]) == {A: b"2"}


def test_somebody_is_making_it(postgres_url: str, schema: str, client: Any) -> None:
    """And stands still: nobody waits for that for ever."""
    with PostgresStore(postgres_url, schema=schema, timeout=0.1) as store, client.transaction():
        client.execute(
            "SELECT pg_advisory_xact_lock(hashtext(%s))", [f"batchproxy store, layout {schema}"]
        )
        with pytest.raises(StoreError, match=r"has not answered for 0\.1 s"):
            store.get_many("n", [A])


@pytest.mark.parametrize(
    "what",
    ["TABLE {}.namespaces (a int)", "FUNCTION {}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
)
def test_a_schema_of_others(store: PostgresStore, schema: str, client: Any, what: str) -> None:
    """It is refused by name, and left as it is, however often it is tried."""
    client.execute(f"CREATE SCHEMA {schema}")
    client.execute("CREATE " + what.format(schema))
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"the schema '{schema}' has tables or functions of an"
        ):
            store.get_many("n", [A])
    made = "SELECT count(*) FROM pg_class WHERE relnamespace = %s::regnamespace"
    assert client.execute(made, [schema]).fetchone()[0] == ("TABLE" in what)


@pytest.mark.parametrize("layout", ["0", "2"])
def test_a_schema_of_another_version(
    store: PostgresStore, postgres_url: str, schema: str, client: Any, layout: str
) -> None:
    """It is refused, and both versions are named."""
    store.set_many("n", {A: b"1"}, None)
    client.execute(f"COMMENT ON TABLE {schema}.namespaces IS 'batchproxy store, layout {layout}'")
    later = PostgresStore(postgres_url, schema=schema)
    with pytest.raises(StoreError, match=rf"another version .* is '{layout}', this one knows 1"):
        later.get_many("n", [A])


def test_claims_and_leases_are_not_logged(store: PostgresStore, schema: str, client: Any) -> None:
    """What lasts for a moment is not in the write-ahead log, and results are."""
    store.set_many("n", {A: b"1"}, None)
    kinds = client.execute(
        "SELECT relname, relpersistence FROM pg_class "
        "WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
        [schema],
    ).fetchall()
    assert dict(kinds) == {"namespaces": "p", "results": "p", "leases": "u", "claims": "u"}


def test_nothing_stays(store: PostgresStore, schema: str, client: Any) -> None:
    """Claims go with their release or result, leases of the dead and what has expired with time."""
    store.lease = 0.02
    store.claim_many("n", [A, B, C], P, 3)
    store.publish_many("n", {A: b"1"}, P, 0.001)
    store.release_many("n", [B], P)
    time.sleep(0.03)
    store.claim_many("n", [D], Q, 1)  # which doubts
    time.sleep(0.03)
    store.heartbeat("n", "q")
    assert store.claim_many("n", [C], Q, 0) == Claims({}, [], [])
    assert client.execute(f"SELECT key FROM {schema}.claims").fetchall() == [(D,)]
    assert client.execute(f"SELECT process FROM {schema}.leases").fetchall() == [("q",)]
    store.set_many("n", {D: b"1"}, None)
    assert client.execute(f"SELECT key FROM {schema}.results").fetchall() == [(D,)]


def test_plans_for_a_table_that_grows(store: PostgresStore, schema: str, client: Any) -> None:
    """They were made when it was empty, and read no more than what is asked for."""
    keys = [number.to_bytes(20, "big") for number in range(2_000)]
    store.claim_many("n", keys[:1], P, 1)
    for start in range(0, 2_000, 500):
        store.set_many("n", dict.fromkeys(keys[start : start + 500], b"1"), None)
    store.claim_many("n", [*keys[:10], A], Q, 1)
    assert store.get_many("n", keys[500:510]) == dict.fromkeys(keys[500:510], b"1")
    store.close()  # then what it did is counted
    counted = (
        "SELECT sum(idx_scan), sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = %s"
    )
    looked, read = 0, 0
    while not looked:
        looked, read = client.execute(counted, [schema]).fetchone()
    assert read < 100


def test_where_others_are_quicker(
    store: PostgresStore, postgres_url: str, schema: str, client: Any
) -> None:
    """Who waits for the lock finds what they have, rather than what it saw before."""
    keys = [A, B, C]
    store.set_many("n", {D: b"1"}, None)
    locked = (
        f"SELECT pg_advisory_xact_lock('{schema}.claims'::regclass::oid::integer, uuid_hash(%s))"
    )
    with PostgresStore(postgres_url, schema=schema) as other:
        with client.transaction():
            client.execute(locked, [_postgres._space("n")])
            thread = Thread(lambda: store.claim_many("n", keys, P, 3))
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            until(lambda: client.execute(waiting).fetchone()[0])
            # Without the lock, which is what others cannot do: so they were before it.
            client.execute(
                f"INSERT INTO {schema}.claims VALUES (%s, %s, 'q', 1)", [A, _postgres._space("n")]
            )
            other.set_many("n", {B: b"2"}, None)
        assert thread.outcome() == Claims({B: b"2"}, [C], [A])


def test_who_doubts_and_who_is_doubted(store: PostgresStore, schema: str, client: Any) -> None:
    """They claim at the same time, one after the other, and none waits for both."""
    store.lease = 0.001
    store.claim_many("n", [A], P, 1)
    time.sleep(0.002)
    claim = f"SELECT _key, _held FROM {schema}.claim(%b, %b, %b, 'q', 1, '9 s', %s)"
    space = _postgres._space("n")
    with client.transaction():
        client.execute(claim, [space, [B], [B], 0])  # which doubts
        thread = Thread(lambda: store.claim_many("n", [C], P, 1))
        until(lambda: client.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
        assert client.execute(claim, [space, [B], [B], 1]).fetchall() == [(B, False)]
    assert thread.outcome() == Claims({}, [C], [])


# Large batches


def test_old_namespaces_can_be_listed(store: PostgresStore) -> None:
    """Those that no cache takes any more may be in a store."""
    for name in ("a\nb", "a\0b", "\ud800", "x" * 100_000):
        store.set_many(name, {A: b"1"}, None)
        assert dict(store.scan(name)) == {A: b"1"}
    assert len(store.usage()) == 4


def test_writers_who_meet(store: PostgresStore) -> None:
    """Threads that write, delete and claim the same keys, in any order, do not block each other."""
    keys = [bytes([number]) * 20 for number in range(100)]
    works: list[Any] = [
        lambda: store.set_many("n", dict.fromkeys(keys, b"1"), 0.001),
        lambda: store.set_many("n", dict.fromkeys(keys[::-1], b"1"), None),
        lambda: store.publish_many("n", dict.fromkeys(keys[50:] + keys[:50], b"2"), P, None),
        lambda: store.delete_many("n", keys[::-1]),
        lambda: store.delete_many("n", None),
        lambda: store.discard_many("n", dict.fromkeys(keys[::-1], b"1")),
        lambda: store.claim_many("n", keys[::-1], Claimant("p", 2), 60),
        lambda: store.release_many("n", keys[::-1], P),
    ]

    def run(work: Any) -> None:
        for _ in range(20):
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(run, works))


def test_what_may_take_longer(
    postgres_url: str, schema: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes through all that is there, and what writes much. Nothing else is left to go on."""
    monkeypatch.setattr(_postgres_pool, "_MOST", 9)
    monkeypatch.setattr(_postgres, "_PACE", 1)
    url = f"{postgres_url}&application_name={schema}"
    with PostgresStore(url, schema=schema, timeout=0.1) as store:
        store.set_many("n", {A: b"1"}, None)
        works: list[Callable[[], object]] = [
            store.usage,
            lambda: list(store.scan("n")),
            lambda: store.delete_many("n", None),
            lambda: store.set_many("m", {B: bytes(60)}, None),
        ]
        with locked(postgres_url, schema):
            threads = [Thread(work) for work in works]
            until(lambda: sessions(client, schema) >= len(works))
            for _ in range(2):
                with pytest.raises(StoreError, match=r"has not answered for 0\.1 s"):
                    store.get_many("n", [A])
            until(lambda: sessions(client, schema) <= len(works))
        for thread in threads:
            thread.outcome()
        assert store.usage() == {"m": Usage(1, 60)}


# Connections


def test_few_connections(postgres_url: str, schema: str, client: Any) -> None:
    """Who needs one waits for it; leases are renewed all the same; closing closes them all."""
    url = f"{postgres_url}&application_name={schema}"
    with PostgresStore(url, schema=schema) as store:
        store.set_many("n", {A: b"1"}, None)
        with locked(postgres_url, schema):
            threads = [Thread(lambda: store.get_many("n", [A])) for _ in range(8)]
            until(lambda: sessions(client, schema) >= 4)
            store.heartbeat("n", "p")
            assert sessions(client, schema) == 5
        for thread in threads:
            assert thread.outcome() == {A: b"1"}
        assert sessions(client, schema) == 5
    until(lambda: not sessions(client, schema))  # the server notices in its own time


def test_closing_while_it_is_used(postgres_url: str, schema: str, client: Any) -> None:
    """What is under way ends as usual, and then its connection is closed."""
    store = PostgresStore(f"{postgres_url}&application_name={schema}", schema=schema)
    store.set_many("n", {A: b"1"}, None)
    with locked(postgres_url, schema):
        thread = Thread(lambda: store.get_many("n", [A]))
        until(lambda: not store._pool._idle)
        store.close()
        assert sessions(client, schema) == 1
    assert thread.outcome() == {A: b"1"}
    until(lambda: not sessions(client, schema))


def test_no_connection_is_free(
    postgres_url: str, schema: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has waited for one for as long as the timeout has an error, and later one."""
    monkeypatch.setattr(_postgres_pool, "_MOST", 1)
    with PostgresStore(postgres_url, schema=schema, timeout=60) as store:
        store.set_many("n", {A: b"1"}, None)
        with locked(postgres_url, schema):
            thread = Thread(lambda: store.get_many("n", [A]))
            until(lambda: not store._pool._idle)
            store._pool._timeout = 0.1
            with pytest.raises(StoreError, match=r"no connection was free for 0\.1 s"):
                store.get_many("n", [A])
        assert thread.outcome() == store.get_many("n", [A]) == {A: b"1"}


@pytest.mark.parametrize("slack", [1000, math.inf])
def test_waiting_for_what_may_take_longer(
    postgres_url: str, schema: str, monkeypatch: pytest.MonkeyPatch, clock: Clock, slack: float
) -> None:
    """Who waits for a connection has as much time, and who is behind the first to get it, too."""
    monkeypatch.setattr(_postgres_pool, "_MOST", 1)
    with PostgresStore(postgres_url, schema=schema, timeout=60) as store:
        store.set_many("n", {A: b"1"}, None)
        pool, waits = store._pool, list[float]()
        wait = pool._changed.wait

        def note(seconds: float) -> bool:
            waits.append(seconds)
            return wait(seconds)

        def come_to_wait(waiters: list[Thread]) -> None:
            """Have `waiters` look at the clock."""
            with pool._changed:
                waits.clear()
                pool._changed.notify_all()
            until(lambda: waits.count(60) == len(waiters) or not all(map(Thread.is_alive, waiters)))

        monkeypatch.setattr(pool._changed, "wait", note)
        with locked(postgres_url, schema):
            table = f"SELECT * FROM {schema}.results".encode()
            holder = Thread(lambda: len(pool.run(table, slack=slack)))
            until(lambda: not pool._idle)
            waiters = [Thread(pool._take, False) for _ in range(2)]
            until(lambda: len(pool._changed._waiters) > 1)  # type: ignore[attr-defined] # as below
            clock.now += 500
            come_to_wait(waiters)
        assert holder.outcome() == 1
        until(lambda: not all(map(Thread.is_alive, waiters)))
        first, second = sorted(waiters, key=Thread.is_alive)
        come_to_wait([second])
        pool._give_back(first.outcome())
        assert second.outcome() is first.outcome()
        pool._give_back(second.outcome())
        assert store.get_many("n", [A]) == {A: b"1"}


def test_closing_while_one_is_waited_for(
    postgres_url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a connection is told at once; and nobody makes another one."""
    monkeypatch.setattr(_postgres_pool, "_MOST", 1)
    store = PostgresStore(postgres_url, schema=schema, timeout=3600)
    store.set_many("n", {A: b"1"}, None)
    pool = store._pool
    with locked(postgres_url, schema):
        thread = Thread(lambda: store.get_many("n", [A]))
        until(lambda: not pool._idle)
        waiter = Thread(lambda: store.get_many("n", [A]))
        until(lambda: pool._changed._waiters)  # type: ignore[attr-defined] # who sleeps there
        store.close()
        assert str(waiter.outcome()).endswith("is closed; make another one")
    assert thread.outcome() == {A: b"1"}


def test_a_store_that_is_forgotten(postgres_url: str, schema: str, client: Any) -> None:
    """Its connections are closed, without a warning."""
    store = PostgresStore(f"{postgres_url}&application_name={schema}", schema=schema)
    store.set_many("n", {A: b"1"}, None)
    assert sessions(client, schema) == 1
    del store
    gc.collect()
    until(lambda: not sessions(client, schema))


def test_a_connection_that_was_ended(store: PostgresStore, client: Any, schema: str) -> None:
    """By an administrator, say: another one takes its place. So it is if a statement fails."""
    store.set_many("n", {A: b"1"}, None)
    [(number,)] = store._pool.run(b"SELECT pg_backend_pid()")
    client.execute("SELECT pg_terminate_backend(%s, 10000)", [number])
    assert store.get_many("n", [A]) == {A: b"1"}
    with pytest.raises(StoreError, match="QueryCanceled"):
        store._pool.run(b"SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
    assert store.get_many("n", [A]) == {A: b"1"}


def test_an_interrupt(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes out as it is, and the store can be used."""
    store.set_many("n", {A: b"1"}, None)
    with monkeypatch.context() as patched:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(_postgres_pool, "_fetch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.get_many("n", [A])
    assert store.get_many("n", [A]) == {A: b"1"}


# What it is made from


def test_the_rest_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every program that uses libpq."""
    for name, value in {"PGHOST": "there", "PGPORT": "7", "PGDATABASE": "mine"}.items():
        monkeypatch.setenv(name, value)
    assert PostgresStore("postgresql://").identity == ("there:7/mine", "batchproxy")
    monkeypatch.delenv("PGDATABASE")
    assert PostgresStore("user=ada").identity == ("there:7/ada", "batchproxy")


UNQUOTED = ["sec/ret", "1/secret", "%zzsecret"]
WRONG_URLS = [
    *("localhost:5432", "mysql://localhost", "postgresql://:secret@localhost:port/x"),
    *("postgresql://:secret@[localhost", "postgresql://localhost?tiemout=5", "host=a secret"),
    *(f"postgresql://:{password}@localhost" for password in UNQUOTED),
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_wrong_urls(url: str) -> None:
    """They are refused with an example of a right one; a password is not repeated."""
    with pytest.raises(ValueError, match="such as 'postgresql://user@localhost/data") as caught:
        PostgresStore(url)
    assert caught.value.__context__ is None
    assert "sec" not in "".join(traceback.format_exception(caught.value)).replace("test_", "")


def test_a_wrong_password(postgres_url: str) -> None:
    """What the server says of it does not have it; nor what nobody answers."""
    for place in (postgres_url, "postgresql://tests@127.0.0.1:1/x"):
        url = place.replace("tests@", "nobody_known:sesame@")
        with PostgresStore(url) as store, pytest.raises(StoreError) as caught:
            store.get_many("n", [A])
        assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_no_server_at_all() -> None:
    """What is no text is refused."""
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"such as 'postgresql://.*, got builtins\.int"):
        PostgresStore(wrong)


@pytest.mark.parametrize("schema", ["", "a b", "1a", 'a"', "é", "pg_mine", "x" * 64])
def test_wrong_schemas(schema: str) -> None:
    """What would be another name on the server is refused."""
    with pytest.raises(ValueError, match="ASCII letters, digits and '_', 63 at most"):
        PostgresStore("postgresql://localhost", schema=schema)


def test_psycopg_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'batchproxy\[postgres\]'"):
        PostgresStore("postgresql://localhost")
