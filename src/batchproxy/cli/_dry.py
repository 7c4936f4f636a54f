"""`batchproxy map --dry-run`: what a run would do."""

from __future__ import annotations

import contextlib
import math
import os
import sys

from .._digests import digests
from ._formats import Source, make_reader
from ._keys import key_of
from ._load import load
from ._options import Options
from ._rows import BadInput
from ._store import is_url, open_store
from ._windows import windows


def dry_run(options: Options) -> int:
    """Say it, on standard output; the exit status.

    All distinct items are told apart exactly, for which 20 bytes of each are in memory.
    """
    with contextlib.ExitStack() as stack:
        function = load(options.function)
        source = stack.enter_context(Source(options.input))
        path, namespace = options.store, options.namespace
        store = None
        if path is not None and (is_url(path) or os.path.exists(path)):
            store = stack.enter_context(open_store(path, create=False))
        seen: set[bytes] = set()
        rows = known = calls = malformed = 0
        try:
            reader = make_reader(source, options.formats()[0], options.names())
            for window in windows(reader, options.window(function), options.limit, source.name):
                rows += len(window)
                bad = [row for row in window if row.problem is not None]
                malformed += len(bad)
                for row in bad[: 1 if options.on_error == "stop" else 0]:
                    raise BadInput(f"{source.name}:{row.line}: {row.problem}")
                keys = digests([key_of(row.item) for row in window if row.problem is None])
                new = [key for key in dict.fromkeys(keys) if key not in seen]
                seen.update(new)
                found = store.get_many(namespace, new) if store and namespace else {}
                known += len(found)
                calls += math.ceil((len(new) - len(found)) / options.batch_size)
        except BadInput as error:
            print(f"batchproxy: {error}", file=sys.stderr)
            return 1
    there = "" if path is None else f"{known:,} are in {path}, "
    print(f"{rows:,} rows, {len(seen):,} distinct")
    print(f"{there}{len(seen) - known:,} would be computed in {calls:,} calls")
    if malformed:
        print(f"{malformed:,} rows are malformed")
    return 3 if malformed else 0
