"""Plain lines: each is an item, and each result is a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ._rows import BadResult, Outcome, Reader, Row, Writer, to_json, to_text


class LinesReader(Reader):
    """Every line is an item, blank ones too, without its end."""

    columns = ["item"]  # noqa: RUF012 - nobody changes it

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[Row]:
        for number, line in enumerate(self._file, 1):
            row = Row(number, len(line))
            body = line.removesuffix(b"\n").removesuffix(b"\r")
            row.raw = line[len(body) :].decode()
            try:
                row.item = body.decode("utf-8-sig" if number == 1 else "utf-8")
                row.fields = {"item": row.item}
            except UnicodeDecodeError as error:
                row.problem = f"no UTF-8: {error}"
            yield row


class LinesWriter(Writer):
    """The results alone; if the input is lines too (`same`), with the ends that those had."""

    def __init__(self, file: BinaryIO, *, same: bool) -> None:
        self._file = file
        self._same = same

    def write(self, row: Row, outcome: Outcome) -> None:
        result = outcome.result
        line = to_text(result) if isinstance(result, str) else to_json(result)
        if "\n" in line or "\r" in line:
            raise BadResult(
                "the result has several lines, and is to be one; use --output-format jsonl"
            )
        self._file.write((line + (row.raw if self._same else "\n")).encode())
