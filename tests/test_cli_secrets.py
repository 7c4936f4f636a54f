"""The command: the password in the URL of a store is shown nowhere; there is another way for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_tools import call
from command_tools import directory as directory
from redis_server import needs_redis

from batchproxy import StoreError
from batchproxy.stores import RedisStore, SQLiteStore

FUNCTIONS = """
def upper(items): return [item.upper() for item in items]
def fail(items): raise ValueError("no")
"""


@pytest.fixture(autouse=True)
def given(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are functions and an input in the current directory."""
    monkeypatch.delenv("BATCHPROXY_STORE", raising=False)
    Path("fn.py").write_text(FUNCTIONS)
    Path("in.txt").write_text("a\nb\n")


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """That of a server, with a user and a password."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "somebody", "on", ">s3cret", "~*", "+@all")
        yield redis_url.replace("unix://", "unix://somebody:s3cret@")
        client.execute_command("ACL", "DELUSER", "somebody")


@needs_redis
def test_everything_that_is_said(url: str) -> None:
    """Summaries, dry runs, how to resume, what is in the store: without user and password."""
    store, shown = ("--store", url, "--namespace", "n"), url.replace("somebody:s3cret", "***")
    said = [
        call("map", "fn.py:upper", "in.txt", *store).output,
        call("map", "fn.py:upper", "in.txt", *store, "--dry-run").output,
        call("map", "fn.py:fail", "in.txt", *store[:3], "m", status=1).output,
        call("cache", "export", *store).output,
        call("cache", "clear", *store, status=2).output,
        call("cache", "clear", *store, "--yes").output,
        call("cache", "info", "--store", url).output,
    ]
    assert f"2 computed in 1 call, 0 hits in {shown}" in said[0]
    assert f"2 are in {shown}" in said[1]
    assert f"finished batches are in {shown}; to resume, run the same command" in said[2]
    assert not any("s3cret" in each or "somebody" in each for each in said)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://somebody:s3cret@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0"),
        ("rediss://:s3c%72et@localhost:1", "rediss://***@localhost:1"),
        ("redis://:s3/c#r@et@[::1]:1/2", "redis://***@[::1]:1/2"),
        ("redis://127.0.0.1:1/0?password=s3cret&username=somebody", "redis://127.0.0.1:1/0?***"),
        ("redis://127.0.0.1:1/0?password=some@s3cret", "redis://***"),
        ("redis://:s3c?ret@127.0.0.1:1", "redis://***"),
        ("redis://:s3cret", "redis://***"),
        ("redis://:12345678", "redis://***"),
        ("unix://somebody:s3cret@/no/where.sock?db=1", "unix://***@/no/where.sock?***"),
        ("redis2://:s3cret@127.0.0.1:1/0", "redis2://***"),
        ("postgresql://somebody:s3cret@127.0.0.1:1/db", "postgresql://***@127.0.0.1:1/db"),
        ("postgres://127.0.0.1:1/db?password=s3cret", "postgres://127.0.0.1:1/db?***"),
        ("postgresql://:s3c/ret@127.0.0.1:1", "postgresql://***@127.0.0.1:1"),
        ("postgresql://:s3cret", "postgresql://***"),
        ("redis:/:s3cret@127.0.0.1", "***"),
        ("redis:s3cret@127.0.0.1", "***"),
        (" redis://:s3cret@127.0.0.1", "***"),
        ("'redis://:s3cret@127.0.0.1'", "***"),
    ],
)
@needs_redis
def test_urls_that_lead_nowhere(url: str, shown: str) -> None:
    """Host, port and database are shown of one that is well-formed; of others nothing."""
    said = [
        call("map", "fn.py:upper", "in.txt", "--store", url, "--namespace", "n", status=2),
        call("cache", "info", "--store", url, status=2),
        call("cache", "info", url, status=2),  # in the wrong place
        call("cache", "info", f"--stone={url}", status=2),
    ]
    for result in said[:2]:
        assert f"'{shown}'" in result.stderr
    secrets = ("s3c", "somebody", "ret@", "et@", "12345678")
    found = [each for each in secrets for result in said if each in result.output]
    assert not found, [result.output for result in said]


def test_a_url_that_is_none() -> None:
    """What is wrong with it is said to the end."""
    pytest.importorskip("redis")
    line = ("map", "fn.py:upper", "in.txt", "--store", "redis://u@[bad", "--namespace", "n")
    failed = " ".join(call(*line, status=2).stderr.split())
    assert "'redis://***' cannot be opened: RedisStore takes a URL such as" in failed
    assert failed.endswith("or / ? # or @ are not percent-encoded in it")


@needs_redis
def test_a_server_that_goes_away(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its library says is shown without the password, also in a traceback."""

    def fail(*_: object) -> None:
        raise ConnectionError(f"no answer from {url}")

    for method in ("claim_many", "scan", "usage"):
        monkeypatch.setattr(RedisStore, method, fail)
    line = ("map", "fn.py:upper", "in.txt", "--store", url, "--namespace", "n", "--traceback")
    failed = call(*line, status=1).stderr
    assert "in fail" in failed  # the frame
    assert "no answer from unix://***:***@/" in failed
    for verb in ("info", "export"):
        failed = call("cache", verb, "--store", url, status=1).stderr
        assert "failed: ConnectionError: no answer from unix://***:***@/" in failed


def test_the_store_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BATCHPROXY_STORE` stands for --store, which overrides it; the help says so."""
    monkeypatch.setenv("BATCHPROXY_STORE", "here.db")
    assert "0 hits in here.db" in call("map", "fn.py:upper", "in.txt", "--namespace", "n").stderr
    assert "here.db: " in call("cache", "info").stdout
    missing = call("cache", "info", "--store", "there.db", status=2)
    assert "there is no store 'there.db'" in missing.stderr
    refused = call("map", "fn.py:upper", "in.txt", status=2)
    assert "--store (or BATCHPROXY_STORE) needs --namespace" in refused.stderr
    assert "BATCHPROXY_STORE" in call("map", "--help").stdout
    monkeypatch.setenv("BATCHPROXY_STORE", "")
    assert "Missing option '--store'" in call("cache", "info", status=2).stderr
    assert "results were not kept" in call("map", "fn.py:upper", "in.txt").stderr


def test_a_store_that_fails_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a usage error before anything is computed, though it could be made."""

    def fail(*_: object) -> None:
        raise StoreError("it is not there")

    monkeypatch.setattr(SQLiteStore, "get_many", fail)
    line = ("map", "fn.py:fail", "in.txt", "--store", "s.db", "--namespace", "n")
    refused = call(*line, status=2)
    assert "the store 's.db' cannot be opened: StoreError: it is not there" in refused.stderr
