"""Scenarios of lists and items that fail, and of results that cannot be kept."""

from __future__ import annotations

import asyncio
from typing import Any

from proof.peers_library import Library
from proof.peers_tools import Calls, outcome, outcomes, scenario, settle, start


@scenario("the second of three batches fails", "batches")
async def second_batch(library: type[Library]) -> str:
    """The caller gets its error; what had finished is kept, and is not paid for again."""
    calls = Calls(gated=True)
    subject = library(calls.call, batch_size=2)
    boom = ValueError("boom")
    first = await start(subject, range(6))
    calls.finish(0)
    await settle()
    calls.fail(1, boom)
    assert await outcome(first) is boom
    calls.open()
    await settle()
    assert await subject.map([*range(6)]) == [*map(str, range(6))]
    assert [batch for batch in calls.batches if {0, 1} & {*batch}] == [[0, 1]]
    return calls.count()


@scenario("a list fails while another overlaps it")
async def overlapping(library: type[Library]) -> None:
    """Who waits for its keys ends, with its error or an answer, and loses nothing of his own."""
    calls = Calls(gated=True)
    subject = library(calls.call)
    boom = ValueError("boom")
    fails = await start(subject, [1])
    waits = await start(subject, [1, 2])
    assert calls.batches == [[1], [2]]
    calls.finish(1)
    await settle()
    calls.fail(0, boom)
    calls.open()
    assert await outcome(fails) is boom
    assert await outcome(waits) in (boom, ["1", "2"])
    assert await subject.map([1, 2]) == ["1", "2"]
    assert sorted(calls.keys()) == [1, 1, 2]


@scenario("one item fails, and is asked for again", "item failures")
async def one_item(library: type[Library]) -> None:
    """An exception in an answer is raised; its neighbours are kept, and only it is tried again."""
    batches = []

    async def call(items: list[int]) -> list[Any]:
        batches.append(items)
        return [ValueError(item) if item == 2 and len(batches) == 1 else item for item in items]

    subject = library(call)
    assert isinstance(await outcome(await start(subject, [1, 2, 3])), ValueError)
    assert await subject.map([1, 2, 3]) == [1, 2, 3]
    assert batches == [[1, 2, 3], [2]]


@scenario("a cache of the user's cannot be written", "mapping")
async def unwritable(library: type[Library]) -> None:
    """Whatever the cache raises: all are answered, whether they called or waited for the call."""
    calls = Calls(gated=True)
    subject = library(calls.call, store=library.mapping(failures=1000))
    callers = [asyncio.create_task(subject.map([1, 2])) for _ in range(2)]
    await settle()
    calls.open()
    assert await outcomes(callers) == [["1", "2"]] * 2


@scenario("results are unwritten, and asked for again", "mapping")
async def unwritten(library: type[Library]) -> None:
    """A store fails once, of which the caller may learn; nothing is paid for twice all the same."""
    calls = Calls()
    subject = library(calls.call, store=library.unreliable(failures=1))
    await outcome(await start(subject, [1, 2]))
    assert await subject.map([1, 2]) == ["1", "2"]
    assert calls.batches == [[1, 2]]
