"""What do this library and others do when things fail, are cancelled, or come in an unlucky order?

    python proof/peers.py                   print the table
    python proof/peers.py --only close      only the scenarios with this in their name, and why
    python proof/peers.py --write FOLDER    keep the table in FOLDER/peers.md

A scenario is a function that says what must hold, and asserts it; each runs once per library, in
a process of its own. "right" is a scenario that ends with nothing to object to, with what it took
where that differs; "wrong" one whose assertion fails or that raises, "hangs" one that has not ended
after some seconds in which it had nothing to wait for, and a dash one for which the library has no
means. Notes say why, and where the documentation of a library rules out what the scenario does.
What is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import inspect
import os
import platform
import subprocess
import sys
import threading
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from proof.peers_libraries import LIBRARIES
from proof.peers_tools import SCENARIOS

for room in ("maps", "loads", "refusals", "failures", "memory"):  # in the order of the table
    importlib.import_module(f"proof.peers_{room}")

LIMIT = 10.0  # seconds until a scenario hangs; those that do not take three at most

NO_MEANS = "\N{EN DASH}"


def judge(name: str, title: str) -> None:
    """In the child: say in a word how a scenario ends for a library."""

    def say(verdict: str) -> None:
        print(verdict, flush=True)
        os._exit(0)  # whatever still hangs

    importlib.import_module(LIBRARIES[title].module)  # which takes seconds on a busy machine
    clock = threading.Timer(LIMIT, say, ["hangs"])
    clock.daemon = True
    clock.start()
    try:
        result = SCENARIOS[name][0](LIBRARIES[title])
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException:
        traceback.print_exc()
        say("wrong")
    say(f"right, {result}" if result else "right")


def verdict(name: str, title: str, *, explain: bool) -> str:
    """Run a scenario for a library in a child process."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--judge", name, title],
        stdout=subprocess.PIPE,
        stderr=None if explain else subprocess.DEVNULL,
        timeout=120,  # only if the child cannot even say that it hangs
        text=True,
        check=True,
    )
    return child.stdout.strip()


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {}
    for library in LIBRARIES.values():
        try:
            found[library.distribution] = importlib.metadata.version(library.distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def table(only: str = "") -> str:
    """The scenarios that have `only` in their names, with all libraries, in markdown."""
    here = versions()
    titles = [title for title, of in LIBRARIES.items() if of.distribution in here]
    notes: dict[str, int] = {}
    lines = [f"| scenario | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, (_, needs) in SCENARIOS.items():
        if only not in name:
            continue
        cells = []
        for title in titles:
            library = LIBRARIES[title]
            lacks = next((library.lacks[need] for need in needs if need in library.lacks), None)
            cell = NO_MEANS if lacks else verdict(name, title, explain=bool(only))
            note = lacks or library.remarks.get(name)
            if note:
                cell += f" [{notes.setdefault(note, len(notes) + 1)}]"
            cells.append(cell)
            print(".", end="", file=sys.stderr, flush=True)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print(file=sys.stderr)
    lines += ["", *(f"{number}. {note}" for note, number in notes.items()), ""]
    lines.append(
        f"CPython {platform.python_version()} on {sys.platform}; "
        + ", ".join(f"{name} {version}" for name, version in here.items())
        + "."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the table there")
    parser.add_argument(
        "--only", default="", metavar="SCENARIO", help="those with this in the name"
    )
    parser.add_argument("--judge", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        judge(*arguments.judge)
    if not any(arguments.only in name for name in SCENARIOS):
        parser.error(f"no scenario has {arguments.only!r} in its name")
    if arguments.write and arguments.only:
        parser.error("--write keeps the whole table, without --only")
    result = table(arguments.only)
    print(result)
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "peers.md").write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
