"""No message and no log line has more than some two hundred characters of a key or value."""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest

from batchproxy import AnswerValueError, AsyncBatchingMapProxy, BatchingMapProxy, Cache, StoreError
from batchproxy.codecs import Codec
from batchproxy.stores import MemoryStore, SQLiteStore, Store

PROMPT = "secret prompt " * 10_000
KEYS = [(f"{PROMPT}{number}",) * 9 for number in range(10)]


class Hostile:
    """Says nothing of itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Long(str):
    def __repr__(self) -> str:
        return str(self)


class Broken(MutableMapping[Any, Any]):
    """A mapping that raises, and says what it was asked for."""

    def __getitem__(self, key: Any) -> Any:
        raise ValueError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise ValueError(key)

    def __delitem__(self, key: Any) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        raise ValueError(PROMPT)


class Talking(MemoryStore):
    """A store with a repr that is of no use, and that cannot take anything."""

    max_value_size = 0
    shown: object = Long(PROMPT)

    def __repr__(self) -> str:
        return repr(self.shown)


class Unspeakable(Talking):
    shown = Hostile()


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


class Refusing(Codec):
    """Refuses everything, with an exception of the user's."""

    tag = b"X"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def encode(self, value: Any) -> bytes:
        raise self._error

    def decode(self, data: bytes) -> Any:
        raise self._error


def refused(store: Store, codec: Codec | None = None) -> None:
    """The other results are not lost, and the failure is one of the list."""
    cache = Cache[Any](store=store, namespace="n", codec=codec)
    [failure] = BatchingMapProxy[Any, Any](cache=cache).map(
        [1], lambda items: items, return_exceptions=True
    )
    assert len(repr(cache)) < 500
    raise failure


def ring() -> None:
    proxy = BatchingMapProxy[Any, Any]()

    def ask(items: list[Any]) -> list[Any]:
        return proxy.map(items, ask)

    proxy.map(KEYS, ask)


def several_fail() -> None:
    def fail(items: list[Any]) -> Any:
        return {}

    BatchingMapProxy[Any, Any](1, 4).map(KEYS, fail)


function: Any = print
wrong: Any = [Long(PROMPT), Hostile(), (["x" * 1000] * 1000,) * 2]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: BatchingMapProxy[Any, Any]().map(KEYS, lambda items: {}),
        ring,
        several_fail,
        lambda: refused(Talking()),
        lambda: refused(Unspeakable()),
        *(
            lambda error=error: refused(MemoryStore(), Refusing(error))
            for error in (ValueError("\x1b[31m" + PROMPT), TypeError(Hostile()), Silent())
        ),
        lambda: Cache[Any]().invalidate(PROMPT),
        lambda: MemoryStore(lease=10**5000),
        lambda: SQLiteStore(PROMPT.encode()),  # type: ignore[arg-type] # as here
        lambda: Cache[Any]().prime({PROMPT: ValueError()}),
        lambda: Cache[Any](store=Long("\x1b[31m\n")),  # type: ignore[arg-type] # as here
        *(
            lambda make=make, value=value: make(value)
            for value in wrong
            for make in (
                lambda value: Cache[Any]().invalidate(value),
                lambda value: Cache[Any]().prime(value),
                lambda value: Cache[Any](value),
                lambda value: Cache[Any](ttl=value),
                lambda value: Cache[Any](store=value),
                lambda value: AsyncBatchingMapProxy[Any, Any](value),
                lambda value: AsyncBatchingMapProxy[Any, Any](1, value),
                lambda value: AsyncBatchingMapProxy[Any, Any](key=value),
                lambda value: AsyncBatchingMapProxy[Any, Any](cache=value),
                lambda value: BatchingMapProxy[Any, Any]().map(value, function),
                lambda value: BatchingMapProxy[Any, Any]().map([1], value),
                lambda value: BatchingMapProxy[Any, Any]().map([1], function, progress=value),
                lambda value: BatchingMapProxy[Any, Any]().map([1], lambda items: value),
                lambda value: BatchingMapProxy[Any, Any](backend=value),
                lambda value: MemoryStore(value),
                lambda value: MemoryStore(lease=value),
                lambda value: SQLiteStore("db", timeout=value),
            )
        ),
    ],
)
def test_messages(attempt: Callable[[], object]) -> None:
    """Nor does a repr that raises hide what is wrong."""
    with pytest.raises((TypeError, ValueError, RuntimeError)) as raised:
        attempt()
    assert "no repr" not in str(raised.value)
    assert str(raised.value).isprintable()
    assert max(map(len, [str(raised.value), *getattr(raised.value, "__notes__", ())])) < 700


def test_classes_that_are_called_as_builtin_ones() -> None:
    """What is said of them may lack what `reprlib` expects."""
    thing = type("array", (), {"__hash__": object.__hash__})()
    with pytest.raises(AnswerValueError, match="lacks 1 of its 1 keys: <"):
        BatchingMapProxy[Any, Any]().map([thing], lambda items: {})


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """What a mapping raises is logged once for each read, however many keys that is for."""
    proxy = BatchingMapProxy[Any, Any](cache=Broken())
    assert proxy.map(KEYS, lambda items: items) == KEYS
    assert proxy.statistics().cached == 0
    assert len(caplog.records) <= 5
    assert any("and 5 more from the cache" in record.message for record in caplog.records)
    assert all(
        "in __getitem__" in each.message for each in caplog.records if "reading" in each.message
    )
    assert len(caplog.text) < 5000


class Failing(Talking):
    """A store of the user's that says too much."""

    max_value_size = 100

    def get_many(self, *_: Any) -> Any:
        raise StoreError("\x1b[31m" + PROMPT)


@pytest.mark.parametrize("error", [ValueError("\x1b[31m" + PROMPT), Silent()])
def test_log_lines_of_what_users_give(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What a progress function raises is logged with the place; a store that is left alone, too."""

    def report(_: object) -> None:
        raise error

    cache = Cache[Any](store=Failing(), namespace="n", on_store_error="continue")
    proxy = BatchingMapProxy[Any, Any](cache=cache)
    assert proxy.map([1], lambda items: items, progress=report) == [1]
    said = [each for each in caplog.records if each.name == "batchproxy"]
    assert len(said) == 2
    assert any("in report" in each.message for each in said)
    assert "\x1b" not in caplog.text
    assert len(caplog.text) < 3000
