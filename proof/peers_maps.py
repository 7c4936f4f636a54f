"""Scenarios of lists: unlucky orders, cancellation, small stores, forgetting, odd items."""

from __future__ import annotations

import asyncio
from typing import Any

from proof.peers_library import Library
from proof.peers_tools import QUIET, Calls, outcome, scenario, settle, start


@scenario("opposite orders, and the owners fail")
async def opposite_orders(library: type[Library]) -> None:
    """Two callers want the keys of three others, in opposite orders, and those fail: all end.

    When the first has failed, "up" waits for the third, so that only "down" wants the second then.
    """
    calls = Calls(gated=True)
    subject = library(calls.call)
    booms = [ValueError(number) for number in range(3)]
    owners = [await start(subject, [key]) for key in (1, 2, 3)]
    up, down = [await start(subject, keys) for keys in ([1, 3, 2], [2, 1])]
    assert calls.batches == [[1], [2], [3]]
    for number, boom in enumerate(booms):
        calls.fail(number, boom)
        await settle()
    calls.open()
    assert [await outcome(owner) for owner in owners] == booms
    assert await outcome(up) in (*booms, ["1", "3", "2"])
    assert await outcome(down) in (*booms, ["2", "1"])


@scenario("one of two callers is cancelled", "tasks")
async def one_cancelled(library: type[Library]) -> None:
    """Of two callers who want one key either may be cancelled; the other gets its answer."""
    for cancelled in (0, 1):
        calls = Calls(gated=True)
        subject = library(calls.call)
        callers = [await start(subject, [1]) for _ in range(2)]
        callers[cancelled].cancel()
        await settle()
        calls.open()
        assert await outcome(callers[1 - cancelled]) == ["1"]


@scenario("all callers are cancelled, and one asks again", "tasks")
async def all_cancelled(library: type[Library]) -> None:
    """Whoever asks after that gets an answer, even if the old call has not ended yet."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    callers = [await start(subject, [1]) for _ in range(2)]
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    again = await start(subject, [1])
    calls.open()
    assert await outcome(again) == ["1"]


@scenario("a cancelled result is kept", "tasks")
async def cancelled_for_ever(library: type[Library]) -> None:
    """The only caller times out; when all of that is over, the key can be asked for as before."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    try:
        async with asyncio.timeout(QUIET):
            await subject.map([1])
    except TimeoutError:
        pass
    calls.open()
    await settle()
    assert await subject.map([1]) == ["1"]


@scenario("the function itself is cancelled", "tasks")
async def cancelled_inside(library: type[Library]) -> None:
    """A task that the function waits for was cancelled: its caller ends, and can ask again."""
    calls = Calls()
    calls.errors[0] = asyncio.CancelledError()
    subject = library(calls.call)
    await asyncio.wait([asyncio.create_task(subject.map([1]))])
    assert await subject.map([1]) == ["1"]


@scenario("twenty callers of one failing call")
async def twenty_callers(library: type[Library]) -> None:
    """The call is made once, and all twenty get the exception that it raised."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    callers = [asyncio.create_task(subject.map([1])) for _ in range(20)]
    await settle()
    calls.errors = {number: ValueError(number) for number in range(20)}
    calls.open()
    assert [await outcome(caller) for caller in callers] == [calls.errors[0]] * 20
    assert calls.batches == [[1]]


@scenario("a failed result is kept")
async def failed_for_ever(library: type[Library]) -> None:
    """A call that failed is made again by whoever asks later."""
    calls = Calls()
    calls.errors[0] = boom = ValueError("boom")
    subject = library(calls.call)
    assert await outcome(asyncio.create_task(subject.map([1]))) is boom
    assert await subject.map([1]) == ["1"]


@scenario("a late failure and a newer entry", "newer")
async def late_failure(library: type[Library]) -> None:
    """A call that fails after its key was forgotten leaves the newer call for that key alone."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    old = await start(subject, [1])
    await subject.forget(1)
    new = await start(subject, [1])
    assert calls.batches == [[1], [1]]
    boom = ValueError("boom")
    calls.fail(0, boom)
    assert await outcome(old) is boom
    newest = await start(subject, [1])
    calls.open()
    assert [await outcome(caller) for caller in (new, newest)] == [["1"], ["1"]]
    assert calls.batches == [[1], [1]]


@scenario("a store smaller than the list", "bound")
async def small_store(library: type[Library]) -> None:
    """The answers are complete, however few results are kept."""
    subject = library(Calls().call, batch_size=3, bound=2)
    upwards = list(range(10))
    for items in (upwards, upwards[::-1]):
        first, second = await asyncio.gather(subject.map(items), subject.map(upwards))
        assert (first, second) == ([*map(str, items)], [*map(str, upwards)])


@scenario("an entry is evicted in flight", "bound")
async def evicted(library: type[Library]) -> None:
    """A call under way is shared, whatever else goes through a small store meanwhile."""
    calls = Calls(gated=True)
    subject = library(calls.call, bound=1)
    first = await start(subject, [1])
    for number in (1, 2):
        other = await start(subject, [number + 1])
        calls.finish(number)
        assert await other == [str(number + 1)]
    second = await start(subject, [1])
    calls.open()
    assert await outcome(first) == await outcome(second) == ["1"]
    assert calls.batches == [[1], [2], [3]]


@scenario("a second event loop", "loop")
def second_loop(library: type[Library]) -> None:
    """An object is used in one `asyncio.run` and then in another, at its limit both times."""
    subjects: list[Library] = []

    async def run(first: int) -> None:
        if not subjects:
            subjects.append(library(Calls().call, limit=1))
        items = [[first + number] for number in range(5)]
        answers = await asyncio.gather(*map(subjects[0].map, items))
        assert answers == [[str(item)] for [item] in items]

    asyncio.run(run(0))
    asyncio.run(run(5))


@scenario("nested maps with all slots taken", "limit")
async def nested(library: type[Library]) -> None:
    """Calls that fill all slots may map() on the same object."""

    async def call(items: list[str]) -> list[str]:
        await settle()  # until the other slot is taken, too
        return await subject.map([item[1:] for item in items]) if items[0] else items

    subject = library(call, limit=2)
    answers = await asyncio.gather(subject.map(["ab"]), subject.map(["cd"]))
    assert list(answers) == [[""], [""]]


@scenario("200 batches of one key, 3 at a time", "limit")
async def many_batches(library: type[Library]) -> None:
    """There are never more calls at a time than the limit, and all slots are used."""
    calls = Calls()
    subject = library(calls.call, batch_size=1, limit=3)
    first, second = await asyncio.gather(
        subject.map(list(range(150))), subject.map(list(range(199, 49, -1)))
    )
    assert first == [*map(str, range(150))]
    assert second == [*map(str, range(199, 49, -1))]
    assert calls.most_running == 3
    assert sorted(calls.batches) == [[item] for item in range(200)]


@scenario("clear() during a map")
async def clear_during_map(library: type[Library]) -> None:
    """Who asked before gets the old answer, who asks after it a new one, which stays."""
    for order in ((0, 1), (1, 0)):
        calls = Calls(gated=True, versions=True)
        subject = library(calls.call)
        before = await start(subject, [1])
        await subject.clear()
        after = await start(subject, [1])
        assert calls.batches == [[1], [1]]
        for number in order:
            calls.finish(number)
            await settle()
        assert await outcome(before) == ["1.0"]
        assert await outcome(after) == ["1.1"]
        assert await subject.map([1]) == ["1.1"]


@scenario("close() and the results", "close")
async def close(library: type[Library]) -> None:
    """Closing deletes no results of another object that has the same store."""
    calls = Calls()
    store = library.store()
    one, two = (library(calls.call, store=store) for _ in range(2))
    assert await one.map([1]) == ["1"]
    await one.close()
    assert await two.map([1]) == ["1"]
    assert calls.batches == [[1]]


@scenario("a dict or a str as answer", "batches")
async def odd_answers(library: type[Library]) -> None:
    """They are understood or refused, and not taken for a sequence of results."""
    for answer in ({1: "one", 2: "two"}, "ab"):

        async def call(items: list[int], answer: Any = answer) -> Any:
            return answer

        result = await outcome(asyncio.create_task(library(call).map([1, 2])))
        assert result == ["one", "two"] or isinstance(result, TypeError | ValueError), result


@scenario("a generator as input", "lists")
async def generator(library: type[Library]) -> None:
    """It is read once, and its items are mapped; or it is refused."""
    calls = Calls()
    task = asyncio.create_task(library(calls.call).map(number for number in (1, 2, 1)))
    result = await outcome(task)
    assert result == ["1", "2", "1"] or isinstance(result, TypeError), result


@scenario("1, 1.0 and True", "equality")
async def equal_keys(library: type[Library]) -> None:
    """They are equal in Python, and one key: the first of them is asked for, once."""
    calls = Calls()
    subject = library(calls.call)
    assert await subject.map([1, 1.0, True]) == ["1"] * 3
    assert await subject.map([True]) == ["1"]
    assert calls.batches == [[1]]


@scenario("a key function that raises", "key")
async def bad_key(library: type[Library]) -> None:
    """The error arrives, and the object is as good as before."""

    async def call(items: list[dict[str, int]]) -> list[int]:
        return [item["id"] for item in items]

    subject = library(call, key=lambda item: item["id"])
    result = await outcome(await start(subject, [{"id": 1}, {}, {"id": 2}]))
    assert isinstance(result, KeyError)
    assert await subject.map([{"id": 2}, {"id": 1}]) == [2, 1]


class BadHash:
    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@scenario("an item whose hash raises")
async def bad_hash(library: type[Library]) -> None:
    """The error arrives, and the object is as good as before."""
    subject = library(Calls().call)
    result = await outcome(await start(subject, [1, BadHash(), 2]))
    assert isinstance(result, RuntimeError)
    assert await subject.map([2, 1]) == ["2", "1"]
