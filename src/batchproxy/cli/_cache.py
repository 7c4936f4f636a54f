"""`batchproxy cache`: what is in a store, out of it, and away."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable, Iterator

import click

from .._messages import cut, short
from ..codecs import UnreadableValue, loads
from ._apart import check_apart
from ._interrupts import Interrupts
from ._output import Output, writing
from ._rows import BadResult, to_json
from ._store import Opened, Place, open_store, using
from ._terminal import count, sayable, standard_output, tell


def info(place: Place) -> None:
    """Print how many values each namespace has, and how many bytes."""
    with open_store(place, create=False) as store, using(place):
        usage = store.usage()
    names = {name: cut(name) for name in usage}
    width = max(map(len, [*names.values(), "namespace"]))
    lines = [f"{'namespace':{width}}  {'values':>12}  {'bytes':>16}"]
    for name, (values, size) in sorted(usage.items()):
        lines.append(f"{names[name]:{width}}  {values:12,}  {size:16,}")
    if not place.is_url:
        files = [place.text, f"{place.text}-wal"]
        size = sum(os.path.getsize(file) for file in files if os.path.exists(file))
        lines.append(f"{place}: {count(size, 'byte')}")
    tell(*lines)


def export(place: Place, namespace: str | None, path: str, interrupts: Interrupts) -> None:
    """Write a line of JSON for every value: its namespace, its key in hexadecimal, itself."""
    check_apart(None, path, place)
    with open_store(place, create=False) as store:
        with using(place):
            usage = store.usage()
        names = _named(place, namespace, usage)
        with writing(path), Output(path, sys.stdout) as output:
            if output.part is not None:
                interrupts.litter.append(output.part)
            _export(place, store, names, output)


def _named(place: Place, namespace: str | None, usage: Iterable[str]) -> list[str]:
    """Those of the namespaces there that are asked for."""
    names = sorted(usage)
    if namespace is None:
        return names
    if namespace not in names:
        raise click.UsageError(f"{place!r} has no namespace {short(namespace)}")
    return [namespace]


def _export(place: Place, store: Opened, names: list[str], output: Output) -> None:
    for name, key, data in _entries(place, store, names):
        entry = {"namespace": name, "key": key.hex()}
        output.file.write(f"{to_json(entry)[:-1]}, {_value(data)}}}\n".encode())
    output.complete()


def _entries(place: Place, store: Opened, names: list[str]) -> Iterator[tuple[str, bytes, bytes]]:
    with using(place):
        for name in names:
            for key, data in store.scan(name):
                yield name, key, data


def _value(data: bytes) -> str:
    try:
        return f'"value": {to_json(loads(data))}'
    except (UnreadableValue, BadResult):  # of a codec that somebody named; or bytes, or NaN
        tag, encoded = data[:1].decode("latin-1"), base64.b64encode(data[1:]).decode()
        return f'"codec": {to_json(tag)}, "base64": {to_json(encoded)}'


def clear(place: Place, namespace: str | None, *, everything: bool, yes: bool) -> None:
    """Delete the values of a namespace, or of all."""
    if everything == (namespace is not None):
        raise click.UsageError("give either --namespace TEXT or --all")
    standard_output()
    with open_store(place, create=False) as store:
        with using(place):
            usage = store.usage()
        names = _named(place, namespace, usage)
        values = count(sum(usage[name].values for name in names), "value")
        where = "all namespaces" if namespace is None else f"namespace {short(namespace)}"
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                raise click.UsageError(
                    f"{values} of {where} would be deleted, and there is nobody to ask; "
                    "give --yes to delete what is there"
                )
            click.confirm(sayable(f"Delete {values} of {where} in {place}?"), abort=True)
        with using(place):
            for name in names:
                store.delete_many(name, None)
    tell(f"{values} deleted")
