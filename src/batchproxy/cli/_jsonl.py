"""JSON Lines. Results are put into the text of a row, of which nothing else changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from ._rows import Names, Outcome, Reader, Row, Writer, to_json

_decoder = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_BOM = "\ufeff"
_KINDS = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


class JsonlReader(Reader):
    """A JSON value on every line; blank lines are no rows."""

    def __init__(self, file: BinaryIO, names: Names) -> None:
        self._file = file
        self._field = names.field

    def __iter__(self) -> Iterator[Row]:
        for number, line in enumerate(self._file, 1):
            if line.strip():
                yield self._row(number, line)

    def _row(self, number: int, line: bytes) -> Row:
        row = Row(number, len(line))
        try:
            row.raw = line.decode()
            value = json.loads(row.raw.removeprefix(_BOM) if number == 1 else row.raw)
        except (ValueError, RecursionError) as error:
            row.problem = f"no JSON: {error}"
            return row
        is_object = isinstance(value, dict)
        row.fields = value if is_object else {"item": value}
        if self._field is None:
            row.item = value
        elif not is_object:
            row.problem = f"--field {self._field} wants an object, this is {_KINDS[type(value)]}"
        elif self._field not in value:
            row.problem = f"no member {self._field!r}; there are {', '.join(map(repr, value))}"
        else:
            row.item = value[self._field]
        if not is_object:
            text = row.raw.removeprefix(_BOM)
            body = text.strip(" \t\r\n")
            row.raw = text.replace(body, f'{{"item": {body}}}', 1)
        return row


class JsonlWriter(Writer):
    """An object on every line; if the input is JSON Lines too (`same`), with the text it had."""

    def __init__(self, file: BinaryIO, names: Names, *, same: bool) -> None:
        self._file = file
        self._names = names
        self._same = same

    def write(self, row: Row, outcome: Outcome) -> None:
        _, into, error = self._names
        fields = row.fields or {}
        members = {into: to_json(outcome.result)}
        if error is not None and (outcome.error is not None or error in fields):
            members[error] = to_json(outcome.error)
        as_it_was = self._same and row.fields is not None
        text = row.raw if as_it_was else to_json(fields) + "\n"
        self._file.write(splice(text, fields, members).encode())


def splice(text: str, fields: Mapping[str, object], members: Mapping[str, str]) -> str:
    """`text` with `members` in it: in place of those with their names, else at the end.

    Args:
        text: A JSON object, with white space and a byte order mark around it, or without.
        fields: What it says.
        members: Names and JSON texts.
    """
    spans = _spans(text) if any(name in fields for name in members) else {}
    edits = [(*spans[name], value) for name, value in members.items() if name in spans]
    added = [f"{to_json(name)}: {value}" for name, value in members.items() if name not in spans]
    if added:
        end = len(text[: text.rindex("}")].rstrip(" \t\r\n"))
        edits.append((end, end, ", " * bool(fields) + ", ".join(added)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _spans(text: str) -> dict[str, tuple[int, int]]:
    """Where the values of an object's members are; of equal names the last, which counts."""
    spans: dict[str, tuple[int, int]] = {}
    position = text.index("{") + 1
    while True:
        name, position = _decoder.raw_decode(text, _skip(text, position))
        start = _skip(text, _skip(text, position) + 1)  # after the colon
        _, end = _decoder.raw_decode(text, start)
        spans[name] = start, end
        position = _skip(text, end)
        if text[position] == "}":
            return spans
        position += 1


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None  # it matches nothing at all, too
    return space.end()
