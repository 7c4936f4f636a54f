"""Ctrl-C, SIGTERM and SIGHUP: the run ends in under a second, whatever its function is doing."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_PATIENCE = 0.5
"""Seconds between a signal and the end by force."""


class Interrupts:
    """While it is entered, these signals raise `KeyboardInterrupt` in the main thread.

    If that is not enough (a worker thread that blocks, code that catches everything), a thread that
    has been waiting for it ends the process. A second signal changes nothing.

    Args:
        last_words: What to do before the process ends, such as saying how to resume. Called once,
            in whichever thread.
    """

    def __init__(self, last_words: Callable[[], None]) -> None:
        self.litter: list[Path] = []
        """Files and directories that nobody needs once the process ends."""
        self.status = 0
        """The exit status that the signal stands for; 0 if there was none."""
        self._last_words = last_words
        self._process = os.getpid()
        self._spoken = threading.Lock()
        # Both are written to in the signal handler, for which a lock or an Event is not safe.
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # so for the children of nohup
                self._handlers[number] = signal.signal(number, self._handle)
        threading.Thread(target=self._watch, name="batchproxy watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.status:
            # The watchdog stays: threads that are no daemons would hold the interpreter.
            self.end()
            raise SystemExit(self.status)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._bell.put(False)

    def end(self) -> None:
        """Say the last words, if they were not said, and clean up."""
        if self._spoken.acquire(blocking=False):
            for path in self.litter:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            self._last_words()
            with suppress(OSError):  # of a terminal that was closed
                sys.stderr.flush()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that the function forked ends as it would
            signal.signal(number, self._handlers[number] or signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if not self.status:
            self.status = 128 + number
            self._bell.put(True)
            raise KeyboardInterrupt

    def _watch(self) -> None:
        if self._bell.get():
            try:
                self._bell.get(timeout=_PATIENCE)  # nothing comes
            except Empty:
                self.end()
                os._exit(self.status)
