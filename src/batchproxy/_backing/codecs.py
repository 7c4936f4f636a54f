"""How values become bytes, and come back: codecs that the user names, and the choice of one.

A byte in front of each value says which codec wrote it, so that a store may have values of many.
What would not come back equal, and of the same type, is refused when it is written: an answer must
not depend on whether it was computed or read.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from .._forks import unforked
from .._messages import describe, short, typed
from .plain import READERS, write_plain
from .sameness import difference


class UnreadableValue(Exception):
    """Stored bytes that no codec at hand can read."""


class Codec(ABC):
    """How the values of one `Cache` are written to its store, and read.

    A cache that was given a codec writes *every* value with it; it still reads values that were
    written without one. To write one of your own, derive a class from this one. Where it travels
    with its cache, what it is made of has to be what `pickle` can write: no lambda.

    Threads: the methods are called in worker threads, by several at once.
    """

    tag: bytes = b""
    """The byte in front of each value; what this codec wrote it alone reads. Set it in your class.

    Lower-case letters belong to batchproxy. Take another byte when what `encode` writes changes its
    meaning: older values are then computed again.
    """

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes for `value`.

        Args:
            value: A result of the ``map_func``.

        Raises:
            TypeError: values of this type cannot be written.
            ValueError: `decode` would not give an equal value of the same type.
        """

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """The value that was encoded.

        Args:
            data: What `encode` gave; or anything, if somebody else wrote to the store.

        Raises:
            Exception: of any kind, if `data` cannot be read. It is logged, and counts as a miss.
        """

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}()"


class PickleCodec(Codec):
    """Anything that can be pickled; only for a store that nobody else can write to.

    **Reading a pickle runs code that is in it.** Who can write to the file or server, now or at any
    time before, can make every process that reads it do anything that its user may do. That is why
    values are pickled, and pickles read, only where this codec was named.

    That a value comes back equal is not verified, since objects that say nothing about equality
    equal nothing but themselves. A pickle names classes by module and name; once they are moved or
    renamed it cannot be read, and counts as a miss.
    """

    tag = b"k"

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`.

        Args:
            value: Anything that can be pickled.

        Raises:
            TypeError: it cannot be pickled.
        """
        try:
            return pickle.dumps(value, 5)
        except Exception as error:  # PicklingError, AttributeError, or what a method raised
            raise TypeError(f"{typed(value)} cannot be pickled: {describe(error)}") from error

    def decode(self, data: bytes) -> Any:
        """See `Codec.decode`.

        Args:
            data: A pickle. Reading it runs code that is in it.
        """
        return pickle.loads(data)


_REMEDY = "give it the exact type of the function's results, and use None for NaN"


class _TypedCodec(Codec):
    """Values of one type, written and read by a library that knows the type."""

    def __init__(
        self, type_: Any, write: Callable[[Any], bytes], read: Callable[[bytes], Any]
    ) -> None:
        self._type = type_
        self._write = write
        self._read = read

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`. The bytes are decoded at once, and the two values compared.

        Args:
            value: One of the type that the codec is for.

        Raises:
            TypeError: it cannot be written.
            ValueError: it would not come back equal, and of the same type.
        """
        try:
            data = self._write(value)
        except Exception as error:
            raise TypeError(
                f"{short(self)} cannot write {typed(value)}: {describe(error)}; {_REMEDY}"
            ) from error
        try:
            back = self._read(data)
        except Exception as error:
            raise ValueError(
                f"{short(self)} could not read {typed(value)} back: {describe(error)}; {_REMEDY}"
            ) from error
        try:
            differ = difference(value, back)
            equal = differ is None and bool(value == back)
        except Exception as error:
            raise ValueError(
                f"{short(self)} cannot tell whether {typed(value)} comes back as it is: "
                f"{describe(error)}; {_REMEDY}"
            ) from error
        if differ is not None:
            one, other = differ
            inside = "" if one is value else f", in {short(value)}"
            raise ValueError(
                f"{short(self)} would give {typed(one)} back as {typed(other)}{inside}; {_REMEDY}"
            )
        if not equal:
            raise ValueError(
                f"{short(self)} would give {typed(value)} back as one that is not equal to it; "
                "let its class define __eq__, as dataclasses do"
            )
        return data

    def decode(self, data: bytes) -> Any:
        """See `Codec.decode`.

        Args:
            data: What `encode` gave.
        """
        return self._read(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._type,)

    def __repr__(self) -> str:
        name = self._type.__qualname__ if isinstance(self._type, type) else repr(self._type)
        return f"{type(self).__qualname__}({name})"


class MsgspecCodec(_TypedCodec):
    """Values of one type as MessagePack, through msgspec (extra ``msgspec``).

    Each value is decoded when it is written, and refused if the result is not equal, or if its type
    or that of anything in it is not the same, a datetime's time zone included.

    Args:
        type_: What `msgspec.msgpack.Decoder` takes: a Struct, a dataclass, ``list[Struct]``, ...

    Raises:
        ImportError: msgspec is not installed.
    """

    tag = b"m"

    def __init__(self, type_: Any, /) -> None:
        try:
            with unforked():
                import msgspec
        except ImportError as error:
            raise ImportError(
                "MsgspecCodec needs msgspec: pip install 'batchproxy[msgspec]'"
            ) from error
        super().__init__(
            type_, msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(type_).decode
        )


class PydanticCodec(_TypedCodec):
    """Values of one type as JSON, through pydantic (extra ``pydantic``).

    Each value is validated when it is written, and refused if the result is not equal, or if its
    type or that of anything in it is not the same; but which fields of a model were given is not
    kept, and time zones of a fixed offset are pydantic's own afterwards.

    Args:
        type_: A model, or what else `pydantic.TypeAdapter` takes, such as ``list[Model]``.

    Raises:
        ImportError: pydantic is not installed.
    """

    tag = b"p"

    def __init__(self, type_: Any, /) -> None:
        try:
            with unforked():
                import pydantic
        except ImportError as error:
            raise ImportError(
                "PydanticCodec needs pydantic: pip install 'batchproxy[pydantic]'"
            ) from error
        adapter = pydantic.TypeAdapter(type_)

        def write(value: Any) -> bytes:
            return adapter.dump_json(value, by_alias=True, round_trip=True, warnings=False)

        super().__init__(type_, write, adapter.validate_json)


_BUILT_IN = {b"k": "PickleCodec", b"m": "MsgspecCodec", b"p": "PydanticCodec"}


class Codecs:
    """What one cache writes values with, and all that it reads them with."""

    def __init__(self, codec: Codec | None) -> None:
        self._codec = codec
        self._readers = READERS
        self.dumps: Callable[[Any], bytes] = write_plain
        """The bytes for a value, with the tag in front.

        Raises:
            TypeError: its type cannot be written.
            ValueError: it would not come back equal and of the same type.
            Exception: a user's own codec may raise anything.
        """
        if codec is None:
            return
        tag = codec.tag
        if not isinstance(tag, bytes) or len(tag) != 1:
            raise ValueError(f"the tag of a codec is one byte, such as b'A', got {short(tag)}")
        if tag.islower() and not isinstance(codec, PickleCodec | _TypedCodec):
            raise ValueError(
                f"the tag {tag!r} of {short(codec)} is reserved, as all lower-case letters are; "
                f"take another byte, such as {tag.upper()!r}"
            )
        self._readers = {**READERS, tag: codec.decode}

        def dumps(value: Any) -> bytes:
            data = codec.encode(value)
            if not isinstance(data, bytes):
                raise TypeError(f"{short(codec)}.encode() must give bytes, got {typed(data)}")
            return codec.tag + data

        self.dumps = dumps

    def loads(self, data: bytes) -> Any:
        """The value that was written.

        Raises:
            UnreadableValue: it cannot be read; other exceptions are not raised.
        """
        tag = data[:1]
        reader = self._readers.get(tag)
        if reader is None:
            writer = _BUILT_IN.get(tag, "an unknown codec")
            raise UnreadableValue(
                f"its tag is {tag!r}, it was written by {writer}; this cache has "
                f"{'no codec' if self._codec is None else short(self._codec)}"
            )
        try:
            return reader(data[1:])
        except Exception as error:
            raise UnreadableValue(
                f"the {len(data)} bytes with the tag {tag!r} cannot be read: {describe(error)}"
            ) from error


def loads(data: bytes, codec: Codec | None = None) -> Any:
    """The value that a `Cache` has written to its store as these bytes.

    For what is read from a store without a `Cache`, as by ``store.scan(namespace)``.

    Args:
        data: What the store has.
        codec: That of the cache, if it was given one.

    Raises:
        UnreadableValue: `data` cannot be read: another codec has written it, or none at all.
    """
    return Codecs(codec).loads(data)
