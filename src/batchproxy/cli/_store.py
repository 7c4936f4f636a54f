"""From what `--store` says to the store; what is said of it has no password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias
from urllib.parse import unquote

from click import ClickException, UsageError

from .. import stores
from .._messages import describe, escaped, says
from ..stores import PostgresStore, RedisStore, SQLiteStore

Opened: TypeAlias = SQLiteStore | RedisStore | PostgresStore

# What is shown of a URL: the host, port and database, or the path of a socket. A password is not
# always where it belongs, or escaped as it should be: what looks otherwise is not shown at all.
_LOOKS = (
    re.compile(
        r"(rediss?://)([^?]*@)?((?:[\w.-]+|\[[\da-f:.]+\])(?::\d{1,5})?(?:/\d*)?)(\?[^@]*)?",
        re.ASCII | re.I,
    ),
    re.compile(
        r"(postgres(?:ql)?://)([^?]*@)?"
        r"((?:[\w.-]+|\[[\da-f:.]+\])?(?::\d{1,5})?(?:/[\w-]*)?)(\?[^@]*)?",
        re.ASCII | re.I,
    ),
    re.compile(r"(unix://)([^?]*@)?(/[^?@#]*)(\?[^@]*)?"),
)


class Place:
    """Where a store is, as the user named it: a file, or the URL of a server.

    As text, and in every message, it is without user, password and query. `text` is for those who
    open it.
    """

    def __init__(self, text: str) -> None:
        self.is_url = not _is_file(text)
        self.text = text
        if not self.is_url:
            with suppress(FileNotFoundError):  # there is no current directory
                self.text = os.path.abspath(text)  # the function may go to another one
        self._shown = _shown(text) if self.is_url else escaped(text)

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"'{self._shown}'"

    def clean(self, message: str) -> str:
        """`message`, which others wrote, without what is not to be shown."""
        if not self.is_url:
            return message
        words = {word for text in (self.text, unquote(self.text)) for word in _words(text)}
        for word in sorted(words.difference(_words(self._shown)), key=len, reverse=True):
            # A short one, such as a digit, is replaced where it stands alone.
            pattern = re.escape(word) if len(word) > 3 else rf"\b{word}\b"
            message = re.sub(pattern, "***", message)
        return message


def _is_file(text: str) -> bool:
    if text == ":memory:":  # which is no store to resume from, but nothing that is to be hidden
        return True
    try:
        return isinstance(stores.open_store(text), SQLiteStore)  # nothing is opened yet
    except (ValueError, ImportError):
        return False


def _shown(url: str) -> str:
    for look in _LOOKS:
        if match := look.fullmatch(url):
            scheme, user, place, query = match.groups()
            return escaped(f"{scheme}{'***@' if user else ''}{place}{'?***' if query else ''}")
    scheme, colon, _ = url.partition("://")
    return f"{scheme}://***" if colon and re.fullmatch(r"[a-zA-Z][\w+.-]*", scheme) else "***"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def clean(message: str, arguments: Iterable[str]) -> str:
    """`message` about `arguments` of the command, of which some may be URLs in the wrong place."""
    for argument in arguments:
        for text in (argument, argument.partition("=")[2]):
            message = Place(text).clean(message)
    return message


def open_store(place: Place, *, create: bool) -> Opened:
    """The store that is there, which can be reached.

    Args:
        place: Where it is.
        create: Whether a file that is not there is made.

    Raises:
        UsageError: it cannot be opened, and why.
    """
    if not place.is_url and not create and not os.path.exists(place.text):
        raise UsageError(f"there is no store {place!r}")
    words = says  # of the library's own: nothing is opened yet
    try:
        store = stores.open_store(place.text)
        words = describe
        try:
            store.get_many("batchproxy", [bytes(20)])  # it connects when it is first used
        except BaseException:
            store.close()
            raise
    except Exception as error:
        # Without its cause, whose traceback would be shown with its own words.
        reason = place.clean(words(error))
        raise UsageError(f"the store {place!r} cannot be opened: {reason}") from None
    return store


@contextmanager
def using(place: Place) -> Iterator[None]:
    """Inside, whatever a store raises ends the command with status 1."""
    try:
        yield
    except Exception as error:
        reason = place.clean(describe(error))
        raise ClickException(f"the store {place!r} failed: {reason}") from None
