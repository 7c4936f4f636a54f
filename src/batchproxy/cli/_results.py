"""Results on their way from the function to a store, and from there to the output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

from click import UsageError

from .. import AnswerTypeError, AnswerValueError
from .._messages import describe, typed
from ..codecs import Codec, MsgspecCodec, PickleCodec, PydanticCodec
from ._load import find

_SCALARS = frozenset({NoneType, bool, int, float, str})
_LEFT = (NoneType, int, float, str, bytes, list, dict, set, frozenset)
"""What is as it is, or is refused by a store, which says what to write instead."""
_LEVELS = 100
"""Of lists and dicts in one another, as in a store."""


def plain(value: Any, levels: int = _LEVELS) -> Any:
    """`value` as what JSON can say: dates, times, decimals and UUIDs are text, tuples are lists.

    So are arrays of NumPy, whose numbers are numbers, and whose moments are text.

    Raises:
        AnswerTypeError: something in it is of another type.
        AnswerValueError: it has more than `levels` of lists and dicts.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, list | tuple | dict) and not levels:
        raise AnswerValueError(
            f"a result has lists or dicts nested more than {_LEVELS} deep, or contains itself; "
            "flatten it"
        )
    if isinstance(value, list | tuple):
        if kind is list and _SCALARS.issuperset(map(type, value)):
            return value  # a vector of thousands of numbers: not one by one
        return [plain(part, levels - 1) for part in value]
    if kind is dict:
        return {key: plain(part, levels - 1) for key, part in value.items()}
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if is_numpy(value) and (found := _in_python(value)) is not value:
        return plain(found, levels)
    if isinstance(value, _LEFT):
        return value
    raise AnswerTypeError(
        f"a result has {typed(value)}: return text, numbers, "
        "dates, and lists and dicts of these, or name a codec: --codec pydantic:MODULE:MODEL, "
        "--codec msgspec:MODULE:TYPE or --codec pickle"
    )


def _in_python(value: Any) -> Any:
    """What NumPy has, as Python has it; moments in nanoseconds, which Python has not, as text."""
    if value.dtype.kind not in "mM":
        return value.tolist()
    if value.ndim:
        return [*value]
    found = value[()]
    exact = found.item()
    if type(exact) is not int:
        return exact
    return str(found) if value.dtype.kind == "M" else value


def storable(value: Any) -> Any:
    """`value`, plain; but NumPy's as it is: a store and Parquet keep its few bytes.

    Raises:
        AnswerTypeError, AnswerValueError: as of `plain`.
    """
    return value if is_numpy(value) else plain(value)


def is_numpy(value: object) -> bool:
    """Whether it is an array of NumPy, or one of its numbers or moments."""
    numpy = sys.modules.get("numpy")  # nobody has made an array without it
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


class Results:
    """How the results of one run are kept and written.

    Args:
        codec: What `--codec` says.

    Raises:
        UsageError: there is no such codec, and why.
    """

    def __init__(self, codec: str | None) -> None:
        self.codec: Codec | None = None
        self.kept: Callable[[Any], Any] = storable
        """A result as it goes into the store, and comes out. Raises as `plain` does."""
        self.written: Callable[[Any], Any] = storable
        """A result as the formats of the output know it. Raises exceptions of any kind."""
        if codec is None:
            return
        self.kept = _as_it_is
        kind, colon, target = codec.partition(":")
        try:
            match kind:
                case "pickle" if not colon:
                    self.codec = PickleCodec()
                case "msgspec" if target:
                    self.codec = MsgspecCodec(find(target, "--codec"))
                    from msgspec import to_builtins

                    self.written = to_builtins
                case "pydantic" if target:
                    self.codec = PydanticCodec(find(target, "--codec"))
                    from pydantic_core import to_jsonable_python

                    self.written = to_jsonable_python
                case _:
                    raise UsageError(
                        "--codec takes pydantic:MODULE:MODEL, msgspec:MODULE:TYPE or pickle, got "
                        f"{codec!r}"
                    )
        except UsageError:
            raise
        except Exception as error:  # whatever the libraries say of a type
            raise UsageError(f"--codec {codec}: {describe(error)}") from error


def _as_it_is(value: Any) -> Any:
    return value
