"""`batchproxy map`: from the input through the function to the output, window by window."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

from .. import AnswerTypeError, BatchProxyError, Cache
from ._apart import check_apart
from ._calls import Calls, Ended
from ._formats import Source, make_reader, make_writer
from ._interrupts import Interrupts
from ._keys import key_of
from ._load import load
from ._options import Options
from ._output import Output, called
from ._report import Report, printing
from ._results import Results
from ._rows import BadInput, BadResult, Outcome, Row, Writer, error_text
from ._store import Place, open_store
from ._terminal import count, say, show
from ._windows import windows
from ._words import cut

DONE, FAILED, SOME_FAILED, BROKEN_PIPE = 0, 1, 3, 141


class _Stopped(Exception):
    """The run cannot go on, or is not to."""


class _Failed(_Stopped):
    """The function failed; the `__cause__` is what it raised."""


def run(options: Options) -> int:
    """Do what `options` say; the exit status."""

    stderr, place = sys.stderr, options.store

    def clean(text: str) -> str:
        return text if place is None else place.clean(text)

    def say_so(text: str) -> None:
        say(clean(text), stderr)

    def last_words() -> None:
        say_so(f"interrupted; {options.how_to_resume()}")

    with Interrupts(last_words) as interrupts:
        try:
            return _run(options, interrupts)
        except BadInput as error:
            say_so(str(error))
        except _Stopped as error:
            raised = isinstance(error, _Failed) and error.__cause__
            if raised and options.traceback:
                show(clean("".join(traceback.format_exception(raised))), stderr)
            say_so(str(error))
            if raised and not options.traceback:
                say_so("--traceback shows where it was raised")
            say_so(options.how_to_resume())
        except KeyboardInterrupt:
            if interrupts.status:
                raise
            say_so("the function raised KeyboardInterrupt, without a signal")
            say_so(options.how_to_resume())
    return FAILED


def _run(options: Options, interrupts: Interrupts) -> int:
    source_format, target_format = options.formats()
    check_apart(options.input, options.output, options.store, options.code())
    stdout, stderr = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        # Whatever the function prints would be rows of the output.
        to_stdout = options.output == "-"
        bar = not (options.quiet or (to_stdout and stdout is not None and stdout.isatty()))
        stack.enter_context(printing(stdout_to_stderr=to_stdout, bar=bar))
        # What the user named is opened here: the function may go to another directory.
        source = stack.enter_context(Source(options.input))
        output = stack.enter_context(Output(options.output, stdout))
        if output.part is not None:
            interrupts.litter.append(output.part)
        function = load(options.function)
        weighing = options.weighing()
        reader = make_reader(source, source_format, options.names(), options.form())
        size = options.window(function)
        results = Results(options.codec)
        cache: Cache[object]  # nothing in memory but the window: the store is asked once for each
        if options.store is not None:
            store = stack.enter_context(open_store(options.store, create=True))
            cache = Cache(0, store=store, namespace=options.namespace, codec=results.codec)
        else:
            # Memory is bounded, and what repeats in a later window is computed once all the same.
            directory = tempfile.TemporaryDirectory(
                prefix="batchproxy-", ignore_cleanup_errors=True
            )
            interrupts.litter.append(Path(stack.enter_context(directory)))
            store = stack.enter_context(open_store(Place(f"{directory.name}/results"), create=True))
            cache = Cache(0, store=store, namespace="this run", codec=results.codec)
        stack.enter_context(cache)
        calls = Calls(
            function,
            cache,
            results,
            options.batch_size,
            options.max_concurrency,
            options.backend,
            weighing,
        )
        report = stack.enter_context(
            Report(calls.statistics, source.total, quiet=options.quiet, bar=bar, stream=stderr)
        )
        with _writing(options):
            writer = make_writer(
                output.file,
                target_format,
                options.names(),
                reader,
                same=source_format == target_format,
            )
            stack.callback(writer.release)
        for window in windows(reader, size, options.limit, options.is_missing()):
            writer.prepare(window)
            report.begin_window(window, source.position())
            outcomes = list(_outcomes(options, window, calls, report, source.name))
            with _writing(options):
                written = [
                    _write(options, writer, results, row, outcome, source.name)
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
    items = [row.item for row in window if row.mapped]
    try:
        results = iter(calls.map(items, keep_failures=not stop, progress=report.progress))
    except (Exception, SystemExit) as error:
        raised = _raised(error)
        keys = [key_of(item) for item in calls.items_of(error)] or _refused(error)
        where = _where(window, keys, name)
        raise _Failed(f"{where}{cut(error_text(raised))}{_hint(error)}") from raised
    for row in window:
        if row.problem is not None:
            yield Outcome(None, f"{name}:{row.line}: {row.problem}")
        elif row.missing:
            yield Outcome(None)
        elif isinstance(result := next(results), Exception):
            yield Outcome(None, f"{error_text(_raised(result))}{_hint(result)}")
        else:
            yield Outcome(result)


def _where(window: list[Row], keys: list[Hashable], name: str) -> str:
    """File and line of the first of `keys`, whose items failed together."""
    for row in window:
        if row.problem is None and keys and key_of(row.item) == keys[0]:
            more = f" and {count(len(keys) - 1, 'more item')} of its call" * (len(keys) > 1)
            return f"{name}:{row.line}{more}: "
    return ""


def _refused(error: BaseException) -> list[Hashable]:
    """The key whose result the store has refused with `error`, if it has."""
    key = error.key if isinstance(error, BatchProxyError) else None
    return [] if key is None else [key]


def _hint(error: BaseException) -> str:
    """What else can be done about a result that was refused for its type."""
    refused = isinstance(error, AnswerTypeError) and _refused(error)
    return "; or see --codec, which says how results are kept" if refused else ""


def _raised(error: BaseException) -> BaseException:
    """What the function raised."""
    return error.__cause__ or error if isinstance(error, Ended) else error


def _write(
    options: Options, writer: Writer, results: Results, row: Row, outcome: Outcome, name: str
) -> bool:
    """Write a row, or what is to be written instead; whether it is one that did not fail."""
    if outcome.error is None:
        try:
            writer.write(row, Outcome(_written(results, outcome.result)))
        except BadResult as error:
            if options.on_error == "stop":
                raise _Stopped(f"{name}:{row.line}: {error}") from error
            outcome = Outcome(None, str(error))
        else:
            return True
    if options.on_error == "record":
        writer.write(row, outcome)
    return False


def _written(results: Results, result: Any) -> Any:
    try:
        return results.written(result)
    except Exception as error:
        raise BadResult(f"the result has no place in the output: {error_text(error)}") from error


@contextlib.contextmanager
def _writing(options: Options) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Stopped(f"{called(options.output)} cannot be written: {error}") from error
