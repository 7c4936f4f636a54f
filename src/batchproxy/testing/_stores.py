"""The tests that a store must pass."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, count, islice
from threading import Barrier
from types import FrameType
from typing import Any, NoReturn
from uuid import uuid4

from .._store import Claimant, Claims, SharedStore, Store

_numbers = count()


def _keys(number: int) -> list[bytes]:
    """So many keys, which no test had before."""
    return [
        hashlib.blake2b(str(next(_numbers)).encode(), digest_size=20).digest()
        for _ in range(number)
    ]


def _fail(message: str) -> NoReturn:
    raise AssertionError(message)


def _equal(got: object, expected: object, what: str) -> None:
    if got != expected:
        _fail(f"{what}: expected {_short(expected)}, got {_short(got)}")


def _same(got: Claims, expected: Claims, what: str) -> None:
    """Equal but for the order of `held`, of which nothing is promised."""
    _equal(got._replace(held=sorted(got.held)), expected._replace(held=sorted(expected.held)), what)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 1_000 else f"{text[:1_000]}... ({len(text)} characters)"


def _callers(  # pragma: no cover - what traces is not traced itself, here and below
    frame: FrameType | None,
) -> Iterator[FrameType]:
    """Who called what runs there, and who called that, and so on."""
    while frame is not None and (frame := frame.f_back) is not None:
        yield frame


def _at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own, all starting at the same moment."""
    start = Barrier(len(functions))

    def run(function: Callable[[], Any]) -> Any:
        start.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(run, function) for function in functions]
        return [future.result() for future in futures]


class _OneByOne(dict[bytes, bytes]):  # pragma: no cover - as above
    """A dict that runs lines of Python for each of its keys, also where C goes through it."""

    def __iter__(self) -> Iterator[bytes]:
        yield from super().__iter__()

    def keys(self) -> Any:
        return KeysView(self)

    def values(self) -> Any:
        return ValuesView(self)

    def items(self) -> Any:
        return ItemsView(self)


class StoreContract:
    """What every `Store` must do, as tests.

    Subclass it in a test file of yours, under a name that pytest collects, and override
    `make_store`. Each test uses namespaces and keys that were never used before, so that what is
    stored need not be empty, or emptied between tests. A test that your store cannot pass, and need
    not, is switched off by name: ``test_a_forked_child_can_go_on = None``.
    """

    patience: float = 30.0
    """Seconds to wait, at most, for what must happen some time, such as a value expiring."""

    def make_store(self) -> Store:
        """A store, open, that nobody else uses; every one made in a test has the same values.

        Each is a handle of its own, as other processes would have. Tests close what they made.
        """
        raise NotImplementedError(
            f"{type(self).__qualname__} must override make_store() and return a store"
        )

    # What is there

    def test_what_was_never_set_is_not_there(self) -> None:
        """Keys without a value are not in the answer."""
        with self.make_store() as store:
            _equal(store.get_many(_namespace(), _keys(3)), {}, "values of unknown keys")

    def test_values_come_back(self) -> None:
        """Those of the keys that have a value come back with it, whatever the order."""
        with self.make_store() as store:
            namespace, (a, b, c, d) = _namespace(), _keys(4)
            store.set_many(namespace, {a: b"1", b: b"2", c: b"3"}, None)
            _equal(store.get_many(namespace, [c, d, a]), {a: b"1", c: b"3"}, "values of c, d and a")
            _equal(store.get_many(namespace, (b,)), {b: b"2"}, "values of a tuple of keys")

    def test_nothing_is_asked_for(self) -> None:
        """No keys and no values are fine, everywhere."""
        with self.make_store() as store:
            namespace, (key,) = _namespace(), _keys(1)
            store.set_many(namespace, {}, None)
            store.set_many(namespace, {}, 60.0)
            store.delete_many(namespace, [])
            store.delete_many(namespace, None)
            store.set_many(namespace, {key: b"1"}, None)
            store.delete_many(namespace, [])
            _equal(store.get_many(namespace, []), {}, "values of no keys")
            _equal(store.get_many(namespace, [key]), {key: b"1"}, "values, nothing being deleted")

    def test_values_are_any_bytes(self) -> None:
        """A value comes back as `bytes`, and as it was: empty, binary, or five mebibytes."""
        values = [b"", b"\0", b"\0a\0", bytes(range(256)), "é".encode(), bytes(5 * 2**20 + 1)]
        with self.make_store() as store:
            namespace = _namespace()
            expected = dict(zip(_keys(len(values)), values))
            store.set_many(namespace, expected, None)
            got = store.get_many(namespace, list(expected))
            _equal(got.keys(), expected.keys(), "keys that have a value")
            for key, value in expected.items():
                if got[key] != value or type(got[key]) is not bytes:
                    _fail(f"a value: expected {_short(value)}, got {_short(got[key])}")

    def test_keys_are_any_bytes(self) -> None:
        """Keys are told apart byte by byte; none is special."""
        starts = [b"\0", b"\xff", b"a", b"A", b"%", b"*", b"\n", b"'", b'"', b"\\", b"{", b"}"]
        keys = [start * 20 for start in starts] + [b"\0" * 19 + b"\1", b"\1" + b"\0" * 19]
        with self.make_store() as store:
            namespace = _namespace()
            expected = {key: str(number).encode() for number, key in enumerate(keys)}
            store.set_many(namespace, expected, None)
            _equal(store.get_many(namespace, keys), expected, "values of unusual keys")
            store.delete_many(namespace, keys[5:6])
            del expected[keys[5]]
            _equal(store.get_many(namespace, keys), expected, "values, one being deleted")

    def test_many_at_once(self) -> None:
        """Tens of thousands of keys in one call are fine; databases like to have a limit."""
        with self.make_store() as store:
            namespace = _namespace()
            values = {key: key[:4] for key in _keys(40_000)}
            store.set_many(namespace, values, 3600.0)
            _equal(store.get_many(namespace, list(values)), values, "40,000 values")
            store.delete_many(namespace, list(values)[1:])
            _equal(len(store.get_many(namespace, list(values))), 1, "values left of 40,000")

    def test_setting_replaces(self) -> None:
        """A later value takes the place of an earlier one, and leaves the others alone."""
        with self.make_store() as store:
            namespace, (a, b) = _namespace(), _keys(2)
            store.set_many(namespace, {a: b"1", b: b"2"}, None)
            store.set_many(namespace, {a: b"a longer one"}, None)
            _equal(
                store.get_many(namespace, [a, b]), {a: b"a longer one", b: b"2"}, "values replaced"
            )

    def test_deleting(self) -> None:
        """Deleted keys are gone, and may be set again; unknown ones are no error."""
        with self.make_store() as store:
            namespace, (a, b, c) = _namespace(), _keys(3)
            store.set_many(namespace, {a: b"1", b: b"2"}, None)
            store.delete_many(namespace, [a, c])
            _equal(store.get_many(namespace, [a, b, c]), {b: b"2"}, "values, a being deleted")
            store.set_many(namespace, {a: b"3"}, None)
            _equal(store.get_many(namespace, [a]), {a: b"3"}, "values, a being set again")

    # Namespaces

    def test_namespaces_are_apart(self) -> None:
        """A key of one namespace is not that of another, however alike their names are."""
        with self.make_store() as store:
            (key,) = _keys(1)
            names = _odd_namespaces()
            for number, name in enumerate(names):
                store.set_many(name, {key: str(number).encode()}, None)
            for number, name in enumerate(names):
                expected = {key: str(number).encode()}
                _equal(store.get_many(name, [key]), expected, f"values of namespace {name!r}")

    def test_deleting_in_one_namespace(self) -> None:
        """Deleting some keys, or all that a namespace has, touches no other namespace."""
        with self.make_store() as store:
            keys = _keys(3)
            values = dict.fromkeys(keys, b"1")
            names = _odd_namespaces()
            for name in names:
                store.set_many(name, values, None)
            left = set(names)
            for name in names:
                store.delete_many(name, keys[:1])
                store.delete_many(name, None)
                left.remove(name)
                _equal(store.get_many(name, keys), {}, f"values of {name!r}, being emptied")
                for other in left:
                    _equal(
                        store.get_many(other, keys),
                        values,
                        f"values of {other!r}, when {name!r} was emptied",
                    )

    def test_an_emptied_namespace_can_be_used(self) -> None:
        """What is set after everything was deleted is there."""
        with self.make_store() as store:
            namespace, (a, b) = _namespace(), _keys(2)
            store.set_many(namespace, {a: b"1"}, None)
            store.delete_many(namespace, None)
            store.set_many(namespace, {b: b"2"}, None)
            _equal(store.get_many(namespace, [a, b]), {b: b"2"}, "values set after deleting all")

    # Expiry

    def test_values_expire(self) -> None:
        """A value with a ttl is forgotten after it; one with a longer ttl or none is not."""
        with self.make_store() as store:
            namespace, (short, long, none, endless) = _namespace(), _keys(4)
            store.set_many(namespace, {none: b"1"}, None)
            store.set_many(namespace, {long: b"2"}, 3600.0)
            store.set_many(namespace, {endless: b"3"}, math.inf)
            store.set_many(namespace, {short: b"4"}, 0.05)
            self._until(
                lambda: short not in store.get_many(namespace, [short]),
                "a value expires after 50 ms",
            )
            _equal(
                store.get_many(namespace, [long, none, endless]),
                {none: b"1", long: b"2", endless: b"3"},
                "values that have not expired",
            )

    def test_a_ttl_of_nothing(self) -> None:
        """With a ttl of 0 seconds a value is forgotten at once, and so is what it replaced."""
        with self.make_store() as store:
            namespace, (key,) = _namespace(), _keys(1)
            store.set_many(namespace, {key: b"1"}, None)
            store.set_many(namespace, {key: b"2"}, 0.0)
            self._until(lambda: not store.get_many(namespace, [key]), "a value expires after 0 s")

    def test_replacing_replaces_the_ttl(self) -> None:
        """A value set again lasts as long as it was set for last, be that longer or shorter."""
        with self.make_store() as store:
            namespace, (a, b, c) = _namespace(), _keys(3)
            store.set_many(namespace, {a: b"1", b: b"1"}, 0.05)
            store.set_many(namespace, {c: b"1"}, None)
            store.set_many(namespace, {a: b"2"}, None)
            store.set_many(namespace, {b: b"2"}, 3600.0)
            store.set_many(namespace, {c: b"2"}, 0.05)  # so it expires after the first ttl of a, b
            self._until(lambda: not store.get_many(namespace, [c]), "a value expires after 50 ms")
            _equal(
                store.get_many(namespace, [a, b]), {a: b"2", b: b"2"}, "values that got a later end"
            )

    # Handles

    def test_another_handle_sees_it(self) -> None:
        """What is set or deleted through one handle is so for every other, at once."""
        with self.make_store() as one, self.make_store() as other:
            namespace, (a, b) = _namespace(), _keys(2)
            one.set_many(namespace, {a: b"1", b: b"2"}, None)
            _equal(other.get_many(namespace, [a, b]), {a: b"1", b: b"2"}, "values set by another")
            other.set_many(namespace, {a: b"3"}, None)
            _equal(one.get_many(namespace, [a]), {a: b"3"}, "values replaced by another")
            one.delete_many(namespace, None)
            _equal(other.get_many(namespace, [a, b]), {}, "values deleted by another")

    def test_closing_deletes_nothing(self) -> None:
        """Closed twice, and made anew, a store has what it had; other handles stay open."""
        with self.make_store() as other:
            namespace, (key,) = _namespace(), _keys(1)
            store = self.make_store()
            store.set_many(namespace, {key: b"1"}, None)
            store.close()
            store.close()
            _equal(other.get_many(namespace, [key]), {key: b"1"}, "values after another closed")
            other.set_many(namespace, {key: b"2"}, None)
        with self.make_store() as again:
            _equal(again.get_many(namespace, [key]), {key: b"2"}, "values after all were closed")

    def test_set_many_is_one_step(self) -> None:
        """Who sees one of the values that were set together sees them all."""
        with self.make_store() as one, self.make_store() as other:
            self._check_one_step(other, lambda name, values: one.set_many(name, values, None))

    def test_threads(self) -> None:
        """Any number of threads may use one handle at once."""
        with self.make_store() as store:
            namespace = _namespace()

            def work() -> None:
                for round_ in range(10):
                    values = {key: str(round_).encode() for key in _keys(10)}
                    store.set_many(namespace, values, None)
                    _equal(store.get_many(namespace, list(values)), values, "a thread's values")
                    store.delete_many(namespace, list(values)[:5])
                    _equal(len(store.get_many(namespace, list(values))), 5, "values left")

            _at_once(*[work] * 8)

    def test_a_forked_child_can_go_on(self) -> None:
        """A child process uses the store that it inherited, and leaves the parent's intact."""
        if not hasattr(os, "fork"):  # pragma: no cover - Windows
            return
        with self.make_store() as store:
            namespace, (a, b, c) = _namespace(), _keys(3)
            store.set_many(namespace, {a: b"1"}, None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be running
                child = os.fork()
            if child == 0:  # pragma: no cover - not seen by what traces the parent
                status = 1
                try:
                    _equal(store.get_many(namespace, [a]), {a: b"1"}, "the parent's values")
                    store.set_many(namespace, {b: b"2"}, None)
                    store.close()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            store.set_many(namespace, {c: b"3"}, None)
            _, status = os.waitpid(child, 0)
            _equal(os.waitstatus_to_exitcode(status), 0, "exit status of the child")
            _equal(
                store.get_many(namespace, [a, b, c]),
                {a: b"1", b: b"2", c: b"3"},
                "values of parent and child",
            )

    def _until(self, condition: Callable[[], bool], what: str, pause: float = 0.005) -> None:
        end = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > end:
                _fail(f"waited {self.patience} seconds in vain until {what}")
            time.sleep(pause)

    def _check_one_step(
        self, reader: Store, write: Callable[[str, dict[bytes, bytes]], object]
    ) -> None:
        # Others look after each line of the store; not after each one of a driver.
        namespace, keys = _namespace(), _keys(3)
        here, looks = sys._getframe(), list[Future[int]]()
        waited = 0.0  # by us, for a look that has to wait for us in turn, which is as well

        def look(  # pragma: no cover - as above
            frame: FrameType, event: str, _: object
        ) -> Any:
            nonlocal waited
            if event == "call" and here not in islice(_callers(frame), 4):
                return None
            if not looks or looks[-1].done():
                waited = 0.0
                looks.append(pool.submit(lambda: len(reader.get_many(namespace, keys))))
            begun = time.monotonic()
            wait(looks[-1:], 0.02 if waited < 0.5 else 0.005)
            waited += time.monotonic() - begun
            return look

        tracing = sys.gettrace()
        with ThreadPoolExecutor(1) as pool:
            sys.settrace(look)
            try:
                write(namespace, _OneByOne(dict.fromkeys(keys, b"1")))
            finally:
                sys.settrace(tracing)
        seen = {future.result() for future in looks}
        _equal(seen - {0, 3}, set(), "numbers seen of three values written in one step")

        for _ in range(20):  # what is no Python: may others be quick enough to notice
            namespace, keys = _namespace(), _keys(200)

            def read(namespace: str = namespace, keys: list[bytes] = keys) -> int:
                self._until(lambda: reader.get_many(namespace, keys) != {}, "values are there", 0)
                return len(reader.get_many(namespace, keys))

            writing = partial(write, namespace, dict.fromkeys(keys, b"1"))
            _equal(_at_once(writing, read)[1], 200, "values seen of 200 written in one step")


class SharedStoreContract(StoreContract):
    """What every `SharedStore` must do, as tests; `StoreContract` says how they are used.

    Processes are told apart by their names only, so the tests run in one.
    """

    def make_store(self, lease: float = 60.0) -> SharedStore:
        """As `StoreContract.make_store`; leases last for `lease` seconds."""
        raise NotImplementedError(
            f"{type(self).__qualname__} must override make_store() and return a shared store"
        )

    # Claims

    def test_the_lease_is_as_asked_for(self) -> None:
        """The attribute `lease` says for how long leases last, as whoever renews them needs it."""
        with self.make_store(lease=7.5) as store:
            _equal(store.lease, 7.5, "lease")

    def test_the_first_are_claimed(self) -> None:
        """The first of the keys that are free are claimed, in order, no more than the limit."""
        with self.make_store() as store:
            namespace, keys, (p, q) = _namespace(), _keys(6), _claimants(2)
            got = store.claim_many(namespace, keys[:5], p, 2)
            _same(got, Claims({}, keys[:2], []), "the first two of five claimed")
            got = store.claim_many(namespace, keys, q, 10)
            _same(got, Claims({}, keys[2:], keys[:2]), "what was left free, claimed by another")

    def test_looking_claims_nothing(self) -> None:
        """With a limit of 0 it is seen what has a value and what is held; the rest stays free."""
        with self.make_store() as store:
            namespace, keys, (p, q, r) = _namespace(), _keys(4), _claimants(3)
            store.set_many(namespace, {keys[1]: b"1"}, None)
            store.claim_many(namespace, keys[:1], p, 1)
            got = store.claim_many(namespace, keys, q, 0)
            _same(got, Claims({keys[1]: b"1"}, [], keys[:1]), "what was looked at")
            got = store.claim_many(namespace, keys, r, 4)
            _same(got, Claims({keys[1]: b"1"}, keys[2:], keys[:1]), "what was left free")

    def test_claims_hold_for_every_handle(self) -> None:
        """What is claimed through one handle is held for another process at another handle."""
        with self.make_store() as one, self.make_store() as other:
            namespace, keys, (p, q) = _namespace(), _keys(3), _claimants(2)
            one.claim_many(namespace, keys, p, 2)
            got = other.claim_many(namespace, keys, q, 3)
            _same(got, Claims({}, keys[2:], keys[:2]), "claims of another handle")

    def test_values_are_found_and_not_claimed(self) -> None:
        """Keys with a value come back with it, beside those held, claimed and left free."""
        with self.make_store() as store:
            namespace, keys, (p, q) = _namespace(), _keys(7), _claimants(2)
            values = {keys[0]: b"", keys[3]: b"3"}
            store.set_many(namespace, values, None)
            store.claim_many(namespace, [keys[1], keys[5]], q, 2)
            got = store.claim_many(namespace, keys, p, 2)
            expected = Claims(values, [keys[2], keys[4]], [keys[1], keys[5]])
            _same(got, expected, "values, claims, and keys held")
            got = store.claim_many(namespace, [keys[0], keys[3]], q, 1)
            _same(got, Claims(values, [], []), "claims where all have a value")

    def test_nothing_is_claimed(self) -> None:
        """No keys and no values are fine here, too; so is a process that was never heard of."""
        with self.make_store() as store:
            namespace, (p,) = _namespace(), _claimants(1)
            store.heartbeat(namespace, p.process)
            _same(store.claim_many(namespace, [], p, 1), Claims({}, [], []), "claims of no keys")
            _equal(store.publish_many(namespace, {}, p, None), {}, "values there before none")
            store.release_many(namespace, [], p)
            store.discard_many(namespace, {})

    def test_a_process_takes_over_from_itself(self) -> None:
        """A claim of another call of one's own process is free; it is then the new claimant's."""
        with self.make_store() as store:
            namespace, keys, (p, q) = _namespace(), _keys(3), _claimants(2)
            again = Claimant(p.process, p.call + 1)
            store.claim_many(namespace, keys, p, 3)
            got = store.claim_many(namespace, keys, again, 2)
            _same(got, Claims({}, keys[:2], []), "claims of the process's other call")
            store.release_many(namespace, keys, p)
            got = store.claim_many(namespace, keys, q, 3)
            _same(
                got, Claims({}, keys[2:], keys[:2]), "claims after the first call released its own"
            )

    def test_claims_of_namespaces_are_apart(self) -> None:
        """A claim holds in its own namespace only, however alike their names are."""
        with self.make_store() as store:
            keys = _keys(2)
            names = _odd_namespaces()
            claimants = _claimants(len(names))
            for name, claimant in zip(names, claimants):
                got = store.claim_many(name, keys, claimant, 2)
                _same(got, Claims({}, keys, []), f"claims in namespace {name!r}")
            store.release_many(names[0], keys, claimants[0])
            for name in names[1:]:
                got = store.claim_many(name, keys, claimants[0], 2)
                _same(
                    got, Claims({}, [], keys), f"claims in {name!r}, after those in another ended"
                )

    def test_many_claims_at_once(self) -> None:
        """Tens of thousands of keys are claimed, released and published in one call each."""
        with self.make_store() as store:
            namespace, keys, (p, q) = _namespace(), _keys(40_000), _claimants(2)
            got = store.claim_many(namespace, keys, p, 39_999)
            _same(got, Claims({}, keys[:-1], []), "39,999 of 40,000 keys claimed")
            got = store.claim_many(namespace, keys, q, 40_000)
            _same(got, Claims({}, keys[-1:], keys[:-1]), "the last of 40,000 keys claimed")
            store.release_many(namespace, keys[:-1], p)
            got = store.claim_many(namespace, keys, p, 40_000)
            _same(got, Claims({}, keys[:-1], keys[-1:]), "39,999 keys claimed again")
            values = {key: key[:4] for key in keys}
            _equal(store.publish_many(namespace, values, p, None), {}, "values there before")
            got = store.claim_many(namespace, keys, q, 40_000)
            _same(got, Claims(values, [], []), "40,000 values")

    # Discarding

    def test_discarding(self) -> None:
        """Values that are still as they were found are forgotten, others and claims are not."""
        with self.make_store() as store, self.make_store() as other:
            namespace, (a, b, c, d), (p, q) = _namespace(), _keys(4), _claimants(2)
            store.set_many(namespace, {a: b"1", b: b"new", c: b""}, None)
            store.set_many(f"{namespace} 2", {a: b"1"}, None)
            store.claim_many(namespace, [d], p, 1)
            store.discard_many(namespace, {a: b"1", b: b"1", c: b"", d: b"1"})
            _equal(other.get_many(namespace, [a, b, c, d]), {b: b"new"}, "values not discarded")
            _equal(other.get_many(f"{namespace} 2", [a]), {a: b"1"}, "values of another namespace")
            got = other.claim_many(namespace, [a, b, c, d], q, 4)
            _same(got, Claims({b: b"new"}, [a, c], [d]), "claims after values were discarded")

    def test_many_are_discarded_at_once(self) -> None:
        """Tens of thousands in one call."""
        with self.make_store() as store:
            namespace, keys = _namespace(), _keys(40_000)
            store.set_many(namespace, {key: key[:4] for key in keys}, None)
            store.discard_many(namespace, {key: key[:4] for key in keys[1:]})
            _equal(store.get_many(namespace, keys), {keys[0]: keys[0][:4]}, "values not discarded")

    def test_discarding_takes_nothing_new(self) -> None:
        """A value that takes the place of another in the very moment stays: it is one step."""
        with self.make_store() as one, self.make_store() as other:
            namespace = _namespace()
            for _ in range(50):
                (key,) = _keys(1)
                one.set_many(namespace, {key: b"old"}, None)
                _at_once(  # mostly the last one is the first to go on
                    partial(other.set_many, namespace, {key: b"new"}, None),
                    partial(one.discard_many, namespace, {key: b"old"}),
                )
                _equal(one.get_many(namespace, [key]), {key: b"new"}, "values after both")

    # Releasing

    def test_released_keys_are_free(self) -> None:
        """After its claimant released a key, others may claim it; the rest stays claimed."""
        with self.make_store() as store:
            namespace, keys, (p, q) = _namespace(), _keys(3), _claimants(2)
            store.claim_many(namespace, keys, p, 3)
            store.release_many(namespace, [keys[0], keys[2]], p)
            got = store.claim_many(namespace, keys, q, 3)
            _same(got, Claims({}, [keys[0], keys[2]], [keys[1]]), "claims after a release")

    def test_only_the_claimant_releases(self) -> None:
        """Nobody else ends a claim: no other process, and no other call of the same one."""
        with self.make_store() as store:
            namespace, keys, (p, q, r) = _namespace(), _keys(2), _claimants(3)
            store.claim_many(namespace, keys[:1], p, 1)
            store.release_many(namespace, keys, q)
            store.release_many(namespace, keys, Claimant(q.process, p.call))
            store.release_many(namespace, keys, Claimant(p.process, p.call + 1))
            got = store.claim_many(namespace, keys, r, 2)
            _same(got, Claims({}, keys[1:], keys[:1]), "claims after others released")

    # Publishing

    def test_published_values_are_there(self) -> None:
        """A claimant's values are there for all, and its claims have ended."""
        with self.make_store() as store, self.make_store() as other:
            namespace, (a, b, c), (p, q) = _namespace(), _keys(3), _claimants(2)
            store.claim_many(namespace, [a, b, c], p, 3)
            _equal(store.publish_many(namespace, {a: b"1", b: b""}, p, None), {}, "values before")
            _equal(other.get_many(namespace, [a, b, c]), {a: b"1", b: b""}, "published values")
            got = other.claim_many(namespace, [a, b, c], q, 3)
            _same(got, Claims({a: b"1", b: b""}, [], [c]), "claims after values were published")
            other.delete_many(namespace, [a])
            got = other.claim_many(namespace, [a], q, 1)
            _same(got, Claims({}, [a], []), "claims of what was published, and deleted since")

    def test_the_first_published_value_wins(self) -> None:
        """A value that is there stays, and a late writer is told of it; its other values count."""
        with self.make_store() as store:
            namespace, (a, b, c), (p, q) = _namespace(), _keys(3), _claimants(2)
            store.publish_many(namespace, {a: b"first", b: b""}, p, None)
            got = store.publish_many(namespace, {c: b"3", b: b"2", a: b"1"}, q, None)
            _equal(got, {a: b"first", b: b""}, "what a late writer is told")
            _equal(
                store.get_many(namespace, [a, b, c]),
                {a: b"first", b: b"", c: b"3"},
                "values that two have published",
            )
            got = store.publish_many(namespace, {a: b"4"}, p, None)
            _equal(got, {a: b"first"}, "what one who publishes twice is told")

    def test_a_late_writers_claims_end(self) -> None:
        """Publishing ends the claims on keys that others have published, too."""
        with self.make_store() as store:
            namespace, (a,), (p, q, r) = _namespace(), _keys(1), _claimants(3)
            store.claim_many(namespace, [a], p, 1)
            store.publish_many(namespace, {a: b"first"}, q, None)
            store.publish_many(namespace, {a: b"late"}, p, None)
            store.delete_many(namespace, [a])
            got = store.claim_many(namespace, [a], r, 1)
            _same(got, Claims({}, [a], []), "claims after the claimant published late")

    def test_published_values_expire(self) -> None:
        """A published value has a ttl; expired, it is free, and may be published anew."""
        with self.make_store() as store:
            namespace, (a, b), (p, q) = _namespace(), _keys(2), _claimants(2)
            store.publish_many(namespace, {a: b"1"}, p, 0.05)
            store.publish_many(namespace, {b: b"2"}, p, 3600.0)
            self._until(
                lambda: store.claim_many(namespace, [a], q, 1).claimed == [a],
                "a published value expires after 50 ms",
            )
            got = store.publish_many(namespace, {a: b"3", b: b"4"}, q, None)
            _equal(got, {b: b"2"}, "values before, one having expired")
            _equal(store.get_many(namespace, [a, b]), {a: b"3", b: b"2"}, "values published anew")

    def test_an_expired_value_loses(self) -> None:
        """Publishing replaces an expired value, though nobody looked at it or claimed it since."""
        with self.make_store() as store:
            namespace, (a, b), (p,) = _namespace(), _keys(2), _claimants(1)
            store.set_many(namespace, {a: b"1"}, 0.05)
            store.set_many(namespace, {b: b"1"}, 0.05)  # expires no earlier
            self._until(lambda: not store.get_many(namespace, [b]), "a value expires after 50 ms")
            _equal(store.publish_many(namespace, {a: b"2"}, p, None), {}, "values before")
            _equal(store.get_many(namespace, [a]), {a: b"2"}, "values published over expired ones")

    def test_publish_many_is_one_step(self) -> None:
        """Who sees one of the values that were published together sees them all."""
        with self.make_store() as one, self.make_store() as other:
            (p,) = _claimants(1)
            self._check_one_step(
                other, lambda name, values: one.publish_many(name, values, p, None)
            )

    # Leases

    def test_claims_outlive_a_handle(self) -> None:
        """Closing a store ends no claims; they stand as long as the lease."""
        with self.make_store() as other:
            namespace, keys, (p, q) = _namespace(), _keys(2), _claimants(2)
            with self.make_store() as store:
                store.claim_many(namespace, keys, p, 2)
            got = other.claim_many(namespace, keys, q, 2)
            _same(got, Claims({}, [], keys), "claims after their handle was closed")

    def test_a_dead_process_is_taken_over_from(self) -> None:
        """When the lease of a process has run out, others have its claims, and it has none."""
        with self.make_store(lease=0.1) as store:
            namespace, keys, (dead, p, q) = _namespace(), _keys(3), _claimants(3)
            store.claim_many(namespace, keys[:2], dead, 2)
            self._until(
                lambda: store.claim_many(namespace, keys[:1], p, 1).claimed != [],
                "a lease of 100 ms runs out",
            )
        with self.make_store() as store:
            store.claim_many(namespace, keys[2:], p, 1)  # its lease is a long one from now on
            store.release_many(namespace, keys, dead)
            got = store.claim_many(namespace, keys, q, 3)
            _same(
                got,
                Claims({}, [keys[1]], [keys[0], keys[2]]),
                "claims after the process that was thought dead has released",
            )
            got = store.claim_many(namespace, keys, dead, 3)
            _equal(got.claimed, [], "claims of the process that was thought dead")

    def test_a_lease_is_doubted_before_it_ends(self) -> None:
        """If nobody could renew it or see that, its owner has time to do so when somebody does."""
        with self.make_store(lease=0.1) as store:
            namespace, keys, (p, q) = _namespace(), _keys(1), _claimants(2)
            store.claim_many(namespace, keys, p, 1)
            for what in ("for the first time", "again, after it was renewed"):
                time.sleep(0.2)  # as if the store had been locked, or its server had stood still
                got = store.claim_many(namespace, keys, q, 1)
                _same(got, Claims({}, [], keys), f"claims, a lease having run out {what}")
                store.heartbeat(namespace, p.process)
                got = store.claim_many(namespace, keys, q, 1)
                _same(got, Claims({}, [], keys), "claims after the lease was renewed in time")
            self._until(
                lambda: store.claim_many(namespace, keys, q, 1).claimed == keys,
                "a lease of 100 ms runs out that is not renewed any more",
            )

    def test_one_thought_dead_publishes(self) -> None:
        """A process whose claims were taken over publishes as any other: the first value wins."""
        with self.make_store(lease=0.1) as store:
            namespace, (a, b), (dead, p) = _namespace(), _keys(2), _claimants(2)
            store.claim_many(namespace, [a, b], dead, 2)
            self._until(
                lambda: store.claim_many(namespace, [a, b], p, 2).claimed == [a, b],
                "a lease of 100 ms runs out",
            )
            store.publish_many(namespace, {a: b"1"}, p, None)
            got = store.publish_many(namespace, {a: b"2", b: b"2"}, dead, None)
            _equal(got, {a: b"1"}, "what it is told that was thought dead")
            _equal(store.publish_many(namespace, {b: b"3"}, p, None), {b: b"2"}, "values before")

    def test_a_heartbeat_keeps_claims(self) -> None:
        """Claims in any number of namespaces stand while their process is heard of."""
        with self.make_store(lease=0.4) as store:

            def renew(namespaces: list[str], p: Claimant) -> None:
                for namespace in namespaces:
                    store.heartbeat(namespace, p.process)

            self._check_renewal(store, renew)

    def test_claiming_renews_the_lease(self) -> None:
        """Who claims is alive: the earlier claims of the process stand, too."""
        with self.make_store(lease=0.4) as store:

            def renew(namespaces: list[str], p: Claimant) -> None:
                for namespace in namespaces:
                    store.claim_many(namespace, _keys(1), Claimant(p.process, p.call + 1), 1)

            self._check_renewal(store, renew)

    def _check_renewal(
        self, store: SharedStore, renew: Callable[[list[str], Claimant], None]
    ) -> None:
        """With `renew` called all the time, claims stand when those of another have run out."""
        with self.make_store(lease=store.lease) as other:
            for _ in range(20):
                stood = self._stood(store, other, renew)
                if stood is not None:
                    return _equal(stood, True, "whether claims stand whose lease is renewed")
        _fail(f"a lease of {store.lease} s is too short for a machine as busy as this one")

    def _stood(
        self, store: SharedStore, other: SharedStore, renew: Callable[[list[str], Claimant], None]
    ) -> bool | None:
        """None if `renew` was called so late that nothing follows."""
        namespaces, (a, b), (p, dead, q) = [_namespace(), _namespace()], _keys(2), _claimants(3)
        begun = renewed = time.monotonic()
        for namespace in namespaces:
            store.claim_many(namespace, [a], p, 1)
        store.claim_many(namespaces[0], [b], dead, 1)
        while time.monotonic() < begun + self.patience:
            ended = other.claim_many(namespaces[0], [b], q, 1).claimed
            held = [other.claim_many(namespace, [a], q, 1).held for namespace in namespaces]
            if time.monotonic() >= renewed + store.lease:
                return None
            if ended or held != [[a], [a]]:
                return held == [[a], [a]]
            renewed = time.monotonic()
            renew(namespaces, p)
            time.sleep(store.lease / 20)
        _fail(f"waited {self.patience} seconds in vain until a lease runs out")

    def test_each_key_is_claimed_once(self) -> None:
        """However many claim at the same time, through one handle or two, each key goes to one."""
        with self.make_store() as one, self.make_store() as other:
            namespace, keys = _namespace(), _keys(300)

            def work(store: SharedStore, claimant: Claimant) -> list[bytes]:
                mine: list[bytes] = []
                left = keys
                while claimed := store.claim_many(namespace, left, claimant, 7).claimed:
                    mine += claimed
                    left = [key for key in left if key not in claimed]
                values = dict.fromkeys(mine, b"1")
                _equal(store.publish_many(namespace, values, claimant, None), {}, "values before")
                return mine

            works = [partial(work, one), partial(work, other)] * 4
            claimed = _at_once(
                *(partial(work, claimant) for work, claimant in zip(works, _claimants(8)))
            )
            _equal(sorted(chain(*claimed)), sorted(keys), "what they have claimed together")


def _namespace() -> str:
    return f"contract {uuid4().hex}"


def _odd_namespaces() -> list[str]:
    """Names that are easily mixed up, or mistaken for something else."""
    start = _namespace()
    ends = [
        "", " ", "a", "A", "ab", "a:b", "a/b", "../a", "{", "}", "{}", "{a}", "}{", "'", '"', "`",
        "\\", "%", "%7B", "%s", "*", "[a]", "?", "\n", "\t", ";--", "$1", "é", "e\u0301", "名",
        "\U0001f600", "x" * 200,
    ]  # fmt: skip
    return [start + end for end in ends] + [end + start for end in ends[1:]]


def _claimants(number: int) -> list[Claimant]:
    """Calls of so many processes."""
    return [Claimant(f"{uuid4()}", call) for call in range(1, number + 1)]
