"""The arguments of the command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .._messages import escaped
from . import _cache
from ._dry import dry_run
from ._formats import FORMATS
from ._interrupts import Interrupts
from ._load import ImportFailed
from ._map import BROKEN_PIPE, run, show_traceback
from ._options import Options
from ._store import Place, clean
from ._terminal import OutputClosed, say

_FILE = click.Path(allow_dash=True, readable=False)  # a shell completes it


def _place(ctx: click.Context, param: click.Parameter, value: str | None) -> Place | None:
    if value in ("", ":memory:"):
        raise click.UsageError(
            f"--store must name a file, or redis://HOST/0, or postgresql://HOST/DB, got {value!r}"
        )
    return None if value is None else Place(value)


def _store_option(**more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    # In the environment a password is not seen by everybody who can list processes.
    return click.option(
        "--store",
        type=_FILE,
        callback=_place,
        metavar="FILE|URL",
        envvar="BATCHPROXY_STORE",
        show_envvar=True,
        **more,
    )


_store = _store_option(
    required=True, help="An SQLite file, redis://HOST/0, or postgresql://HOST/DB."
)
_output = click.option(
    "-o",
    "--output",
    type=_FILE,
    default="-",
    help="A file; standard output if left out.",
)
_namespace = click.option("--namespace", metavar="TEXT", help="Only what is in this namespace.")


class _Command(click.Group):
    """A group whose errors can be shown: no passwords, nothing that a terminal obeys."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """See `click.Command.make_context`."""
        given = args.copy()
        with _showable(given):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[__name__] = given
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        with _showable(ctx.meta[__name__]):
            return super().invoke(ctx)


def _interrupts() -> Interrupts:
    return Interrupts(lambda: say("interrupted"))


@contextmanager
def _showable(arguments: list[str]) -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        error.message = escaped(clean(error.message, arguments))  # type: ignore[misc] # ours to mend
        raise
    except OutputClosed:
        raise SystemExit(BROKEN_PIPE) from None


@click.group(
    cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="batchproxy")
def command() -> None:
    """Map files through a batch function; what was computed once is not computed again."""


@command.command("map")
@click.argument("function", metavar="FUNCTION")
@click.argument("input", type=_FILE)
@_output
@click.option("--input-format", type=click.Choice(FORMATS), help="Instead of what INPUT ends in.")
@click.option("--output-format", type=click.Choice(FORMATS), help="Instead of what OUTPUT ends in.")
@click.option("--encoding", metavar="NAME", help="Of the text of INPUT. Default: utf-8.")
@click.option("--delimiter", metavar="CHAR", help="Between columns, instead of comma or tab.")
@click.option(
    "--quoting",
    type=click.Choice(["csv", "none"]),
    help="Whether quotes in CSV and TSV mean anything. Default: csv; in TSV what is doubtful is "
    "refused.",
)
@click.option("--field", metavar="NAME", help="The member or column that is mapped; a.b is b in a.")
@click.option(
    "--missing",
    type=click.Choice(["skip", "send"]),
    help="Whether null, NaN and, if given, empty cells and lines go to the function. Default: "
    "null and NaN do not.",
)
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
    "--max-weight",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="The most that the items of a call may weigh together; what is heavier goes alone.",
)
@click.option(
    "--weight",
    metavar="FUNCTION",
    help="With --max-weight: from an item to its weight. Default: its characters.",
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
@_store_option(help="Where results are kept: an SQLite file, redis://HOST/0, postgresql://HOST/DB.")
@click.option(
    "--namespace",
    metavar="TEXT",
    help="With --store: what they are the results of. Stands for the function, the model and the "
    "version of the prompt.",
)
@click.option(
    "--codec",
    metavar="TEXT",
    help="For results that are objects: pydantic:MODULE:MODEL, msgspec:MODULE:TYPE, or pickle; "
    "that only for a store that nobody else can write to: reading a pickle runs code in it.",
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
    help="With --on-error record: where errors are recorded. Default: error.",
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N rows.")
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would be computed.")
@click.option("--traceback", is_flag=True, help="Show where the function, or its import, failed.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def map_(dry: bool, **arguments: Any) -> None:
    """Map the rows of INPUT through FUNCTION, a function from a list of items to their results.

    FUNCTION is PACKAGE.MODULE:FUNCTION, looked for in the current directory first, or
    FILE.py:FUNCTION.

    INPUT is JSON Lines (.jsonl, .ndjson), JSON, CSV, TSV, Parquet or, with any other ending, plain
    lines; with .gz, .bz2 or .xz at the end it is compressed; - is standard input. Only distinct
    items are sent, in full batches; if the run ends early, the same command resumes it.

    Exit status: 0 all rows are mapped, 1 the run failed, 2 the arguments are wrong, 3 some rows
    failed and were skipped or recorded, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 141 nobody reads the
    output.
    """
    options = Options(**arguments)
    options.check()
    if options.backend == "trio" and importlib.util.find_spec("trio") is None:
        raise click.UsageError("--backend trio needs trio: pip install 'batchproxy[trio]'")
    try:
        if not dry:
            raise SystemExit(run(options))
        with _interrupts():
            raise SystemExit(dry_run(options))
    except ImportFailed as error:
        show_traceback(options, error.__cause__, sys.stderr)
        raise


@command.group()
def cache() -> None:
    """See what is in a store, write it out, delete it."""


@cache.command()
@_store
def info(store: Place) -> None:
    """How many values each namespace has, and how large they are."""
    with _interrupts():
        _cache.info(store)


@cache.command()
@_store
@_namespace
@_output
def export(store: Place, namespace: str | None, output: str) -> None:
    """Write all values as JSON Lines: namespace, key (in hexadecimal) and value."""
    with _interrupts() as interrupts:
        _cache.export(store, namespace, output, interrupts)


@cache.command()
@_store
@_namespace
@click.option("--all", "everything", is_flag=True, help="What is in all namespaces.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(store: Place, namespace: str | None, everything: bool, yes: bool) -> None:
    """Delete values."""
    with _interrupts():
        _cache.clear(store, namespace, everything=everything, yes=yes)
