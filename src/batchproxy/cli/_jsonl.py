"""JSON Lines. Results are put into the text of a row, of which nothing else changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._messages import short, short_list
from ._rows import Names, Outcome, Row, Writer, make_portable, to_json, too_much
from ._text import Text, TextOutput, TextReader
from ._values import member

decoder = json.JSONDecoder()
SPACE = re.compile(r"[ \t\r\n]*")
_KINDS = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


class JsonlReader(TextReader):
    """A JSON value on every line; blank lines are no rows."""

    def __init__(self, text: Text, names: Names) -> None:
        super().__init__(text)
        self._field = names.field

    def __iter__(self) -> Iterator[Row]:
        for line in self.text:
            problem, self.text.problem = self.text.problem, None
            if line.strip():
                row = Row(self.text.number, len(line), line, problem=problem)
                if problem is None:
                    try:
                        fill(row, json.loads(line), self._field)
                    except (ValueError, RecursionError) as error:
                        what = too_much(error)
                        row.problem = f"it has {what}" if what else f"no JSON: {error}{_hint(row)}"
                yield row


def _hint(row: Row) -> str:
    if row.line == 1 and row.raw.lstrip().startswith("["):
        return "; if the whole file is one array, give --input-format json"
    return ""


def fill(row: Row, value: Any, field: str | None) -> None:
    """Put into `row`, which has the text of `value`, what that means."""
    is_object = isinstance(value, dict)
    row.fields = value if is_object else {"item": value}
    if field is None:
        row.item = value
    elif not is_object:
        row.problem = f"--field {field} wants an object, this is {_KINDS[type(value)]}{_hint(row)}"
    else:
        try:
            row.item = member(value, field)
        except KeyError:
            row.problem = f"no member {short(field)}; there are {short_list(value)}"
    if not is_object:
        body = row.raw.strip(" \t\r\n")
        row.raw = row.raw.replace(body, f'{{"item": {body}}}', 1)


class JsonlWriter(Writer):
    """An object on every line; if the input is JSON Lines too (`same`), with the text it had."""

    end = "\n"

    def __init__(self, out: TextOutput, names: Names, *, same: bool) -> None:
        self._out = out
        self._names = names
        self._same = same

    def prepare(self, rows: list[Row]) -> None:
        if not self._same:
            for row in rows:
                make_portable(row)

    def write(self, row: Row, outcome: Outcome) -> None:
        self._out.write(self.text(row, outcome))

    def text(self, row: Row, outcome: Outcome) -> str:
        """The object with its end."""
        _, into, error = self._names
        fields = row.fields or {}
        members = {into: self._json(outcome.result)}
        if error is not None and (outcome.error is not None or error in fields):
            members[error] = self._json(outcome.error)
        as_it_was = self._same and row.fields is not None
        text = row.raw if as_it_was else self._json(fields) + self.end
        return splice(text, fields, members, ascii_only=not self._out.unicode)

    def _json(self, value: Any) -> str:
        return to_json(value, ascii_only=not self._out.unicode)


def splice(
    text: str,
    fields: Mapping[str, object],
    members: Mapping[str, str],
    *,
    ascii_only: bool = False,
) -> str:
    """`text` with `members` in it: in place of those with their names, else at the end.

    Args:
        text: A JSON object, with white space around it, or without.
        fields: What it says.
        members: Names and JSON texts.
        ascii_only: Whether all else in the names is to be escaped.
    """
    spans = _spans(text) if any(name in fields for name in members) else {}
    edits = [(*spans[name], value) for name, value in members.items() if name in spans]
    added = [
        f"{to_json(name, ascii_only=ascii_only)}: {value}"
        for name, value in members.items()
        if name not in spans
    ]
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
        name, position = decoder.raw_decode(text, _skip(text, position))
        start = _skip(text, _skip(text, position) + 1)  # after the colon
        _, end = decoder.raw_decode(text, start)
        spans[name] = start, end
        position = _skip(text, end)
        if text[position] == "}":
            return spans
        position += 1


def _skip(text: str, position: int) -> int:
    space = SPACE.match(text, position)
    assert space is not None  # it matches nothing at all, too
    return space.end()
