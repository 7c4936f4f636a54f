"""The command `batchproxy`; what it needs comes with the extra `cli`."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    _fill_gaps()
    try:
        from ._main import command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "tqdm"):
            raise
        print(
            f"batchproxy: the command needs {error.name}: pip install 'batchproxy[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    command(prog_name="batchproxy")


def _fill_gaps() -> None:
    """Open /dev/null where a standard stream is closed: no other file is to take its number.

    `sys.stdin` and `sys.stdout` stay None, so that it is said; messages just go nowhere.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (file := os.open(os.devnull, os.O_RDWR)) < 2:
            pass
        if file > 2:
            os.close(file)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
