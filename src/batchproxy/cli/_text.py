"""Text in files: encodings, byte order marks, lines."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from click import UsageError

from .._messages import short
from ._contents import HEAD, opened
from ._rows import BadInput, BadResult, Reader

_MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-32-le": codecs.BOM_UTF32_LE,  # before UTF-16, whose mark it begins with
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
_NO_LINES = frozenset(
    codecs.lookup(name).name
    for name in ("hz", "idna", "iso2022_kr", "punycode", "raw_unicode_escape", "unicode_escape")
)
"""In these a line means nothing without those before, or is no text of a file."""
_PIECE = 2**13
"""Bytes of a file, and what is left of their last line, that are decoded at once."""
_CR_ALONE = re.compile(rb"\r(?=[^\r\n])")


def checked_encoding(name: str) -> str:
    """The name that Python has for an encoding.

    Raises:
        UsageError: it has none, and what to write.
    """
    try:
        "\n".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError) as error:
        raise UsageError(
            f"--encoding {name!r} is no encoding of text that Python knows; write for instance "
            "utf-8, utf-16, cp1252, latin-1 or shift_jis"
        ) from error
    if found in _NO_LINES:
        raise UsageError(
            f"--encoding {name!r} cannot be read line by line; convert the file to UTF-8 before"
        )
    return found


class Text:
    """The text of an input.

    Args:
        path: Its name, whose ending says how it is compressed.
        name: Its name for messages.
        file: Its bytes.
        encoding: As `checked_encoding` gives it; None for UTF-8 that nobody has asked for.

    Raises:
        BadInput: it is no text, or one of another encoding.
    """

    def __init__(self, path: str, name: str, file: BinaryIO, encoding: str | None) -> None:
        self.name = name
        head, self._file = opened(path, name, file)
        if encoding is None:
            for other, mark in _MARKS.items():
                if other != "utf-8" and head.startswith(mark):
                    raise BadInput(
                        f"{name} is {other[:6].upper()}: it begins with {mark!r}; give --encoding "
                        f"{other[:6]}"
                    )
            for order, zeros in (("le", head[1:4:2]), ("be", head[0:4:2])):
                if zeros == b"\0\0":  # as beside letters of ASCII
                    raise BadInput(
                        f"{name} is not UTF-8: it begins with {head[:4]!r}; if it is UTF-16, give "
                        f"--encoding utf-16-{order}"
                    )
        encoding = (encoding or "utf-8").removesuffix("-sig")
        orders = [f"{encoding}-le", f"{encoding}-be"]
        candidates = orders if encoding in ("utf-16", "utf-32") else [encoding]
        marked = [name for name in candidates if head.startswith(_MARKS.get(name, b"\0" * HEAD))]
        self.encoding = [*marked, candidates[0]][0]
        """What it is in; of UTF-16 with the order of the bytes."""
        self.mark = _MARKS[self.encoding] if marked else b""
        """The byte order mark that it begins with."""
        self._file.read(len(self.mark))
        # Where a line's end is one byte that is nothing else, a line is decoded by itself.
        self.by_line = "\n".encode(self.encoding) == b"\n"
        self.number = 0
        """Of the line that came last."""
        self.problem: str | None = None
        """Why it is not all text; whoever sees to that makes it None."""
        self._head = head
        # Lines that were decoded at once, without their end; how many of them were given; ...
        self._bodies: list[str] = []
        self._at = self._length = 0
        self._end = "\n"
        self._is_plain = False  # whether there is no quote, nor a CR, in any
        # ... lines after them; and why the file cannot be read any further.
        self._others: deque[bytes] = deque()
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        """Its lines with their ends. Bytes that are no text are lone surrogates in them."""
        if not self.by_line:
            yield from self._lines_of_pieces()
            return
        if b"\n" not in self._head and (alone := _CR_ALONE.search(self._head)):
            first = self._head[: alone.start()].decode(self.encoding, "replace")
            raise BadInput(
                f"{self.name}: the lines end in CR alone, as on old Macs, the first after "
                f"{short(first)}; make that LF: tr '\\r' '\\n' < FILE | batchproxy map ... -"
            )
        while True:
            if self._at < len(self._bodies):
                self._at += 1
                self.number += 1
                yield self._bodies[self._at - 1] + self._end
            elif self._others:
                self.number += 1
                yield self._decoded(self._others.popleft())
            elif not self._more():
                return

    def plain(self, most: int) -> list[str]:
        """The next lines without their `end`, if all is text without quotes; else none.

        Args:
            most: Characters, of which these have no more.
        """
        while self._at == len(self._bodies):
            if self._others or not self.by_line or not self._more():
                return []
        if not self._is_plain or self._length > most:
            return []
        bodies = self._bodies[self._at :]
        self._at = len(self._bodies)
        self.number += len(bodies)
        return bodies

    @property
    def end(self) -> str:
        """How the lines that `plain` gave end."""
        return self._end

    def _more(self) -> bool:
        """Read some lines, and decode them at once if that can be; whether there were any."""
        if self._error is not None:
            raise self._error
        lines = b""
        try:
            lines = self._file.read1(_PIECE)
            lines += self._file.readline()
        except Exception as error:
            self._error = error  # when what came before has been read
            lines = lines[: lines.rfind(b"\n") + 1]
        if not (self.encoding == "utf-8" and lines.endswith(b"\n")):
            self._others.extend(BytesIO(lines))
            return bool(lines) or self._error is not None
        try:
            text = lines.decode()
        except UnicodeDecodeError:
            self._others.extend(BytesIO(lines))  # one by one, to see which
            return True
        count = text.count("\n")
        self._end = "\r\n" if text.count("\r\n") == count else "\n"
        self._is_plain = '"' not in text and text.count("\r") == self._end.count("\r") * count
        self._length = len(text)
        self._bodies, self._at = text.split(self._end)[:-1], 0
        return True

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError as error:
            if self.problem is None:
                self.problem = self._undecodable(error)
            try:
                return line.decode(self.encoding, "surrogateescape")
            except UnicodeError:  # which has no place for bytes of ASCII, such as ESC
                return line.decode("ascii", "surrogateescape")

    def pieces(self) -> Iterator[str]:
        """The same in pieces of some length, all of which must be text."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        line = 1
        while True:
            data = self._file.read(2**16)
            try:
                piece = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(self.encoding, "replace").count("\n")
                raise BadInput(f"{self.name}:{line}: {self._undecodable(error)}") from error
            if piece:
                yield piece
            line += piece.count("\n")
            if not data:
                return

    def _lines_of_pieces(self) -> Iterator[str]:
        rest = ""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                self.number += 1
                yield line + "\n"
        if rest:
            self.number += 1
            yield rest

    def _undecodable(self, error: UnicodeDecodeError) -> str:
        found = error.object[error.start : error.end][:8]
        return (
            f"no {self.encoding.upper()}: {found!r} at byte {error.start} ({error.reason}); if the "
            "file is in another encoding, give --encoding NAME, such as cp1252"
        )


class TextReader(Reader):
    """What reads text."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.name = text.name


class TextOutput:
    """Writes text in the encoding of `like`, with its byte order mark; else in UTF-8."""

    def __init__(self, file: BinaryIO, like: Text | None) -> None:
        self._file = file
        self._encoding = like.encoding if like is not None else "utf-8"
        self._mark = like.mark if like is not None else b""
        self.unicode = self._encoding.startswith("utf")
        """Whether it can say whatever is text."""

    def write(self, text: str) -> None:
        """Write `text`, or nothing of it.

        Raises:
            BadResult: the encoding has no place for it.
        """
        try:
            data = text.encode(self._encoding)
        except UnicodeEncodeError as error:
            what = ascii(error.object[error.start : error.start + 1])
            raise BadResult(
                f"the result has {what}, for which {self._encoding} has no place; write another "
                "format, which is UTF-8, such as --output-format jsonl"
            ) from error
        self._file.write(self._mark + data)
        self._mark = b""

    def sayable(self, text: str) -> str:
        """`text`, with escapes for what the encoding has no place for."""
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)
