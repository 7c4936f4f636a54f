"""What keys are called in a store: digests of one length, which tell types apart.

They are written to files that outlive the process, so nothing in them may depend on it: no `hash`,
no `repr`, no pickle. What is digested is

- of all but a tuple a byte that names the type, then the value, in such a form that equal values
  of one type have one: Decimals without zeros at the end, times without their `fold`, and those
  with a time zone in UTC; one that a clock shows twice, or never, as both that it may be, and the
  key of its zone. Of NumPy's scalars it is that of the Python value that they stand for;
- of a tuple ``(``, then all that is in it, in the order in which one reads it: for a tuple ``(``,
  its length and ``:``; for everything else the number of bytes, ``:`` and the bytes as above.

Numbers are hexadecimal, but for Decimals. The tests have examples.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from types import NoneType
from typing import Any
from uuid import UUID

from .._messages import short, typed

SIZE = 20  # bytes; of 10**15 keys two have the same digest with a probability of 10**-18
_POSSIBLE = (
    "None, a bool, int, float, str, bytes, date, datetime, time, timedelta, Decimal, UUID, a NumPy "
    "scalar that stands for one of these, or a tuple of these"
)

# To copy an object that has seen the first byte is faster than to make one.
_INT = blake2b(b"i", digest_size=SIZE)
_STR = blake2b(b"s", digest_size=SIZE)


def digests(keys: Sequence[Hashable]) -> list[bytes]:
    """What `keys` of a `Cache` are called in its store, in their order: 20 bytes each.

    For what is looked up in a store, or deleted, without a `Cache`.

    Args:
        keys: Each is None, a bool, int, float, str, bytes, date, datetime, time, timedelta, Decimal
            or UUID, of exactly these types, not of their subclasses; or a scalar of NumPy that
            stands for one; or a tuple of these.

    Raises:
        TypeError: a key is of another type, or something in it is; or it is a time that a clock
            shows twice or never, in a zone without a ``key``.
        ValueError: a key is NaN, or has one in it.
    """
    new_int, new_str = _INT.copy, _STR.copy
    found = []
    for key in keys:
        if type(key) is str:
            digest = new_str()
            digest.update(key.encode("utf-8", "surrogatepass"))
        elif type(key) is int:
            digest = new_int()
            digest.update(b"%x" % key)  # in decimal there is a limit to the digits
        elif type(key) is tuple:
            digest = blake2b(_flat(key), digest_size=SIZE)
        else:
            digest = blake2b(_tagged(key, key), digest_size=SIZE)
        found.append(digest.digest())
    return found


def _flat(key: tuple[object, ...]) -> bytes:
    pieces = [b"("]
    rest: list[object] = [key]
    while rest:  # no recursion: a key may be nested as deeply as it likes
        part = rest.pop()
        if type(part) is tuple:
            pieces.append(b"(%x:" % len(part))
            rest += reversed(part)
        else:
            piece = _tagged(part, key)
            pieces += (b"%x:" % len(piece), piece)
    return b"".join(pieces)


def _tagged(part: object, key: object) -> bytes:
    """A byte for the type, then the value, of a `part` of `key` that is no tuple."""
    form = _FORMS.get(type(part))
    if form is None:
        part = _python_value(part)
        form = _FORMS.get(type(part))
    if form is not None and (tagged := form(part)):
        return tagged
    inside = "" if part is key else f" in {short(key)}"
    if form is not None:
        raise ValueError(f"a key in a store cannot be NaN{inside}: it would never be found again")
    raise TypeError(
        f"a key in a store is {_POSSIBLE}, got {typed(part)}{inside}; give the proxy key= with a "
        f"function from an item to such a key, for instance key=lambda item: item.id{_hint(part)}"
    )


def _float(number: float) -> bytes:
    if number != number:
        return b""
    return b"f" + struct.pack(">d", number + 0.0)  # -0.0 equals 0.0, and becomes it


def _decimal(number: Decimal) -> bytes:
    if number.is_nan():
        return b""
    if number.is_infinite():
        return b"m-inf" if number < 0 else b"minf"
    # Not normalize(), which rounds to the precision of the moment.
    sign, all_digits, exponent = number.as_tuple()
    digits = "".join(map(str, all_digits)).rstrip("0")
    if not digits:
        return b"m0"
    assert type(exponent) is int
    zeros = len(all_digits) - len(digits)
    return f"m{'-' * sign}{digits}e{exponent + zeros}".encode()


def _datetime(moment: datetime) -> bytes:
    wall = moment.replace(tzinfo=None) - datetime.min
    early, late = (moment.replace(fold=fold).utcoffset() for fold in (0, 1))
    if early is None or late is None:
        return b"w%x" % _microseconds(wall)
    if early == late:
        return b"a%x" % _microseconds(wall - early)
    # An hour that a clock shows twice, or never, equals itself in its own zone, whatever the fold,
    # and no time in another.
    zone = getattr(moment.tzinfo, "key", None)
    if not isinstance(zone, str):
        raise TypeError(
            f"a key in a store cannot be {short(moment)}: clocks show that twice or never, and its "
            "time zone has no key, as a zoneinfo.ZoneInfo has, to say where; give the proxy "
            "key=lambda moment: moment.astimezone(timezone.utc)"
        )
    both = _microseconds(wall - early), _microseconds(wall - late)
    return b"a%x,%x,%b" % (*both, zone.encode())


def _time(clock: time) -> bytes:
    wall = timedelta(0, clock.second, clock.microsecond, 0, clock.minute, clock.hour)
    offset = clock.utcoffset()
    if offset is None:
        return b"t%x" % _microseconds(wall)
    return b"o%x" % _microseconds(wall - offset)


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta.resolution


# By the exact type. A form is empty if the value equals nothing, not even itself.
_FORMS: dict[type, Callable[[Any], bytes]] = {
    str: lambda text: b"s" + text.encode("utf-8", "surrogatepass"),
    int: lambda number: b"i%x" % number,
    NoneType: lambda _: b"n",
    bool: lambda truth: b"?1" if truth else b"?0",
    bytes: lambda data: b"b" + data,
    float: _float,
    date: lambda day: b"d%x" % day.toordinal(),
    datetime: _datetime,
    time: _time,
    timedelta: lambda duration: b"l%x" % _microseconds(duration),
    Decimal: _decimal,
    UUID: lambda number: b"u" + number.bytes,
}

_PLAIN = frozenset({str, int, float, bytes, tuple})  # of these, Python makes one of a subclass


def _python_value(part: object) -> object:
    """What a scalar of NumPy stands for; everything else, and what stands for nothing, as it is."""
    numpy = sys.modules.get("numpy")  # nobody has made a scalar without it
    if numpy is None or type(part).__module__ != "numpy" or not isinstance(part, numpy.generic):
        return part
    scalar: Any = part
    kind = scalar.dtype.kind
    if kind == "U":
        return str.__str__(scalar)
    if kind == "S":
        return bytes(scalar)
    if kind not in "mM":  # void becomes bytes or a tuple, which it equals not
        return part if kind == "V" else scalar.item()
    if scalar != scalar:  # NaT
        return math.nan
    unit, _ = numpy.datetime_data(scalar.dtype)
    if unit in ("ns", "ps", "fs", "as"):  # finer than Python's
        rounded = scalar.astype(f"{kind}8[us]")
        scalar = rounded if rounded == scalar else scalar
    value = scalar.item()
    return part if type(value) is int else value  # that is a number of units, and no time


def _hint(part: object) -> str:
    """How some of the types that are refused become one that is not."""
    kind = type(part)
    if isinstance(part, Enum):
        return ", or take the .value of an Enum's member"
    if is_dataclass(kind):
        return ", or take dataclasses.astuple(...) of a dataclass"
    if isinstance(part, frozenset):
        return ", or take tuple(sorted(...)) of a set"
    if kind.__module__ == "numpy":
        return ", or take str(...) of it"
    base = next((base for base in kind.__mro__ if base in _PLAIN), None)
    return f", or take {base.__name__}(...) of it" if base else ""
