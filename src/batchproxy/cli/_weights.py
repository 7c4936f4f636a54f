"""What an item weighs, where batches are limited by weight, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Weighing(NamedTuple):
    """The options of a proxy that say so; neither is None if any is not."""

    weight: Callable[[Any], float] | None
    max_weight: float | None


BY_COUNT = Weighing(None, None)


def characters(item: Any) -> int:
    """How long the text of an item is: of what is no text, as JSON."""
    text = item if type(item) is str else json.dumps(item, ensure_ascii=False, default=str)
    return len(text)
