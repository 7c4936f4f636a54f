"""What a function answered with, as a list: before its results are made such as can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import AnswerTypeError, AnswerValueError
from .._messages import short_list

_TEXT = (str, bytes, bytearray, memoryview)


def listed(answer: Any, items: list[Any]) -> list[Any]:
    """The results in `answer`, one per item. A mapping is by item, and not by what `key_of` gives.

    Raises:
        AnswerTypeError: it is of another kind than those of the contract.
        AnswerValueError: it has another length than `items`, or lacks one.
    """
    if isinstance(answer, Mapping):
        if missing := [item for item in items if item not in answer]:
            raise AnswerValueError(
                f"the function answered with a mapping that lacks {len(missing)} of its "
                f"{len(items)} items: {short_list(missing)}; give every item an entry, None where "
                "there is no result"
            )
        return [answer[item] for item in items]
    kind = type(answer)
    sequence = hasattr(kind, "__len__") and hasattr(kind, "__getitem__")
    if not sequence or isinstance(answer, _TEXT) or hasattr(kind, "columns"):
        raise AnswerTypeError(
            f"the function answered with {kind.__qualname__!r}, expected a list (or another sized "
            "and indexable sequence) with one result per item, or a mapping from item to result"
        )
    results = list(answer)
    if not len(answer) == len(results) == len(items):
        raise AnswerValueError(
            f"the function answered with {len(answer)} results to a batch of {len(items)} items; "
            "return exactly one result per item, in the order of the batch"
        )
    return results
