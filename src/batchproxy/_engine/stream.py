"""One stream under way: what is read, looked up and called for while results are taken."""

from __future__ import annotations

from inspect import isasyncgen
from typing import Any

from .._core import waits
from .._core.claims import Claims
from .._core.shelf import Pairs
from .._core.window import Portion, Window
from .._loops import checkpoint
from .caller import Caller
from .callers import InStream
from .feed import PORTION, Feed
from .meetings import Bell
from .run import Options, Run
from .tasks import Tasks


class Steps(Run):
    """A stream that is carried out step by step; nothing of it is under way between two steps."""

    __slots__ = ("_window",)

    def __init__(self, window: Window, caller: Caller, claims: Claims, options: Options) -> None:
        super().__init__(window, caller, claims, options)
        self._window = window

    async def step(self, portion: Portion | None) -> None:
        """Look up a `portion`, call as far as batches are due, and wait for what others compute.

        A failure that ends it is left in ``window.failure``, not raised.

        Raises:
            CircularWaitError: the stream would wait for itself.
        """
        window = self._window
        try:
            if portion is not None:
                await self._look_up(portion)
            if window.awaited:
                waits.check(self._caller.blocked, window.awaited)
            await self._compute()
        except BaseException:
            window.forget()
            raise
        finally:
            self.release_all()

    async def _look_up(self, portion: Portion) -> None:
        """Ask a store for what is left of `portion`; what is left then is to be computed."""
        claims, window = self._claims, self._window
        claims.read_on()
        while claims.unread and not window.over:
            await claims.look(portion)
        window.want(portion)

    def _release(self, flight: Any) -> None:
        super()._release(flight)
        self._window.calling.discard(flight)


class Flow(Steps):
    """A stream that goes on by itself, as far as there is room in its window.

    Its tasks: one that reads (of an asynchronous source another one that collects items for it),
    one that waits for the calls of others, and as many as there are batches that are due, and calls
    at a time. All of them say when anything has `changed`.
    """

    __slots__ = (
        "_callers",
        "_feed",
        "_hungry",
        "_joined",
        "_least",
        "_met",
        "_news",
        "_room",
        "_tasks",
        "_teller",
    )

    def __init__(
        self, window: Window, caller: InStream, claims: Claims, options: Options, feed: Feed
    ) -> None:
        super().__init__(window, caller, claims, options)
        caller.changed = self._changed
        self._teller = caller
        self._feed = feed
        self._tasks = Tasks(window, caller)
        if claims.unread:  # it has a store, and notes what keys are called there
            window.dropped = []
        self._least = window.part  # so much room is worth reading for
        self._callers = 0  # tasks that call
        self._hungry = 0  # consumers that wait
        self._joined: set[object] = set()  # the calls of others that are being waited for
        self._met = Bell()  # there are calls of others to be waited for
        self._room = Bell()  # there is something to read, or room for it
        self._news = Bell()  # there may be something to take

    async def more(self, most: int) -> Pairs:
        """The next pairs, `most` at most; none at the end, or after a failure."""
        window = self._window
        while not (pairs := window.pairs(most)).items and not (window.over or window.finished):
            self._hungry += 1
            self._changed()
            try:
                await self._news.wait()
            finally:
                self._hungry -= 1
        if window.dropped:
            self._claims.forget(window.dropped)
            window.dropped.clear()
        return pairs

    def taken(self, count: int) -> None:
        """So many of them have been taken: there is room for as many."""
        self._window.taken(count)
        self._changed()

    def leave(self) -> None:
        """End all tasks; nothing more is taken."""
        self._window.over = True
        self._tasks.cancel()

    async def main(self) -> None:
        """Be under way, until the stream is left, or a failure ends it.

        That failure is left in ``window.failure``, not raised.

        Raises:
            CircularWaitError: the stream would wait for itself.
        """
        read = self._read_async if self._feed.is_async else self._read
        try:
            await self._tasks.run([read, self._wait])
        finally:
            self.release_all()
            self._caller.blocked.clear()  # as `Plan.forget`
            del self._teller.changed  # a cycle
            self._window.over = True
            self._news.ring()

    def _changed(self) -> None:
        """Start, and wake, whoever has something to do now."""
        window = self._window
        if not window.over:
            if self._hungry and window.stuck:
                window.flushing = True
            tasks = self._options.tasks
            wanted = min(len(window.calling) + window.batches(0, tasks), tasks)
            while self._callers < wanted:
                self._callers += 1
                self._tasks.start(self._call)
            if not window.awaited.keys() <= self._joined:
                if self._joined:
                    self._alarm.set()
                self._met.ring()
        if self._may_read():
            self._room.ring()
        if self._hungry:
            self._news.ring()

    def _may_read(self) -> bool:
        """Whether there is room that is worth it, or for what a consumer waits for."""
        room = self._window.room
        return room >= self._least or (room > 0 and self._hungry > 0)

    async def _call(self) -> None:
        try:
            await self.call_batches()
        finally:
            self._callers -= 1
        self._window.flushing = False  # if it has called for nothing, it was told of something
        self._changed()

    async def _wait(self) -> None:
        window = self._window
        while True:
            self._joined = set(window.awaited)
            if self._joined:
                await self._sleep()
                window.take_awaited()
                self._caller.tell(window)
            else:
                await self._met.wait()

    async def _read(self) -> None:
        feed, window = self._feed, self._window
        while not feed.ended:
            if self._may_read():
                await self._take_in(feed.read(min(window.room, PORTION)))
                await checkpoint(self._caller.loop)
            else:
                await self._room.wait()
        self._end()

    async def _read_async(self) -> None:
        feed = self._feed
        self._tasks.start(self._collect)
        while not feed.refused and (feed.collected or not feed.ended):
            if items := feed.collected:
                feed.collected = []
                await self._take_in(items)
            else:
                await self._room.wait()
        self._end()

    async def _take_in(self, items: list[Any]) -> None:
        portion = self._feed.add_to(self._window, items)
        self._claims.table.open(portion)
        await self._look_up(portion)
        self._caller.tell(self._window)

    def _end(self) -> None:
        self._window.ended = True
        self._changed()

    async def _collect(self) -> None:
        feed, window = self._feed, self._window
        items = aiter(feed.source)
        # Others than generators, which nobody else can go on with, are whose they were.
        ours = isasyncgen(items) or items is not feed.source
        try:
            async for item in items:
                feed.collected.append(item)
                self._room.ring()
                if len(feed.collected) == PORTION:
                    await checkpoint(self._caller.loop)
                while window.room <= len(feed.collected) and not feed.ended:
                    await self._room.wait()
                if feed.ended:  # a key of an item was not to be had
                    break
            else:
                feed.end()
        except Exception as error:
            feed.end(error)
        except GeneratorExit:  # pragma: no cover - of a loop that was torn down
            ours = False
            raise
        finally:
            if ours and hasattr(items, "aclose"):
                await items.aclose()  # a cancellation goes on in there, as in any of its awaits
        self._room.ring()
