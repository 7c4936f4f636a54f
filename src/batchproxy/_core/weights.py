"""What the keys of one map() weigh, where batches are limited by weight, too."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from numbers import Integral, Real
from typing import Any

from .._messages import short
from .keys import given

_CHUNK = 64
_LARGE = 1e200
"""An integer of less can be summed up with floats, whatever comes to it."""


class Weights:
    """The weight of each key of a ``map()``, and the most that a batch of them may have."""

    __slots__ = ("_by_key", "_chunk", "_keys", "_listed", "_most", "bind")

    def __init__(
        self,
        keys: list[Hashable],
        items: list[Any],
        weight: Callable[[Any], float],
        most: float,
    ) -> None:
        """
        Raises:
            TypeError: `weight` gave something that is no number.
            ValueError: it gave something negative, NaN, or an integer too large for a float.
        """
        listed = given("weight", weight, items)
        try:  # their sum tells of their types, and is NaN if one is
            total = sum(listed)
            small = type(total) in (int, float) and total < _LARGE
            # Of integers few differ, most often.
            fine = small and min({*listed} if type(total) is int else listed, default=0) >= 0
        except (TypeError, OverflowError):
            fine = False
        if not fine:
            listed = [*map(checked, items, listed)]
            total = sum(listed)
        self._keys = keys
        self._listed = listed  # beside these
        self._by_key: dict[Hashable, float] | None = None  # made when it is asked for
        self._most = most
        self._chunk = _CHUNK  # a few less than fitted the last time
        self.bind = total > most
        """Whether a batch of all keys would be too heavy."""

    def of_each(self, keys: list[Hashable]) -> list[float]:
        """The weight of each of `keys`."""
        if keys is self._keys:
            return self._listed
        if not keys:
            return []
        if self._by_key is None:
            self._by_key = dict(zip(self._keys, self._listed))
        return [*map(self._by_key.__getitem__, keys)]

    def fitting(
        self, weights: Sequence[float], start: int, most: int, beside: float
    ) -> tuple[int, float]:
        """How many of `weights` from `start` on, at most `most`, fit into a batch.

        Args:
            weights: Of the next keys.
            start: Where to begin.
            most: Keys.
            beside: The weight of the batch before.

        Returns:
            How many, and the weight of the batch with them.
        """
        # In chunks, since to sum them up is quicker than to look at each. First one that is likely
        # to fit, then larger and larger ones; the one that does not fit weight by weight.
        count, chunk, following = 0, _CHUNK if beside else self._chunk, _CHUNK
        while count < most and beside <= self._most:
            first = start + count
            part = weights[first : first + min(chunk, most - count)]
            if not part:
                break
            with_part = sum(part, beside)
            if with_part <= self._most:
                count, beside = count + len(part), with_part
                chunk, following = following, 2 * following
            else:
                sums = [*accumulate(part, initial=beside)]
                more = bisect_right(sums, self._most) - 1
                count, beside = count + more, sums[more]
                break
        if count:
            self._chunk = max(count - count // 8, _CHUNK)
        return count, beside

    def surely(self, asked: list[Hashable], beside: list[Hashable]) -> int:
        """So many of `asked` fit into a batch with those `beside`, whichever they are."""
        heaviest = sorted(self.of_each(asked), reverse=True)
        fitting = self.fitting(heaviest, 0, len(heaviest), sum(self.of_each(beside)))[0]
        return fitting if beside else max(fitting, 1)  # what is too heavy goes alone


class PassingWeights(Weights):
    """The weights of keys that come and go."""

    __slots__ = ("_known",)

    def __init__(self, most: float) -> None:
        super().__init__([], [], float, most)
        self._known: dict[Hashable, float] = {}
        self._by_key = self._known

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def add(self, weights: dict[Hashable, float]) -> None:
        """Note the weights of keys."""
        self._known.update(weights)

    def forget(self, keys: list[Hashable]) -> None:
        """Nothing more is asked of `keys`."""
        for key in keys:
            del self._known[key]


def check(weight: object, max_weight: object) -> None:
    """Refuse what cannot be the options `weight` and `max_weight`.

    Raises:
        TypeError: one is of a wrong type, or there is one without the other.
        ValueError: `max_weight` is not positive, or an integer too large for a float.
    """
    if weight is None and max_weight is None:
        return
    if max_weight is None:
        raise TypeError("weight= needs max_weight=, the most that a batch may weigh")
    if isinstance(max_weight, bool) or not isinstance(max_weight, int | float):
        raise TypeError(f"max_weight must be a number, or None, got {short(max_weight)}")
    if not max_weight > 0:  # also NaN
        raise ValueError(f"max_weight must be more than 0, got {short(max_weight)}")
    if _no_float(max_weight):
        raise ValueError(f"max_weight must be at most 1e308, or math.inf, got {short(max_weight)}")
    if weight is None:
        raise TypeError(
            "max_weight= needs weight=, a function from an item to its weight, such as weight=len"
        )
    if not callable(weight):
        raise TypeError(f"weight must be a function from an item to a number, got {short(weight)}")


def checked(item: Any, weight: Any) -> float:
    """The `weight` that a user's function gave for `item`.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, NaN, or too large for a float.
    """
    number = isinstance(weight, Real)
    if not number:
        raise TypeError(
            f"the weight= function gave {short(weight)} for {short(item)}: "
            "let it return a number of 0 or more"
        )
    if not weight >= 0 or _no_float(weight):  # also NaN
        raise ValueError(
            f"the weight= function gave {short(weight)} for {short(item)}: "
            "a weight is a number of 0 or more, at most 1e308, or math.inf"
        )
    return int(weight) if isinstance(weight, Integral) and weight < _LARGE else float(weight)


def _no_float(number: Any) -> bool:
    """Whether it is too large to be one, as integers can be."""
    return bool(sys.float_info.max < number < math.inf)
