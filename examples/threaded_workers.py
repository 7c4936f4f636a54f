"""Eight threads ask what importing a module pulls in, and share the parsing of the files they meet.

Each worker walks from one module of the standard library through the imports at the top of its
source, level by level. The walks overlap: nearly all of them come upon `os`, `re` and `collections`.
"""

import ast
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from batchproxy import BatchingMapProxy

STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = "asyncio cProfile compileall doctest mailbox pdb pydoc smtplib tarfile trace unittest zipapp"


class Source(NamedTuple):
    lines: int
    imports: list[Path]


def imported(statement: ast.stmt, path: Path) -> Iterator[Path]:
    """The source files that an import statement in the file at `path` names."""
    targets: list[Path] = []
    if isinstance(statement, ast.Import):
        targets = [STDLIB / alias.name.replace(".", "/") for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        base = path.parents[statement.level - 1] if statement.level else STDLIB
        base /= (statement.module or "").replace(".", "/")
        targets = [base, *(base / alias.name for alias in statement.names)]
    for target in targets:
        files = target.with_suffix(".py"), target / "__init__.py"
        yield from (file for file in files if file.is_file())


def parse(paths: list[Path]) -> list[Source]:
    """The expensive part: read and parse every file."""
    texts = [path.read_bytes() for path in paths]
    bodies = [ast.parse(text).body for text in texts]
    ...


def walk(module: str, parse: Callable[[list[Path]], list[Source]]) -> dict[Path, int]:
    ...
