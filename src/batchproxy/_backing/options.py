"""What users say of a cache, looked at before anything is made of it."""

from __future__ import annotations

import math

from .._messages import short
from .._recipes import Travels
from .._store import SharedStore, Store, check_seconds
from .codecs import Codec

_NAMESPACE = 1_000  # characters; it is shown in lists, and is in the name of each key on a server


def check_bounds(max_size: object, ttl: object) -> None:
    """Refuse what cannot bound a cache.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or NaN.
    """
    if max_size is not None:
        if isinstance(max_size, bool) or not isinstance(max_size, int):
            raise TypeError(f"max_size must be an integer or None, got {short(max_size)}")
        if max_size < 0:
            raise ValueError(
                f"max_size must be 0 or more, or None for no bound, got {short(max_size)}"
            )
    if ttl is not None:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            raise TypeError(f"ttl must be a number of seconds or None, got {short(ttl)}")
        if ttl < 0 or math.isnan(ttl):
            raise ValueError(f"ttl must be 0 seconds or more, or None for no end, got {short(ttl)}")


def check_store(store: object, namespace: object, codec: object, on_store_error: object) -> None:
    """Refuse what cannot be a store, or the use of one.

    Raises:
        TypeError: one of these is of a wrong type.
        ValueError: one has a wrong value, or is of no use without another.
    """
    if on_store_error not in ("raise", "continue"):
        raise ValueError(
            f"on_store_error must be 'raise' or 'continue', got {short(on_store_error)}"
        )
    if codec is not None and not isinstance(codec, Codec):
        raise TypeError(
            f"codec must be an instance of a Codec, or None, got {short(codec)}; "
            "for instance codec=batchproxy.codecs.PydanticCodec(MODEL)"
        )
    if store is None:
        if namespace is not None or codec is not None:
            raise ValueError("namespace and codec are for a store: give store=, too")
        return
    if not isinstance(store, Store):
        raise TypeError(
            "store must be a batchproxy.stores.Store, such as SQLiteStore(path), got "
            f"{short(store)}; a mapping can be given to a proxy, as cache="
        )
    if isinstance(store, SharedStore):
        check_seconds(f"the lease of {short(store)}", store.lease)
    check_namespace(namespace)


def is_same_store(one: Store, other: Store) -> bool:
    """Whether two stores, one of which has arrived here, are the same but for their connections."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, Travels) and isinstance(other, Travels):
        return one._recipe == other._recipe
    return one.identity == other.identity and _lease(one) == _lease(other)


def _lease(store: Store) -> float | None:
    return store.lease if isinstance(store, SharedStore) else None


def check_namespace(namespace: object) -> None:
    """Refuse what cannot be the namespace of a store.

    Raises:
        TypeError: it is no text.
        ValueError: there is none, it cannot be printed, or is too long.
    """
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError(f"namespace must be text, got {short(namespace)}")
    if not namespace:
        raise ValueError(
            f"a store needs a namespace, got {namespace!r}: a name for what its results are the "
            "results of, the function, the model and the version of the prompt; for example "
            "namespace='embed-v3'. Results of another namespace are never found"
        )
    if len(namespace) > _NAMESPACE or not namespace.isprintable():
        raise ValueError(
            f"namespace must be text that can be printed, of {_NAMESPACE:,} characters at most, "
            f"got {len(namespace):,}: {short(namespace)}"
        )
