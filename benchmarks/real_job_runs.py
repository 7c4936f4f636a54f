"""The runs of `real_job.py`: a new service, and a process that does the job in one way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from real_job_service import TOKENS_A_SECOND
from real_job_texts import job

HERE = Path(__file__).parent


class Unfinished(Exception):
    """A way has not come to an end in its time."""


class Service:
    """One that is running, and has billed nothing yet."""

    def __init__(self, port: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.url = f"{self._url}/v1"

    def billed(self) -> int:
        return int(self._get("billed"))

    def counted(self) -> dict[str, Any]:
        return dict(self._get("counted"))

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/{what}") as reply:
            return json.load(reply)


@contextmanager
def service(seed: int) -> Iterator[Service]:
    command = [sys.executable, str(HERE / "real_job_service.py"), str(seed)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        yield Service(process.stdout.readline().strip())
    # Leaving the block has closed its standard input, which has ended it.


@contextmanager
def started(
    way: str, rows: int, seed: int, url: str, folder: str
) -> Iterator[subprocess.Popen[str]]:
    program = str(HERE / "real_job_run.py")
    command = [sys.executable, program, way, str(rows), str(seed), url, folder]
    with (
        open(Path(folder, "said"), "a") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], limit: float, folder: str) -> dict[str, Any]:
    """What a way says of itself at the end."""
    try:
        printed, _ = process.communicate(timeout=limit)
        answer = dict(json.loads(printed))
        if answer["raised"]:
            print(Path(folder, "said").read_text()[-500:], file=sys.stderr)
        return answer
    except (subprocess.TimeoutExpired, ValueError):
        print(Path(folder, "said").read_text()[-2_000:], file=sys.stderr)
        raise Unfinished from None


class Run(NamedTuple):
    """What came of a job, undisturbed and killed."""

    needed: int  # tokens
    wall: float
    bound: float
    requests: int
    throttled: int
    again: int  # tokens billed a second time
    reset: int  # tokens billed of which no answer came
    lost: int
    bad: int
    named: int
    paid_again: int  # tokens, since it was killed
    resumed: float  # seconds, from the second start
    peak: float  # MiB
    grown: float


def run(way: str, rows: int, seed: int) -> Run:
    needed = job(rows, seed).needed
    bound = max(0.1, needed / TOKENS_A_SECOND - 1)  # its bucket is full, with that of a second
    limit = 60 + 4 * bound
    with tempfile.TemporaryDirectory() as folder, service(seed) as provider:
        with started(way, rows, seed, provider.url, folder) as process:
            answer = ended(process, limit, folder)
        counted = provider.counted()
    with tempfile.TemporaryDirectory() as folder, service(seed) as provider:
        with started(way, rows, seed, provider.url, folder) as process:
            give_up = time.monotonic() + limit
            while provider.billed() < needed / 2 and time.monotonic() < give_up:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        with started(way, rows, seed, provider.url, folder) as process:
            resumed = ended(process, limit, folder)
        paid_again = provider.counted()["again"]
    return Run(
        needed,
        answer["wall"],
        bound,
        sum(counted["statuses"].values()),
        counted["statuses"].get("429", 0),
        counted["again"],
        counted["lost"],
        answer["lost"] + resumed["lost"],
        answer["bad"] + resumed["bad"],
        answer["named"] + resumed["named"],
        paid_again,
        resumed["wall"],
        answer["peak"] / 2**20,
        answer["grown"] / 2**20,
    )
