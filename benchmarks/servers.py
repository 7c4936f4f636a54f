"""Servers of one's own, where there are any."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def has_redis() -> bool:
    return bool(shutil.which("redis-server") and importlib.util.find_spec("redis"))


@contextmanager
def redis_server() -> Iterator[str]:
    """A server that keeps everything in memory, and nothing on the disk; gives its URL."""
    import redis

    with tempfile.TemporaryDirectory() as folder:
        url = f"unix://{folder}/redis.sock"
        options = ["--port", "0", "--unixsocket", f"{folder}/redis.sock", "--save", ""]
        server = subprocess.Popen(
            ["redis-server", "--dir", folder, *options], stdout=subprocess.DEVNULL
        )
        try:
            with redis.Redis.from_url(url) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        if server.poll() is not None:
                            raise
                        time.sleep(0.01)
            yield url
        finally:
            server.kill()
            server.wait()


def has_postgres() -> bool:
    return not _postgres().WHY_NOT


def postgres_version() -> str:
    said = subprocess.run(
        [f"{_postgres().PROGRAMS}/postgres", "--version"], capture_output=True, text=True
    )
    return said.stdout.split()[2]


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server as it is installed, but that it never waits for the disk; gives its URL."""
    with _postgres().PostgresServer() as server:
        yield server.url


def _postgres() -> Any:
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    import postgres_server

    return postgres_server
