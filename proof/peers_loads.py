"""Scenarios of single keys, each asked for by a handler that knows nothing of the others."""

from __future__ import annotations

import asyncio

from proof.peers_library import Library
from proof.peers_tools import Calls, ask, outcome, outcomes, scenario, settle


@scenario("100 single keys in one tick", "loads", "ticks", "batches")
async def one_tick(library: type[Library]) -> str:
    """Of 100 handlers who ask for 60 keys, all are answered from full batches, each key once."""
    calls = Calls()
    subject = library(calls.call, batch_size=25)
    handlers = ask(subject, [number % 60 for number in range(100)])
    assert await outcomes(handlers) == [str(number % 60) for number in range(100)]
    assert sorted(map(len, calls.batches)) == [10, 25, 25]
    assert sorted(calls.keys()) == [*range(60)]
    return calls.count()


@scenario("100 single keys in twenty ticks", "loads", "ticks")
async def many_ticks(library: type[Library]) -> str:
    """Keys that come tick by tick, some again in the next ticks, are asked for once each."""
    calls = Calls()
    subject = library(calls.call, limit=2)

    async def handler(number: int) -> None:
        for _ in range(number // 5):
            await asyncio.sleep(0)
        assert await subject.load(number % 35) == str(number % 35)

    await asyncio.gather(*map(handler, range(100)))
    assert sorted(calls.keys()) == [*range(35)]
    return calls.count()


@scenario("single keys while calls are under way", "loads")
async def under_way(library: type[Library]) -> str:
    """Who asks for a key in flight waits for it; other keys are asked for, once each."""
    calls = Calls(gated=True)
    subject = library(calls.call, limit=2)
    handlers = []
    for first in range(0, 25, 5):  # the second five of each ten come again in the next
        handlers += ask(subject, range(first, first + 10))
        await settle()
    calls.open()
    answers = [str(first + number) for first in range(0, 25, 5) for number in range(10)]
    assert await outcomes(handlers) == answers
    assert sorted(calls.keys()) == [*range(30)]
    return calls.count()


@scenario("one of many single keys is cancelled", "loads", "tasks")
async def one_leaves(library: type[Library]) -> str:
    """Whichever handler is cancelled while the call is made, those of other keys are answered."""
    most = Calls()
    for cancelled in range(3):
        calls = Calls(gated=True)
        handlers = ask(library(calls.call), range(3))
        await settle()
        handlers[cancelled].cancel()
        await settle()
        calls.open()
        answers = await outcomes(handlers)
        assert isinstance(answers.pop(cancelled), asyncio.CancelledError)
        assert answers == [str(number) for number in range(3) if number != cancelled]
        most = max(most, calls, key=lambda calls: len(calls.batches))
    return f"{most.count()} at most"


@scenario("a failing call of many single keys", "loads", "batches")
async def failing_call(library: type[Library]) -> None:
    """All whose keys were in it get its exception, and nobody else; a bystander does not notice."""
    calls = Calls(gated=True)
    subject = library(calls.call, limit=1)
    [bystander] = ask(subject, [0])
    await settle()
    handlers = ask(subject, range(1, 21))
    await settle()
    calls.finish(0)
    await settle()
    boom = ValueError("boom")
    calls.fail(1, boom)
    calls.open()
    assert await outcomes(handlers) == [boom] * 20
    assert await outcome(bystander) == "0"
    assert [sorted(batch) for batch in calls.batches] == [[0], [*range(1, 21)]]
