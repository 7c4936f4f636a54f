"""What is done when a store fails: its failure is raised, or it is left alone for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from .._errors import StoreError
from .._messages import describe, told
from .fuse import Fuse

R = TypeVar("R")

_logger = logging.getLogger("batchproxy")

_SILENCE = 60.0
"""Seconds for which it is not said again that a store fails."""


def strictly(what: str, ask: Callable[[], R]) -> R:
    """What `ask` gives.

    Raises:
        StoreError: instead of whatever else a store raises; it "could not be" `what`.
    """
    try:
        return ask()
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"the store could not be {what}: {describe(error)}") from error


def unusable(error: BaseException) -> StoreError:
    """The failure of a store that was not even asked, since this thread could not."""
    why = "no thread can be started" if isinstance(error, RuntimeError) else "it was interrupted"
    failure = StoreError(f"the store could not be used, since {why}: {describe(error)}")
    failure.__cause__ = error.with_traceback(None)  # which would have the frame that has this
    return failure


class Raising:
    """``on_store_error="raise"``."""

    def ask(self, what: str, ask: Callable[[], R], otherwise: R) -> R:
        """What `ask` gives, and never `otherwise`."""
        return strictly(what, ask)

    def begin_process(self) -> None:
        """Nothing is to be done."""

    def goes_on(self, error: StoreError) -> bool:
        """Never."""
        return False


class Continuing:
    """``on_store_error="continue"``, for one cache."""

    def __init__(self) -> None:
        self._said = -_SILENCE  # when it was last said that the store fails
        self.begin_process()

    def begin_process(self) -> None:
        """In a fork, where locks may be taken for ever."""
        self._fuse = Fuse()

    def ask(self, what: str, ask: Callable[[], R], otherwise: R) -> R:
        """What `ask` gives, or `otherwise` if the store fails, or did so a short time ago."""
        attempt = self._fuse.attempt()
        if attempt is None:
            return otherwise
        worked = False
        try:
            given = strictly(what, ask)
            worked = True
            return given
        except StoreError as error:
            self._say(error)
            return otherwise
        finally:
            self._fuse.end(attempt, worked=worked)

    def goes_on(self, error: StoreError) -> bool:
        """Whether to go on without the store, which cannot be used: then it is left alone."""
        if (attempt := self._fuse.attempt()) is not None:
            self._fuse.end(attempt, worked=False)
        self._say(error)
        return True

    def _say(self, error: StoreError) -> None:
        now = time.monotonic()
        if now - self._said >= _SILENCE:
            self._said = now
            _logger.warning("map() goes on without its store: %s", told(error))


Policy: TypeAlias = Raising | Continuing
"""What ``on_store_error=`` says, for one cache."""
