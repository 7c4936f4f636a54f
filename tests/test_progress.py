"""Progress: what map() tells of how far it has come, on both proxies."""

import errno
import io
import sys
import threading
from contextlib import redirect_stderr
from contextvars import Context, copy_context
from typing import Any

import anyio
import pytest
from memory_store import MemoryStore
from tools import Thread, collect, modes, naive, never, together, until

from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy, Cache, Progress, StoreError
from batchproxy.codecs import digests
from batchproxy.testing import AsyncCalls, assert_idle

Async = AsyncBatchingMapProxy[int, Any]


async def test_snapshots_count_up_to_the_total() -> None:
    """One per change: what was known at once, then call after call, hits and failures apart."""
    proxy = Async(2, 1)
    seen: list[Progress] = []
    await proxy.map([], AsyncCalls(), progress=seen.append)
    await proxy.map([1, 2], AsyncCalls())
    await proxy.map([1, 1], AsyncCalls(), progress=seen.append)
    error = ValueError("odd")
    calls = AsyncCalls(lambda item: error if item == 5 else item)
    await proxy.map([1, 2, 3, 4, 4, 5], calls, progress=seen.append, return_exceptions=True)
    assert seen == [
        Progress(done=0, total=0, hits=0, shared=0, calls=0, failures=0),
        Progress(done=1, total=1, hits=1, shared=0, calls=0, failures=0),
        Progress(done=2, total=5, hits=2, shared=0, calls=0, failures=0),
        Progress(done=4, total=5, hits=2, shared=0, calls=1, failures=0),
        Progress(done=5, total=5, hits=2, shared=0, calls=2, failures=1),
    ]
    assert_idle(proxy)


async def test_a_call_that_raises_counts_its_keys_as_failed() -> None:
    """Also when it ends the map(); a bar is closed where it stood."""
    seen: list[Progress] = []
    calls = AsyncCalls()
    calls.fail(1, OSError("no"))
    with pytest.raises(OSError, match="no"):
        await Async(2, 1).map(range(6), calls, progress=seen.append)
    assert seen[-1] == Progress(done=4, total=6, hits=0, shared=0, calls=2, failures=2)
    pytest.importorskip("tqdm")
    calls.fail(3, OSError("no"))
    with redirect_stderr(io.StringIO()) as drawn, pytest.raises(OSError, match="no"):
        await Async(2, 1).map(range(6), calls, progress=True)
    assert "4/6" in drawn.getvalue()
    assert drawn.getvalue().endswith("\n")


async def test_what_others_compute_is_shared() -> None:
    """It counts when it comes."""
    proxy = Async()
    calls = AsyncCalls(gated=True)
    seen: list[Progress] = []
    async with together() as callers:
        await callers.begin("own", proxy.map, [1, 2], calls)
        await callers.begin("other", proxy.map, [2, 1, 3], AsyncCalls(), progress=seen.append)
        calls.open()
    assert callers.results["other"] == ["2", "1", "3"]
    assert [now.shared for now in seen] == [0, 0, 2]
    assert seen[-1] == Progress(done=3, total=3, hits=0, shared=2, calls=1, failures=0)


async def test_what_a_store_has_is_a_hit() -> None:
    """But what another process was computing when it was asked for is shared."""
    store = MemoryStore()
    calls, slow = AsyncCalls(), AsyncCalls(gated=True)
    first, second, third, fourth = (Async(cache=Cache(store=store, namespace="n")) for _ in "1234")
    await first.map([1, 2], calls)
    seen: list[Progress] = []
    await second.map([1, 2, 3], calls, progress=seen.append)
    assert seen[0] == Progress(done=2, total=3, hits=2, shared=0, calls=0, failures=0)
    async with together() as callers:
        callers.start("slow", third.map, [4], slow)
        await slow.wait_begun()
        callers.start("other", fourth.map, [4, 1], calls, progress=seen.append)
        while store.uses["claim_many"] < 5:  # noqa: ASYNC110 - it was told who has it by then
            await anyio.sleep(0.001)
        slow.open()
    assert seen[-1] == Progress(done=2, total=2, hits=1, shared=1, calls=0, failures=0)


async def test_what_is_found_instead_of_being_claimed_is_told() -> None:
    """Also if nothing else comes after it."""
    store = MemoryStore()
    proxy = Async(cache=Cache(store=store, namespace="n"))
    seen: list[Progress] = []
    gate = store.gate("claim_many")
    async with together() as callers:
        callers.start("own", proxy.map, [1], AsyncCalls(), progress=seen.append)
        await gate.wait_entered()
        store.values["n", digests([1])[0]] = b"tthere"
        gate.open()
    assert callers.results == {"own": ["there"]}
    assert seen[-1] == Progress(done=1, total=1, hits=1, shared=0, calls=0, failures=0)


async def test_a_function_that_raises_is_reported_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once; the map() goes on."""
    proxy = Async(1)
    seen: list[Progress] = []

    def failing(now: Progress) -> None:
        seen.append(now)
        raise ValueError("my own fault")

    assert await proxy.map(range(3), AsyncCalls(), progress=failing) == naive(range(3))
    assert len(seen) == 1
    assert caplog.text.count("the progress function failed") == 1
    assert "my own fault" in caplog.text


class Stderr(io.StringIO):
    """One that can be written to some times."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, text: str) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1
        return len(text)


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("proxy", [BatchingMapProxy(1), BatchingMapProxy(1, 2)])
def test_a_bar_that_cannot_be_drawn(
    writes: int, proxy: BatchingMapProxy[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    """From the first moment on, or later: that is logged once, and the map() goes on without it."""
    pytest.importorskip("tqdm")
    proxy.clear()
    stderr = Stderr(writes)
    with redirect_stderr(stderr):
        for _ in range(2):  # the second time all is known
            assert proxy.map(range(4), naive, progress=True) == naive(range(4))
        collect()
    failed = caplog.text.count("the progress function failed")
    assert failed == 2 if writes == 0 else failed <= 2
    assert len(caplog.records) == failed


@modes
def test_a_synchronous_caller_is_told_in_its_own_thread(
    max_concurrency: int | None, sync_backend: Any
) -> None:
    """All of it, before map() returns."""
    proxy = BatchingMapProxy[int, str](2, max_concurrency, backend=sync_backend)
    seen: list[Progress] = []
    threads: set[threading.Thread] = set()

    def report(now: Progress) -> None:
        seen.append(now)
        threads.add(threading.current_thread())

    assert proxy.map(range(5), naive, progress=report) == naive(range(5))
    assert seen[0] == Progress(0, 5, 0, 0, 0, 0)
    assert seen[-1] == Progress(5, 5, 0, 0, 3, 0)
    assert [now.done for now in seen] == sorted({now.done for now in seen})
    assert proxy.map(range(5), naive, progress=report) == naive(range(5))
    assert seen[-1] == Progress(5, 5, 5, 0, 0, 0)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("asks", ["map", "async map", "async load"])
@modes
def test_a_progress_function_that_asks_for_what_is_being_computed(
    asks: str, max_concurrency: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """If the thread that it keeps busy is to compute it, that raises; a worker goes on."""
    cache = Cache[Any]()
    proxy = BatchingMapProxy[int, str](1, max_concurrency, cache=cache)
    awaiting, unused = Async(cache=cache), AsyncCalls()
    results: list[Any] = []

    async def get() -> Any:
        one = asks == "async load"
        return [await awaiting.bind(unused).load(1)] if one else await awaiting.map([1], unused)

    def report(now: Progress) -> None:
        assert not results
        until(lambda: proxy.statistics().in_flight or 1 in cache)
        results.append(now)
        results[:] = proxy.map([1], naive) if asks == "map" else anyio.run(get)
        raise ValueError("enough")

    assert proxy.map([1, 2], naive, progress=report) == ["1", "2"]
    if max_concurrency is None:
        assert "CircularWaitError: map() would wait for itself: 1 is being computed" in caplog.text
    else:
        assert results == ["1"]
    assert len(caplog.records) == 1
    assert not unused.batches
    assert_idle(proxy)


def test_what_a_progress_function_leaves_behind() -> None:
    """It holds nothing up, and may wait for what is computed then."""
    proxy = BatchingMapProxy[int, str]()
    contexts, left = list[Context](), list[Thread]()

    def compute(items: list[int]) -> list[str]:
        thread = Thread(contexts[0].run, proxy.map, items, never)
        left.append(thread.until(lambda: proxy.statistics().waiting or not thread.is_alive()))
        return naive(items)

    proxy.map([1], compute, progress=lambda _: contexts.append(copy_context()))
    assert left[0].outcome() == ["1"]


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """True draws one on standard error, with the numbers behind it, and closes it."""
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.delattr(tqdm, "__del__")  # it would close it, too, if later perhaps
    proxy = BatchingMapProxy[int, str](2)
    for items, numbers in (
        (range(5), "5/5 calls=3 failures=0 hits=0 shared=0"),
        (range(3), "3/3 calls=0 failures=0 hits=3 shared=0"),
        ([], "0 calls=0 failures=0 hits=0 shared=0"),
    ):
        with redirect_stderr(io.StringIO()) as drawn:
            assert proxy.map(items, naive, progress=True) == naive(items)
        assert all(number in drawn.getvalue() for number in numbers.split())
        assert drawn.getvalue().endswith("\n")


def test_no_bar_of_a_map_that_does_not_begin() -> None:
    """There is nothing to draw, and nothing to close."""
    pytest.importorskip("tqdm")
    store = MemoryStore()
    store.fail["get_many"] = OSError("unplugged")
    proxy = BatchingMapProxy[int, str](cache=Cache(store=store, namespace="n"))
    with redirect_stderr(io.StringIO()) as drawn, pytest.raises(StoreError, match="unplugged"):
        proxy.map([1], naive, progress=True)
    assert drawn.getvalue() == ""


def test_a_bar_needs_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the error says how to get it, before anything is computed."""
    for name in ("tqdm", "tqdm.auto", "tqdm.std"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"batchproxy\[progress\]"):
        BatchingMapProxy[int, str]().map([1], never, progress=True)


class Report:
    async def __call__(self, now: Progress) -> None: ...


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("progress", "why"),
    [
        (3, "progress must be True for a bar"),
        ("bar", "progress must be True for a bar"),
        (AsyncCalls().__call__, "progress must be True for a bar"),
        (Report(), "not asynchronous"),  # it would never be awaited
    ],
)
def test_what_is_no_progress_function(progress: Any, why: str, known: bool) -> None:
    """It is named, before anything is computed, and if all is known, too."""
    proxy = BatchingMapProxy[int, str]()
    if known:
        proxy.map([1], naive)
    with pytest.raises(TypeError, match=why):
        proxy.map([1], naive, progress=progress)
    assert proxy.map([1], naive, progress=False) == ["1"]
