"""A real PostgreSQL server for tests: in a directory of its own, and gone with the process."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest


def _programs() -> str:
    """Where Debian has them, who puts none of them into the path; or where the path says."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    return str(Path(initdb).parent) if initdb else ""


def _user() -> str:
    """Who runs it, if this is root, whom it refuses; empty if it is whoever this is."""
    if os.geteuid() != 0:
        return ""
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody", "") if name in known or not name)


PROGRAMS = _programs()
WHY_NOT = ""
if importlib.util.find_spec("psycopg") is None:
    WHY_NOT = "psycopg is not installed"
elif not PROGRAMS:
    WHY_NOT = "PostgreSQL is not installed"
elif os.geteuid() == 0 and not _user():
    WHY_NOT = "PostgreSQL does not run as root, and there is no other user"

needs_postgres = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

# The shell waits for a line, or for the end of the process that is to write it, however it ends.
_GUARD = '"$@" & server=$!; read -r how; kill -"${how:-QUIT}" "$server"; wait "$server"'


class PostgresServer:
    """A server that can be killed and started again, and keeps its data."""

    keeps = True

    def __init__(self) -> None:
        # Where its user may go, and short, for the path of a socket.
        self._directory = tempfile.mkdtemp(prefix="pg-")
        self._data = f"{self._directory}/data"
        self.url = f"postgresql://tests@/postgres?host={self._directory}"
        self._as: dict[str, Any] = {"cwd": self._directory}
        if user := _user():
            shutil.chown(self._directory, user)
            self._as |= {"user": user, "extra_groups": []}
        subprocess.run(
            [
                *(f"{PROGRAMS}/initdb", "-D", self._data, "-U", "tests", "-A", "trust"),
                *("--no-sync", "--no-locale", "--encoding=UTF8"),
            ],
            stdout=subprocess.DEVNULL,
            check=True,
            **self._as,
        )

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        end = time.monotonic() + 30
        while not self._start(end):  # one that was killed may still have processes that end
            if time.monotonic() > end:
                raise AssertionError(f"PostgreSQL does not start: {self._log()}")
            time.sleep(0.02)

    def _start(self, end: float) -> bool:
        import psycopg

        options = {"listen_addresses": "", "unix_socket_directories": self._directory}
        options |= {"fsync": "off", "max_connections": "200"}  # of a crash of the machine: nothing
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open(f"{self._directory}/log", "a") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", f"{PROGRAMS}/postgres", "-D", self._data, *given],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                **self._as,
            )
        while time.monotonic() < end:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return True
            if "lock file" in self._log() or "shared memory" in self._log():
                break
            time.sleep(0.01)
        self.kill()
        os.unlink(f"{self._directory}/log")
        return False

    def _log(self) -> str:
        return Path(self._directory, "log").read_text()

    def kill(self, how: str = "QUIT") -> None:
        """End it with that signal, as a crash does, and wait until all of it is gone."""
        if not self._guard.stdin.closed:  # type: ignore[union-attr] # it is a pipe
            self._guard.communicate(f"{how}\n".encode())

    def stop(self) -> None:
        """As an administrator does: connections are lost, and nothing else."""
        self.kill("INT")

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It answers nobody meanwhile."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            asked = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            first = int(Path(self._data, "postmaster.pid").read_text().splitlines()[0])
            processes = [first, *(pid for (pid,) in connection.execute(asked))]
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            yield
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


def dumped(url: str, schema: str) -> list[str]:
    """What is in a schema, as statements."""
    said = subprocess.run(
        [f"{PROGRAMS}/pg_dump", "--inserts", "--no-owner", f"--schema={schema}", url],
        stdout=subprocess.PIPE,
        check=True,
    )
    # Without what is for psql, and for the session.
    around = ("--", "SET ", "SELECT pg_catalog.set_config", "\\")
    return [
        line for line in said.stdout.decode().splitlines() if line and not line.startswith(around)
    ]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server that all tests share. Where there is none, the test is skipped."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with PostgresServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A server that tests may kill, and start again."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with PostgresServer() as server:
        yield server
