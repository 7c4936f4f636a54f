"""A Redis server of one's own, where there is one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager


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
