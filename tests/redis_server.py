"""A real redis-server for tests: in a directory of its own, and gone with the process."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

_REASON = next(
    (
        f"{what} is not installed"
        for what, there in (
            ("redis-server", shutil.which("redis-server")),
            ("the redis package", importlib.util.find_spec("redis")),
        )
        if not there
    ),
    "",
)

needs_redis = pytest.mark.skipif(bool(_REASON), reason=_REASON)

# The shell waits for a line, or for the end of the process that is to write it, however it ends.
_GUARD = '"$@" & server=$!; read -r line; kill -KILL "$server"; wait "$server"'


class RedisServer:
    """A server that can be killed and started again; it keeps no data unless `options` say so.

    It listens on a socket in `directory`, and on `port` if that is not 0.
    """

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        path = directory / "redis.sock"
        self.url = f"unix://{path}"
        self._options = [
            *("--unixsocket", str(path), "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(directory), "--logfile", str(directory / "redis.log"), "--save", ""),
            *options,
        ]

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        import redis

        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", "redis-server", *self._options],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the shell says "Killed"
        )
        end = time.monotonic() + 30
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError as error:
                    if time.monotonic() > end:
                        self.kill()
                        raise AssertionError(f"redis-server does not start: {error}") from None
                time.sleep(0.01)

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is gone."""
        self._guard.communicate(b"\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A server; gives its URL."""
    with RedisServer(directory) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests share. Where there is none, the test is skipped."""
    if _REASON:
        pytest.skip(_REASON)
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface on which nobody listened a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
