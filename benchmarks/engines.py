"""Do the workers of an engine that runs on many machines share the work, and how well?

    python benchmarks/engines.py                        print the table
    python benchmarks/engines.py dask ray               of these engines only
    python benchmarks/engines.py --write docs/engines   keep it there, for the docs

Each engine gives 200,000 rows, with 20,000 distinct cities, a column of places, in batches of 100
with a call that takes 50 ms, by four workers. The function notes each of its calls in a file, and
what is counted is what is in there. Then the same engine does it once more; and once more with a
new store, while the process that made the last call is killed half-way: of Spark the executor, of
the others a worker. If the job fails of that, it is run again. Beside it is what one would write
without a store. What each does is in `engines_jobs`. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engines_work import BATCH, DISTINCT
from measuring import print_and_keep
from servers import has_redis, redis_server

HERE = Path(__file__).parent
NEEDED = {
    "dask": ["dask", "distributed", "pandas"],
    "ray": ["ray"],
    "spark": ["pyspark"],
    "spark_connect": ["pyspark", "grpc"],
    "datasets": ["datasets"],
    "daft": ["daft"],
}
NAMES = {
    "dask": "Dask",
    "dask_distinct": "Dask, distinct → map → join",
    "ray": "Ray Data",
    "ray_distinct": "Ray Data, distinct → map → join",
    "spark": "Spark",
    "spark_distinct": "Spark, distinct → map → join",
    "spark_connect": "Spark Connect",
    "datasets": "datasets",
    "daft": "Daft",
}
EXECUTORS = ["spark", "spark_distinct"]  # whose workers are in a process that is killed with them
VERSIONS = [
    "batchproxy",
    "dask",
    "ray",
    "pyspark",
    "datasets",
    "daft",
    "pyarrow",
    "pandas",
    "redis",
]


class Failed(Exception):
    """The engine has given its job up, or has gone with it."""


class Process:
    """An engine that is ready to begin."""

    def __init__(self, engine: str, place: str, log: Path, said: Path) -> None:
        with open(said, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "engines_jobs.py", engine, place, log],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=said.parent,
                env=os.environ | {"PYTHONPATH": _with(HERE), "HF_HOME": str(said.parent)},
            )
        try:
            assert self._answer() == "ready"
        except Failed:
            print(said.read_text()[-2_000:], file=sys.stderr)
            raise

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wall(self) -> float:
        """Seconds that its job took, when it has ended."""
        answer = self._answer()
        assert answer["correct"]
        return float(answer["wall"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                return json.loads(line)
            except ValueError:
                pass  # engines, too, have something to say
        raise Failed

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _with(folder: Path) -> str:
    """What workers import from, too."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def ready(engine: str, place: str, log: Path) -> Iterator[Process]:
    process = Process(engine, place, log, log.with_suffix(".err"))
    try:
        yield process
    finally:
        process.end()


def called(log: Path) -> list[tuple[int, list[str]]]:
    """The process and the keys of each call that has begun."""
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""  # not what is half there
    return [json.loads(line) for line in whole.splitlines()]


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


class Twice(NamedTuple):
    """What came of a job and the same once more."""

    wall: float
    calls: int
    keys: int
    second: int  # keys that were sent by then


def twice(engine: str, place: str, log: Path) -> Twice:
    with ready(engine, place, log) as process:
        process.begin()
        wall = process.wall()
        calls = [keys for _, keys in called(log)]
        process.begin()
        process.wall()
    sent = sum(map(len, calls))
    return Twice(wall, len(calls), sent, sum(len(keys) for _, keys in called(log)) - sent)


class Killed(NamedTuple):
    """What came of a job of which a process was killed."""

    again: int  # keys that were sent more than once
    by_itself: bool  # whether the engine went on; else the same was run again


def killed(engine: str, place: str, log: Path) -> Killed:
    by_itself = True
    with ready(engine, place, log) as process:
        process.begin()
        while len(called(log)) < DISTINCT / BATCH / 2:
            time.sleep(0.01)
        worker = called(log)[-1][0]
        os.kill(parent(parent(worker)) if engine in EXECUTORS else worker, signal.SIGKILL)
        try:
            process.wall()
        except Failed:
            by_itself = False
    if not by_itself:
        with ready(engine, place, log) as process:
            process.begin()
            process.wall()
    sent = [key for _, keys in called(log) for key in keys]
    return Killed(len(sent) - len(set(sent)), by_itself)


@contextmanager
def new_store(kind: str, folder: str) -> Iterator[str]:
    """Where one is that nobody has used."""
    if kind == "Redis":
        with redis_server() as url:
            yield url
    else:
        yield f"{folder}/places.db"


def line(engine: str, kind: str, alone: float) -> str:
    """Of the table."""
    with tempfile.TemporaryDirectory() as folder, new_store(kind, folder) as place:
        ran = twice(engine, place, Path(folder, "calls"))
    with tempfile.TemporaryDirectory() as folder, new_store(kind, folder) as place:
        lost = killed(engine, place, Path(folder, "calls"))
    return (
        f"| {NAMES[engine]} | {kind} | {ran.keys:,} | {ran.calls:,} | {ran.second:,} "
        f"| {lost.again:,} | {'yes' if lost.by_itself else 'no'} "
        f"| {ran.wall:.1f} | {ran.wall / alone:.2f} |"
    )


def is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def missing(engine: str) -> str | None:
    """Why it cannot run here."""
    for module in NEEDED[engine]:
        if not is_there(module):
            return f"{module} is not installed"
    if "pyspark" in NEEDED[engine] and shutil.which("java") is None:
        return "there is no Java"
    return None


def environment() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS if is_there(name)]
    python = f"CPython {platform.python_version()} on {sys.platform}, {os.cpu_count()} processors"
    return f"{python}; {', '.join(versions)}."


def table(engines: list[str]) -> Iterator[str]:
    yield environment()
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        alone = twice("bare", "", Path(folder, "calls")).wall
    yield (
        "| engine | store | keys sent | calls | second action | killed: sent again "
        "| went on by itself | seconds | of one bare process |"
    )
    yield "|---|---|---:|---:|---:|---:|---|---:|---:|"
    stores = ["SQLite", *(["Redis"] if has_redis() else [])]
    reasons = {engine: missing(engine) for engine in engines}
    for engine, reason in reasons.items():
        if reason is None:
            for kind in stores:
                yield line(engine, kind, alone)
            rival = f"{engine}_distinct"
            if rival in NAMES:
                yield line(rival, "none", alone)
    yield ""
    yield f"One bare process takes {alone:.1f} s."
    for engine, reason in reasons.items():
        if reason is not None:
            yield f"Left out: {NAMES[engine]}, since {reason}."
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(NEEDED))
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the table")
    options = parser.parse_args()
    lines = table(options.engines or list(NEEDED))
    print_and_keep(lines, "engines.md", options.write)


if __name__ == "__main__":
    main()
