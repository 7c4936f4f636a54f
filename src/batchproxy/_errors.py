"""What the library itself raises; each class is also the builtin error one would expect."""

from collections.abc import Hashable


class BatchProxyError(Exception):
    """Base class of the errors that batchproxy itself raises, but for those of a `Codec`.

    Errors of a ``map_func`` are never wrapped in it: they arrive as the object that was raised.
    Bad arguments are a plain `TypeError` or `ValueError`.
    """

    _key: Hashable = None

    @property
    def key(self) -> Hashable:
        """The key whose result a store could not keep; None if it is about something else."""
        return self._key


class AnswerTypeError(BatchProxyError, TypeError):
    """A ``map_func`` answered with something that cannot be matched with its input."""


class AnswerValueError(BatchProxyError, ValueError):
    """A ``map_func`` answered with the wrong number of results, or a mapping that lacks a key."""


class CircularWaitError(BatchProxyError, RuntimeError):
    """A ``map()`` would wait, directly or through others, for a call that itself waits for it."""


class ClosedError(BatchProxyError, RuntimeError):
    """A proxy that is closed was asked for something, or a stream outside of its block."""


class PortalError(BatchProxyError, RuntimeError):
    """The event loop thread behind the sync proxies cannot serve this ``map()``.

    Raised for a ``map()`` whose process was forked in the middle of it (in the child), for one
    called in the portal's own thread or while the interpreter shuts down, for one whose portal
    died, and where no thread can be started.
    """


class SplitBatch(Exception):
    """For a ``map_func`` to raise, ``from`` the error of its service: "not this batch as it is".

    The batch is halved, and each half is a call of its own, down to the items that are refused when
    they are alone. Such an item fails with the ``__cause__``, or with this exception if there is
    none. It is no `BatchProxyError`, since it is not the library that raises it first.
    """

    def __str__(self) -> str:
        return super().__str__() or (
            "refused by the function, which gave no reason: let it raise SplitBatch(reason), or "
            "raise it from the error of its service"
        )


class StoreError(BatchProxyError, RuntimeError):
    """A store could not be opened, read or written; its ``__cause__`` says more.

    A ``map()`` raises it if its `Cache` has ``on_store_error="raise"``.
    """


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set what `error` was raised during, also if its class refuses attributes."""
    BaseException.__setattr__(error, "__context__", context)
