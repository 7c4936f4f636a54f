"""Do the tests notice when the code is broken? `python proof/mutants.py` breaks it, and looks.

Each `Mutant` is one small breakage with a name. One at a time they are applied to a copy of `src/`
in a temporary folder, and the tests run on that copy until the first fails (then the mutant is
killed) or all have passed (then it has survived: a hole in the tests). A test that hangs counts as
failing. The copy without any breakage comes first: if that fails, the others would prove nothing.

The exit status is 1 if a mutant survived whose `argued` does not say why no test can kill it.

Left out are `test_docs.py`, which is slow and executes what is not copied (the README, the docs,
the examples), and the test of this very list. The likely killers come first (`ORDER`, `FIRST`), and
those that start processes last.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = Path("src", "batchproxy")

# What is not named here comes after these.
ORDER = (
    "flights plan in_flight failures cancellation concurrency batches statistics cache misuse "
    "gaps loops properties sync surface processes"
)
FIRST = {
    "_cache.py": ["cache", "durable"],
    "_caller.py": ["concurrency"],
    "_durable.py": ["durable", "unwritten", "sharing"],
    "_fuse.py": ["fuse"],
    "_leases.py": ["sharing", "durable"],
    "_portal.py": ["sync", "sync_async", "gaps", "processes"],
    "_progress.py": ["progress"],
    "_slots.py": ["concurrency", "sync"],
    "_stored.py": ["durable", "unwritten", "sharing", "races"],
    "_sync.py": ["sync", "sync_async", "gaps", "processes"],
    "_values.py": ["cache", "plan"],
    "_workers.py": ["unwritten"],
}
LEFT_OUT = "test_docs.py"
OF_THIS_LIST = "tests/test_gaps.py::test_every_mutant_applies_to_todays_source"
SECONDS_PER_TEST = 20
SECONDS_PER_RUN = 240

# The tests must import the copy, wherever else the package is installed.
GUARD = """\
import pathlib

import batchproxy

if not pathlib.Path(batchproxy.__file__).is_relative_to(pathlib.Path(__file__).parent / "src"):
    raise ImportError(f"the tests would import {batchproxy.__file__}")
"""


@dataclass(frozen=True)
class Mutant:
    """One breakage: in `file`, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    argued: str = ""
    """Why no test can kill it, if none can."""

    def occurrences(self) -> int:
        """How often `old` is found in today's source: once, or the mutant is stale."""
        return (ROOT / SOURCE / self.file).read_text("utf-8").count(self.old)


MUTANTS = [
    # --- The engine: slots and claims ---
    Mutant(
        "the slot of a call is never given back",
        "_engine.py",
        "            flight.slot.release(flight.slot)\n",
        "            pass\n",
    ),
    Mutant(
        "hold the claim while waiting for a slot",
        "_engine.py",
        """\
                        if plan.left and not table.look(plan, self._size):
                            break
                        await flight.slot.acquire()
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    continue
                if self._stored is None:
                    if not self._claim(plan, flight):
""",
        """\
                        if not self._claim(plan, flight):
                            break
                        await flight.slot.acquire()
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    continue
                if self._stored is None:
                    if not (flight.keys or self._claim(plan, flight)):
""",
    ),
    Mutant(
        "wait for a slot without looking whether it is needed",
        "_engine.py",
        """\
                        if plan.left and not table.look(plan, self._size):
                            break
""",
        "",
    ),
    Mutant(
        "make the next call without looking what has ended",
        "_engine.py",
        """\
                if plan.awaited:
                    plan.take_awaited()
                if plan.over:
                    continue
""",
        "                if plan.over:\n                    continue\n",
    ),
    Mutant(
        "make another call although the map() is over",
        "_engine.py",
        "                if plan.over:\n                    continue\n",
        "",
    ),
    Mutant(
        "claim without the lock",
        "_engine.py",
        """\
        with self._table.flights.lock:
            if not self._table.claim(""",
        """\
        if True:
            if not self._table.claim(""",
    ),
    Mutant(
        "settle without the lock",
        "_engine.py",
        """\
        with self._table.flights.lock:
            self._table.settle(flight)
""",
        """\
        if True:
            self._table.settle(flight)
""",
    ),
    Mutant(
        "always call in as many tasks as may run",
        "_engine.py",
        "min(math.ceil(plan.left / self._size), self._most_tasks)",
        "self._most_tasks",
    ),
    # --- The engine: checkpoints ---
    Mutant(
        "no checkpoint between calls",
        "_engine.py",
        """\
        while (plan.left or (plan.asking is not None and plan.asking.flight)) and not plan.over:
            await checkpoint()
""",
        "        while plan.left and not plan.over:\n",
    ),
    Mutant(
        "no checkpoint if everything came to be known in between",
        "_engine.py",
        "            await checkpoint()  # the only one here\n",
        "            pass\n",
    ),
    Mutant(
        "no checkpoint if the call ended before one slept",
        "_engine.py",
        """\
            else:  # somebody was quicker
                await checkpoint()
""",
        "",
    ),
    # --- The engine: cancellations, interrupts, failures ---
    Mutant(
        "the other calls of a map() run on after a failure",
        "_engine.py",
        "if ended_by or (plan.over and caller.interruptible):",
        "if ended_by:",
    ),
    Mutant(
        "a failure gives up the calls in worker threads too",
        "_engine.py",
        "if ended_by or (plan.over and caller.interruptible):",
        "if ended_by or plan.over:",
    ),
    Mutant(
        "swallow a cancellation that comes out of the function",
        "_engine.py",
        "if not (is_cancellation(error) and group.cancel_scope.cancel_called):",
        "if not is_cancellation(error):",
    ),
    Mutant(
        "on trio a cancellation is lost with the tasks of a map()",
        "_engine.py",
        "                await checkpoint_if_cancelled()\n",
        "                pass\n",
    ),
    Mutant(
        "swallow a cancellation of the task that waits for the calls",
        "_engine.py",
        "            ended_by.append(host_error)\n",
        "            pass\n",
    ),
    Mutant(
        "swallow a cancellation before the first step of a task",
        "_engine.py",
        "if not ended_by and not plan.over and group.cancel_scope.cancel_called:",
        "if False:",
    ),
    Mutant(
        "raise an exception group",
        "_engine.py",
        "ended_by.extend(group_error.exceptions)",
        "ended_by.append(group_error)",
    ),
    Mutant(
        "raise the first of several exceptions, however grave the others",
        "_engine.py",
        "min(ended_by, key=_gravity)",
        "ended_by[0]",
    ),
    Mutant(
        "an error comes before a cancellation",
        "_engine.py",
        "return 2 if isinstance(error, Exception) else 1",
        "return 1 if isinstance(error, Exception) else 2",
    ),
    Mutant(
        "an interrupt cuts the releases short",
        "_engine.py",
        "            while plan.running:\n",
        "            while False:\n",
    ),
    Mutant(
        "one more interrupt cuts the releases short",
        "_engine.py",
        """\
                with suppress(KeyboardInterrupt):
                    self._release(""",
        """\
                if True:
                    self._release(""",
    ),
    Mutant(
        "share an error that was raised instead of a cancellation",
        "_engine.py",
        "if _in_clean_up(error):",
        "if False:",
    ),
    Mutant(
        "take a time limit of the function for a cancellation from outside",
        "_engine.py",
        """\
    if not is_being_cancelled():
        return False
""",
        "",
    ),
    Mutant(
        "follow a circular chain of contexts for ever",
        "_engine.py",
        "while context is not None and id(context) not in seen:",
        "while context is not None:",
    ),
    Mutant(
        "those who wait for a failing call make it again",
        "_engine.py",
        "            flight.failures = dict.fromkeys(flight.keys, outcome)\n",
        "",
    ),
    Mutant(
        "cache an error",
        "_engine.py",
        "            flight.failures = dict.fromkeys(flight.keys, outcome)\n",
        """\
            flight.failures = dict.fromkeys(flight.keys, outcome)
            self._table._values.store(flight.keys, [outcome.error] * len(flight.keys))
""",
    ),
    Mutant(
        "the failure of an item does not fail its map()",
        "_engine.py",
        "                        plan.fail(next(iter(flight.failures.values())))\n",
        "                        pass\n",
    ),
    Mutant(
        "a traceback grows from caller to caller",
        "_engine.py",
        "raise error.with_traceback(traceback)",
        "raise error",
    ),
    Mutant(
        "leave a cycle of an exception and its frame behind",
        "_engine.py",
        "del error, traceback  # this frame",
        "pass  # this frame",
    ),
    Mutant(
        "the frames of a call keep its outcome",
        "_engine.py",
        "                del flight, outcome  # as `Plan.forget`\n            caller.tell",
        "            caller.tell",
    ),
    Mutant(
        "the plan of a map() that failed keeps the failure",
        "_engine.py",
        "            plan.forget()\n            try:\n",
        "            try:\n",
    ),
    Mutant(
        "the plan of a map() that was ended by a ring keeps the calls that it waited for",
        "_engine.py",
        "        except BaseException:\n            plan.forget()\n            raise\n",
        "        except BaseException:\n            raise\n",
    ),
    Mutant(
        "the plan of a map() that returned exceptions keeps them",
        "_engine.py",
        "            plan.forget()\n        return answers\n",
        "            pass\n        return answers\n",
    ),
    Mutant(
        "who called a map() keeps the call that it was nested in",
        "_engine.py",
        "            caller.blocked.clear()  #",
        "            pass  #",
    ),
    Mutant(
        "a ring keeps the calls that it was waiting for",
        "_engine.py",
        "            del flights  # as",
        "            pass  # as",
    ),
    # --- The engine: rings, sleeping, counting, closing ---
    Mutant(
        "rings are not looked for when a map() begins",
        "_engine.py",
        "            _rings.check(caller.blocked, plan.awaited)\n",
        "            pass\n",
    ),
    Mutant(
        "rings are not looked for before sleeping",
        "_engine.py",
        "_rings.block_checked(wake, caller.blocked, awaited)",
        "_rings.block(wake, caller.blocked, awaited)",
    ),
    Mutant(
        "nobody notes what a sleeper waits for",
        "_engine.py",
        "_rings.block_checked(wake, caller.blocked, awaited)",
        "_rings.check(caller.blocked, awaited)",
    ),
    Mutant(
        "nobody notes that a call is blocked on those nested in it",
        "_engine.py",
        "            _rings.block(flight, caller.blocked, (flight,))\n",
        "            pass\n",
    ),
    Mutant(
        "a nested call that has ended still blocks",
        "_engine.py",
        "            _rings.unblock(flight, caller.blocked)\n",
        "            pass\n",
    ),
    Mutant(
        "a sleeper that has left still waits in the rings",
        "_engine.py",
        "            _rings.unblock(wake, caller.blocked)\n",
        "            pass\n",
    ),
    Mutant(
        "a nested map() knows only the innermost call around it",
        "_caller.py",
        "            yield flight\n        nest = nest.outer\n",
        "            yield flight\n        break\n",
    ),
    Mutant(
        "a task left behind is blocked on nothing but the call that left it",
        "_caller.py",
        " or not flight.in_progress)",
        ")",
    ),
    Mutant(
        "a task left behind remembers all the calls that it was ever inside of",
        "_caller.py",
        "            nest.outer = _under_way(nest.outer)\n",
        "",
    ),
    Mutant(
        "sleep although the call has ended",
        "_engine.py",
        """\
            if self._table.flights.join(flights, wake):
""",
        """\
            if self._table.flights.join(flights, wake) or True:
""",
    ),
    Mutant(
        "who leaves is still among those who wait",
        "_engine.py",
        "            self._table.flights.leave(flights, wake)\n",
        "",
    ),
    Mutant(
        "a failed call counts as completed",
        "_engine.py",
        "                self._failed += 1\n",
        "                self._completed += 1\n",
    ),
    Mutant(
        "items that failed count as computed",
        "_engine.py",
        "self._computed += len(flight.results) - len(flight.failures)",
        "self._computed += len(flight.results)",
    ),
    Mutant(
        "a child process counts the calls of its parent as running",
        "_engine.py",
        "sum(not flight.done for flight in self._running.copy())",
        "len(self._running)",
    ),
    Mutant(
        "the counts of hits are never added up until somebody asks",
        "_engine.py",
        "if len(self._returned) > 1000:",
        "if False:",
    ),
    Mutant(
        "a closed proxy goes on",
        "_engine.py",
        "        if self.closed:\n",
        "        if False:\n",
    ),
    Mutant(
        "read the answers back from the cache instead of the flights",
        "_engine.py",
        "        answers = plan.deliver()\n",
        "        answers = [self._table._values.known([key])[key] for key in plan.keys]\n",
    ),
    Mutant(
        "prefer what is in the cache by now to what the call gave",
        "_engine.py",
        "        answers = plan.deliver()\n",
        "        answers = self._table.lookup(plan.keys) or plan.deliver()\n",
    ),
    # --- Flights ---
    Mutant(
        "drop a release",
        "_flights.py",
        """\
            for key in current:
                del table[key]
        flight.done""",
        "            pass\n        flight.done",
    ),
    Mutant(
        "a call that has ended is not done",
        "_flights.py",
        "                del table[key]\n        flight.done = True\n",
        "                del table[key]\n",
    ),
    Mutant(
        "clear the table of flights although others are in flight",
        "_flights.py",
        "if len(current) == len(table):",
        "if True:",
    ),
    Mutant(
        "release whatever is under the key now, not one's own claim",
        "_flights.py",
        "if table.get(key) is flight]",
        "if key in table]",
    ),
    Mutant(
        "a late failure releases a newer claim",
        "_flights.py",
        """\
                flight.intact = False
                del self._table[key]
""",
        "                del self._table[key]\n",
    ),
    Mutant(
        "forget nothing of what is under way",
        "_flights.py",
        """\
                flight.intact = False
                del self._table[key]
""",
        "                pass\n",
    ),
    Mutant(
        "a claim that was cut short takes itself for whole",
        "_flights.py",
        "        self.intact = False  # whether",
        "        self.intact = True  # whether",
    ),
    Mutant(
        "a claim that is cut short does not know its keys",
        "_flights.py",
        """\
        flight.keys = keys  # before the table, so that end() finds them whatever happens
        table = self._table
        for key in keys:
            table[key] = flight
""",
        """\
        table = self._table
        for key in keys:
            table[key] = flight
        flight.keys = keys
""",
    ),
    Mutant(
        "wait for a call of a closed loop",
        "_flights.py",
        "if flight.home is not None and is_closed(flight.home):",
        "if False:",
    ),
    Mutant(
        "wake one waiter only",
        "_flights.py",
        "                wake()\n            flight.waiters.clear()\n",
        "                wake()\n                break\n            flight.waiters.clear()\n",
    ),
    Mutant(
        "wake nobody",
        "_flights.py",
        "        if flight.waiters:\n",
        "        if False:\n",
    ),
    Mutant(
        "wake with the lock held",
        "_flights.py",
        "                wake()\n            flight.waiters.clear()\n",
        """\
                with self.lock:
                    wake()
            flight.waiters.clear()
""",
    ),
    Mutant(
        "wake only if the release was not cut short",
        "_flights.py",
        """\
                self.release(flight)
        if flight.hold""",
        """\
                self.release(flight)
        else:
            return
        if flight.hold""",
    ),
    Mutant(
        "drop the lock",
        "_flights.py",
        """\
        self.lock = RLock()
        self._table: """,
        """\
        self.lock = __import__("contextlib").nullcontext()
        self._table: """,
    ),
    Mutant(
        "the lock is not re-entrant",
        "_flights.py",
        """\
        self.lock = RLock()
        self._table: """,
        """\
        self.lock = __import__("threading").Lock()
        self._table: """,
    ),
    Mutant(
        "a child process keeps the lock of a thread that is gone",
        "_flights.py",
        """\
        self.lock = RLock()
        for flight""",
        "        for flight",
    ),
    Mutant(
        "a child process waits for calls of its parent",
        "_flights.py",
        """\
            flight.done = True
        self._table = {}
""",
        "            pass\n",
    ),
    # --- The table ---
    Mutant(
        "skip the re-check at the claim",
        "_table.py",
        """\
        batch = self._next_batch(plan, size)
        if not batch:
            return False
""",
        """\
        batch = plan.draw(size)
        if not batch:
            return False
""",
    ),
    Mutant(
        "the claim does not check the cache again",
        "_table.py",
        "        batch = self._missing(plan, drawn, self._values.known(drawn))\n",
        "        batch = self._missing(plan, drawn, {})\n",
    ),
    Mutant(
        "what fills a batch up is not checked against the cache",
        "_table.py",
        "batch += self._missing(plan, drawn, self._values.known(drawn))",
        "batch += self._missing(plan, drawn, {})",
    ),
    Mutant(
        "what fills a batch up is not checked at all",
        "_table.py",
        "batch += self._missing(plan, drawn, self._values.known(drawn))",
        "batch += drawn",
    ),
    Mutant(
        "batches are thinned by what is known",
        "_table.py",
        "while plan.left and len(batch) < size:",
        "while plan.left and not batch:",
    ),
    Mutant(
        "a look loses the keys that it drew",
        "_table.py",
        "            plan.draw_back(batch)\n",
        "",
    ),
    Mutant(
        "cache the error of an item",
        "_table.py",
        "if flight.failures or flight.unkept or",
        "if flight.unkept or",
    ),
    Mutant(
        "one failed item keeps its neighbours out of the cache",
        "_table.py",
        "            keys = [key for key in current if key in values and key not in unkept]\n",
        "            keys = []\n",
    ),
    Mutant(
        "keep what was forgotten during its call",
        "_table.py",
        "flight.unkept or not flight.intact:",
        "flight.unkept:",
    ),
    Mutant(
        "keep what is never found again",
        "_table.py",
        " if key in values and key not in unkept]",
        " if key in values]",
    ),
    Mutant(
        "every NaN is a key of its own",
        "_keys.py",
        "parts.append(_NAN if isinstance",
        "parts.append(part if isinstance",
    ),
    Mutant(
        "a tuple is looked at from outside only",
        "_keys.py",
        "            rest += part\n",
        "            pass\n",
    ),
    Mutant(
        "a mapping is by key only",
        "_engine.py",
        "check_answer(outcome, flight.keys, plan.items_of)",
        "check_answer(outcome, flight.keys)",
    ),
    Mutant(
        "coroutines are results",
        "_plan.py",
        'hasattr(kind, "__await__")',
        "False",
    ),
    Mutant(
        "calls under way overwrite what was primed",
        "_table.py",
        "            self.flights.forget(answers)\n",
        "",
    ),
    Mutant(
        "invalidate() forgets values only",
        "_table.py",
        "            self.flights.forget(keys)\n",
        "",
    ),
    Mutant(
        "clear() forgets values only",
        "_table.py",
        "            self.flights.forget_all()\n",
        "",
    ),
    Mutant(
        "clear() forgets calls only",
        "_table.py",
        "            self._values.clear()\n",
        "",
    ),
    Mutant(
        "what a map() finds that computes the rest does not count as used",
        "_table.py",
        "                self._values.use(list(known))\n",
        "                pass\n",
    ),
    Mutant(
        "what a map() finds that computes nothing does not count as used",
        "_table.py",
        "                self._values.use(keys)\n",
        "                pass\n",
    ),
    # --- Plans and answers ---
    Mutant(
        "forget the notes of further failures",
        "_plan.py",
        "            error.__notes__ = others + notes\n",
        "            pass\n",
    ),
    Mutant(
        "notes of one map() are added to those of another",
        "_plan.py",
        " if not _is_ours(note)]",
        "]",
    ),
    Mutant(
        "a note for every call that failed",
        "_plan.py",
        "if len(self._notes) < MOST_NOTES:",
        "if True:",
    ),
    Mutant(
        "raise the last failure instead of the first",
        "_plan.py",
        "if self.failure is None or (",
        "if True or (",
    ),
    Mutant(
        "an interrupt becomes a note of an error",
        "_plan.py",
        "(_ends_all(failure) and not _ends_all(self.failure))",
        "False",
    ),
    Mutant(
        "return_exceptions keeps an interrupt in the list",
        "_plan.py",
        "self.over = not self.keep_failures or _ends_all(failure)",
        "self.over = not self.keep_failures",
    ),
    Mutant(
        "deliver answers in claim order",
        "_plan.py",
        "if self._todo is self.keys and len(self._claimed) == len(self.keys):",
        "if len(self._claimed) == len(self.keys):",
    ),
    Mutant(
        "the answers of every call go to the same place",
        "_plan.py",
        "self._computed[flight.place : flight.place + len(results)] = results",
        "self._computed[: len(results)] = results",
    ),
    Mutant(
        "forget what is left when a call was given up",
        "_plan.py",
        """\
        while self.left:
            wanted.update(self.draw(self.left))
""",
        "",
    ),
    Mutant(
        "keys that were given up lose their place",
        "_plan.py",
        "[key for key in self.distinct if key in wanted]",
        "[key for key in reversed(self.distinct) if key in wanted]",
    ),
    Mutant(
        "who waits for a call that was given up gets None",
        "_plan.py",
        "                    lost.add(key)\n",
        "                    self._learned[key] = None\n",
    ),
    Mutant(
        "who waits for a failing call does not fail",
        "_plan.py",
        """\
                    if self.failure is None or _ends_all(failure):
                        self.fail(failure)
""",
        "",
    ),
    Mutant(
        "shared keys are not counted",
        "_plan.py",
        "                    self.shared += 1\n",
        "",
    ),
    Mutant(
        "equal items are sent twice",
        "_plan.py",
        "keys if len(distinct) == len(keys) else list(distinct)",
        "keys",
    ),
    Mutant(
        "send the last item of a key instead of the first",
        "_plan.py",
        "dict(zip(reversed(keys), reversed(items)))",
        "dict(zip(keys, items))",
    ),
    Mutant(
        "let the function change the keys of its call",
        "_plan.py",
        "return batch.copy() if firsts is None",
        "return batch if firsts is None",
    ),
    Mutant(
        "let the function change its answer later",
        "_plan.py",
        "    return list(answer)\n\n\ndef failures_in",
        "    return answer\n\n\ndef failures_in",
    ),
    Mutant(
        "let the caller change its items during the map()",
        "_plan.py",
        "        return list(items)\n",
        "        return items if isinstance(items, list) else list(items)\n",
    ),
    Mutant(
        "what is put back goes to the end",
        "_plan.py",
        "self._drawn_back[:0] = batch",
        "self._drawn_back += batch",
    ),
    Mutant(
        "believe the length that an answer claims",
        "_plan.py",
        "if not len(answer) == count == len(keys):",
        "if count != len(keys):",
    ),
    Mutant(
        "an interrupt is taken for a result",
        "_plan.py",
        "            if not issubclass(kind, Exception):\n",
        "            if False:\n",
    ),
    # --- Slots ---
    Mutant(
        "one call too many at a time",
        "_slots.py",
        "CapacityLimiter(self._total)",
        "CapacityLimiter(self._total + 1)",
    ),
    Mutant(
        "one limit for all event loops together",
        "_slots.py",
        """\
            return self._limiters[loop]
        except KeyError:
""",
        """\
            return next(iter(self._limiters.values()))
        except StopIteration:
""",
    ),
    Mutant(
        "nested calls take slots of their own",
        "_slots.py",
        "return Slot(limiter, flight.slot)",
        "return Slot(limiter, None)",
    ),
    Mutant(
        "nested calls do not take turns",
        "_slots.py",
        "self._lender = CapacityLimiter(1)",
        "self._lender = CapacityLimiter(100)",
    ),
    Mutant(
        "borrow a slot that was given back",
        "_slots.py",
        " and flight.slot.in_use:",
        ":",
    ),
    Mutant(
        "borrow a slot of another proxy",
        "_slots.py",
        " and flight.slot.limiter is limiter",
        "",
    ),
    Mutant(
        "a parent gives its slot away that a nested call waits for",
        "_slots.py",
        """\
            self.parent._borrowers[self._token] = self
        await""",
        """\
            pass
        await""",
    ),
    Mutant(
        "a parent gives its slot away that a nested call runs in",
        "_slots.py",
        """\
        if self.parent is not None:
            self.parent._borrowers[self._token] = self

""",
        "",
    ),
    Mutant(
        "a slot comes back although its thread still runs",
        "_slots.py",
        "            if slot._users:\n",
        "            if False:\n",
    ),
    Mutant(
        "a nested call never gives its parent's slot back",
        "_slots.py",
        "            holder, slot = slot._token, slot.parent\n",
        "            break\n",
    ),
    Mutant(
        "who was left behind keeps the slots of all who left it",
        "_slots.py",
        "                slot._leave_to_borrower()\n",
        "",
    ),
    Mutant(
        "a slot is left to one of several borrowers",
        "_slots.py",
        "        if len(self._borrowers) > 1:\n            return\n        [borrower] =",
        "        [borrower, *_] =",
    ),
    Mutant(
        "a call that takes the place of its parent is not known to those around it",
        "_slots.py",
        "            borrower,\n            self._source,\n",
        "            self,\n            self._source,\n",
    ),
    # --- Rings ---
    Mutant(
        "a call that has ended is a link of a ring",
        "_rings.py",
        "            if node.done:  #",
        "            if False:  #",
    ),
    Mutant(
        "calls do not need the loop that they live in",
        "_rings.py",
        "                ahead.append(node.home)\n",
        "                pass\n",
    ),
    Mutant(
        "see rings of two only",
        "_rings.py",
        "            ahead.extend(blockers)\n",
        "            if not set(nodes).isdisjoint(blockers):\n                return True\n",
    ),
    Mutant(
        "of two that close a ring at once neither sees it",
        "_rings.py",
        """\
    with _lock:
        check(nodes, awaited)
""",
        """\
    if True:
        check(nodes, awaited)
""",
    ),
    Mutant(
        "empty nodes stay in the graph",
        "_rings.py",
        "                _blocked.pop(node, None)\n",
        "                pass\n",
    ),
    Mutant(
        "a ring does not name its keys",
        "_rings.py",
        "CircularWaitError(_explain(ring))",
        "CircularWaitError(_explain(()))",
    ),
    # --- Values ---
    Mutant(
        "a bounded cache grows without a bound",
        "_values.py",
        "                    free -= 1\n",
        "                    pass\n",
    ),
    Mutant(
        "a list larger than the cache pushes itself out",
        "_values.py",
        "if last_asked_for is not None and last_asked_for < self._phase:",
        "if False:",
    ),
    Mutant(
        "what the last map() hit does not survive a new phase",
        "_values.py",
        "self._data.keys() & self._latest_hit",
        "set()",
    ),
    Mutant(
        "what had been hit is not taken back either",
        "_values.py",
        "if victim not in hit_before:",
        "if True:",
    ),
    Mutant(
        "the hits of what was dropped are kept",
        "_values.py",
        "        self._hit.difference_update(keys)\n",
        "",
    ),
    Mutant(
        "a bounded cache remembers all that ever left",
        "_values.py",
        "if len(gone) > 3 * self._max_size:",
        "if False:",
    ),
    Mutant(
        "a value stored anew keeps its old deadline's place",
        "_values.py",
        "            deadlines.pop(key, None)  # to its new place at the end\n",
        "            pass\n",
    ),
    Mutant(
        "a value lives on at its deadline",
        "_values.py",
        "deadlines[key] <= now",
        "deadlines[key] < now",
    ),
    Mutant(
        "what a bounded cache evicted keeps its deadline",
        "_values.py",
        "if len(deadlines) > 2 * len(inner) + 1000:",
        "if False:",
    ),
    Mutant(
        "a cleared cache keeps its deadlines",
        "_values.py",
        "        self._deadlines.clear()\n",
        "",
    ),
    Mutant(
        "None is a miss",
        "_values.py",
        "(value := get(key, MISSING)) is not MISSING",
        "(value := get(key)) is not None",
    ),
    Mutant(
        "None is a miss in the user's mapping",
        "_values.py",
        "                if value is not MISSING:\n",
        "                if value is not MISSING and value is not None:\n",
    ),
    Mutant(
        "an exception of the user's mapping ends the map()",
        "_values.py",
        "                failed.append(key)\n",
        "                raise\n",
    ),
    Mutant(
        "a mapping keeps half of a batch",
        "_values.py",
        "                    self._mapping.pop(key, None)\n\n    def drop",
        "                    pass\n\n    def drop",
    ),
    Mutant(
        "a defaultdict fills itself",
        "_values.py",
        "self._mapping.get(key, MISSING)",
        "self._mapping[key] if hasattr(self._mapping, '__missing__') "
        "else self._mapping.get(key, MISSING)",
    ),
    # --- The asynchronous face ---
    Mutant(
        "hits are no checkpoint",
        "_async.py",
        "            await checkpoint()\n            engine.count",
        "            engine.count",
    ),
    Mutant(
        "clear() is no checkpoint",
        "_async.py",
        "            await anyio.to_thread.run_sync(cache.clear)\n        await checkpoint()\n",
        "            await anyio.to_thread.run_sync(cache.clear)\n",
    ),
    Mutant(
        "a call forgets the calls that it is nested in",
        "_async.py",
        "innermost.set(Nest(flight, self.nest))",
        "innermost.set(Nest(flight, None))",
    ),
    Mutant(
        "a task left behind keeps the results of its call alive",
        "_caller.py",
        "        self.flight = ref(flight)\n",
        "        self.flight = lambda: flight\n",
    ),
    Mutant(
        "after a map() its caller seems to be inside the call",
        "_async.py",
        "                innermost.reset(outside)\n",
        "                pass\n",
    ),
    Mutant(
        "calls live in no loop",
        "_async.py",
        "_InTask(map_func, loop, home=loop, ",
        "_InTask(map_func, loop, ",
    ),
    # --- The synchronous face ---
    Mutant(
        "an interrupt in a function reaches the portal",
        "_sync.py",
        "        except BaseException as error:\n            return Failure",
        "        except Exception as error:\n            return Failure",
    ),
    Mutant(
        "after a synchronous call its thread seems to be inside it",
        "_sync.py",
        "            innermost.reset(token)\n",
        "            pass\n",
    ),
    Mutant(
        "the answer of a calling thread is not posted",
        "_sync.py",
        "            self._portal_call.portal.post(answered.set)\n",
        "",
    ),
    Mutant(
        "nobody knows which loop a synchronous map() holds up",
        "_sync.py",
        ", holding=running_loop(), ",
        ", ",
    ),
    Mutant(
        "the slot of a worker thread is free before the thread is",
        "_sync.py",
        "        slot.hold(answered)\n",
        "",
    ),
    Mutant(
        "a worker thread never gives its slot back",
        "_sync.py",
        "                slot.release(answered)\n",
        "",
    ),
    Mutant(
        "workers share one context",
        "_sync.py",
        "context = self._context.copy()",
        "context = self._context",
    ),
    Mutant(
        "workers take threads from the application's limit",
        "_sync.py",
        "job, limiter=portal.threads",
        "job",
    ),
    Mutant(
        "a worker believes that it runs in the caller's loop",
        "_sync.py",
        'context.run(sys.modules["sniffio"].current_async_library_cvar.set, None)',
        "pass",
    ),
    Mutant(
        "an asynchronous function is called as if it were not",
        "_sync.py",
        "        if is_async(map_func):\n",
        "        if False:\n",
    ),
    Mutant(
        "what a thread answers is not awaited",
        "_sync.py",
        "            answer = await answer\n",
        "            pass\n",
    ),
    Mutant(
        "what is awaited for a thread is in no call",
        "_sync.py",
        "            innermost.set(nest)\n",
        "",
    ),
    Mutant(
        "an asynchronous call in the portal is in no call",
        "_sync.py",
        "        innermost.set(Nest(flight, self.nest))  # until",
        "        pass  # until",
    ),
    Mutant(
        "a coroutine that comes too late is forgotten",
        "_sync.py",
        "                            answer.close()  # it",
        "                            pass  # it",
    ),
    # --- The portal ---
    Mutant(
        "a task in the portal takes the caller's event loop for its own",
        "_portal.py",
        "            context.run(variable.set, value)\n",
        "            pass\n",
    ),
    Mutant(
        "a task in the portal has none of the caller's context variables",
        "_portal.py",
        "        context.run(self.portal.tasks.start_soon, self._main",
        "        self.portal.tasks.start_soon(self._main",
    ),
    Mutant(
        "forget the portal call's cancellation",
        "_portal.py",
        "                    self.portal.post(self._cancel)\n",
        "",
    ),
    Mutant(
        "an interrupt while cancelling loses the cancellation",
        "_portal.py",
        """\
                with suppress(KeyboardInterrupt):
                    self.portal.post(self._cancel)
""",
        """\
                if True:
                    self.portal.post(self._cancel)
""",
    ),
    Mutant(
        "post before registering",
        "_portal.py",
        """\
        self.portal.calls.add(self)
        try:
            self.portal.post(partial(self._start, copy_context(), work, *args))
""",
        """\
        try:
            self.portal.post(partial(self._start, copy_context(), work, *args))
            self.portal.calls.add(self)
""",
    ),
    Mutant(
        "calls that have ended stay registered",
        "_portal.py",
        "            self.portal.calls.discard(self)\n",
        "            pass\n",
    ),
    Mutant(
        "begin the work although it was cancelled before",
        "_portal.py",
        "                if not self._cancelled:\n",
        "                if True:\n",
    ),
    Mutant(
        "an interrupted map() does not wait until its keys are free",
        "_portal.py",
        "            while self._receive() is not None:  # a second Ctrl-C leaves at once\n",
        "            while False:\n",
    ),
    Mutant(
        "an interrupt that takes the last word along hangs",
        "_portal.py",
        "            self.end()  # once more",
        "            pass  # once more",
    ),
    Mutant(
        "an interrupt before the start hangs",
        "_portal.py",
        "elif self._ended or not self._started:",
        "elif self._ended:",
    ),
    Mutant(
        "a blocked main thread does not look for Ctrl-C",
        "_portal.py",
        "_SLICE if threading.current_thread() is threading.main_thread() else None",
        "None",
    ),
    Mutant(
        "nobody starts another portal when one has died",
        "_portal.py",
        "if portal is None or portal.dead:",
        "if portal is None:",
    ),
    Mutant(
        "a portal that is dying is used",
        "_portal.py",
        "                self.dead = True  # though",
        "                pass  # though",
    ),
    Mutant(
        "a portal that dies tells nobody",
        "_portal.py",
        "                call.end()\n",
        "                pass\n",
    ),
    Mutant(
        "a map() whose portal died returns",
        "_portal.py",
        "        if not self._finished:\n            raise PortalError(_DEATH)\n",
        "",
    ),
    Mutant(
        "wait for a bell that has rung",
        "_portal.py",
        "            while not self._ready:  # it may",
        "            if True:  # it may",
    ),
    Mutant(
        "a map() in the portal's own thread blocks it",
        "_portal.py",
        "        if threading.current_thread() is self._thread:\n",
        "        if False:\n",
    ),
    Mutant(
        "a child process uses the portal of its parent",
        "_portal.py",
        "        portal.forked = True\n    _portals.clear()\n",
        "        portal.forked = True\n",
    ),
    Mutant(
        "a map() that was forked waits for the portal of the parent",
        "_portal.py",
        "        portal.forked = True\n",
        "        pass\n",
    ),
    Mutant(
        "an unclosed proxy keeps the interpreter alive",
        "_portal.py",
        "            daemon=True,\n",
        "            daemon=False,\n",
    ),
    Mutant(
        "an error stays with the call that raised it",
        "_portal.py",
        "                self._error = None  # the traceback",
        "                pass  # the traceback",
    ),
    # --- Stores: the steps of a map() ---
    Mutant(
        "keys are free while their results are being written",
        "_flights.py",
        """\
                if flight.handed_over:
                    return
""",
        "",
    ),
    Mutant(
        "values that expire are kept in memory",
        "_stored.py",
        "self._keep = durable.ttl is None",
        "self._keep = True",
    ),
    Mutant(
        "claims that nobody waits for stay",
        "_stored.py",
        """\
            if flight.done and flight.hold is not None:
                flight.hold.release()  # whoever asked has left
""",
        "            pass\n",
    ),
    Mutant(
        "claims of failed items stay",
        "_flights.py",
        """\
        if flight.hold is not None:
            flight.hold.release()
""",
        "",
    ),
    Mutant(
        "who leaves before its results are written tells of them",
        "_stored.py",
        "        flight.results, flight.failures = [], {}\n",
        "",
    ),
    Mutant(
        "a call is made although one that was waited for has failed meanwhile",
        "_stored.py",
        """\
            if plan.awaited:
                plan.take_awaited()  # they may have failed meanwhile
""",
        "",
    ),
    Mutant(
        "a failed write is put into the list",
        "_stored.py",
        "refused = dict.fromkeys(flight.keys, published.failure)",
        "refused = dict.fromkeys(flight.keys, Failure(*published.failure))",
    ),
    Mutant(
        "pauses grow without end",
        "_stored.py",
        "1.5 ** min(polls, 10)",
        "1.5**polls",
    ),
    Mutant(
        "keys of other processes thin a batch",
        "_stored.py",
        "while (wanted := size - len(flight.keys)) and not plan.over:",
        "while (wanted := size - len(flight.keys)) == size and not plan.over:",
    ),
    Mutant(
        "no more keys are asked for at once, however many others hold",
        "_stored.py",
        "asking.size = 0 if full else min(2 * len(asked.keys), WINDOW)",
        "asking.size = 0",
    ),
    Mutant(
        "keys that were asked for in vain are lost",
        "_stored.py",
        "plan.draw_back([key for key in asked.keys if got and key not in got])",
        "pass",
    ),
    Mutant(
        "a store that answers nothing is asked without pause",
        "_stored.py",
        "asking.hold(claimed.held if got else asked.keys)",
        "asking.hold(claimed.held)",
    ),
    Mutant(
        "what was forgotten during its call is written",
        "_stored.py",
        "current = self._table.flights.current(flight)",
        "current = flight.keys",
    ),
    Mutant(
        "what cannot be written is lost",
        "_durable.py",
        """\
        except BaseException as error:
            self._keep_unwritten(encoded)
""",
        """\
        except BaseException as error:
""",
    ),
    Mutant(
        "who waits is told what could not be written",
        "_stored.py",
        "if published.failure is not None:",
        "if False:",
    ),
    Mutant(
        "the results of others are not adopted",
        "_stored.py",
        "flight.correct(published.adopted, refused)",
        "flight.correct({}, refused)",
    ),
    Mutant(
        "tasks of a map() ask for their keys all at once",
        "_stored.py",
        "        async with asking.lock:\n",
        "        if True:\n",
    ),
    Mutant(
        "who met keys that are asked for does not follow them into the call",
        "_flights.py",
        "source.moved = (target, frozenset(keys))",
        "source.moved = None",
    ),
    Mutant(
        "keys are free between asking and calling",
        "_flights.py",
        """\
        if source.intact:
            table.update(dict.fromkeys(keys, target))
""",
        """\
        if source.intact:
            pass
""",
    ),
    Mutant(
        "a map() is not told of a store's values found before its call",
        "_stored.py",
        "                plan.learn_stored(claimed.values)\n",
        "                pass\n",
    ),
    Mutant(
        "nothing is looked up before the first call",
        "_engine.py",
        """\
                await self._read(plan, caller)
            while not""",
        "            while not",
    ),
    Mutant(
        "what other processes compute is not waited for",
        "_engine.py",
        "if plan.over or not (plan.awaited or held):",
        "if plan.over or not plan.awaited:",
    ),
    Mutant(
        "other processes are asked again without pause",
        "_engine.py",
        "anyio.move_on_after(pause(plan.asking.polls))",
        "anyio.move_on_after(0)",
        "it only costs processor time",
    ),
    Mutant(
        "a store that fails while others call raises at once",
        "_engine.py",
        """\
            plan.fail(claimed)  # not raised here: calls that cannot be cancelled shall end
""",
        "            raise claimed.error\n",
    ),
    Mutant(
        "the last snapshot is missing",
        "_engine.py",
        "                caller.tell(plan)\n                held =",
        "                held =",
    ),
    # --- Stores: names, bytes, policy ---
    Mutant(
        "forgetting does not wait for what is being written",
        "_durable.py",
        "                while self._writing:\n                    self._changed.wait()\n",
        "                pass\n",
    ),
    Mutant(
        "writing does not wait for what is being forgotten",
        "_durable.py",
        "            while self._forgetting:\n                self._changed.wait()\n",
        "",
    ),
    Mutant(
        "an unreadable value is never replaced",
        "_durable.py",
        """\
                hold.store.discard_many(self._namespace, unreadable)
                if left""",
        "                if left",
    ),
    Mutant(
        "unwritten results are not found",
        "_durable.py",
        """\
            self._write_wanted(by_name)
            stored = self.store.get_many(self._namespace, list(by_name))
            return self""",
        """\
            stored = self.store.get_many(self._namespace, list(by_name))
            return self""",
    ),
    Mutant(
        "unwritten results are never written",
        "_durable.py",
        "self._retry.end(attempt, worked=self._write_all())",
        "self._retry.end(attempt, worked=True)",
    ),
    Mutant(
        "every failure of a store is logged",
        "_durable.py",
        "            self._said = now\n",
        "",
    ),
    Mutant(
        "forgetting follows the policy",
        "_durable.py",
        """\
        with _StoreErrors("written"):
            self.store.delete_many(self._namespace, names)
""",
        """\
        try:
            with _StoreErrors("written"):
                self.store.delete_many(self._namespace, names)
        except StoreError as error:
            self._follow_policy(error)
""",
    ),
    Mutant(
        "what could not be written comes back after its time",
        "_durable.py",
        "if left is None or left > 0:",
        "if True:",
    ),
    Mutant(
        "claims whose answer was lost stay",
        "_durable.py",
        "hold.add(names)  # the store may have granted them, and only its answer was lost",
        "pass",
    ),
    Mutant(
        "what is being written at exit is lost",
        "_durable.py",
        "atexit.register(_finish_at_exit)\n",
        "",
    ),
    Mutant(
        "an interrupt leaves what is forgotten half done",
        "_durable.py",
        "        self.undisturbed(forgetting)\n",
        "        forgetting()\n",
    ),
    Mutant(
        "a child process claims in the name of its parent",
        "_durable.py",
        "        self._owner = Owner()  #",
        "        self._owner = getattr(self, '_owner', Owner())  #",
    ),
    Mutant(
        "a lease is never renewed",
        "_leases.py",
        "                store.heartbeat(hold.namespace, name)\n",
        "                pass\n",
    ),
    Mutant(
        "a lease is renewed once only",
        "_leases.py",
        "                    self._beats[name] = now + self._interval\n",
        "",
    ),
    Mutant(
        "claims are never given back",
        "_leases.py",
        "            store.release_many(release.namespace, list(release.keys), claimant)\n",
        "            pass\n",
    ),
    Mutant(
        "a store that stalls costs another its lease",
        "_leases.py",
        "        keepers, key = self._keepers, id(store)\n",
        "        keepers, key = self._keepers, 0\n",
    ),
    Mutant(
        "releases pile up behind a store that stalls",
        "_leases.py",
        "            if now - release.since > self._lease:\n",
        "            if False:\n",
    ),
    Mutant(
        "what could not be released in time is renewed for ever",
        "_leases.py",
        "                release.owner.retire(claimant.process)\n",
        "",
    ),
    Mutant(
        "a release is tried once only",
        "_leases.py",
        "            release.due, release.tried = now + self._interval, True\n",
        "            release.due, release.tried = now + 86_400, True\n",
    ),
    Mutant(
        "a thread stays for each store that was used",
        "_leases.py",
        "            if not due or self._store() is None:\n",
        "            due = due or [float('inf')]\n            if self._store() is None:\n",
    ),
    Mutant(
        "the lease of a call that has ended is renewed for ever",
        "_leases.py",
        "                self._process.end(self)\n",
        "                pass\n",
    ),
    Mutant(
        "a forked child gives back the claims of its parent",
        "_leases.py",
        """\
        if self._process is not _this:
            return  # this is a fork, and the claims are the parent's
""",
        "",
    ),
    Mutant(
        "claims that are granted late are not noted",
        "_leases.py",
        "            self.begin()\n            self._keys.update(keys)\n",
        "            if self._renewed:\n                self._keys.update(keys)\n",
    ),
    Mutant(
        "what was read while something is forgotten stays in memory",
        "_cache.py",
        "        self._table.invalidate(keys)  # what was read in the meantime\n",
        "",
    ),
    Mutant(
        "what was primed can be overwritten by calls under way",
        "_cache.py",
        "self._table.invalidate(answers)  # no call under way may write its own any more",
        "pass",
        "prime() of the table forgets them, too, and until then nobody writes",
    ),
    Mutant(
        "a progress function that raises is called again",
        "_progress.py",
        "            self._report = None  # first",
        "            pass  # first",
    ),
    Mutant(
        "a synchronous caller is told in the portal",
        "_sync.py",
        "        self._portal_call.ask(partial(reporting, now))\n",
        "        reporting(now)\n",
    ),
    Mutant(
        "results wait for a thread and belong to nobody",
        "_stored.py",
        "        job.take_over()\n",
        "",
    ),
    Mutant(
        "the end of the process does not wait for results that wait for a thread",
        "_durable.py",
        "            self._pending.add(flight)\n",
        "            pass\n",
    ),
    Mutant(
        "who claims does not look at what could not be written",
        "_durable.py",
        """\
            self._write_wanted(by_name)
            if hold is None:""",
        "            if hold is None:",
    ),
    Mutant(
        "a store that failed is asked every time",
        "_fuse.py",
        "                if now < self._next:",
        "                if False:",
    ),
    Mutant(
        "a store that failed is left alone for ever",
        "_fuse.py",
        "            self._next = now + self._pause\n",
        "            self._next = math.inf\n",
    ),
    Mutant(
        "a store that works again is not believed",
        "_fuse.py",
        "                self._pause = 0.0\n                return",
        "                return",
    ),
    Mutant(
        "calls that fail together count each",
        "_fuse.py",
        "            if attempt.blown != self._blown:",
        "            if False:",
    ),
    Mutant(
        "every job starts a thread",
        "_workers.py",
        "if state.threads < min(self._most, state.jobs):",
        "if True:",
    ),
    Mutant(
        "a value that is too large is written",
        "_durable.py",
        "if len(data) > self.store.max_value_size:",
        "if False:",
    ),
    Mutant(
        "the first write that fails ends the writing of all",
        "_durable.py",
        "_TRIES = 3",
        "_TRIES = 1",
    ),
    Mutant(
        "other caches of the process are not seen in a ring",
        "_engine.py",
        "awaited = {**self._stored.elsewhere(plan.asking), **awaited}",
        "pass",
    ),
    Mutant(
        "an interrupt leaves results to nobody",
        "_stored.py",
        "            if job.withdraw():  # and nobody will do it\n",
        "            if False:\n",
    ),
    Mutant(
        "what the writing raises is taken for an answer",
        "_stored.py",
        "            if isinstance(written, StoreFailure):\n                plan.fail(written)\n",
        "",
    ),
    Mutant(
        "a store that cannot be shared replaces what others published",
        "_durable.py",
        "                    del encoded[name]\n",
        "                    pass\n",
    ),
    Mutant(
        "what the store never takes comes first every time",
        "_durable.py",
        "self._unwritten[name] = self._unwritten.pop(name)",
        "pass",
    ),
]


def stale(mutants: Sequence[Mutant] = MUTANTS) -> list[str]:
    """What is wrong with the list itself, a line each: texts that changed, names used twice."""
    names = [mutant.name for mutant in mutants]
    complaints = [f"named twice: {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
    for mutant in mutants:
        if (count := mutant.occurrences()) != 1:
            complaints.append(f"stale: {mutant.name}: found {count} times in {mutant.file}")
        if mutant.old == mutant.new:
            complaints.append(f"breaks nothing: {mutant.name}")
    return complaints


# --- Running ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the tests said of one copy."""

    passed: bool
    last: str
    """The test that was running when they stopped: with -x, the one that failed or hung."""
    seconds: float
    output: str


def take_snapshot(folder: Path) -> None:
    """Copy what the tests need. Once: who edits a file meanwhile shall not mix up the mutants."""
    ignore = shutil.ignore_patterns("__pycache__", ".*", LEFT_OUT)
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "conftest.py").write_text(GUARD, "utf-8")


def files_of(folder: Path, mutant: Mutant | None) -> list[str]:
    """The files of tests, the likely killers first."""
    first = FIRST.get(mutant.file, []) if mutant is not None else []
    there = sorted(path.stem.removeprefix("test_") for path in (folder / "tests").glob("test_*.py"))
    order = dict.fromkeys([*first, *ORDER.split(), *there])
    return [f"tests/test_{name}.py" for name in order if name in there]


def run(snapshot: Path, mutant: Mutant | None) -> Outcome:
    """Run the tests on a copy of `snapshot`, broken by `mutant`, until one fails."""
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shutil.copytree(snapshot, folder, dirs_exist_ok=True)
        if mutant is not None:
            broken = folder / SOURCE / mutant.file
            broken.write_text(broken.read_text("utf-8").replace(mutant.old, mutant.new), "utf-8")
        command = [sys.executable, "-m", "pytest", "-n0", "-x", "-v", "-p", "no:cacheprovider"]
        command += [f"--timeout={SECONDS_PER_TEST}", "--hypothesis-seed=0"]
        command += [f"--deselect={OF_THIS_LIST}", *files_of(folder, mutant)]
        environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
        begin = time.monotonic()
        # Into a file: processes that a hanging test leaves behind would keep a pipe open.
        with (folder / "output").open("w+", encoding="utf-8", errors="replace") as output:
            tests = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | None = tests.wait(SECONDS_PER_RUN)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                try:
                    os.killpg(tests.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # nothing was left behind
                tests.wait()
            seconds = time.monotonic() - begin
            output.seek(0)
            text = output.read()
    if status == 4:  # of pytest: it could not begin
        raise RuntimeError(f"the tests did not run:\n{text}")
    started = re.findall(r"^tests/\w+\.py::\w+(?:\[.+?\](?= |$))?", text, re.MULTILINE)
    last = started[-1].removeprefix("tests/") if started else "while collecting"
    if status is None or "+ Timeout +" in text:
        last += " (hung)"
    return Outcome(status == 0, last, seconds, text)


def run_all(
    snapshot: Path, mutants: Sequence[Mutant], jobs: int
) -> Iterator[tuple[Mutant, Outcome]]:
    """Each mutant with its outcome, in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from zip(mutants, pool.map(partial(run, snapshot), mutants))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="mutants whose name contains one")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="copies at a time (1)")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in MUTANTS
        if not options.only or any(name in mutant.name for name in options.only)
    ]
    if not mutants:
        parser.error(f"no mutant is named {' or '.join(map(repr, options.only))}")
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}: {mutant.name}")
    if complaints := stale():
        print(*complaints, sep="\n", file=sys.stderr)
        return 1
    if options.list:
        return 0

    with tempfile.TemporaryDirectory(prefix="snapshot-") as name:
        take_snapshot(Path(name))
        return report(Path(name), mutants, options.jobs)


def report(snapshot: Path, mutants: Sequence[Mutant], jobs: int) -> int:
    """Run `mutants` and print what became of them; gives the exit status."""
    control = run(snapshot, None)
    if not control.passed:
        print(control.output, "the tests fail without any breakage", sep="\n", file=sys.stderr)
        return 1
    print(f"Without any breakage the tests pass in {control.seconds:.0f} seconds.\n")
    print("| what is broken | killed by | seconds |", "|---|---|--:|", sep="\n", flush=True)
    survived = argued = hung = 0
    for mutant, outcome in run_all(snapshot, mutants, jobs):
        killer = f"`{outcome.last}`"
        if outcome.passed:
            killer = f"survived: {mutant.argued}" if mutant.argued else "**survived**"
            argued += bool(mutant.argued)
            survived += not mutant.argued
        hung += outcome.last.endswith("(hung)")
        print(f"| {mutant.name} | {killer} | {outcome.seconds:.1f} |", flush=True)
    killed = len(mutants) - survived - argued
    print(
        f"\n{len(mutants)} mutants: {killed} killed ({hung} by a test that hung), "
        f"{argued} argued away, {survived} survived."
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
