"""The command, in the process of the tests and in one of its own; functions to map through."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("click", reason="the command needs the extra cli")
pytest.importorskip("tqdm", reason="the command needs the extra cli")

from click.testing import CliRunner
from click.testing import Result as Result

from batchproxy.cli._main import command
from batchproxy.cli._options import Options

STORE = ("--store", "results.db", "--namespace", "n")


def call(*arguments: object, data: bytes | None = None, status: int = 0) -> Result:
    """The command, in this process; it must end with `status`."""
    result = CliRunner().invoke(command, [str(each) for each in arguments], data)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def upper(*arguments: object, data: bytes | None = None, status: int = 0) -> Result:
    """``batchproxy map functions:upper``, without a summary; it must end with `status`."""
    return call("map", "functions:upper", *arguments, "-q", data=data, status=status)


def said(*arguments: object, data: bytes | None = None, status: int = 1) -> str:
    """The last line of what that says, on standard error."""
    lines = upper(*arguments, data=data, status=status).stderr.splitlines()
    return next(line for line in reversed(lines) if "nothing was kept" not in line)


def written(name: str, data: bytes | str) -> str:
    """A file of that name, which it gives back."""
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def python(*arguments: object, data: str | None = None) -> subprocess.CompletedProcess[str]:
    """Python, in a process of its own, in the current directory."""
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, input=data, capture_output=True, text=True, timeout=50)


def batchproxy(*arguments: object, data: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in such a process."""
    return python("-W", "error", "-m", "batchproxy", *arguments, data=data)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`batchproxy` of that line of a shell."""
    program = f"{shlex.quote(sys.executable)} -W error -m batchproxy"
    return subprocess.run(
        ["sh", "-c", line.replace("batchproxy", program, 1)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=50,
    )


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory of its own, from which can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


class Functions(ModuleType):
    """A module with functions, which keeps what they were sent."""

    def __init__(self) -> None:
        super().__init__("functions")
        self.batches: list[list[Any]] = []
        self.answers: dict[Any, Any] = {}
        self.plain_value = 3

    @property
    def sent(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]

    def upper(self, items: list[Any]) -> list[Any]:
        """What `answers` has, else the text in capitals."""
        self.batches.append(items)
        known = self.answers
        return [known[item] if item in [*known] else f"{item}".upper() for item in items]

    async def upper_async(self, items: list[Any]) -> dict[Any, Any]:
        return dict(zip(items, self.upper(items)))

    def by_item(self, items: list[Any]) -> dict[Any, str]:
        return {item: f"{item!r}" for item in items}

    async def by_item_async(self, items: list[Any]) -> dict[Any, str]:
        return self.by_item(items)

    def same(self, items: list[Any]) -> list[Any]:
        print("by the way")
        return items

    def number(self, items: list[Any]) -> list[int]:
        self.batches.append(items)
        return list(range(len(items)))

    def refuse(self, items: list[str]) -> list[Any]:
        """Single items fail, or all of them."""
        self.batches.append(items)
        if "all" in items:
            raise ValueError("not this batch")
        return [KeyError(item) if item.startswith("x") else item for item in items]


@pytest.fixture
def functions(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """`functions:NAME`, in a directory of its own."""
    module = Functions()
    monkeypatch.setitem(sys.modules, "functions", module)
    return module


@pytest.fixture
def windows_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """How many rows the command is to read at a time."""
    return lambda rows: monkeypatch.setattr(Options, "window", lambda self, function: rows)
