"""What keys are called in a store: digests of one length, which tell types apart.

They are written to files that outlive the process, so nothing in them may depend on it: no `hash`,
no `repr`, no pickle. What is digested is

- of None, a bool, int, float, str or bytes a byte that names the type, then the value;
- of a tuple ``(``, then all that is in it, in the order in which one reads it: for a tuple ``(``,
  its length and ``:``; for everything else the number of bytes, ``:`` and the bytes as above.

Numbers are hexadecimal. The tests have examples.
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Hashable, Sequence
from hashlib import blake2b

SIZE = 20  # bytes; of 10**15 keys two have the same digest with a probability of 10**-18
_SUPPORTED = "None, a bool, int, float, str, bytes or a tuple of these"

# To copy an object that has seen the first byte is faster than to make one.
_INT = blake2b(b"i", digest_size=SIZE)
_STR = blake2b(b"s", digest_size=SIZE)


def digests(keys: Sequence[Hashable]) -> list[bytes]:
    """What `keys` are called in a store, in their order: `SIZE` bytes each.

    Args:
        keys: Each is None, a bool, int, float, str, bytes or a tuple of these: of exactly these
            types, not of their subclasses.

    Raises:
        TypeError: a key is of another type, or something in it is.
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


def _tagged(part: object, key: object) -> bytes:
    """A byte for the type, then the value, of a `part` of `key` that is no tuple."""
    if type(part) is str:
        return b"s" + part.encode("utf-8", "surrogatepass")
    if type(part) is int:
        return b"i%x" % part
    if part is None:
        return b"n"
    if type(part) is bool:
        return b"?1" if part else b"?0"
    if type(part) is bytes:
        return b"b" + part
    if type(part) is float and part == part:
        return b"f" + struct.pack(">d", part + 0.0)  # -0.0 equals 0.0, and becomes it
    inside = "" if part is key else f" in {reprlib.repr(key)}"
    if type(part) is float:
        raise ValueError(f"a key in a store cannot be NaN{inside}: it would never be found again")
    raise TypeError(
        f"a key in a store is {_SUPPORTED}, got {reprlib.repr(part)} of type "
        f"{type(part).__qualname__!r}{inside}; give the proxy key= with a function from an item to "
        "such a key, for instance key=lambda item: item.id"
    )


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
