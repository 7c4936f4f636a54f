"""What the user asked for, checked, and put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from click import UsageError

from .._caller import is_async
from ._formats import format_of
from ._rows import Names

OnError = Literal["stop", "skip", "record"]

_ASYNC_CONCURRENCY = 8


@dataclass(frozen=True)
class Options:
    """The arguments of ``batchproxy map``."""

    function: str
    input: str
    output: str
    input_format: str | None
    output_format: str | None
    field: str | None
    into: str
    error_field: str
    on_error: OnError
    batch_size: int
    max_concurrency: int | None
    backend: Literal["asyncio", "trio"]
    store: str | None
    namespace: str | None
    limit: int | None
    traceback: bool
    quiet: bool

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: and what to write instead.
        """
        if self.store is not None and not self.namespace:
            raise UsageError(
                "--store needs --namespace: a name for what the results are results of, that is "
                "the function, the model and the version of the prompt, such as embed-v3. Give it "
                "another name when one of these changes"
            )
        if self.namespace is not None and self.store is None:
            raise UsageError("--namespace is a part of a store: give --store FILE as well")
        source, target = self.formats()
        if source == "lines" and self.field is not None:
            raise UsageError("plain lines have no fields: leave --field out, or --input-format")
        if source == "parquet" and self.input == "-":
            raise UsageError("Parquet cannot be read from standard input: give a file")
        if target == "parquet" and self.output == "-":
            raise UsageError("Parquet cannot be written to standard output: give -o FILE")
        if target == "lines" and self.on_error == "record":
            raise UsageError("plain lines have no place for errors: use --output-format jsonl")
        if self.on_error == "record" and self.error_field == self.into:
            raise UsageError(f"--error-field and --into are both {self.into!r}")

    def formats(self) -> tuple[str, str]:
        """Of the input and of the output."""
        source = self.input_format or format_of(self.input) or "lines"
        return source, self.output_format or format_of(self.output) or source

    def names(self) -> Names:
        """The fields that are read and written."""
        error = self.error_field if self.on_error == "record" else None
        return Names(self.field, self.into, error)

    def concurrency(self, function: Callable[..., Any]) -> int | None:
        """The most calls at a time; None if they run in the main thread, one after another."""
        return self.max_concurrency or (_ASYNC_CONCURRENCY if is_async(function) else None)

    def window(self, function: Callable[..., Any]) -> int:
        """How many rows are in memory at a time.

        At least ten rounds of full batches: when a window ends some slots have nothing to do, and a
        batch is not full, which is to be a small part of it.
        """
        return max(10_000, 10 * self.batch_size * (self.concurrency(function) or 1))

    def how_to_resume(self) -> str:
        """For a run that ended early."""
        if self.store is None:
            return (
                "nothing was kept; with --store FILE --namespace TEXT the same command, run again, "
                "goes on where it ended"
            )
        return f"finished batches are in {self.store}; to resume, run the same command again"
