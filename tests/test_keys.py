"""Keys in a store: equal ones have one digest, others never, in every process and version."""

import dataclasses
import enum
import re
from collections.abc import Hashable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchproxy import BatchingMapProxy, Cache
from batchproxy.codecs import digests
from batchproxy.stores import SQLiteStore
from batchproxy.testing import Calls

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment] # so that the tests can be collected


# What is digested. A change of any of these makes every existing store useless.
ENCODED: list[tuple[Hashable, bytes]] = [
    ("", b"s"),
    ("1", b"s1"),
    ("(1, 2)", b"s(1, 2)"),
    ("é😀", b"s\xc3\xa9\xf0\x9f\x98\x80"),
    ("\ud83d\ude00", b"s\xed\xa0\xbd\xed\xb8\x80"),
    (b"", b"b"),
    (b"1", b"b1"),
    (1, b"i1"),
    (1.0, b"f\x3f\xf0\0\0\0\0\0\0"),
    (True, b"?1"),
    (0, b"i0"),
    (0.0, b"f\0\0\0\0\0\0\0\0"),
    (-0.0, b"f\0\0\0\0\0\0\0\0"),
    ((-0.0,), b"((1:9:f\0\0\0\0\0\0\0\0"),
    (False, b"?0"),
    (None, b"n"),
    (-255, b"i-ff"),
    (2**80, b"i1" + 20 * b"0"),
    (float("-inf"), b"f\xff\xf0\0\0\0\0\0\0"),
    (date(1, 1, 1), b"d1"),
    (date(2024, 2, 29), b"db4681"),
    (datetime(1, 1, 1, 0, 0, 1), b"wf4240"),
    (datetime(1, 1, 1, 0, 0, 1, fold=1), b"wf4240"),
    (datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC), b"af4240"),
    (datetime(1, 1, 1, 2, 0, 1, tzinfo=timezone(timedelta(hours=2))), b"af4240"),
    (datetime(1, 1, 1, 0, 0, 0, 0, timezone(timedelta(seconds=1))), b"a-f4240"),
    (
        datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        b"ae27272e9259200,e27273bfb93600,Europe/Berlin",
    ),
    (time(0, 0, 1), b"tf4240"),
    (time(0, 0, 1, tzinfo=UTC), b"of4240"),
    (time(2, 0, 1, tzinfo=timezone(timedelta(hours=2))), b"of4240"),
    (timedelta(seconds=-1, microseconds=1), b"l-f423f"),
    (Decimal("-12.500"), b"m-125e-1"),
    (Decimal("1E+2"), b"m1e2"),
    (Decimal("100.00"), b"m1e2"),
    (Decimal("-0.0"), b"m0"),
    (Decimal("-Infinity"), b"m-inf"),
    (Decimal("Infinity"), b"minf"),
    (UUID(int=1), b"u" + 15 * b"\0" + b"\1"),
    ((UUID(int=1), date(1, 1, 1)), b"((2:11:u" + 15 * b"\0" + b"\1" + b"2:d1"),
    ((), b"((0:"),
    (((),), b"((1:(0:"),
    ((1, 2), b"((2:2:i12:i2"),
    (("a", ("b", b"c"), None, False), b"((4:2:sa(2:2:sb2:bc1:n2:?0"),
    (20 * ("x" * 300,), b"((14:" + 20 * (b"12d:s" + 300 * b"x")),
]

PINNED = {
    "text": "7a146ccf712e410b43fae923f38f8d2ed0b2986b",
    42: "99df6fd664b741b6def02d50172816c59a009bd3",
    (1, "a", (None, 2.5, b"\0")): "8f880aa2f0a9e20ce536fe86dfe0006b5ff4012a",
}


@pytest.mark.parametrize(("key", "encoded"), ENCODED)
def test_what_is_digested(key: Hashable, encoded: bytes) -> None:
    """Each supported type has a byte of its own, and a fixed form behind it."""
    assert digests([key]) == [blake2b(encoded, digest_size=20).digest()]


def test_pinned() -> None:
    """The digests are those that existing stores have."""
    assert [digest.hex() for digest in digests(list(PINNED))] == list(PINNED.values())


def test_in_bulk() -> None:
    """The digests are in the order of the keys, one for each, whatever is beside it."""
    keys = [key for key, _ in ENCODED]
    assert digests(keys) == [digests([key])[0] for key in keys]
    assert digests(()) == []


def test_what_python_takes_for_one_key() -> None:
    """Numbers that are equal, text, bytes and tuples that look alike are keys of their own."""
    keys = [1, 1.0, True, "1", b"1", "True", (1,), ("1",), "(1, 2)", (1, 2), (1.0, 2), ((1, 2),)]
    keys += [None, "None", (), "", b"", ((),), 0, False, 0.0]
    assert len(set(digests(keys))) == len(keys)


def test_times_that_a_clock_shows_twice() -> None:
    """As for ==, they are one key in their zone, whatever the fold, and no key of another one."""
    once, twice = datetime(2020, 10, 25, 1, 30), datetime(2020, 10, 25, 2, 30)
    berlin, paris = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Paris")
    keys = [moment.replace(tzinfo=berlin) for moment in (once, twice)]
    utc = [key.replace(fold=fold).astimezone(UTC) for key in keys for fold in (0, 1)]
    assert digests([key.replace(fold=1) for key in keys]) == digests(keys)
    assert len(set(digests([*keys, *utc]))) == 4
    assert digests(utc[:2]) == digests([keys[0]] * 2)
    there = [key.replace(tzinfo=paris, fold=1) for key in keys]
    assert [key in digests(keys) for key in digests(there)] == [True, False]


def test_zones_without_a_key() -> None:
    """What is twice there, or never, is refused: it could be taken for that of another zone."""

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta | None:
            return timedelta(hours=moment.fold if moment is not None and moment.hour == 2 else 0)

        dst = tzname = utcoffset  # type: ignore[assignment] # nobody asks

    once, twice = (datetime(2020, 10, 25, hour, tzinfo=Zone()) for hour in (1, 2))
    assert digests([once]) == digests([once.astimezone(UTC)])
    with pytest.raises(TypeError, match=r"cannot be .*, 2, 0.*twice or never.*key=lambda"):
        digests([(twice,)])


@pytest.mark.parametrize("unknown", [0, 1])
def test_zones_that_know_one_fold_only(unknown: int) -> None:
    """A time in one is one without a zone, whatever its own fold."""

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta | None:
            return None if moment is None or moment.fold == unknown else timedelta(0)

        dst = tzname = utcoffset  # type: ignore[assignment] # nobody asks

    moment = datetime(2020, 10, 25, 1, 30)
    keys = [moment.replace(tzinfo=Zone(), fold=fold) for fold in (0, 1)]
    assert digests(keys) == digests([moment, moment])


def test_all_digits_count() -> None:
    """However few Python is told to calculate with, and however many there are."""
    long = Decimal("1." + 40 * "1")
    keys = [long, +long, Decimal("1E+999999"), Decimal("1E-999999"), 2**70_000, 2**70_000 + 1]
    assert len(set(digests(keys))) == len(keys)


zones = st.sampled_from(
    [
        *(None, UTC, timezone(timedelta(hours=2))),
        *map(ZoneInfo, ("Europe/Berlin", "Europe/Paris", "UTC")),
    ]
)
moments = st.sampled_from(
    [datetime.min, datetime.max, *(datetime(2020, 10, 25, hour, 30) for hour in range(5))]
) | st.datetimes(datetime(2020, 3, 29), datetime(2020, 3, 29, 6))
placed = st.builds(
    lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), moments, zones, st.integers(0, 1)
)
times = st.one_of(
    placed,
    placed.map(datetime.timetz),
    st.sampled_from([0, 1]).map(timedelta),
    st.timedeltas(),
    st.dates(date(2020, 3, 1), date(2020, 3, 3)),
    st.decimals(-10, 10, allow_nan=False, places=1),
    st.decimals(allow_nan=False),
    st.sampled_from([Decimal(text) for text in ("1", "1.0", "-0", "0.00", "1E1", "10", "10.0")]),
    st.uuids(),
)
scalars = (
    st.none()
    | times
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([0, 0.0, False, 1, 1.0, True, "1", b"1"])
)
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def typed(key: Any) -> Any:
    """`key` with its types beside it, so that == tells apart what the digests shall."""
    return (type(key), tuple(map(typed, key)) if type(key) is tuple else key)


@given(keys, keys)
@example(("a", "b"), ("ab",))
@example((("a",), "b"), (("a", "b"),))
@example(("1:",), ("1", ":"))
def test_different_keys_have_different_digests(one: Any, other: Any) -> None:
    """Two keys have the same digest if they are equal and of the same types, and only then."""
    (first,), (second,) = digests([one]), digests([other])
    assert len(first) == len(second) == 20
    assert (first == second) == (typed(one) == typed(other))


Colour = enum.IntEnum("Colour", {"RED": 1})
Word = enum.StrEnum("Word", {"A": "a"})
Size = enum.Enum("Size", {"SMALL": 1})
Frozen = dataclasses.make_dataclass("Frozen", ["x"], frozen=True)


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int


class Item:
    def __repr__(self) -> str:
        return "<an item>"


ENUM, OTHER = r".*or take the \.value of an Enum's member", "$"


@pytest.mark.parametrize(
    ("key", "name", "hint"),
    [
        (Size.SMALL, "Size", ENUM),
        (Colour.RED, "Colour", ENUM),
        (Word.A, "Word", ENUM),
        (Frozen(1), "Frozen", r".*or take dataclasses\.astuple"),
        (frozenset("ab"), "frozenset", r".*or take tuple\(sorted\(\.\.\.\)\) of a set"),
        (Text("a"), "Text", r".*or take str\(\.\.\.\) of it"),
        (Point(1), "Point", r".*or take tuple\(\.\.\.\) of it"),
        (1j, "complex", OTHER),
        (Item(), "Item", OTHER),
        (int, "type", OTHER),
    ],
)
def test_other_types(key: Hashable, name: str, hint: str) -> None:
    """Subclasses and everything else are refused, alone and in tuples, with what to use instead."""
    possible = "is None, a bool, int, float, str, bytes, date, datetime, time, timedelta, Decimal"
    remedy = rf"{possible}, UUID, a NumPy scalar .*key=lambda item: item\.id{hint}"
    with pytest.raises(TypeError, match=remedy) as caught:
        digests(["fine", key])
    assert re.search(rf"got .* of type '{name}'; ", str(caught.value))
    with pytest.raises(TypeError, match=rf"of type '{name}' in \('a', \(1, .*\)\); .*key="):
        digests(["fine", ("a", (1, key))])


def test_messages_are_short() -> None:
    """However long a key is, and whatever is in it."""
    long = tuple(tuple("x" * 1000 for _ in range(100)) for _ in range(100))
    for part in (1j, float("nan"), Text("x" * 10**6)):
        with pytest.raises((TypeError, ValueError)) as caught:
            digests([(part, *long)])
        assert len(str(caught.value)) < 900


# NumPy.

needs_numpy = pytest.mark.skipif(np is None, reason="NumPy is not installed")


@needs_numpy
def test_numpy_scalars() -> None:
    """Each is the Python value that it stands for, alone and in tuples."""
    for scalar, value in (
        (np.int64(1), 1),
        (np.uint8(255), 255),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(-0.0), 0.0),
        (np.bool_(True), True),
        (np.str_("a\0é"), "a\0é"),
        (np.bytes_(b"a\0"), b"a\0"),
        (np.datetime64("2020-01-02"), date(2020, 1, 2)),
        (np.datetime64("2020"), date(2020, 1, 1)),
        (np.datetime64("2020-01-02T03"), datetime(2020, 1, 2, 3)),
        (np.datetime64("2020-01-02T03:04:05.000006", "ns"), datetime(2020, 1, 2, 3, 4, 5, 6)),
        (np.timedelta64(1500, "ms"), timedelta(seconds=1.5)),
        *(
            (np.array(1000**n, f"m8[{u}s]")[()], timedelta(0, 0, 1))
            for n, u in enumerate("npfa", 1)
        ),
    ):
        assert digests([scalar, (1, scalar)]) == digests([value, (1, value)]), scalar


@needs_numpy
def test_numpy_scalars_that_stand_for_nothing() -> None:
    """They are refused: no number that is their number of units, nor a shorter text."""

    class Metres(np.float64):
        pass

    for key in (
        np.datetime64("2020-01-01T00:00:00.000000001"),
        np.datetime64("20000-01-01"),
        np.datetime64("20000-01-01T00:00:00", "us"),
        np.timedelta64(1, "ns"),
        np.timedelta64(1, "M"),
        np.longdouble(1),
        np.void(b"abc"),
    ):
        with pytest.raises(TypeError, match=r"of type '.*key=.*or take str\(\.\.\.\) of it"):
            digests([key])
    for other, kind in (
        (np.complex128(1), "'complex'"),
        (np.dtype("f8"), r"'.*[dD][tT]ype.*'"),
        (Metres(1), r"'.*Metres'.*or take float\(\.\.\.\) of it"),  # as subclasses of Python's
    ):
        with pytest.raises(TypeError, match=f"of type {kind}"):
            digests([other])


def test_nan() -> None:
    """NaN equals nothing, so that it could never be found; NumPy has its own, and NaT."""
    nans: list[Any] = [float("nan"), Decimal("nan"), Decimal("sNaN")]
    if np is not None:
        nans += [np.float64("nan"), np.float16("nan")]
        nans += [kind("NaT", "ns") for kind in (np.datetime64, np.timedelta64)]
        nans += [kind("NaT", "s") for kind in (np.datetime64, np.timedelta64)]
    for nan in nans:
        with pytest.raises(
            ValueError, match=r"cannot be NaN( in np\..*)?: it would never be found"
        ):
            digests([nan])
        with pytest.raises(ValueError, match=r"cannot be NaN in \(1, .*\)"):
            digests([(1, nan)])


def test_deep_tuples() -> None:
    """A key may be nested more deeply than Python recurses, and every level counts."""
    deep: list[Any] = ["x"]
    for _ in range(20_000):
        deep.append((deep[-1],))
    assert len(set(digests(deep[-3:]))) == 3


def test_keys_of_a_table(tmp_path: Path) -> None:
    """What is one key in memory another process finds in the store, and can be forgotten."""
    keys: list[Any] = [date(2020, 1, 1), datetime(2020, 1, 1), time(1), timedelta(1), UUID(int=1)]
    keys += [Decimal("1.50"), datetime(2020, 1, 1, 12, tzinfo=UTC)]
    zone = timezone(timedelta(hours=1))
    same = [*keys[:5], Decimal("1.5"), datetime(2020, 1, 1, 13, tzinfo=zone)]
    calls = Calls(str)
    texts = list(map(str, keys))
    with SQLiteStore(tmp_path / "s.db") as store:
        first, second, third = (Cache[str](store=store, namespace="n") for _ in range(3))
        assert BatchingMapProxy[Any, str](cache=first).map([*keys, *same], calls) == texts * 2
        assert BatchingMapProxy[Any, str](cache=second).map(same, calls) == texts
        assert calls.batches == [keys]
        second.invalidate(same[5:])
        assert BatchingMapProxy[Any, str](cache=third).map(keys, calls) == texts
        assert calls.batches == [keys, keys[5:]]
