"""`batchproxy map --dry-run`: what a run would do."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Collection
from typing import Any

from click import UsageError

from .. import BatchingMapProxy
from ..codecs import digests
from ._apart import check_apart, check_code
from ._formats import Source, make_reader, make_writer
from ._keys import key_of
from ._load import load
from ._map import show_traceback
from ._options import Options
from ._output import can_be_made, check_output
from ._results import Results
from ._rows import BadInput, Failed, Row
from ._store import open_store, using
from ._terminal import count, say, standard_output, tell
from ._weights import BadWeight, Weighing
from ._windows import windows


def dry_run(options: Options) -> int:
    """Say it, on standard output; the exit status.

    All distinct items are told apart exactly, for which 20 bytes of each are in memory.
    """
    standard_output()
    written = check_apart(options.input, options.output, options.store, options.code())
    if options.output != "-":
        check_output(options.output)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Source(options.input))  # the function may go elsewhere
        function = load(options.function)
        weighing = options.weighing()
        Results(options.codec)
        check_code(written, options.loaded())
        path, namespace = options.store, options.namespace
        store = None
        if path is not None and (path.is_url or os.path.exists(path.text)):
            store = stack.enter_context(open_store(path, create=False))
        elif path is not None and not can_be_made(path.text):
            raise UsageError(f"the store {path!r} cannot be opened: no file can be made there")
        seen: set[bytes] = set()
        rows = known = calls = malformed = absent = 0
        try:
            kind, target = options.formats()
            reader = make_reader(source, kind, options.names(), options.form())
            # Asked for nothing but what it refuses.
            writer = make_writer(io.BytesIO(), target, options.names(), reader, same=kind == target)
            missing = options.is_missing()
            for window in windows(reader, options.window(function), options.limit, missing):
                writer.prepare(window)
                absent += sum(row.missing for row in window)
                rows += len(window)
                bad = [row for row in window if row.problem is not None]
                malformed += len(bad)
                for row in bad[: 1 if options.on_error == "stop" else 0]:
                    raise BadInput(f"{source.name}:{row.line}: {row.problem}")
                items = [row.item for row in window if row.mapped]
                by_key = dict(zip(digests([key_of(item) for item in items]), items))
                new = [key for key in by_key if key not in seen]
                seen.update(new)
                found: Collection[bytes] = ()
                if store is not None and path is not None and namespace is not None:
                    with using(path):
                        found = store.get_many(namespace, new)
                known += len(found)
                left = [by_key[key] for key in new if key not in found]
                try:
                    calls += _calls(left, options.batch_size, weighing)
                except BadWeight as error:
                    line = _line(window, error.item)
                    raise Failed(f"{source.name}:{line}: {error}") from error.__cause__
        except (BadInput, Failed) as error:
            if isinstance(error, Failed):
                show_traceback(options, error.__cause__, sys.stderr)
            say(str(error))
            return 1
    there = "" if path is None else f"{known:,} {'is' if known == 1 else 'are'} in {path}, "
    tell(
        f"{count(rows, 'row')}, {len(seen):,} distinct",
        f"{there}{len(seen) - known:,} would be computed in {count(calls, 'call')}",
        *([f"{count(absent, 'row')} without a value, not sent"] if absent else []),
        *([f"{count(malformed, 'malformed row')}"] if malformed else []),
    )
    return 3 if malformed else 0


def _line(window: list[Row], item: Any) -> int:
    """Where `item` is, which is mapped in `window`."""
    key = key_of(item)
    return next(row.line for row in window if row.mapped and key_of(row.item) == key)


def _calls(items: list[Any], batch_size: int, weighing: Weighing) -> int:
    """How many calls `items` would take."""
    if weighing.weight is None:
        return math.ceil(len(items) / batch_size)
    proxy = BatchingMapProxy[Any, None](batch_size, key=key_of, **weighing._asdict())
    proxy.map(items, lambda batch: [None] * len(batch))
    return proxy.statistics().calls
