"""Results that could not be written, kept until they can be: they were paid for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import count
from typing import NamedTuple, TypeAlias

from .._errors import StoreError
from .._messages import describe
from .fuse import Fuse
from .policy import strictly

_logger = logging.getLogger("batchproxy")

_TRIES = 3
"""How many writes in a row may fail before the rest is left for another time."""


Write: TypeAlias = Callable[[Mapping[bytes, bytes], float | None], object]
"""Writes what is not there yet, with the seconds that it is to be kept (None for ever); raises
whatever the store raises."""


class _Result(NamedTuple):
    data: bytes
    expires: float | None  # on the monotonic clock
    call: int  # results of one call are written together


class Unwritten:
    """Encoded results of one cache. Nobody is told of them until they are written."""

    def __init__(self) -> None:
        self._calls = count()
        self.results: dict[bytes, _Result] = {}  # by name; empty as a rule
        self.begin_process()

    def begin_process(self) -> None:
        """In a fork, where locks may be taken for ever."""
        self._lock = threading.RLock()
        self._retry = Fuse()  # of writing what nobody asks for

    def keep(self, encoded: Mapping[bytes, bytes], expires: float | None) -> None:
        """Keep the results of a call, until then on the monotonic clock."""
        call = next(self._calls)
        with self._lock:
            for name, data in encoded.items():
                self.results[name] = _Result(data, expires, call)

    def forget(self, names: Collection[bytes] | None) -> None:
        """Those of `names`, or all, need no writing."""
        with self._lock:
            for name in list(self.results) if names is None else names:
                self.results.pop(name, None)

    def write(self, names: Collection[bytes], write: Write) -> None:
        """Write those of `names` that are here.

        Raises:
            StoreError: they still could not be.
        """
        for results in self._by_call(names):
            strictly("written", partial(self._write_again, results, write))

    def retry(self, write: Write) -> None:
        """The store works: `write_all`, unless that was tried in vain a short time ago."""
        if (attempt := self._retry.attempt()) is not None:
            self._retry.end(attempt, worked=self.write_all(write))

    def write_all(self, write: Write, patience: float = 0.0) -> bool:
        """Write what is here, call by call; whether all is.

        What one call gave may be what the store cannot take: the others are tried all the same. If
        a few in a row fail, and `patience` seconds are over, the rest is left for another time.
        """
        end = time.monotonic() + patience
        failed_in_a_row, failure = 0, ""
        for results in self._by_call(list(self.results)):
            try:
                strictly("written", partial(self._write_again, results, write))
            except StoreError as error:
                failure = describe(error)
                with self._lock:  # next time the others come first
                    for name in results.keys() & self.results.keys():
                        self.results[name] = self.results.pop(name)
                failed_in_a_row += 1
                if failed_in_a_row >= _TRIES and time.monotonic() >= end:
                    break
            else:
                failed_in_a_row = 0
        if failure:
            _logger.warning("%d results could still not be written: %s", len(self.results), failure)
        return not failure

    def _by_call(self, names: Collection[bytes]) -> list[dict[bytes, _Result]]:
        calls: dict[int, dict[bytes, _Result]] = {}
        with self._lock:
            for name in names:
                if (result := self.results.get(name)) is not None:
                    calls.setdefault(result.call, {})[name] = result
        return list(calls.values())

    def _write_again(self, results: Mapping[bytes, _Result], write: Write) -> None:
        """Write results of one call. Raises whatever the store raises."""
        expires = next(iter(results.values())).expires
        left = None if expires is None else expires - time.monotonic()
        if left is None or left > 0:
            write({name: result.data for name, result in results.items()}, left)
        self.forget(results)
