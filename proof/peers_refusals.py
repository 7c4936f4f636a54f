"""Scenarios of batches that the service does not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proof.peers_library import Library
from proof.peers_tools import outcome, scenario, start


class Service:
    """It refuses batches, and records what it was asked and what it answered."""

    def __init__(self, library: type[Library], refuses: Callable[[list[int]], bool]) -> None:
        self.library = library
        self.refuses = refuses
        self.calls = 0
        self.paid: list[int] = []

    async def call(self, items: list[int]) -> list[str]:
        self.calls += 1
        if self.refuses(items):
            self.library.refuse()
        self.paid += items
        return [*map(str, items)]

    def count(self) -> str:
        return f"{self.calls} calls"


def is_refusal(result: Any) -> bool:
    return isinstance(result, Exception) and "refused" in str(result)


@scenario("a batch is too large", "splits")
async def too_large(library: type[Library]) -> str:
    """Of 100 items the service takes 30 at a time: all are answered, and each is paid for once."""
    service = Service(library, lambda items: len(items) > 30)
    answers = await library(service.call).map([*range(100)])
    assert answers == [*map(str, range(100))]
    assert sorted(service.paid) == [*range(100)]
    return service.count()


@scenario("a service refuses one item of a batch", "splits")
async def one_item(library: type[Library]) -> str:
    """Its error arrives; what was paid for beside it is kept, and asked for without it."""
    service = Service(library, lambda items: 5 in items)
    subject = library(service.call)
    assert is_refusal(await outcome(await start(subject, [*range(16)])))
    good = [number for number in range(16) if number != 5]
    assert await subject.map(good) == [*map(str, good)]
    assert sorted(service.paid) == good
    return service.count()


@scenario("a service refuses everything", "splits")
async def everything(library: type[Library]) -> str:
    """The error arrives, before each of 100 items has been tried."""
    service = Service(library, lambda items: True)
    assert is_refusal(await outcome(await start(library(service.call), [*range(100)])))
    assert service.calls < 100
    return service.count()
