"""Keys as digests and results as bytes, for one store, and back."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from .._core.outcome import Failure, StoreFailure
from .._errors import AnswerTypeError, AnswerValueError
from .._messages import short, told
from .._store import Store
from .codecs import Codec, Codecs, UnreadableValue
from .digests import digests

_logger = logging.getLogger("batchproxy")


class Claimed(NamedTuple):
    """What came of asking for keys: `Claims` by key instead of by digest, values decoded."""

    values: dict[Hashable, Any]
    mine: list[Hashable]
    held: list[Hashable]


class Published(NamedTuple):
    """What came of writing the results of a call."""

    adopted: dict[Hashable, Any]
    """Values that others had published before, which are to be taken instead."""
    refused: dict[Hashable, Failure]
    """The failures of those that cannot be stored."""
    failure: StoreFailure | None = None
    """Why nothing was written. The results are kept until they can be: they were paid for."""


class Encoding:
    """What keys are called in `store`, and how values are written there."""

    def __init__(self, store: Store, codec: Codec | None) -> None:
        self._store = store
        self._codecs = Codecs(codec)

    def digests(self, keys: Sequence[Hashable], known: dict[Hashable, bytes]) -> list[bytes]:
        """What `keys` are called in the store; `known` is looked up first, and added to."""
        try:
            return [known[key] for key in keys]
        except KeyError:
            new = [key for key in keys if key not in known]
            known.update(zip(new, digests(new)))
            return [known[key] for key in keys]

    def encoded(
        self, results: Mapping[Hashable, Any], names: dict[Hashable, bytes]
    ) -> tuple[dict[bytes, bytes], dict[Hashable, Failure]]:
        """`results` as they are stored, and the failures of those that cannot be.

        All of them have one of the `names`.
        """
        encoded, refused = {}, {}
        dumps = self._codecs.dumps
        for key, value in results.items():
            name = names[key]
            try:
                data = dumps(value)
                if len(data) > self._store.max_value_size:
                    raise ValueError(
                        f"it has {len(data):,} bytes, and {short(self._store)} takes values of at "
                        f"most {self._store.max_value_size:,}"
                    )
                encoded[name] = data
            except Exception as error:  # whatever the codec of a user raises
                refused[key] = _refusal(key, error)
        try:
            return encoded, refused
        finally:
            del results, refused  # this frame is in the traceback of each: a cycle

    def decoded(
        self, stored: Mapping[bytes, bytes], by_name: Mapping[bytes, Hashable]
    ) -> tuple[dict[Hashable, Any], dict[bytes, bytes]]:
        """Values by key, and what cannot be read."""
        values: dict[Hashable, Any] = {}
        unreadable: dict[bytes, bytes] = {}
        loads = self._codecs.loads
        for name, data in stored.items():
            try:
                values[by_name[name]] = loads(data)
            except UnreadableValue as error:
                if not unreadable:
                    first = f"{short(by_name[name])}: {error}"
                unreadable[name] = data
        if unreadable:
            _logger.warning(
                "of %d stored values %d cannot be read and count as misses, such as that of %s",
                len(stored),
                len(unreadable),
                first,
            )
        return values, unreadable


def _refusal(key: Hashable, error: Exception) -> Failure:
    kind = AnswerTypeError if isinstance(error, TypeError) else AnswerValueError
    refusal = kind(f"the result of {short(key)} cannot be stored: {told(error)}")
    refusal.__cause__, refusal._key = error, key
    return Failure(refusal, None)
