"""What came of a call: answers, or a failure. A closed type; nothing here does anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

from .._errors import set_context


class Missing(Enum):
    """The mark of a key without an answer; `None` is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Failure(NamedTuple):
    """An exception on its way to whoever waits for it, possibly to several callers.

    Every ``raise`` adds frames to the traceback of the one exception object, and makes what the
    caller is handling its context; each caller starts again from what the failing call left.
    """

    error: BaseException
    traceback: TracebackType | None
    context: BaseException | None = None

    @classmethod
    def of(cls, error: BaseException, outside: BaseException | None = None) -> Self:
        """That of `error`, as it is now.

        It was raised in the handler of `outside`, which is taken out of its contexts: that is for
        one caller, and not for the others.
        """
        if outside is not None:
            _take_out(outside, error)
        return cls(error, error.__traceback__, error.__context__)

    def restore(self) -> None:
        """Give the error its context back, while it is being raised again."""
        set_context(self.error, self.context)

    @property
    def ends_all(self) -> bool:
        """Whether it ends every ``map()`` that it reaches, and is in no list."""
        return not isinstance(self.error, Exception)


def _take_out(outside: BaseException, error: BaseException) -> None:
    seen: set[int] = set()  # chains of contexts can be circular
    while (context := error.__context__) is not outside:
        if context is None or id(error) in seen:
            return
        seen.add(id(error))
        error = context
    set_context(error, None)


class StoreFailure(Failure):
    """That of a store."""

    __slots__ = ()

    @property
    def ends_all(self) -> bool:
        """It always does."""
        return True


class Unsettled(Failure):
    """Of which those who wait are told nothing: keys are to be computed all the same."""

    __slots__ = ()


class GivenUp(Unsettled):
    """To the ``map()`` that made the call a failure; those who wait compute its keys anew."""

    __slots__ = ()


class Refused(Unsettled):
    """The function has refused the batch as it is, with a `SplitBatch`."""

    __slots__ = ()

    def of_one(self) -> Failure:
        """The failure of an item that was refused when it was alone."""
        cause = self.error.__cause__
        if isinstance(cause, Exception):
            return Failure.of(cause)
        return Failure(*self)


NO_FAILURES: Final[Mapping[Hashable, Failure]] = {}
"""Shared, and never changed."""


class Answers:
    """The results of a call that has answered."""

    __slots__ = ("failures", "results")  # made for every call, and quicker than a named tuple

    def __init__(self, results: list[Any], failures: Mapping[Hashable, Failure]) -> None:
        self.results = results  # one per key of the call
        self.failures = failures  # which of them are exceptions, and so none

    def corrected(
        self,
        keys: list[Hashable],
        adopted: Mapping[Hashable, Any],
        refused: Mapping[Hashable, Failure],
    ) -> Answers:
        """The same for `keys`, but `adopted` results instead of theirs, and `refused` ones."""
        errors = {key: failure.error for key, failure in refused.items()}
        instead = {**adopted, **errors}
        results = [instead.get(key, result) for key, result in zip(keys, self.results)]
        return Answers(results, {**self.failures, **refused})


Outcome: TypeAlias = Answers | Failure
