"""Keys in a store: equal ones have one digest, others never, in every process and version."""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
from collections.abc import Hashable
from hashlib import blake2b
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import batchproxy._digests
from batchproxy._digests import SIZE, digests

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
    (False, b"?0"),
    (None, b"n"),
    (-255, b"i-ff"),
    (2**80, b"i1" + 20 * b"0"),
    (float("-inf"), b"f\xff\xf0\0\0\0\0\0\0"),
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


def test_zeros() -> None:
    """-0.0 equals 0.0 and has the same type, so it is the same key."""
    assert digests([-0.0, (-0.0,)]) == digests([0.0, (0.0,)])


scalars = (
    st.none()
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
    assert len(first) == len(second) == SIZE == 20
    assert (first == second) == (typed(one) == typed(other))


@given(st.integers(), st.integers(0, 2**16))
def test_integers_of_any_size(number: int, shift: int) -> None:
    """There is no limit to the digits, and none are lost."""
    one, other = digests([number << shift, (number << shift) + 1])
    assert one != other


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Word(enum.StrEnum):
    A = "a"


class Point(NamedTuple):
    x: int


class Item:
    def __repr__(self) -> str:
        return "<an item>"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (Colour.RED, "Colour"),
        (Text("a"), "Text"),
        (Word.A, "Word"),
        (Point(1), "Point"),
        (frozenset({1}), "frozenset"),
        (1j, "complex"),
        (Item(), "Item"),
        (int, "type"),
    ],
)
def test_other_types(key: Hashable, name: str) -> None:
    """Subclasses and everything else are refused, alone and in tuples, with the advice of key=."""
    with pytest.raises(TypeError, match=rf"got .* of type '{name}'; .*key=lambda item: item\.id"):
        digests(["fine", key])
    with pytest.raises(TypeError, match=rf"of type '{name}' in \('a', \(1, .*\)\); .*key="):
        digests(["fine", ("a", (1, key))])


def test_numpy_scalars() -> None:
    """A float64 is a float only by inheritance: refused, since whoever reads may not have NumPy."""
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    for key in (numpy.float64(1), numpy.int64(1), numpy.str_("a")):
        with pytest.raises(TypeError, match="key="):
            digests([key])


def test_nan() -> None:
    """NaN equals nothing, so that it could never be found."""
    with pytest.raises(ValueError, match="cannot be NaN: it would never be found"):
        digests([float("nan")])
    with pytest.raises(ValueError, match=r"cannot be NaN in \(1, nan\)"):
        digests([(1, float("nan"))])


def test_deep_tuples() -> None:
    """A key may be nested more deeply than Python recurses, and every level counts."""
    deep: list[Any] = ["x"]
    for _ in range(20_000):
        deep.append((deep[-1],))
    assert len(set(digests(deep[-3:]))) == 3


# The module alone: what the package needs may not be installed there.
SCRIPT = """
import runpy, sys
digests = runpy.run_path(sys.argv[1])["digests"]
print(*[digest.hex() for digest in digests(["text", 42, (1, "a", (None, 2.5, b"\\0"))])])
"""


@pytest.mark.parametrize("seed", ["0", "4711"])
@pytest.mark.parametrize("python", ["this", "python3.11", "python3.12", "python3.13", "python3.14"])
def test_other_processes(python: str, seed: str) -> None:
    """Another process, of another version and with other hashes, gets the same digests."""
    executable = sys.executable if python == "this" else shutil.which(python)
    if executable is None or subprocess.run([executable, "-V"], capture_output=True).returncode:
        pytest.skip(f"there is no {python}")
    printed = subprocess.check_output(
        [executable, "-c", SCRIPT, batchproxy._digests.__file__],
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert printed.split() == list(PINNED.values())
