"""`batchproxy map`: from the input through the function to the output, window by window."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from click import UsageError

from .._cache import Cache
from ._calls import Calls
from ._formats import Source, make_reader, make_writer
from ._interrupts import Interrupts
from ._load import load
from ._options import Options
from ._output import Output, OutputClosed
from ._report import Report
from ._rows import BadInput, BadResult, Outcome, Row, Writer, said
from ._store import open_store
from ._windows import windows

DONE, FAILED, SOME_FAILED, BROKEN_PIPE = 0, 1, 3, 141


class _Stopped(Exception):
    """The run cannot go on, or is not to; the `__cause__` is what the function raised."""


def run(options: Options) -> int:
    """Do what `options` say; the exit status."""

    def say(text: str) -> None:
        print(f"batchproxy: {text}", file=sys.stderr)

    def last_words() -> None:
        say(f"interrupted; {options.how_to_resume()}")

    with Interrupts(last_words) as interrupts:
        try:
            return _run(options, interrupts)
        except OutputClosed:
            return BROKEN_PIPE
        except BadInput as error:
            say(f"{error}")
        except _Stopped as error:
            if options.traceback and error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            say(f"{error}")
            say(options.how_to_resume())
    return FAILED


def _run(options: Options, interrupts: Interrupts) -> int:
    source_format, target_format = options.formats()
    stdout = sys.stdout.buffer
    with contextlib.ExitStack() as stack:
        if options.output == "-":
            # Whatever the function prints would be rows of the output.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        function = load(options.function)
        source = stack.enter_context(Source(options.input))
        reader = make_reader(source, source_format, options.names())
        try:
            output = stack.enter_context(Output(options.output, stdout))
        except OSError as error:
            raise UsageError(f"the output cannot be written: {error}") from error
        if output.part is not None:
            interrupts.litter.append(output.part)
        size = options.window(function)
        cache: Cache[object]  # nothing in memory but the window: the store is asked once for each
        if options.store is not None:
            store = stack.enter_context(open_store(options.store, create=True))
            cache = Cache(0, store=store, namespace=options.namespace)
        else:
            # Memory is bounded, and what repeats in a later window is computed once all the same.
            directory = tempfile.TemporaryDirectory(
                prefix="batchproxy-", ignore_cleanup_errors=True
            )
            interrupts.litter.append(Path(stack.enter_context(directory)))
            store = stack.enter_context(open_store(f"{directory.name}/results", create=True))
            cache = Cache(0, store=store, namespace="this run")
        stack.enter_context(cache)
        calls = Calls(
            function, cache, options.batch_size, options.concurrency(function), options.backend
        )
        report = stack.enter_context(Report(calls.statistics, source.total, quiet=options.quiet))
        with _writing(options):
            writer = make_writer(
                output.file,
                target_format,
                options.names(),
                reader,
                same=source_format == target_format,
            )
        for window in windows(reader, size, options.limit, source.name):
            report.begin_window(window, source.position())
            outcomes = list(_outcomes(options, window, calls, report, source.name))
            with _writing(options):
                written = [
                    _write(options, writer, row, outcome, source.name)
                    for row, outcome in zip(window, outcomes)
                ]
                writer.flush()
            report.end_window(written.count(False))
        with _writing(options):
            writer.close()
            output.complete()
    report.summary(options.store)
    return SOME_FAILED if report.failed else DONE


def _outcomes(
    options: Options, window: list[Row], calls: Calls, report: Report, name: str
) -> Iterator[Outcome]:
    """What became of each row of `window`, in their order."""
    stop = options.on_error == "stop"
    for row in window:
        if stop and row.problem is not None:
            raise _Stopped(f"{name}:{row.line}: {row.problem}")
    items = [row.item for row in window if row.problem is None]
    try:
        results = iter(calls.map(items, keep_failures=not stop, progress=report.progress))
    except Exception as error:
        raise _Stopped(said(error)) from error
    for row in window:
        if row.problem is not None:
            yield Outcome(None, f"{name}:{row.line}: {row.problem}")
        elif isinstance(result := next(results), Exception):
            yield Outcome(None, said(result))
        else:
            yield Outcome(result)


def _write(options: Options, writer: Writer, row: Row, outcome: Outcome, name: str) -> bool:
    """Write a row, or what is to be written instead; whether it is one that did not fail."""
    if outcome.error is None:
        try:
            writer.write(row, outcome)
        except BadResult as error:
            if options.on_error == "stop":
                raise _Stopped(f"{name}:{row.line}: {error}") from error
            outcome = Outcome(None, str(error))
        else:
            return True
    if options.on_error == "record":
        try:
            writer.write(row, outcome)
        except BadResult:  # it is not the result that has no place, it is the row
            writer.write(Row(row.line, row.size), outcome)
    return False


@contextlib.contextmanager
def _writing(options: Options) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Stopped(f"{options.output} cannot be written: {error}") from error
