"""Points 3, 4 and 7 of the contract: answers that cannot be used, None, exceptions, failures."""

import asyncio
import dataclasses
import traceback
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import anyio
import pytest
from tools import Interrupt, contexts, naive, settle, step, together

from batchproxy import AnswerTypeError, AsyncBatchingMapProxy, Cache, Progress
from batchproxy.testing import AsyncCalls, assert_idle


@pytest.mark.parametrize("max_concurrency", [1, 2, 8])
async def test_twenty_callers_of_a_failing_key(max_concurrency: int) -> None:
    """One call, and all twenty get the very exception that it raised."""
    proxy = AsyncBatchingMapProxy[int, str](None, max_concurrency)
    calls = AsyncCalls(gated=True)
    boom = ValueError("boom")
    async with together(proxy) as callers:
        for number in range(20):
            callers.start(number, proxy.map, [1], calls)
        await settle()
        assert proxy.statistics().waiting == 19
        calls.fail(0, boom)
    assert calls.batches == [[1]]
    assert list(callers.results.values()) == [boom] * 20
    assert not hasattr(boom, "__notes__")  # nothing else has failed
    assert proxy.statistics().cached == 0
    assert await proxy.map([1], AsyncCalls()) == ["1"]


async def test_finished_batches_stay_cached() -> None:
    """After a failure the next map() pays only for what had not been finished."""
    proxy = AsyncBatchingMapProxy[int, str](2, 1)
    calls = AsyncCalls(gated=True)
    calls.fail(1, ValueError("boom"))
    calls.open()
    with pytest.raises(ValueError, match="boom"):
        await proxy.map(range(6), calls)
    assert calls.batches == [[0, 1], [2, 3]]
    again = AsyncCalls()
    assert await proxy.map(range(6), again) == naive(range(6))
    assert again.batches == [[2, 3], [4, 5]]
    assert_idle(proxy)


async def test_the_first_failure_cancels_the_other_calls() -> None:
    """The other running calls of the map() are cancelled, their keys released, no more are made."""
    proxy = AsyncBatchingMapProxy[int, str](1, 3)
    calls = AsyncCalls(gated=True)
    boom = ValueError("boom")
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, range(5), calls)
        await callers.begin("waiter", proxy.map, [0], calls)
        assert calls.batches == [[0], [1], [2]]
        await step(calls.fail, 1, boom)
        assert callers.results == {"owner": boom}
        assert calls.batches == [[0], [1], [2], [0]]  # the waiter took over what was given up
        calls.open()
    assert callers.results["waiter"] == ["0"]
    now = proxy.statistics()
    assert (now.completed, now.failed, now.cancelled) == (1, 1, 2)


async def raised_of(proxy: AsyncBatchingMapProxy[int, str], errors: Sequence[Exception]) -> Any:
    """What a map() raises of which every call has failed, each with one of `errors`."""
    calls, before = AsyncCalls(gated=True), proxy.statistics().failed
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, range(len(errors)), calls)
        for number, error in enumerate(errors):
            calls.fail(number, error)
    assert any(callers.results["owner"] is error for error in errors)
    assert proxy.statistics().failed == before + len(errors)
    return callers.results["owner"]


async def test_several_failures_at_once_raise_one_bare_exception() -> None:
    """Never a group: the first is raised, the others are its notes."""
    errors = [ValueError(number) for number in range(3)]
    raised = await raised_of(AsyncBatchingMapProxy(1, 3), errors)
    assert raised.__context__ is None
    others = [f"ValueError: {error}" for error in errors if error is not raised]
    notes = sorted(raised.__notes__)
    assert [note[-len(other) :] for note, other in zip(notes, others, strict=True)] == others


async def test_a_waiter_learns_before_its_own_next_call() -> None:
    """A caller that met the failing key when it began makes no call after the failure."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](1, 8, cache=cache)
    owner, others = AsyncCalls(gated=True), AsyncCalls(gated=True)
    boom = ValueError("boom")
    narrow = AsyncBatchingMapProxy[int, str](1, 1, cache=cache)
    async with together(proxy, narrow) as callers:
        await callers.begin("owner", proxy.map, [1], owner)
        await callers.begin("waiter", narrow.map, [7, 8, 1], others)
        await step(owner.fail, 0, boom)
        assert others.batches == [[7]]
        others.open()
    assert callers.results == {"owner": boom, "waiter": boom}
    assert others.batches == [[7]]
    assert await narrow.map([7], AsyncCalls(gated=True)) == ["7"]  # what it had finished is kept


async def test_who_queues_for_a_slot_learns_of_a_failure_before_its_call() -> None:
    """A failure during the wait for a slot ends the map(): the slot is not used for a call."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](cache=cache)
    narrow = AsyncBatchingMapProxy[int, str](None, 1, cache=cache)
    owner, blocker, others = AsyncCalls(gated=True), AsyncCalls(gated=True), AsyncCalls()
    boom = ValueError("boom")
    async with together(proxy, narrow) as callers:
        callers.start("owner", proxy.map, [1], owner)
        await callers.begin("blocker", narrow.map, [0], blocker)
        await callers.begin("waiter", narrow.map, [1, 2], others)
        await step(owner.fail, 0, boom)
        blocker.open()
    assert callers.results == {"owner": boom, "blocker": ["0"], "waiter": boom}
    assert others.batches == []


async def test_a_key_met_on_the_way_to_the_next_batch() -> None:
    """Who meets a call when it looks for its next batch waits for it, and shares its failure."""
    cache = Cache[str]()
    proxy = AsyncBatchingMapProxy[int, str](1, 1, cache=cache)
    other = AsyncBatchingMapProxy[int, str](cache=cache)
    mine, theirs = AsyncCalls(gated=True), AsyncCalls(gated=True)
    boom = ValueError("boom")
    async with together(proxy, other) as callers:
        await callers.begin("waiter", proxy.map, [1, 2, 3, 4], mine)
        await callers.begin("owner", other.map, [2], theirs)
        await step(mine.finish, 0)
        assert mine.batches == [[1], [3]]  # 2 was in flight by then
        theirs.fail(0, boom)
        mine.open()
    assert callers.results == {"owner": boom, "waiter": boom}
    assert mine.batches == [[1], [3]]


async def test_return_exceptions() -> None:
    """Nothing is cancelled, every batch runs, and failed items hold their exception."""
    proxy = AsyncBatchingMapProxy[int, str](2, 2)
    calls, boom = AsyncCalls(gated=True), ValueError("boom")
    async with together(proxy) as callers:
        for name, items in (("owner", [0, 1, 2, 3, 4, 0]), ("waiter", [1, 9])):
            await callers.begin(name, proxy.map, items, calls, return_exceptions=True)
        calls.fail(0, boom)
        calls.open()
    assert callers.results == {"owner": [boom, boom, "2", "3", "4", boom], "waiter": [boom, "9"]}
    assert getattr(boom, "__notes__", []) == []
    assert await proxy.map(range(5), AsyncCalls()) == naive(range(5))


@pytest.mark.parametrize(("keeps", "raises"), [("owner", "waiter"), ("waiter", "owner")])
async def test_each_caller_decides_about_return_exceptions(keeps: str, raises: str) -> None:
    """Owner and waiter of one failing call: who asked for a list gets one, the other raises."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls, boom = AsyncCalls(gated=True), ValueError("boom")
    async with together(proxy) as callers:
        for name in ("owner", "waiter"):
            await callers.begin(name, proxy.map, [1, 1], calls, return_exceptions=name == keeps)
        calls.fail(0, boom)
    assert callers.results == {keeps: [boom, boom], raises: boom}
    assert calls.batches == [[1]]


async def test_a_failure_of_a_nested_call_passes_through() -> None:
    """The exception of the innermost function is that of every map() around it."""
    proxy = AsyncBatchingMapProxy[str, str](1, 2)
    boom = ValueError("boom")

    async def inner(items: list[str]) -> list[str]:
        raise boom

    async def outer(items: list[str]) -> list[str]:
        return await proxy.map([f"{item}, inner {i}" for item in items for i in (1, 2)], inner)

    with pytest.raises(ValueError, match="boom") as caught:
        await proxy.map(["a", "b"], outer)
    assert caught.value is boom
    assert boom.__context__ is None
    assert_idle(proxy)


async def test_an_exception_in_an_answer_is_the_failure_of_its_item() -> None:
    """Its neighbours are kept; waiters for it get it; a map() raises the first such."""
    proxy = AsyncBatchingMapProxy[int, str](None, 1)
    first, second = KeyError("first"), KeyError("second")
    calls = AsyncCalls(lambda item: {1: first, 2: second}.get(item, str(item)), gated=True)
    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, range(4), calls)
        callers.start("of the second", proxy.map, [2], calls)
        await callers.begin("of a good one", proxy.map, [3], calls)
        calls.open()
    assert callers.results == {"owner": first, "of the second": second, "of a good one": ["3"]}
    assert calls.batches == [[0, 1, 2, 3]]
    answers = await proxy.map(range(4), calls, return_exceptions=True)
    assert answers == ["0", first, second, "3"]
    assert calls.batches[1:] == [[1, 2]]  # exceptions are never cached


async def test_an_answer_that_cannot_be_used_fails_its_call() -> None:
    """Waiters get the same error, nothing is cached, the keys are free; and it can be kept."""
    proxy = AsyncBatchingMapProxy[int, str]()
    gate = anyio.Event()

    async def short(items: list[int]) -> list[str]:
        await gate.wait()
        return ["one too few"]

    async with together(proxy) as callers:
        await callers.begin("owner", proxy.map, [1, 2], short)
        await callers.begin("waiter", proxy.map, [2], short)
        gate.set()
    assert isinstance(callers.results["owner"], ValueError)
    assert callers.results["waiter"] is callers.results["owner"]
    assert proxy.statistics().cached == 0
    answers = await proxy.map([1, 2], short, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["AnswerValueError"] * 2


async def test_tracebacks_do_not_grow() -> None:
    """Each of many waiters raises the exception with the traceback of the call, and no context."""
    proxy = AsyncBatchingMapProxy[int, str]()
    calls = AsyncCalls(gated=True)
    depths = []

    async def caller() -> None:
        with pytest.raises(ValueError, match="boom") as caught:
            await proxy.map([1], calls)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        depths.append(len(frames))
        assert frames[-2:] == ["__call__", "_answer"]
        assert caught.value.__context__ is None

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(caller)
        await settle()
        calls.fail(0, ValueError("boom"))
    assert len(set(depths)) == 1
    assert len(depths) == 5


class Bail(BaseException):
    """An exception that is no Exception, as KeyboardInterrupt is none."""


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("kind", [Bail, KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_base_exceptions_are_never_swallowed(
    batch_size: int | None, kind: type[BaseException], return_exceptions: bool
) -> None:
    """They are raised bare, whatever was asked; waiters take over instead of sharing them."""
    proxy = AsyncBatchingMapProxy[int, str](batch_size)
    calls, taken_over = AsyncCalls(gated=True), AsyncCalls()
    for number in range(3):
        calls.fail(number, kind("bare"))

    async def owner() -> None:
        with pytest.raises(kind, match="bare"):
            await proxy.map([1, 2, 3], calls, return_exceptions=return_exceptions)

    async with together(proxy) as callers:
        await callers.begin("owner", owner)
        for number in range(3):
            await callers.begin(number, proxy.map, [3, 1], taken_over)
        assert proxy.statistics().waiting == 3
        calls.open()
    assert callers.results == {"owner": None, 0: ["3", "1"], 1: ["3", "1"], 2: ["3", "1"]}
    assert sorted(taken_over.keys) == [1, 3]


async def test_an_interrupt_comes_before_a_cancellation() -> None:
    """Of what several calls end with, an interrupt is raised, even if it was not the first."""
    proxy = AsyncBatchingMapProxy[int, str](1, 2)

    async def fetch(items: list[int]) -> list[str]:
        if items == [0]:
            await settle(3)
            raise Bail
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await proxy.map([0, 1], fetch)
    assert_idle(proxy)


class Key:
    """A key that cannot be hashed once when it is `spoilt`."""

    spoilt: Callable[[], None] | None = None

    def __hash__(self) -> int:
        if (spoilt := self.spoilt) is not None:
            self.spoilt = None
            spoilt()
            raise ValueError("of a key")
        return 1


async def test_a_cancellation_comes_before_an_error_of_a_key() -> None:
    """What is raised outside of any call, by keys say, does not hide a cancellation."""
    proxy = AsyncBatchingMapProxy[Key, str](1, 2)
    keys = [Key(), Key()]
    calls = AsyncCalls(lambda key: "answer")

    def spoil(progress: Progress) -> None:  # when the map() has begun, and before it claims
        for key in keys:
            key.spoilt = scope.cancel

    with anyio.CancelScope() as scope:
        await proxy.map(keys, calls, progress=spoil)
    assert scope.cancelled_caught
    assert calls.batches == []
    assert_idle(proxy)
    keys = [Key(), Key()]
    assert await proxy.map(keys, calls) == ["answer", "answer"]


@pytest.mark.parametrize("kind", [ValueError, Interrupt, LookupError, AnswerTypeError])
@pytest.mark.parametrize("ask", ["map", "load", "stream"])
@pytest.mark.parametrize("max_concurrency", [1, 2])
async def test_the_context_of_a_failure(
    kind: type[BaseException], ask: str, max_concurrency: int
) -> None:
    """It is what the call left, for all who get it, and not what any of them was handling."""
    proxy = AsyncBatchingMapProxy[int, str](1, max_concurrency)
    seen: list[list[str]] = []

    async def fail(items: list[int]) -> Any:
        try:
            raise KeyError("cause")
        except KeyError:
            await settle()
            try:
                raise kind from None
            except LookupError as error:
                return [error]
            except AnswerTypeError:
                return None

    users = proxy.bind(fail)

    async def get() -> None:
        if ask == "load":
            await users.load(1)
        if ask == "map":
            await users.map([1, 2])
        async with users.stream([1, 2]) as results:
            await anext(results)

    async def caller(own: str) -> None:
        try:
            raise RuntimeError(own)
        except RuntimeError:
            with pytest.raises(kind) as raised:
                await get()
            seen.append(contexts(raised.value))

    async with anyio.create_task_group() as group:
        for own in ("one", "another"):
            group.start_soon(caller, own)
    if kind in (Interrupt, LookupError):  # which no two of them get, and which is no failing call
        seen = [each[:1] for each in seen]
    assert seen == [[] if kind is AnswerTypeError else ["'cause'"]] * 2
    assert_idle(proxy)


async def test_a_failure_without_the_context_of_its_caller() -> None:
    """Who was handling something else is not in it; so nothing is to be taken out."""

    async def fetch(items: list[int]) -> list[str]:
        try:
            raise ValueError("boom")
        except ValueError as error:
            error.__context__ = None
            raise

    try:
        raise LookupError
    except LookupError:
        with pytest.raises(ValueError, match="boom") as caught:
            await AsyncBatchingMapProxy[int, str]().map([1], fetch)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("batch_size", [None, 1])
async def test_a_group_that_is_no_exception(batch_size: int | None) -> None:
    """It comes as it is, as what is in it would; and the keys are free."""
    proxy, group = AsyncBatchingMapProxy[int, str](batch_size), BaseExceptionGroup("", [Odd()])

    async def fetch(items: list[int]) -> list[str]:
        raise group

    with pytest.raises(BaseExceptionGroup) as caught:
        await proxy.map([1, 2], fetch)
    assert caught.value is group
    assert_idle(proxy)


class Odd(BaseException):
    """None that anybody expects."""


async def test_a_circular_chain_of_contexts_does_not_hang() -> None:
    """However the contexts of a failure hang together, it arrives; cancelled or not."""
    proxy = AsyncBatchingMapProxy[int, str]()

    async def fetch(items: list[int]) -> list[str]:
        first, second = ValueError("first"), ValueError("second")
        first.__context__, second.__context__ = second, first
        if items == [2]:
            scope.cancel()
        raise first

    with pytest.raises(ValueError, match="first"):
        await proxy.map([1], fetch)
    try:
        raise KeyError
    except KeyError:
        with pytest.raises(ValueError, match="first"):
            await proxy.map([1], fetch)
    with anyio.CancelScope() as scope, pytest.raises(ValueError, match="first"):
        await proxy.map([2], fetch)
    assert_idle(proxy)


async def test_an_exception_that_takes_no_notes() -> None:
    """It is raised all the same when there is another failure to note."""

    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        number: int

    await raised_of(AsyncBatchingMapProxy(1, 2), [Frozen(0), Frozen(1)])


async def test_notes_of_an_exception_that_is_raised_again_and_again() -> None:
    """They are those of the last map(); what others have noted stays."""
    errors = [ValueError(number) for number in range(3)]
    for error in errors:
        error.__notes__ = ["of the user", 7]  # type: ignore[list-item] # which Python shows, too
    proxy = AsyncBatchingMapProxy[int, str](1, 3)
    for _ in range(5):
        raised = await raised_of(proxy, errors)
        assert raised.__notes__[:2] == ["of the user", 7]
        others = [str(error) for error in errors if error is not raised]
        assert [note.rpartition(": ")[2] for note in sorted(raised.__notes__[2:])] == others
    assert max(len(error.__notes__) for error in errors) == 4


async def test_notes_are_few_and_short() -> None:
    """Of many further failures some are named, and none at length, whatever it says of itself."""

    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    errors = [error for _ in range(50) for error in (ValueError("long " * 1000), Hostile())]
    notes = (await raised_of(AsyncBatchingMapProxy(1, 100), errors)).__notes__
    assert len(notes) == 11
    assert notes[-1].endswith("and 89 more")
    assert max(map(len, notes)) < 400


async def test_an_answer_holds_no_interrupt() -> None:
    """A CancelledError as a result, such as gather() collects, is neither cached nor a failure."""
    proxy = AsyncBatchingMapProxy[int, object]()
    calls = AsyncCalls(lambda item: asyncio.CancelledError() if item == 1 else item)
    with pytest.raises(TypeError, match="CancelledError as the result of an item; raise it"):
        await proxy.map([0, 1], calls)
    assert proxy.statistics().cached == 0
    assert_idle(proxy)


class Fragile:
    """A key that collides with all others, and whose comparison raises when it is to."""

    comparisons_left = -1

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        Fragile.comparisons_left -= 1
        if Fragile.comparisons_left == 0:
            raise RuntimeError("no comparison")
        return isinstance(other, Fragile) and self.number == other.number


@pytest.mark.parametrize("batch_size", [None, 1, 2])
async def test_keys_whose_comparison_raises(batch_size: int | None) -> None:
    """At whatever moment it does, all callers end, and the proxy is as good as before."""

    def keys(*numbers: int) -> list[Fragile]:
        return [Fragile(number) for number in numbers]

    def number(key: Fragile) -> int:
        return key.number

    for moment in count(1):
        proxy = AsyncBatchingMapProxy[Fragile, int](batch_size, 2)
        await proxy.map(keys(8, 9), AsyncCalls(number))
        calls = AsyncCalls(number, gated=True)
        Fragile.comparisons_left = moment
        async with together(proxy) as callers:
            callers.start((1, 2, 9), proxy.map, keys(1, 2, 9), calls)
            await settle(5)
            callers.start((3, 2, 8), proxy.map, keys(3, 2, 8), calls)
            await settle(5)
            calls.open()
        for numbers, result in callers.results.items():
            assert result == list(numbers) or isinstance(result, RuntimeError)
        raised = Fragile.comparisons_left <= 0
        Fragile.comparisons_left = -1
        assert await proxy.map(keys(1, 2, 3, 8, 9), AsyncCalls(number)) == [1, 2, 3, 8, 9]
        if not raised:
            break
    assert moment > 20  # or else the comparisons were not those of the proxy
