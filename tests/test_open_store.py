"""Point 16 of the contract where a setting says which store it is, and for who looks into one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from batchproxy import AnswerTypeError, BatchingMapProxy, Cache, StoreError
from batchproxy.codecs import PickleCodec, UnreadableValue, digests, loads
from batchproxy.stores import RedisStore, SQLiteStore, open_store

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


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "rediss://localhost:1", "unix:///no/where.sock?db=1"]
)
def test_servers(url: str) -> None:
    """The URLs of redis-py are servers; nothing is connected yet."""
    pytest.importorskip("redis", reason="needs the extra redis")
    with open_store(url) as store:
        assert isinstance(store, RedisStore)
        assert store.identity == RedisStore(url).identity


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://somebody:s3cret@db/x", "got one of postgresql:// "),
        ("HTTP://:s3cret@host", "got one of HTTP:// "),
        ("REDIS://:s3cret@host", "got one of REDIS:// "),
        ("redis:/:s3cret@host", "got what is neither"),
        ("redis:s3cret@host", "got what is neither"),
        (" redis://:s3cret@host", "got what is neither"),
        ("s3cret://host", "got one of s3cret:// "),
    ],
)
def test_other_urls(url: str, said: str) -> None:
    """They are refused, as are those that were meant to be one; what is known is named."""
    with pytest.raises(ValueError, match="redis://, rediss://, unix://") as caught:
        open_store(url)
    assert said in str(caught.value)
    assert "s3cret@" not in str(caught.value)
    assert "somebody" not in str(caught.value)


def test_malformed_urls() -> None:
    """What is wrong with the URL of a server is said without its password."""
    pytest.importorskip("redis", reason="needs the extra redis")
    with pytest.raises(ValueError, match="RedisStore takes a URL") as caught:
        open_store("redis://:s3c/ret@127.0.0.1:1/0")
    assert "s3c" not in str(caught.value)


def test_without_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files need nothing but Python; a server needs redis-py, and the error says so."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"needs redis-py: pip install 'batchproxy\[redis\]'"):
        open_store("redis://127.0.0.1:1/0")
    with Cache[str](store=open_store(tmp_path / "r.db"), namespace="n") as cache:
        assert BatchingMapProxy[int, str](cache=cache).map([1], lambda items: ["1"]) == ["1"]


@pytest.mark.parametrize("place", ["", ":memory:"])
def test_no_file(place: str) -> None:
    """A name is needed."""
    with pytest.raises(ValueError, match="must name a file"):
        open_store(place)


@pytest.mark.parametrize("place", [None, 3, b"results.db"])
def test_what_is_no_name(place: Any) -> None:
    """Text or a path is needed."""
    with pytest.raises(TypeError):
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
