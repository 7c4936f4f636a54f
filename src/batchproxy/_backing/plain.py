"""Values that need no codec: bytes, text, what JSON has, and NumPy's arrays and scalars.

The type of a value decides, and a byte in front says what was decided. What would not come back as
it was, as a tuple from the json module, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from io import BytesIO
from types import NoneType
from typing import TYPE_CHECKING, Any, NoReturn

from .._forks import unforked
from .._messages import describe, short, typed

if TYPE_CHECKING:
    import numpy as np

MAX_DEPTH = 100  # of lists and dicts in one another: less than any parser of JSON gives up at
_MAX_HEADER = 10_000  # bytes of text that NumPy evaluates to learn an array's dtype and shape

_SCALARS = frozenset({NoneType, bool, int, float, str})
_BASES = frozenset({int, float, str, list, dict})
_NAMED = (
    "name a codec of batchproxy.codecs, as in Cache(codec=MsgspecCodec(TYPE)); there are also "
    "PydanticCodec, for models of pydantic, and PickleCodec, the last resort"
)

# Text is not escaped: of escaped surrogates two would come back as one character.
_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
)


def write_plain(value: Any) -> bytes:
    """The bytes for `value`, with the tag in front.

    Raises:
        TypeError: its type, or that of something in it, would not come back.
        ValueError: it would not come back equal.
    """
    kind = type(value)
    if kind is str:
        return b"t" + value.encode("utf-8", "surrogatepass")  # type: ignore[no-any-return] # str
    if kind is bytes:
        return b"b" + value  # type: ignore[no-any-return] # bytes
    if kind is list or kind is dict:
        _check_parts(value, 1)
    elif kind.__module__.partition(".")[0] == "numpy":
        return _write_numpy(value)
    elif kind not in _SCALARS:
        raise TypeError(f"a result cannot be {_refusal(value)}")
    try:
        text = _encoder.encode(value)
    except ValueError as error:
        raise ValueError(
            "a result contains a number that JSON has not; give None for NaN and infinities, "
            f"and text, such as hex(number), for integers of thousands of digits: {describe(error)}"
        ) from error
    return b"j" + text.encode("utf-8", "surrogatepass")


def _check_parts(value: Any, depth: int) -> None:
    """Refuse what would come back from JSON as something else; numbers are left to the encoder."""
    if depth > MAX_DEPTH:
        raise ValueError(
            f"a result has lists or dicts nested more than {MAX_DEPTH} deep, or contains itself; "
            "flatten it"
        )
    parts = value
    if type(value) is dict:
        if not {str}.issuperset(map(type, value)):
            key = next(key for key in value if type(key) is not str)
            raise TypeError(
                f"a dict in a result has the key {typed(key)}; keys must be str exactly: use "
                "str(key), or a list of pairs"
            )
        parts = value.values()
    if _SCALARS.issuperset(map(type, parts)):  # a vector of thousands of numbers: not one by one
        return
    for part in parts:
        if type(part) is list or type(part) is dict:
            _check_parts(part, depth + 1)
        elif type(part) not in _SCALARS:
            raise TypeError(f"a list or dict in a result cannot contain {_refusal(part)}")


def _refusal(value: object) -> str:
    """What must not be in JSON, and what to write instead."""
    if isinstance(value, tuple | set | frozenset):
        remedy = "use a list"
    elif isinstance(value, bytes):
        remedy = "use text, for instance value.hex()"
    elif isinstance(value, Enum) and isinstance(value, str):
        remedy = "use value.value"  # its str() is that of its name
    elif type(value).__module__.partition(".")[0] == "numpy":
        remedy = "use value.tolist() for plain lists and numbers"
    else:
        base = next((base for base in type(value).__mro__ if base in _BASES), None)
        remedy = f"use {base.__name__}(value)" if base else _NAMED
    return f"{typed(value)}: {remedy}"


def _write_numpy(value: Any) -> bytes:
    import numpy as np

    if type(value) is np.ndarray:
        return b"n" + _write_array(value)
    if not isinstance(value, np.generic):
        raise TypeError(f"a result cannot be {typed(value)}: use numpy.asarray(value)")
    array = np.asarray(value)
    if array.dtype.kind in "SU" and array[()] != value:
        raise ValueError(
            f"a result cannot be {typed(value)}: NumPy drops the NULs at its end; use str or bytes"
        )
    return b"s" + _write_array(array)


def _write_array(array: np.ndarray[Any, Any]) -> bytes:
    """The bytes of an .npy file."""
    from numpy.lib import format as npy

    if _comes_back(array.dtype):
        file = BytesIO()
        npy.write_array(file, array, version=(3, 0))
        if file.tell() - array.nbytes <= _MAX_HEADER:
            return file.getvalue()
    raise TypeError(
        f"a result cannot be NumPy data of dtype {short(array.dtype)}, which an .npy file does not "
        "keep: use value.astype(...) with a plain dtype, or value.tolist()"
    )


def _comes_back(dtype: np.dtype[Any]) -> bool:
    from numpy.lib import format as npy

    # All other kinds are objects, or belong to a library that may be missing when they are read.
    inside = list(_inside(dtype))
    if not dtype.itemsize or any(each.kind not in "biufcmMSUV" or each.metadata for each in inside):
        return False
    try:
        back = npy.descr_to_dtype(npy.dtype_to_descr(dtype))
    except ValueError:  # fields that overlap, or in another order than in memory
        return False
    return back == dtype and all(
        one.type is other.type and one.isalignedstruct == other.isalignedstruct
        for one, other in zip(inside, _inside(back))
    )


def _inside(dtype: np.dtype[Any]) -> Iterator[np.dtype[Any]]:
    """`dtype` and those of its fields and elements."""
    yield dtype
    if dtype.base is not dtype:
        yield from _inside(dtype.base)
    for name in dtype.names or ():
        yield from _inside(dtype[name])


def _read_array(data: bytes) -> np.ndarray[Any, Any]:
    with unforked():  # this is a worker thread, and perhaps the first that wants NumPy
        from numpy.lib import format as npy

    file = BytesIO(data)
    array = npy.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)
    if file.read(1):
        raise ValueError("there are bytes after the array's last")
    if not array.dtype.itemsize:  # of elements of no bytes a few may claim to be billions
        raise ValueError("its elements have no bytes")
    return array


def _read_scalar(data: bytes) -> Any:
    array = _read_array(data)
    if array.shape:
        raise ValueError("it is an array")
    return array[()]


def _never(name: str) -> NoReturn:
    raise ValueError(f"{name} is nothing that was written here")


_decoder = json.JSONDecoder(parse_constant=_never)

READERS: Mapping[bytes, Callable[[bytes], Any]] = {
    b"b": bytes,
    b"t": lambda data: data.decode("utf-8", "surrogatepass"),
    b"j": lambda data: _decoder.decode(data.decode("utf-8", "surrogatepass")),
    b"n": _read_array,
    b"s": _read_scalar,
}
