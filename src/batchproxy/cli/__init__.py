"""The command `batchproxy`; what it needs comes with the extra `cli`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
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
