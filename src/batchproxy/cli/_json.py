"""A JSON array in a file: its elements are the rows, and those of the output are its elements."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .._messages import short
from ._jsonl import SPACE, JsonlWriter, decoder, fill
from ._rows import BadInput, Names, Outcome, Row, too_much
from ._text import Text, TextReader

_NEAR = 16
"""Characters. So near to the end of what has been read, an error may be that there is more."""
_LONGEST = 16 * 2**20
"""Characters of text in an element. What a quote that is not closed costs at most."""


class JsonReader(TextReader):
    """The elements of one array, read piece by piece; one element at a time is in memory."""

    def __init__(self, text: Text, names: Names) -> None:
        super().__init__(text)
        self._field = names.field
        self._pieces = text.pieces()
        self._ahead = ""
        self._place = 0
        self._line = 1

    def __iter__(self) -> Iterator[Row]:
        first = self._next()
        if first != "[":
            raise self._error(
                f"expected an array, which begins with [, got {_said(first)}; for JSON "
                "Lines, a value on each line, give --input-format jsonl"
            )
        self._place += 1
        if self._next() == "]":
            self._place += 1
        else:
            yield self._element()
            while (mark := self._next()) == ",":
                self._place += 1
                self._next()
                yield self._element()
            if mark != "]":
                raise self._error(f"expected , or ] after an element, got {_said(mark)}")
            self._place += 1
        if rest := self._next():
            raise self._error(f"expected nothing after the array, got {_said(rest)}")

    def _element(self) -> Row:
        while True:
            place, last = self._place, len(self._ahead)
            try:
                value, end = decoder.raw_decode(self._ahead, place)
            except json.JSONDecodeError as error:
                in_text = error.msg.startswith("Unterminated string")
                if error.pos < last - (_LONGEST if in_text else _NEAR) or not self._more():
                    self._go_to(self._place + error.pos - place)
                    raise self._error(f"no JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:  # a number too long, lists too deep
                raise self._error(f"it has {too_much(error)}") from error
            else:
                if end < last - _NEAR or not self._more():  # a number may go on
                    break
        end += self._place - place
        row = Row(self._line, end - self._place, self._ahead[self._place : end])
        fill(row, value, self._field)
        self._go_to(end)
        return row

    def _next(self) -> str:
        """The next character that is no space, which is where reading goes on."""
        while True:
            space = SPACE.match(self._ahead, self._place)
            assert space is not None  # it matches nothing at all, too
            self._go_to(space.end())
            if self._place < len(self._ahead) or not self._more():
                return self._ahead[self._place : self._place + 1]

    def _go_to(self, place: int) -> None:
        self._line += self._ahead.count("\n", self._place, place)
        self._place = place

    def _more(self) -> bool:
        """Read on, as much again, lest a long element cost its square; whether there was more."""
        ahead = [self._ahead[self._place :]]
        wanted = len(ahead[0])
        while wanted >= 0 and (piece := next(self._pieces, "")):
            ahead.append(piece)
            wanted -= len(piece)
        self._ahead, self._place = "".join(ahead), 0
        return len(ahead) > 1

    def _error(self, what: str) -> BadInput:
        return BadInput(f"{self.text.name}:{self._line}: {what}")


def _said(mark: str) -> str:
    return short(mark) if mark else "the end"


class JsonWriter(JsonlWriter):
    """One array; if the input is one too (`same`), its elements keep their text."""

    end = ""
    _before = "[\n"

    def write(self, row: Row, outcome: Outcome) -> None:
        self._out.write(self._before + self.text(row, outcome))
        self._before = ",\n"

    def close(self) -> None:
        self._out.write("[]\n" if self._before == "[\n" else "\n]\n")
