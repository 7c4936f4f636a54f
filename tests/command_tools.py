"""The command, in the process of the tests and in one of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("click", reason="the command needs the extra cli")
pytest.importorskip("tqdm", reason="the command needs the extra cli")

from click.testing import CliRunner, Result

from batchproxy.cli._main import command

STORE = ("--store", "results.db", "--namespace", "n")


def call(*arguments: object, data: bytes | None = None, status: int = 0) -> Result:
    """The command, in this process; it must end with `status`."""
    result = CliRunner().invoke(command, [str(each) for each in arguments], data)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def batchproxy(*arguments: object, data: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own, in the current directory."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "batchproxy", *map(str, arguments)],
        input=data,
        capture_output=True,
        text=True,
        timeout=50,
    )
