"""`batchproxy cache`: what is in a store, out of it, and away."""

from __future__ import annotations

import base64
import os
import sys
from typing import TextIO

import click

from .._codecs import Codecs, UnreadableValue
from ._rows import BadResult, to_json
from ._store import is_url, open_store


def info(path: str) -> None:
    """Print how many values each namespace has, and how many bytes."""
    with open_store(path, create=False) as store:
        usage = store.usage()
    width = max(map(len, [*usage, "namespace"]))
    print(f"{'namespace':{width}}  {'values':>12}  {'bytes':>16}")
    for namespace, (values, size) in sorted(usage.items()):
        print(f"{namespace:{width}}  {values:12,}  {size:16,}")
    if not is_url(path):
        files = [path, f"{path}-wal"]
        size = sum(os.path.getsize(file) for file in files if os.path.exists(file))
        print(f"{path}: {size:,} bytes")


def export(path: str, namespace: str | None, output: TextIO) -> None:
    """Write a line of JSON for every value: its namespace, its key in hexadecimal, itself."""
    codecs = Codecs(None)
    with open_store(path, create=False) as store:
        for name in sorted(store.usage()) if namespace is None else [namespace]:
            for key, data in store.scan(name):
                entry = {"namespace": name, "key": key.hex()}
                output.write(f"{to_json(entry)[:-1]}, {_value(codecs, data)}}}\n")
    output.flush()


def _value(codecs: Codecs, data: bytes) -> str:
    try:
        return f'"value": {to_json(codecs.loads(data))}'
    except (UnreadableValue, BadResult):  # of a codec that somebody named; or bytes, or NaN
        tag, encoded = data[:1].decode("latin-1"), base64.b64encode(data[1:]).decode()
        return f'"codec": {to_json(tag)}, "base64": {to_json(encoded)}'


def clear(path: str, namespace: str | None, *, everything: bool, yes: bool) -> None:
    """Delete the values of a namespace, or of all."""
    if everything == (namespace is not None):
        raise click.UsageError("give either --namespace TEXT or --all")
    with open_store(path, create=False) as store:
        usage = store.usage()
        names = [namespace] if namespace is not None else sorted(usage)
        count = sum(usage[name].values for name in names if name in usage)
        where = f"namespace {namespace!r}" if namespace is not None else "all namespaces"
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(
                    f"{count:,} values of {where} would be deleted, and there is nobody to ask; "
                    "give --yes to delete them"
                )
            click.confirm(f"Delete {count:,} values of {where} in {path}?", abort=True)
        for name in names:
            store.delete_many(name, None)
    print(f"{count:,} values deleted")
