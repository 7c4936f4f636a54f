"""What an item weighs, where batches are limited by weight, too."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from .._messages import describe, short


class Weighing(NamedTuple):
    """The options of a proxy that say so; neither is None if any is not."""

    weight: Callable[[Any], float] | None
    max_weight: float | None


BY_COUNT = Weighing(None, None)


class BadWeight(Exception):
    """A function gave no weight; says which, and why."""

    def __init__(self, text: str, item: Any) -> None:
        super().__init__(text)
        self.item = item


def named(weight: Callable[[Any], float], name: str) -> Callable[[Any], float]:
    """`weight`, with a `BadWeight` for what goes wrong with it: a user knows it by that name."""

    def weigh(item: Any) -> float:
        try:
            found = weight(item)
        except Exception as error:
            raise BadWeight(f"{name} failed for {short(item)}: {describe(error)}", item) from error
        if isinstance(found, Real) and (0 <= found <= sys.float_info.max or found == math.inf):
            return found
        raise BadWeight(
            f"{name} gave {short(found)} for {short(item)}: a weight is a number of 0 or more, at "
            "most 1e308, or math.inf",
            item,
        )

    return weigh


def characters(item: Any) -> int:
    """How long the text of an item is: of what is no text, as JSON."""
    text = item if type(item) is str else json.dumps(item, ensure_ascii=False, default=str)
    return len(text)
