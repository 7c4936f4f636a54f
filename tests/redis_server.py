"""A real redis-server for tests: in a directory of its own, and gone with the process."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

_REASON = ""
if importlib.util.find_spec("redis") is None:
    _REASON = "the redis package is not installed"
if shutil.which("redis-server") is None:
    _REASON = "redis-server is not installed"

needs_redis = pytest.mark.skipif(bool(_REASON), reason=_REASON)

# The shell waits for a line, or for the end of the process that is to write it, however it ends.
_GUARD = '"$@" & server=$!; read -r line; kill -KILL "$server"; wait "$server"'


class RedisServer:
    """A server that can be killed and started again; it keeps no data unless `options` say so.

    It listens on a socket in `directory`, and on `port` if that is not 0.
    """

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        path = directory / "redis.sock"
        self.keeps = "--appendonly" in options
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

    stop = kill

    def restart(self) -> None:
        """Connections are lost, and what it does not keep."""
        self.stop()
        self.start()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It answers nobody meanwhile."""
        import redis

        with redis.Redis.from_url(self.url) as client:
            process = client.info("server")["process_id"]
            os.kill(process, signal.SIGSTOP)
            yield
            os.kill(process, signal.SIGCONT)
            client.ping()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests share. Where there is none, the test is skipped."""
    if _REASON:
        pytest.skip(_REASON)
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one's own, which keeps its data when it is killed."""
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """One that keeps nothing."""
    with RedisServer(tmp_path) as server:
        yield server


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface on which nobody listened a moment ago."""
    with ExitStack() as stack:
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
        return [stack.enter_context(each).getsockname()[1] for each in servers]
