"""One call of a map_func: a batch becomes an outcome for each of its keys."""

from __future__ import annotations

import sys
from typing import Any

from .._core.answers import accept
from .._core.flights import Flight
from .._core.outcome import Failure, GivenUp, Outcome, Refused
from .._core.plan import Plan
from .._errors import SplitBatch
from .._loops import is_being_cancelled, is_cancellation
from .caller import Caller


async def call(caller: Caller, plan: Plan, flight: Flight) -> Outcome:
    """Call the function of `caller` with the items of `flight`.

    What it raises is given as a `Failure`, so that it reaches everybody as the object that it is;
    but a cancellation, or what else is no `Exception`, goes through as it is.
    """
    answer: Any = None
    outside = sys.exception()  # in whose handler this may be
    try:
        try:
            answer = await caller.call(flight, plan.items_of(flight.keys))
        except Exception as error:
            kind = GivenUp if _in_clean_up(error, outside) else _kind(error)
            return kind.of(error, outside)
        if isinstance(answer, Failure):  # of a function in another thread
            return _kind(answer.error)(*answer)
        return accept(answer, flight.keys, plan.items_of)
    except Exception as error:
        return Failure.of(error, outside)
    finally:
        del plan, flight, answer, outside  # this frame is in the traceback: a cycle


def _kind(error: BaseException) -> type[Failure]:
    if isinstance(error, SplitBatch):
        return Refused
    return Failure if isinstance(error, Exception) else GivenUp


def _in_clean_up(error: BaseException, outside: BaseException | None) -> bool:
    """Whether `error` was raised instead of letting through a cancellation, but not one before."""
    if not is_being_cancelled():
        return False
    seen: set[int] = set()  # chains of contexts can be circular
    context = error.__context__
    while context is not None and context is not outside and id(context) not in seen:
        if is_cancellation(context):
            return True
        seen.add(id(context))
        context = context.__context__
    return False
