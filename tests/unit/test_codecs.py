"""Values in a store come back equal and of the same type, or are refused when they are written."""

import dataclasses
import datetime
import enum
import importlib.util
import math
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import batchproxy.codecs
from batchproxy import Cache
from batchproxy._backing.codecs import Codecs, UnreadableValue
from batchproxy._backing.plain import MAX_DEPTH
from batchproxy.codecs import Codec, MsgspecCodec, PickleCodec, PydanticCodec

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment] # so that the tests can be collected


def needs(library: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(library) is not None
    return pytest.mark.skipif(not there, reason=f"{library} is not installed")


plain = Codecs(None)


def exactly(value: Any) -> Any:
    """What has to be equal so that two values are the same: types, the sign of 0, NaN."""
    if isinstance(value, list | tuple):
        return type(value), [exactly(part) for part in value]
    if isinstance(value, dict):
        return type(value), [(exactly(key), exactly(part)) for key, part in value.items()]
    if np is not None and isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return type(value), array.dtype, array.dtype.type, array.shape, repr(array.tolist())
    if isinstance(value, float):
        return type(value), math.copysign(1, value), repr(value)
    return type(value), value


def assert_comes_back(value: Any, codecs: Codecs = plain) -> None:
    assert exactly(codecs.loads(codecs.dumps(value))) == exactly(value)


# What is built in.

WRITTEN: list[tuple[Any, bytes]] = [
    (b"\0\xff", b"b\0\xff"),
    ("é", b"t\xc3\xa9"),
    ("\ud83d\ude00", b"t\xed\xa0\xbd\xed\xb8\x80"),
    (None, b"jnull"),
    (True, b"jtrue"),
    (1, b"j1"),
    (-0.0, b"j-0.0"),
    ([1.0, 1, "é", [None]], b'j[1.0,1,"\xc3\xa9",[null]]'),
    ({"b": {}, "a": "\ud83d\ude00"}, b'j{"b":{},"a":"\xed\xa0\xbd\xed\xb8\x80"}'),
]


@pytest.mark.parametrize(("value", "data"), WRITTEN)
def test_what_is_written(value: Any, data: bytes) -> None:
    """The first byte names the way; existing stores depend on the bytes."""
    assert plain.dumps(value) == data
    assert exactly(plain.loads(data)) == exactly(value)


class Celsius(float):
    pass


class Words(list[str]):
    pass


class Size(enum.IntEnum):
    SMALL = 1


class Name(str):
    __slots__ = ()


@dataclasses.dataclass
class Place:
    name: str
    position: tuple[float, float]
    height: float | None = None


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize("place", [lambda value: [1, value], lambda value: [{"a": {"b": value}}]])
@pytest.mark.parametrize(
    ("remedy", "values"),
    [
        ("use a list", [(1, 2), Pair(1, 2), {1}, frozenset()]),
        (r"use float\(value\)", [Celsius(1)]),
        (r"use int\(value\)", [Size.SMALL]),
        (r"use str\(value\)", [Name("x")]),
        (r"use list\(value\)", [Words("a")]),
        (r"use dict\(value\)", [OrderedDict()]),
        (r"MsgspecCodec\(TYPE\)", [Place("x", (1, 2)), datetime.date(2024, 1, 1), int]),
        ("PydanticCodec, for models", [1j]),
    ],
)
def test_types_that_would_not_come_back(
    remedy: str, values: list[object], place: Callable[[object], object]
) -> None:
    """They are refused alone and wherever they are in lists and dicts; the error has the remedy."""
    for value in values:
        named = rf"of type '{type(value).__qualname__}'.*{remedy}"
        for refused, where in ((value, "a result cannot be"), (place(value), "in a result cannot")):
            with pytest.raises(TypeError, match=f"{where}.*{named}"):
                plain.dumps(refused)


def test_bytes_inside() -> None:
    """Bytes have their own way alone, and none in JSON."""
    with pytest.raises(TypeError, match=r"cannot contain b'x' of type 'bytes': .*value\.hex\(\)"):
        plain.dumps([b"x"])


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1,), Name("x")])
def test_keys_of_dicts(key: Any) -> None:
    """JSON has no other keys than text."""
    with pytest.raises(TypeError, match=r"has the key .*keys must be str exactly: use str\(key\)"):
        plain.dumps({"fine": {"fine": 1, key: 1}})


@pytest.mark.parametrize(
    "number", [math.nan, math.inf, -math.inf, pytest.param(10**5000, id="long")]
)
def test_numbers_that_json_has_not(number: float) -> None:
    """They are refused, alone and inside."""
    for value in (number, [number], {"a": [0.5, number]}):
        with pytest.raises(ValueError, match=r"None for NaN and infinities, and text, such as hex"):
            plain.dumps(value)


def test_depth() -> None:
    """Nesting has a limit that any process can read, and what contains itself is over it."""
    value: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert_comes_back(value)
    endless: list[Any] = [1]
    endless += [endless, {"again": endless}]
    for refused in ([value], {"a": value}, endless):
        with pytest.raises(ValueError, match="more than 100 deep, or contains itself"):
            plain.dumps(refused)


texts = st.text(st.characters(exclude_categories=()), max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
odd = st.sampled_from(
    [(), (1,), {1}, b"x", Size.SMALL, Celsius(1), Name("x"), 1j, OrderedDict(a=1)]
)
nested = st.recursive(
    scalars | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.integers(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)


@given(nested | st.binary() | st.text())
@example([-0.0, 0, 0.0, True, 1])
@example(["\ud83d\ude00", {"\ud83d\ude00": "😀"}])
@example([10**4000, 1e308, 5e-324])
def test_any_value(value: Any) -> None:
    """It comes back the same, down to the types of what it contains, or it is refused."""
    try:
        data = plain.dumps(value)
    except (TypeError, ValueError):
        with pytest.raises((TypeError, ValueError)):  # and not by chance
            plain.dumps([value])
    else:
        assert exactly(plain.loads(data)) == exactly(value)


# NumPy.

DTYPES = ["?", "<i2", ">f8", "<f2", "<c16", "M8[25s]", "m8[D]", "S3", "<U4", "V5", "g"]


@needs("numpy")
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
@pytest.mark.parametrize("dtype", [*DTYPES, [("a", "<i4", (2,)), (("a title", "名"), ">U3")]])
def test_arrays(dtype: Any, shape: tuple[int, ...]) -> None:
    """Dtype, byte order, shape and order in memory come back; the result can be written to."""
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    for value in (array, np.asfortranarray(array), array[::-1] if shape else array):
        back = plain.loads(plain.dumps(value))
        assert exactly(back) == exactly(value)
        assert back.flags.writeable
        if value.flags.contiguous:
            assert back.flags.f_contiguous == value.flags.f_contiguous


@needs("numpy")
def test_scalars() -> None:
    """A NumPy scalar comes back as one, of the same dtype."""
    structured = np.zeros((), [("a", "i4")])[()]
    for value in (
        *(np.zeros((), dtype)[()] for dtype in DTYPES),
        *(np.float64("nan"), np.float32(0.1), np.int8(-1), np.bool_(True)),
        np.datetime64("NaT", "D"),
        *(np.str_("é\ud800"), np.str_(""), np.bytes_(b"a"), np.void(b"abc"), structured),
    ):
        assert_comes_back(value)


def twin() -> Any:
    """An integer type of C that equals another one, under whose name it would come back."""
    types = [getattr(np, name, None) for name in ("intc", "long", "longlong")]
    return next(each for each in types if each and np.dtype(np.dtype(each).str).type is not each)


@needs("numpy")
def test_what_numpy_would_not_give_back() -> None:
    """Objects, foreign and lossy dtypes and subclasses are refused, with the remedy."""
    overlapping = {"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2]}
    wide = [(f"field_{number}", "<i4") for number in range(1000)]
    for dtype in (
        *(object, [("a", [("b", object)])], np.dtype((np.record, [("a", "i4")])), overlapping),
        *(np.dtype("f8", metadata={"unit": "m"}), wide, [], twin()),
        *([("a", twin())], [("a", twin(), (2,))], [("a", [("b", twin())])]),
        [("a", np.dtype("f8", metadata={"unit": "m"}))],
        [("a", np.dtype((np.record, [("b", "i4")])))],
        np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"]}, align=True),
    ):
        with pytest.raises(TypeError, match=r"NumPy data of dtype .*value\.tolist\(\)"):
            plain.dumps(np.zeros(2, dtype))
    for value in (np.ma.array([1]), np.rec.array([(1,)], dtype=[("a", "i4")]), np.dtype("f8")):
        with pytest.raises(TypeError, match=r"use numpy\.asarray\(value\)"):
            plain.dumps(value)
    for text in (np.str_("a\0"), np.bytes_(b"a\0")):
        with pytest.raises(ValueError, match="drops the NULs at its end"):
            plain.dumps(text)
    for inside in (np.float64(1), np.zeros(2)):
        with pytest.raises(TypeError, match=r"use value\.tolist\(\)"):
            plain.dumps([1.0, inside])


def header(descr: str, shape: str) -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()


@needs("numpy")
@pytest.mark.parametrize(
    "header",
    [
        header("'<f8'", "(4000000000000000,)"),
        header("'<f8'", "(9, 9)"),
        header("'|O'", "(1,)"),
        header("'|V0'", "(1000000000000000,)"),
        header("'|S0'", "(1000000000000,)"),
        header("[]", "(2000000000,)"),
        b"{'descr': '<f8'}",
        pytest.param(b"{" * 9000, id="braces"),
        pytest.param(b" " * 20_000, id="blanks"),
    ],
)
def test_crafted_arrays(header: bytes) -> None:
    """Whatever a header claims, it is unreadable, and takes no memory."""
    data = b"\x93NUMPY\x03\0" + len(header).to_bytes(4, "little") + header
    for tag in (b"n", b"s"):
        for rest in (b"", bytes(16)):
            with pytest.raises(UnreadableValue):
                plain.loads(tag + data + rest)


@needs("numpy")
def test_an_array_for_a_scalar() -> None:
    """It is unreadable: no scalar has been written like that."""
    array = plain.dumps(np.zeros(3))
    with pytest.raises(UnreadableValue, match="it is an array"):
        plain.loads(b"s" + array[1:])


# What cannot be read.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "its tag is b'', it was written by an unknown codec; this cache has no codec"),
        (b"X", "its tag is b'X', it was written by an unknown codec"),
        (b"k" + pickle.dumps(1), "its tag is b'k', it was written by PickleCodec"),
        (b"m\x01", "its tag is b'm', it was written by MsgspecCodec"),
        (b"p1", "its tag is b'p', it was written by PydanticCodec"),
        (b"t\xff", "the 2 bytes with the tag b't' cannot be read: UnicodeDecodeError"),
        (b"j[1", "the 3 bytes with the tag b'j' cannot be read: JSONDecodeError"),
        (b"jNaN", "ValueError: NaN is nothing that was written here"),
        (b"j" + b"[" * 100_000, "RecursionError"),
        (b"j" + b"1" * 5000, "ValueError: Exceeds the limit"),
    ],
)
def test_unreadable(data: bytes, reason: str) -> None:
    """What cannot be read, or only by a codec not named, is one exception that says why."""
    with pytest.raises(UnreadableValue, match=re.escape(reason)):
        plain.loads(data)


def test_other_tags_with_a_codec() -> None:
    """The reason names the codec that the cache has."""
    with pytest.raises(UnreadableValue, match=r"PydanticCodec; this cache has PickleCodec\(\)"):
        Codecs(PickleCodec()).loads(b"p1")


def real_arrays() -> list[bytes]:
    if np is None:
        return []
    return [plain.dumps(np.arange(6).reshape(2, 3)), plain.dumps(np.str_("x"))]


@given(
    st.binary()
    | st.tuples(st.sampled_from([b"b", b"t", b"j", b"n", b"s"]), st.binary()).map(b"".join)
    | st.tuples(
        st.sampled_from([*(data for _, data in WRITTEN), *real_arrays()]),
        st.integers(0, 200),
        st.binary(max_size=3),
        st.integers(0, 200),
    ).map(lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[3] :])
)
def test_any_bytes(data: bytes) -> None:
    """They give a value, or the one exception, and no other."""
    try:
        plain.loads(data)
    except UnreadableValue:
        pass


# Codecs that the user names.


class Upper(Codec):
    """Text in capitals: what comes back depends on the case."""

    tag = b"U"

    def encode(self, value: Any) -> bytes:
        return bytes(value.upper(), "ascii")

    def decode(self, data: bytes) -> Any:
        return data.decode("ascii").lower()


def test_a_codec_of_ones_own() -> None:
    """It writes every value, also those that need none, and reads what it wrote."""
    codecs = Codecs(Upper())
    assert codecs.dumps("text") == b"UTEXT"
    assert codecs.loads(b"UTEXT") == "text"
    with pytest.raises(UnreadableValue, match="UnicodeDecodeError"):
        codecs.loads(b"U\xff")
    with pytest.raises(AttributeError):  # what it raises arrives as it is
        codecs.dumps(1)


def test_values_from_before_the_codec() -> None:
    """What was written without a codec is still read with one, and not the other way round."""
    codecs = Codecs(Upper())
    for value, data in WRITTEN:
        assert exactly(codecs.loads(data)) == exactly(value)
    with pytest.raises(UnreadableValue):
        plain.loads(codecs.dumps("text"))


@pytest.mark.parametrize("tag", [b"", b"XX", "X", 88, b"x", b"j", b"k"])
def test_tags(tag: Any) -> None:
    """A tag is one byte, and no lower-case letter: those belong to the library."""

    mine = Upper()
    mine.tag = tag
    with pytest.raises(ValueError, match=r"one byte, such as b'A'|reserved.* such as b'[XJK]'"):
        Codecs(mine)


def test_a_codec_without_a_tag() -> None:
    """It is refused, with what a tag looks like; one without a method cannot even be made."""

    class Unfinished(Codec):
        encode = Upper.encode

    class Tagless(Unfinished):
        decode = Upper.decode

    with pytest.raises(ValueError, match="one byte, such as b'A', got b''"):
        Codecs(Tagless())
    with pytest.raises(TypeError, match="decode"):
        Unfinished()  # type: ignore[abstract] # that is what is tested


@pytest.mark.parametrize("codec", [PickleCodec, "pickle", pickle])
def test_what_is_no_codec(codec: Any) -> None:
    """A class, a name or a module is refused, with an example."""
    with pytest.raises(TypeError, match=r"an instance of a Codec, or None, got .*codec=batchproxy"):
        Cache(codec=codec)


def test_a_codec_that_gives_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is refused, and named."""
    monkeypatch.setattr(Upper, "encode", lambda *_: "text")
    with pytest.raises(TypeError, match=r"Upper\(\).encode\(\) must give bytes, got 'text' of"):
        Codecs(Upper()).dumps("x")


# Pickle.


def test_pickle() -> None:
    """It takes what the built-in ways refuse, tuples and NaN included."""
    codecs = Codecs(PickleCodec())
    assert codecs.dumps((1, 2))[:1] == b"k"
    for value in ((1, {2: (3,)}), math.nan, Place("x", (1, 2)), Size.SMALL, [datetime.date.max]):
        assert_comes_back(value, codecs)
    assert repr(PickleCodec()) == "PickleCodec()"


def test_what_cannot_be_pickled() -> None:
    """The exception says which value, and is always a TypeError."""
    for value in (lambda: 1, (part for part in [1])):
        with pytest.raises(TypeError, match=r"of type '.*' cannot be pickled"):
            PickleCodec().encode(value)


class Armed:
    fired: list[str]

    def __reduce__(self) -> Any:
        return Armed.fire, ()

    @staticmethod
    def fire() -> None:
        Armed.fired.append("!")


def test_pickles_are_not_touched_unasked() -> None:
    """The code in a stored pickle runs only where the user named PickleCodec."""
    Armed.fired = []
    data = Codecs(PickleCodec()).dumps(Armed())
    for codec in (None, Upper()):
        with pytest.raises(UnreadableValue, match="PickleCodec"):
            Codecs(codec).loads(data)
    assert Armed.fired == []
    Codecs(PickleCodec()).loads(data)
    assert Armed.fired == ["!"]


# msgspec and pydantic.


def typed(kind: str, type_: Any) -> Codec:
    return MsgspecCodec(type_) if kind == "msgspec" else PydanticCodec(type_)


both = pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=needs(name)) for name in ("msgspec", "pydantic")]
)


@both
def test_typed_bytes_that_cannot_be_read(kind: str) -> None:
    """After the type has changed, older values are unreadable; so is garbage.

    (Which values of which types come back, and which not, is in `test_same_values`.)
    """
    codecs = Codecs(typed(kind, dict[str, int]))
    old, tag = codecs.dumps({"a": 1}), kind[:1].encode()
    assert (codecs.loads(old), old[:1]) == ({"a": 1}, tag)
    for data in (old, tag, tag + b"\xff"):
        with pytest.raises(UnreadableValue, match="cannot be read"):
            Codecs(typed(kind, Place)).loads(data)
    for type_, name in ((Place, "Place"), (list[int], "list[int]")):
        assert repr(typed(kind, type_)) == f"{kind.title()}Codec({name})"


# What is imported.


@pytest.mark.parametrize("name", ["msgspec", "pydantic"])
def test_missing_libraries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"needs {name}: pip install 'batchproxy\[{name}\]'"):
        typed(name, int)


def test_reading_arrays_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NumPy an array counts as unreadable; the reason says what is missing."""
    monkeypatch.setitem(sys.modules, "numpy.lib", None)
    with pytest.raises(UnreadableValue, match=r"ModuleNotFoundError: .*numpy"):
        plain.loads(b"n\x93NUMPY")


def test_importing_is_light() -> None:
    """Nothing optional is loaded by the codecs, nor by writing and reading plain values."""
    script = (
        "import sys; from batchproxy._backing.codecs import Codecs; import batchproxy.codecs;"
        "codecs = Codecs(None); codecs.loads(codecs.dumps([1.5])); print(*sys.modules)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"numpy", "msgspec", "pydantic"} & set(loaded)


def test_the_door() -> None:
    """The public names say that they are from there; that they are all is in `test_surface`."""
    for name in batchproxy.codecs.__all__:
        assert getattr(batchproxy.codecs, name).__module__ == "batchproxy.codecs"
