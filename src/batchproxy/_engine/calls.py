"""One call of a map_func: a batch becomes an outcome for each of its keys."""

from __future__ import annotations

import sys
from typing import Any

from .._core.answers import accept
from .._core.flights import Flight
from .._core.outcome import Failure, GivenUp, Outcome, Refused
from .._core.plan import Plan
from .._errors import SplitBatch
from .._loops import cancellations, is_being_cancelled, is_cancellation
from .caller import Caller


async def call(caller: Caller, plan: Plan, flight: Flight) -> Outcome:
    """Call the function of `caller` with the items of `flight`.

    What it raises is given as a `Failure`, so that it reaches everybody as the object that it is;
    but a cancellation, or what else is no `Exception`, goes through as it is.
    """
    answer: Any = None
    outside = sys.exception()  # in whose handler this may be
    before = cancellations(caller.loop)
    try:
        try:
            answer = await caller.call(flight, plan.items_of(flight.keys))
        except Exception as error:
            clean_up = is_being_cancelled(caller.loop, before) and _is_after(error, outside)
            return (GivenUp if clean_up else _kind(error)).of(error, outside)
        except BaseExceptionGroup as group:
            return _of_nursery(group, outside)
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


def _of_nursery(group: BaseExceptionGroup[BaseException], outside: BaseException | None) -> GivenUp:
    """What failed in one of trio in clean-up, without what cancelled it.

    Raises:
        BaseExceptionGroup: it is no such group.
    """
    cancelled, others = group.split(is_cancellation)
    try:
        if cancelled is None or not isinstance(others, Exception):
            raise group
        return GivenUp.of(others, outside)
    finally:
        del group, cancelled, others  # as in `call`


def _is_after(error: BaseException, outside: BaseException | None) -> bool:
    """Whether `error` was raised instead of letting through a cancellation, but not one before."""
    seen: set[int] = set()  # chains of contexts can be circular
    rest = [error]
    while rest:
        each = rest.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, BaseExceptionGroup):  # of the tasks that it began
            rest += each.exceptions
        context = each.__context__
        if context is not None and context is not outside:
            if is_cancellation(context):
                return True
            rest.append(context)
    return False
