"""The arguments of the command."""

from __future__ import annotations

import importlib.util
from typing import Any

import click

from . import _cache
from ._dry import dry_run
from ._formats import FORMATS
from ._map import run
from ._options import Options

_store = click.option(
    "--store", required=True, metavar="FILE|URL", help="An SQLite file, or redis://HOST/0."
)
_namespace = click.option("--namespace", metavar="TEXT", help="Only what is in this namespace.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="batchproxy")
def command() -> None:
    """Map files through a batch function; what was computed once is not computed again."""


@command.command("map")
@click.argument("function", metavar="PACKAGE.MODULE:FUNCTION")
@click.argument("input")
@click.option("-o", "--output", default="-", help="A file; standard output if left out.")
@click.option("--input-format", type=click.Choice(FORMATS), help="Instead of what INPUT ends in.")
@click.option("--output-format", type=click.Choice(FORMATS), help="Instead of what OUTPUT ends in.")
@click.option("--field", metavar="NAME", help="The member or column that is mapped.")
@click.option(
    "--into", metavar="NAME", default="result", show_default=True, help="Where results go."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Items in a call.",
)
@click.option(
    "--max-concurrency",
    type=click.IntRange(min=1),
    help="Calls at a time. Default: 8 of an asynchronous function, 1 of another one.",
)
@click.option(
    "--backend",
    type=click.Choice(["asyncio", "trio"]),
    default="asyncio",
    show_default=True,
    help="What runs an asynchronous function.",
)
@click.option(
    "--store", metavar="FILE|URL", help="Where results are kept: an SQLite file, redis://HOST/0."
)
@click.option(
    "--namespace",
    metavar="TEXT",
    help="With --store: what they are the results of. Stands for the function, the model and the "
    "version of the prompt.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "record"]),
    default="stop",
    show_default=True,
    help="Of a row that fails: end the run, leave it out, or write its error.",
)
@click.option(
    "--error-field",
    metavar="NAME",
    default="error",
    show_default=True,
    help="Where errors are recorded.",
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N rows.")
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would be computed.")
@click.option("--traceback", is_flag=True, help="Show where the function failed.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def map_(dry: bool, **arguments: Any) -> None:
    """Map the rows of INPUT through FUNCTION, a function from a list of items to their results.

    INPUT is JSON Lines (.jsonl, .ndjson), CSV, TSV, Parquet or, with any other ending, plain lines;
    with .gz, .bz2 or .xz at the end it is compressed; - is standard input. Only distinct items are
    sent, in full batches; if the run ends early, the same command resumes it.

    Exit status: 0 all rows are mapped, 1 the run failed, 2 the arguments are wrong, 3 some rows
    failed and were skipped or recorded, 130 Ctrl-C, 143 SIGTERM, 141 nobody reads the output.
    """
    options = Options(**arguments)
    options.check()
    if options.backend == "trio" and importlib.util.find_spec("trio") is None:
        raise click.UsageError("--backend trio needs trio: pip install 'batchproxy[trio]'")
    raise SystemExit((dry_run if dry else run)(options))


@command.group()
def cache() -> None:
    """See what is in a store, write it out, delete it."""


@cache.command()
@_store
def info(store: str) -> None:
    """How many values each namespace has, and how large they are."""
    _cache.info(store)


@cache.command()
@_store
@_namespace
@click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8", atomic=True),
    default="-",
    help="A file; standard output if left out.",
)
def export(store: str, namespace: str | None, output: Any) -> None:
    """Write all values as JSON Lines: namespace, key (in hexadecimal) and value."""
    _cache.export(store, namespace, output)


@cache.command()
@_store
@_namespace
@click.option("--all", "everything", is_flag=True, help="What is in all namespaces.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(store: str, namespace: str | None, everything: bool, yes: bool) -> None:
    """Delete values."""
    _cache.clear(store, namespace, everything=everything, yes=yes)
