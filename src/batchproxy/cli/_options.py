"""What the user asked for, checked, and put together."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from click import UsageError

from .. import Cache
from .._loops import is_async
from .._messages import short
from ..stores import MemoryStore
from ._calls import ASYNC_CONCURRENCY
from ._formats import Form, format_of
from ._load import load
from ._rows import Names, is_text
from ._store import Place
from ._text import checked_encoding
from ._values import is_missing, is_missing_or_empty
from ._weights import BY_COUNT, Weighing, characters, named

OnError = Literal["stop", "skip", "record"]


@dataclass(frozen=True)
class Options:
    """The arguments of ``batchproxy map``."""

    function: str
    input: str
    output: str
    input_format: str | None
    output_format: str | None
    encoding: str | None
    delimiter: str | None
    quoting: Literal["csv", "none"] | None
    missing: Literal["skip", "send"] | None
    field: str | None
    into: str
    error_field: str | None
    on_error: OnError
    batch_size: int
    max_weight: float | None
    weight: str | None
    max_concurrency: int | None
    backend: Literal["asyncio", "trio"]
    store: Place | None
    namespace: str | None
    codec: str | None
    limit: int | None
    traceback: bool
    quiet: bool

    def code(self) -> list[str]:
        """The files of Python that are named."""
        return [name for name in self._modules() if name.endswith(".py")]

    def loaded(self) -> list[str]:
        """The files of the modules that are named otherwise, once these are loaded."""
        modules = map(sys.modules.get, self._modules())
        files = [getattr(module, "__file__", None) for module in modules]
        return [file for file in files if file is not None]

    def _modules(self) -> list[str]:
        functions = (self.function, self.weight or "")
        names = [each.rpartition(":")[0] for each in functions]
        return names + (self.codec or "").split(":")[1:2]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: and what to write instead.
        """
        if self.store is not None and not self.namespace:
            raise UsageError(
                "--store (or BATCHPROXY_STORE) needs --namespace: a name for what the results are "
                "results of, that is the function, the model and the version of the prompt, such "
                "as embed-v3. Give it another name when one of these changes"
            )
        if self.namespace is not None and self.store is None:
            raise UsageError(
                "--namespace is a part of a store: give --store FILE as well, or BATCHPROXY_STORE"
            )
        if self.namespace is not None:
            try:
                Cache(store=MemoryStore(), namespace=self.namespace)
            except ValueError as error:
                raise UsageError(f"--{error}") from error
        if self.weight is not None and self.max_weight is None:
            raise UsageError("--weight needs --max-weight N, the most that a batch may weigh")
        if self.max_weight is not None and not math.isfinite(self.max_weight):
            raise UsageError(
                f"--max-weight must be a number of 1e308 at most, got {self.max_weight}; leave it "
                "out where weight is no limit"
            )
        for option, number in (
            ("batch-size", self.batch_size),
            ("max-concurrency", self.max_concurrency),
            ("limit", self.limit),
        ):
            if number is not None and number > sys.maxsize:
                raise UsageError(f"--{option} must be {sys.maxsize} at most, got {short(number)}")
        if os.path.isdir(self.input):
            raise UsageError(f"the input {self.input!r} is a directory: give a file in it")
        source, target = self.formats()
        self._check_form(source)
        if source == "lines" and self.field is not None:
            raise UsageError(
                "plain lines have no fields: leave --field out, or "
                "give --input-format csv, or what the input is"
            )
        if source == "parquet" and self.input == "-":
            raise UsageError("Parquet cannot be read from standard input: give a file")
        if target == "parquet" and self.output == "-":
            raise UsageError("Parquet cannot be written to standard output: give -o FILE")
        if target == "lines" and self.on_error == "record":
            raise UsageError("plain lines have no place for errors: use --output-format jsonl")
        if self.error_field is not None and self.on_error != "record":
            raise UsageError("--error-field is for --on-error record: give that, too, or neither")
        for option, name in zip(("--into", "--error-field"), self.names().written):
            if not name:
                raise UsageError(f"{option} must be the name of a field, got '': leave it out")
            if not is_text(name):
                raise UsageError(f"{option} is no text that UTF-8 can say: {short(name)}")
        if self.names().error == self.into:
            raise UsageError(f"--error-field and --into are both {self.into!r}")

    def formats(self) -> tuple[str, str]:
        """Of the input and of the output."""
        source = format_of(self.input, self.input_format) or "lines"
        return source, format_of(self.output, self.output_format) or source

    def _check_form(self, source: str) -> None:
        if source not in ("csv", "tsv"):
            for option, value in (("--delimiter", self.delimiter), ("--quoting", self.quoting)):
                if value is not None:
                    raise UsageError(
                        f"{option} is for CSV and TSV, and the input is {source}; give "
                        "--input-format csv as well"
                    )
        if source == "parquet" and self.encoding is not None:
            raise UsageError("Parquet says itself how its text is encoded: leave --encoding out")
        form = self.form()
        if form.delimiter is not None and (len(form.delimiter) != 1 or form.delimiter in '"\r\n'):
            raise UsageError(
                f"--delimiter is one character, and neither a quote nor the end of a line, got "
                f"{short(form.delimiter)}; for a tab write '\\t'"
            )

    def form(self) -> Form:
        """What is said of the text of the input."""
        encoding = None if self.encoding is None else checked_encoding(self.encoding)
        delimiter = "\t" if self.delimiter == "\\t" else self.delimiter
        return Form(encoding, delimiter, self.quoting)

    def is_missing(self) -> Callable[[Any], bool]:
        """Which items are not sent to the function."""
        if self.missing == "send":
            return _never
        empty = self.missing == "skip" and self.formats()[0] in ("csv", "tsv", "lines")
        return is_missing_or_empty if empty else is_missing

    def names(self) -> Names:
        """The fields that are read and written."""
        error = "error" if self.error_field is None else self.error_field
        return Names(self.field, self.into, error if self.on_error == "record" else None)

    def weighing(self) -> Weighing:
        """What limits batches beside their size."""
        if self.max_weight is None:
            return BY_COUNT
        if self.weight is None:
            return Weighing(characters, self.max_weight)
        weight = named(load(self.weight, "--weight"), f"--weight {self.weight}")
        return Weighing(weight, self.max_weight)

    def window(self, function: Callable[..., Any]) -> int:
        """How many rows are in memory at a time.

        At least ten rounds of full batches: when a window ends some slots have nothing to do, and a
        batch is not full, which is to be a small part of it.
        """
        calls = self.max_concurrency or (ASYNC_CONCURRENCY if is_async(function) else 1)
        return max(10_000, 10 * self.batch_size * calls)

    def how_to_resume(self) -> str:
        """For a run that ended early."""
        if self.store is None:
            return (
                "nothing was kept; with --store FILE --namespace TEXT the same command, run again, "
                "goes on where it ended"
            )
        return f"finished batches are in {self.store}; to resume, run the same command again"


def _never(item: Any) -> bool:
    return False
