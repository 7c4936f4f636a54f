"""Breakages that make no difference that a test could notice, and why. For `mutants.py`.

Each is known by what it does: the qualified name of the function, the operator, the statement (as
`mutants.py --list` shows it: before, or `before => after` where several would fit), the reason.
"""

from __future__ import annotations

_FASTER = "it only saves time: what follows comes to the same"

NO_DIFFERENCE: list[tuple[str, str, str, str]] = [
    (
        "AsyncBatchingMapProxy.max_concurrency",
        "drop operand",
        ("return self._engine.max_concurrency or 1 => return self._engine.max_concurrency"),
        "for types only: it is always a number",
    ),
    (
        "at_fork",
        "decide",
        "if hasattr(os, 'register_at_fork'): => if True:",
        "only Windows has none, and there it would be an error at once",
    ),
    (
        "BackedClaims.claim",
        "decide",
        (
            "plan.learn({}, {key: onward for key in claimed.held if onward})"
            " => plan.learn({}, {key: onward for key in claimed.held})"
        ),
        "for types only: if any are held, there is one",
    ),
    (
        "BackedClaims._settle",
        "decide",
        "if published.adopted or refused: => if True:",
        _FASTER,
    ),
    ("Backing.claim.ask", "decide", "if unreadable: => if True:", _FASTER),
    ("Backing._close", "decide", "if self._unwritten.results: => if True:", _FASTER),
    (
        "Backing._write",
        "decide",
        "differing = {name: data for name, data in there.items() if data != encoded[name]}",
        _FASTER,
    ),
    ("Backing._write", "decide", "if not differing: => if False:", _FASTER),
    (
        "Bounded._begin_phase",
        "change constant",
        "self._phase += 1 => self._phase += 2",
        "phases are only compared with each other",
    ),
    (
        "Bounded._forget_history",
        "change constant",
        "self._phase = 0 => self._phase = 1",
        "phases are only compared with each other",
    ),
    (
        "Cache._over",
        "decide",
        (
            "cache._table = Table(Unbounded(mapping) if type(mapping) is dict else Mapped(mapping))"
            " => cache._table = Table(Unbounded(mapping) if False else Mapped(mapping))"
        ),
        _FASTER,
    ),
    (
        "_decimal",
        "change constant",
        "return b'm-inf' if number < 0 else b'minf' => return b'm-inf' if number < 1 else b'minf'",
        "it is infinite there",
    ),
    (
        "is_same",
        "drop operand",
        "if one is other or isinstance(one, Travels): => if isinstance(one, Travels):",
        _FASTER,
    ),
    ("unblock", "drop statement", "if not nodes: return", _FASTER),
    (
        "unequal",
        "decide",
        "if not any((issubclass(kind, tuple) for kind in kinds)): => if False:",
        _FASTER,
    ),
    (
        "_caused_by.__init__",
        "drop statement",
        "super().__init__(text)",
        "an exception has its text before that",
    ),
    ("check", "drop statement", "if not nodes: return", _FASTER),
    (
        "distinct",
        "decide",
        "if _NEVER_NULL.issuperset(map(type, values)): => if False:",
        _FASTER,
    ),
    ("Flight.answers", "decide", "if self._answers is None: => if True:", _FASTER),
    (
        "BackedClaims.__init__",
        "change constant",
        "self._turn = anyio.Lock(fast_acquire=True) => self._turn = anyio.Lock(fast_acquire=False)",
        _FASTER,
    ),
    (
        "BackedClaims.__init__",
        "drop keyword",
        "self._turn = anyio.Lock(fast_acquire=True)",
        _FASTER,
    ),
    (
        "BackedClaims.look",
        "decide",
        (
            "plan.start(plan.distinct if whole else self._missing)"
            " => plan.start(plan.distinct if False else self._missing)"
        ),
        _FASTER,
    ),
    ("Flights.claim", "change constant", "intact = True", _FASTER),
    ("_parts", "return none", "return chain.from_iterable(keys)", _FASTER),
    ("Flights.claim", "decide", "if flight.keys: => if True:", _FASTER),
    (
        "_distinct",
        "decide",
        "if len(set(keys)) == len(keys): => if False:",
        _FASTER,
    ),
    (
        "Tasks.run",
        "decide",
        "if scope.cancel_called: => if True:",
        "without a cancellation it does nothing; and one may be met here as well as afterwards",
    ),
    ("Engine.finish", "decide", "if plan.failure is not None: => if True:", _FASTER),
    (
        "Expiring._purge",
        "drop statement",
        "self._earliest = next(iter(deadlines.values()), 0.0)",
        _FASTER,
    ),
    (
        "Expiring.drop",
        "drop statement",
        "self._deadlines.pop(key, None)",
        "a deadline of what is not there does nothing, and `store` cleans them up",
    ),
    (
        "Expiring.store",
        "move boundary",
        "if len(deadlines) > 2 * len(inner) + 1000:",
        "when exactly the notes are cleaned up is nobody's business",
    ),
    ("_failures", "change constant", "failed = False", _FASTER),
    ("Flights.meet", "decide", "if table.keys().isdisjoint(keys): => if False:", _FASTER),
    ("missing", "decide", "if not known and (not flights.by_key): => if False:", _FASTER),
    (
        "accept",
        "decide",
        "if type(answer) is list and len(answer) == len(keys): => if False:",
        _FASTER,
    ),
    ("_distinct", "decide", "if len(keys) == 1: => if False:", _FASTER),
    (
        "Backing.claim.ask",
        "decide",
        "if len(claims.claimed) == len(keys): => if False:",
        _FASTER,
    ),
    ("BackedClaims.look", "decide", "if found: => if True:", _FASTER),
    (
        "BackedClaims._wanted",
        "decide",
        "if flight.intact and (not answers.failures) and (not flight.unkept): => if False:",
        _FASTER,
    ),
    ("Run._compute", "decide", "if caller.listens: => if True:", _FASTER),
    ("Run.call_batches", "decide", "if not caller.hurried: => if True:", _FASTER),
    ("is_async", "decide", "if isinstance(function, FunctionType): => if False:", _FASTER),
    ("Run.call_batches", "decide", "if caller.listens: => if True:", _FASTER),
    (
        "running_loop",
        "decide",
        (
            "sniffio = modules.get('sniffio') if 'trio' in modules else None"
            " => sniffio = modules.get('sniffio') if True else None"
        ),
        _FASTER,
    ),
    ("Size.__init__", "change constant", "self.reduced = False => self.reduced = True", _FASTER),
    ("SQLiteStore.claim_many", "decide", "if number is None: => if True:", _FASTER),
    (
        "_Gate.before_fork",
        "drop statement",
        "time.sleep(0.001) => pass",
        "then it does not sleep, but looks again and again",
    ),
    (
        "_gravity",
        "change constant",
        (
            "return 2 if isinstance(error, Exception) else 1"
            " => return 3 if isinstance(error, Exception) else 1"
        ),
        "only which is the least matters",
    ),
    (
        "InTask.call",
        "drop operand",
        (
            "if not hasattr(type(answer), '__await__') and (not inspect.isawaitable(answer)):"
            " => if not inspect.isawaitable(answer):"
        ),
        _FASTER,
    ),
    (
        "_leads_to",
        "decide",
        "if node in seen: => if False:",
        "no ring is ever let in, so the search comes to an end without it, if later",
    ),
    (
        "Plan.__init__",
        "decide",
        (
            "self._firsts = dict(zip(reversed(keys), reversed(items))) if keyed else None"
            " => self._firsts = dict(zip(reversed(keys), reversed(items))) if True else None"
        ),
        _FASTER,
    ),
    (
        "Plan.deliver",
        "decide",
        ("if self._todo is self.keys and len(self._claimed) == len(self.keys): => if False:"),
        _FASTER,
    ),
    (
        "Lookout._run",
        "swap twin",
        "polls, due = (0, time.monotonic() + _pause(0))",
        "a look comes a few milliseconds sooner",
    ),
    (
        "Lookout._run",
        "swap twin",
        (
            "polls, due = (0, min(due, time.monotonic() + _pause(0)))"
            " => polls, due = (0, min(due, time.monotonic() - _pause(0)))"
        ),
        "a look comes a few milliseconds sooner",
    ),
    (
        "Portal.wait_until_ready",
        "drop statement",
        "_wait_for(bell)",
        "then it does not sleep, but looks again and again whether it may go on",
    ),
    (
        "Run.call_batches",
        "drop operand",
        "while plan.due and (not plan.over): => while not plan.over:",
        "the same is asked again after a checkpoint",
    ),
    (
        "Run.call_batches",
        "drop operand",
        "while plan.due and (not plan.over): => while plan.due:",
        "the same is asked again after a checkpoint",
    ),
    ("Run.call_batches", "decide", "if plan.awaited: => if True:", _FASTER),
    (
        "Run.call_batches",
        "swap jump",
        "if plan.over: continue => break",
        "a map() that is over goes on with nothing",
    ),
    (
        "Reporting.__init__",
        "drop statement",
        "self.busy: bool = False => pass",
        "it is asked of those only that have begun a call, and set it then",
    ),
    ("Shelf.place_of", "decide", "if here == keys: => if False:", _FASTER),
    ("Shelf.add_distinct", "change constant", "self._mixed = True => self._mixed = False", _FASTER),
    (
        "AsyncStream._fill",
        "swap twin",
        (
            "if self._uninterrupted + most > _MOST or not self._window.ready:"
            " => if self._uninterrupted - most > _MOST or not self._window.ready:"
        ),
        "the next checkpoint is a few pairs later",
    ),
    (
        "AsyncStream._take_given",
        "drop operand",
        "if self._flow is not None and self._given: => if self._flow is not None:",
        _FASTER,
    ),
    ("block", "drop statement", "if not nodes: return => pass", _FASTER),
    (
        "Bounded.store",
        "decide",
        "if len(keys) <= self._max_size - len(data) and (not gone): => if False:",
        _FASTER,
    ),
    (
        "Engine.look",
        "drop operand",
        "return portion.left > 0 and self.cache._backing is not None => return portion.left > 0",
        _FASTER,
    ),
    (
        "Gathered.claim",
        "change constant",
        "flight.place = 0 => flight.place = 1",
        "its results have no place: each goes to those who wait for it",
    ),
    (
        "InTask.call",
        "change constant",
        "if not hasattr(type(answer), '__await__') and (not inspect.isawaitable(answer)):",
        _FASTER,
    ),
    (
        "Weights.fitting",
        "change constant",
        "self._chunk = max(count - count // 8, _CHUNK)",
        _FASTER,
    ),
    (
        "Weights.fitting",
        "decide",
        "count, chunk, following = (0, _CHUNK if beside else self._chunk, _CHUNK)",
        _FASTER,
    ),
    ("checkpoint", "decide", "if loop is None: => if True:", _FASTER),
    (
        "Plan.take_awaited",
        "decide",
        "for flight in [each for each in self.awaited if each.done or each.gone]:",
        _FASTER,
    ),
    (
        "Portal._run",
        "decide",
        "if self._backend == 'asyncio': => if True:",
        "then an event loop more is made and closed",
    ),
    ("missing", "decide", "if not known and (not flying): => if False:", _FASTER),
    ("_stacked", "decide", "if len(vectors) < len(results): => if True:", _FASTER),
    (
        "_stacked",
        "move boundary",
        "if len(vectors) < len(results): => if len(vectors) <= len(results):",
        _FASTER,
    ),
    (
        "Table.open",
        "decide",
        "if (known := self._values.known(plan.distinct)): => if True:",
        _FASTER,
    ),
    ("", "change constant", "_TRIES = 3", "how many exactly is nobody's business"),
    ("Unbounded.every", "decide", "if keys and keys[0] not in data: => if False:", _FASTER),
    (
        "Unbounded.known",
        "drop operand",
        "if not data or data.keys().isdisjoint(keys): => if not data:",
        _FASTER,
    ),
    (
        "Unbounded.known",
        "drop operand",
        "if not data or data.keys().isdisjoint(keys): => if data.keys().isdisjoint(keys):",
        _FASTER,
    ),
    ("Plan.weigh", "decide", "if weights.bind: => if True:", _FASTER),
    (
        "Loads._lead",
        "decide",
        "if len(pool) < options.size.now: => if True:",
        _FASTER,
    ),
    ("Loads._lead", "move boundary", "if len(pool) < options.size.now:", _FASTER),
    (
        "Loads._attend",
        "drop statement",
        "await checkpoint(running_loop())",
        "it is for a call that another thread ends between two instructions of this one",
    ),
    (
        "Window._full_batches",
        "decide",
        "if self._drawn_back: => if True:",
        _FASTER,
    ),
    (
        "Keeper._beat",
        "move boundary",
        (
            "due = [name for name in list(self._beats) if self._beats[name] <= now]"
            " => due = [name for name in list(self._beats) if self._beats[name] < now]"
        ),
        "what is due at the very moment is at the next look, which is at once",
    ),
    (
        "_write_array",
        "move boundary",
        "if file.tell() - array.nbytes <= _MAX_HEADER:",
        "the data in an .npy file begins at a multiple of 64, which that number is not",
    ),
    ("Unbounded.store", "decide", "if len(keys) == 1: => if False:", _FASTER),
    (
        "Plan.__init__",
        "decide",
        (
            "distinct = keys if in_steps else _distinct(keys)"
            " => distinct = keys if False else _distinct(keys)"
        ),
        _FASTER,
    ),
    ("Plan.tell_apart", "decide", "if len(seen) < len(keys): => if True:", _FASTER),
    (
        "Plan.tell_apart",
        "move boundary",
        "if len(seen) < len(keys):",
        _FASTER,
    ),
    ("Limit._slot", "decide", "if latest is None or latest[0]() is not loop: => if True:", _FASTER),
    (
        "Engine.begin",
        "drop operand",
        (
            "plan = Plan(items, keys, keep_failures, in_steps and len(keys) > PIECE)"
            " => plan = Plan(items, keys, keep_failures, in_steps)"
        ),
        _FASTER,
    ),
    (
        "Engine.begin",
        "move boundary",
        "plan = Plan(items, keys, keep_failures, in_steps and len(keys) > PIECE)",
        _FASTER,
    ),
]
