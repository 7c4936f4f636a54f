"""What the command prints besides rows: for people, on one line each, escaped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from click import ClickException, UsageError

from .._messages import escaped


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


def say(text: str, stream: TextIO | None = None) -> None:
    """A message, on standard error unless another `stream` is given."""
    stream = stream or sys.stderr
    with suppress(OSError):  # nobody hears it
        print(f"batchproxy: {sayable(text, stream)}", file=stream, flush=True)


def show(text: str, stream: TextIO) -> None:
    """A text of several lines, such as a traceback."""
    with suppress(OSError):
        for line in text.splitlines():
            print(sayable(line, stream), file=stream)


def tell(*lines: str) -> None:
    """What was asked for, on standard output.

    Raises:
        UsageError: that is closed.
        OutputClosed: its reader is gone.
        ClickException: it cannot be written, and why.
    """
    stream = standard_output()
    try:
        with forgetting_output():
            print(*(sayable(line, stream) for line in lines), sep="\n", file=stream, flush=True)
    except OSError as error:
        raise ClickException(f"standard output cannot be written: {error}") from error


def standard_output() -> TextIO:
    """Standard output.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdout is None:
        raise UsageError("standard output is closed")
    return sys.stdout


@contextmanager
def forgetting_output() -> Iterator[None]:
    """Inside, standard output is written to; after an error nothing is, when Python ends, either.

    Raises:
        OutputClosed: its reader is gone.
        OSError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.__stdout__.fileno())  # type: ignore[union-attr] # it was written to
        os.close(null)
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from None
        raise


def sayable(text: str, stream: TextIO | None = None) -> str:
    """`text` as `stream`, or standard output, can say it."""
    encoding = (stream or standard_output()).encoding or "utf-8"
    return escaped(text).encode(encoding, "backslashreplace").decode(encoding)


def count(number: int, what: str) -> str:
    """So many of `what`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
