"""Plain lines: each is an item, and each result is a line."""

from __future__ import annotations

from collections.abc import Iterator

from ._rows import BadResult, Outcome, Row, Writer, to_json, to_text
from ._text import TextOutput, TextReader


class LinesReader(TextReader):
    """Every line is an item, blank ones too, without its end."""

    columns = ["item"]  # noqa: RUF012 - nobody changes it

    def __iter__(self) -> Iterator[Row]:
        for line in self.text:
            row = Row(self.text.number, len(line))
            body = line.removesuffix("\n").rstrip("\r")  # CR CR LF is an end, too
            row.end = line[len(body) :]
            row.problem, self.text.problem = self.text.problem, None
            if row.problem is None:
                row.item = body
                row.fields = {"item": body}
            yield row


class LinesWriter(Writer):
    """The results alone; if the input is lines too (`same`), with the ends that those had."""

    def __init__(self, out: TextOutput, *, same: bool) -> None:
        self._out = out
        self._same = same

    def write(self, row: Row, outcome: Outcome) -> None:
        result = outcome.result
        line = to_text(result) if isinstance(result, str) else to_json(result)
        if "\n" in line or "\r" in line:
            raise BadResult(
                "the result has several lines, and is to be one; use --output-format jsonl"
            )
        self._out.write(line + (row.end if self._same else "\n"))
