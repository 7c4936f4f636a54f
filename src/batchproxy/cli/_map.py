"""`batchproxy map`: from the input through the function to the output."""

from __future__ import annotations

import contextlib
import gc
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .. import Cache
from ._apart import check_apart, check_code
from ._calls import Calls
from ._formats import Source, make_reader, make_writer
from ._interrupts import Interrupts
from ._load import load
from ._options import Options
from ._output import Output, writing
from ._passage import Passage
from ._report import Report, printing
from ._results import Results
from ._rows import BadInput, Failed, Stopped
from ._store import Place, open_store
from ._terminal import say, show
from ._windows import windows

_ALLOCATIONS = 100_000
"""Of containers, between two searches for cycles."""

DONE, FAILED, SOME_FAILED, BROKEN_PIPE = 0, 1, 3, 141


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
        except Stopped as error:
            raised = isinstance(error, Failed) and error.__cause__
            if raised:
                show_traceback(options, raised, stderr)
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


def show_traceback(options: Options, error: BaseException | None, stream: TextIO) -> None:
    """Where `error` was raised, if that is asked for."""
    if options.traceback and error is not None:
        text = "".join(traceback.format_exception(error))
        show(text if options.store is None else options.store.clean(text), stream)


def _run(options: Options, interrupts: Interrupts) -> int:
    source_format, target_format = options.formats()
    written = check_apart(options.input, options.output, options.store, options.code())
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
        check_code(written, options.loaded())
        cache: Cache[object]  # nothing in memory: the windows under way are, and small results
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
        with writing(options.output, Stopped):
            writer = make_writer(
                output.file,
                target_format,
                options.names(),
                reader,
                same=source_format == target_format,
            )
            stack.callback(writer.release)
        stack.enter_context(_seldom_collecting())
        rows = windows(reader, size, options.limit, options.is_missing())
        try:
            Passage(options, source, rows, size, writer, results, calls, report).run()
            with writing(options.output, Stopped):
                writer.close()
                output.complete()
        except BadInput as error:
            if not calls.statistics().calls:
                raise
            raise Stopped(str(error)) from error  # what was called is to be gone on with
    report.summary(options.store)
    return SOME_FAILED if report.failed else DONE


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Inside, Python looks for cycles less often: rows have none, and are so many."""
    before = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
