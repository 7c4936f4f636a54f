"""The public surface: names, docstrings, signatures of both faces, what an import costs."""

import ast
import importlib.util
import inspect
import pickle
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import batchproxy
import batchproxy.codecs
import batchproxy.stores
import batchproxy.testing
from batchproxy import AsyncBatchingMapProxy, BatchingMapProxy

SECTIONS = ["Args", "Returns", "Raises", "Checkpoints", "Cancellation", "Threads"]
DOORS = [batchproxy, batchproxy.stores, batchproxy.codecs, batchproxy.testing]
if importlib.util.find_spec("pyarrow"):
    DOORS.append(importlib.import_module("batchproxy.columns"))
ENGINES = {"duckdb": "duckdb", "pandas": "pandas", "polars": "polars", "spark": "pyspark"}
INTEGRATIONS = [
    importlib.import_module(f"batchproxy.integrations.{engine}")
    for engine, needed in ENGINES.items()
    if importlib.util.find_spec(needed) and importlib.util.find_spec("pyarrow")
]
PUBLIC = [getattr(door, name) for door in DOORS for name in door.__all__]
OF_ENGINES = [getattr(module, name) for module in INTEGRATIONS for name in module.__all__]
CLASSES = [each for each in PUBLIC if isinstance(each, type)]


def public_callables() -> dict[str, Any]:
    """Every class and function of the surface, and every public method of its own."""
    found: dict[str, Any] = {each.__name__: each for each in PUBLIC}
    found |= {f"{each.__module__.split('.')[-1]} {each.__name__}": each for each in OF_ENGINES}
    for cls in CLASSES:
        for name, member in vars(cls).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                found[f"{cls.__name__}.{name}"] = member
    return found


def test_all_is_what_there_is() -> None:
    """`__all__` is sorted, and names all that is public; there are about a dozen names."""
    for door in DOORS:
        assert door.__all__ == sorted(door.__all__)
        assert len(door.__all__) <= 20
        public = {name for name in vars(door) if not name.startswith("_")}
        submodules = {"cli", "codecs", "columns", "integrations", "stores", "testing"}
        assert public - submodules == set(door.__all__)
    for module in INTEGRATIONS:
        assert module.__all__ == sorted(module.__all__)


@pytest.mark.parametrize("public", [*PUBLIC, *OF_ENGINES])
def test_names_are_those_that_users_import(public: Any) -> None:
    """Tracebacks, documentation and pickles show the door that it is imported from."""
    assert public.__module__ in {door.__name__ for door in [*DOORS, *INTEGRATIONS]}


@pytest.mark.parametrize("name", public_callables())
def test_docstrings(name: str) -> None:
    """Everything public has one; its sections come in one order, and name every argument."""
    documented = public_callables()[name]
    doc = inspect.getdoc(documented)
    assert doc
    found = [line.split(":")[0] for line in doc.splitlines() if line.split(":")[0] in SECTIONS]
    assert found == [section for section in SECTIONS if section in found]
    if inspect.isroutine(documented):
        arguments = [arg for arg in inspect.signature(documented).parameters if arg != "self"]
        above = [
            base for cls in CLASSES if cls.__name__ == name.split(".")[0] for base in cls.__mro__
        ]
        if not any(documented.__name__ in vars(base) for base in above[1:]):  # said there
            assert not arguments or "Args" in found
            assert all(f"    {argument}: " in doc for argument in arguments)
        if inspect.iscoroutinefunction(documented):
            assert "Checkpoints" in found


def test_map_states_its_whole_contract() -> None:
    """Of `map()` nothing is left out; only the synchronous one has no checkpoint."""
    wanted = {AsyncBatchingMapProxy.map: SECTIONS, BatchingMapProxy.map: [*SECTIONS]}
    wanted[BatchingMapProxy.map].remove("Checkpoints")
    for method, sections in wanted.items():
        lines = [line.split(":")[0] for line in (inspect.getdoc(method) or "").splitlines()]
        assert [name for name in SECTIONS if name in lines] == sections


# What differs between the faces, and why.
DIFFERENT_NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}


def members(cls: type) -> dict[str, Any]:
    mangled = ("__module__", "__dict__", "__weakref__", "__doc__", "__parameters__")
    hidden = ("__orig_bases__", "__firstlineno__", "__static_attributes__")
    return {
        DIFFERENT_NAMES.get(name, name): member
        for name, member in vars(cls).items()
        if name not in mangled + hidden
    }


def test_both_faces_are_alike() -> None:
    """They have the same members with the same parameters, but for what differs on purpose."""
    asynchronous, synchronous = members(AsyncBatchingMapProxy), members(BatchingMapProxy)
    assert asynchronous.keys() == synchronous.keys()
    for name, member in asynchronous.items():
        if isinstance(member, property):
            continue
        ours, theirs = (
            {
                parameter.name: (parameter.kind, parameter.default)
                for parameter in inspect.signature(function).parameters.values()
            }
            for function in (member, synchronous[name])
        )
        if name == "__init__":
            assert ours.pop("max_concurrency")[1] == 8
            assert theirs.pop("max_concurrency")[1] is None
            assert theirs.pop("backend")[1] == "asyncio"
        if name == "stream":
            assert ours.pop("ordered")[1] is True  # a window at a time there is no other way
        assert ours == theirs, name
    awaited = {name for name, member in asynchronous.items() if inspect.iscoroutinefunction(member)}
    assert awaited == {"map", "clear", "close", "__enter__", "__exit__"}
    assert not any(map(inspect.iscoroutinefunction, synchronous.values()))


# What one folder has of the library besides, lest there be a copy of it: the words of messages, and
# which functions are asynchronous.
BESIDES = {"cli": ["_messages", "_loops"]}


@pytest.mark.parametrize("folder", ["cli", "integrations"])
def test_it_lives_on_public_names(folder: str) -> None:
    """It imports what users can, also for type checkers: the doors of the package, and itself."""
    names = {door.__name__: door.__all__ for door in DOORS} | {"batchproxy.columns": ["map_column"]}
    for file in (Path(str(files("batchproxy"))) / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level != 2:
                continue
            if node.module in BESIDES.get(folder, ()):
                continue
            for alias in node.names:
                name = ".".join(filter(None, ["batchproxy", node.module]))
                submodule = name == "batchproxy" and alias.name in ("codecs", "stores", "testing")
                assert alias.name in names[name] or submodule, (file.name, alias.name)


@pytest.mark.parametrize(
    ("module", "needed", "extra"),
    [
        ("columns", "pyarrow", "arrow"),
        ("integrations.pandas", "pandas", "pandas"),
        ("integrations.polars", "polars", "polars"),
        ("integrations.duckdb", "duckdb", "duckdb"),
        ("integrations.spark", "pyspark", "spark"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, needed: str, extra: str
) -> None:
    """An import says what it needs, and how to get it."""
    for name in [needed, *(name for name in sys.modules if name.startswith(f"{needed}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"batchproxy.{module}", raising=False)
    said = rf"batchproxy\.{module} needs {needed}: pip install 'batchproxy\[{extra}\]'"
    with pytest.raises(ImportError, match=said):
        importlib.import_module(f"batchproxy.{module}")


def loaded_by(statement: str) -> set[str]:
    """The modules that it loads in a fresh interpreter."""
    script = f"import sys; old = {{*sys.modules}}; {statement}; print(*{{*sys.modules}} - old)"
    return {*subprocess.check_output([sys.executable, "-c", script], text=True).split()}


def test_importing_is_light() -> None:
    """It loads no backend, nothing optional, and none of what takes long in Python itself."""
    needed = {"anyio", "batchproxy", "sniffio", "typing_extensions"}  # the last two are anyio's
    heavy = {"asyncio", "concurrent", "email", "http", "importlib.metadata", "multiprocessing"}
    heavy |= {"selectors", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "urllib"}
    for doors, allowed in (("", set()), (".stores, batchproxy.codecs", {"sqlite3", "urllib"})):
        loaded = loaded_by(f"import batchproxy{doors}")
        assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names <= needed
        assert not {name for name in loaded if name.startswith("anyio._backends.")}
        assert not heavy & loaded - allowed
    submodules = ("cli", "codecs", "columns", "integrations", "stores", "testing", "__main__")
    inner = {f"batchproxy.{name}" for name in submodules}
    assert not inner & loaded_by("import batchproxy")


def test_the_version() -> None:
    """It is that of the distribution, and costs nothing until somebody asks; else nothing is."""
    assert batchproxy.__version__ == version("batchproxy")
    assert "importlib.metadata" in loaded_by("import batchproxy; batchproxy.__version__")
    with pytest.raises(AttributeError, match="'batchproxy' has no attribute 'version'"):
        _ = batchproxy.version  # type: ignore[attr-defined] # that is the point


def test_the_package_is_typed() -> None:
    """Type checkers are told so by a marker."""
    assert (files("batchproxy") / "py.typed").is_file()


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (batchproxy.StoreError, RuntimeError),
        (batchproxy.AnswerTypeError, TypeError),
        (batchproxy.AnswerValueError, ValueError),
        (batchproxy.CircularWaitError, RuntimeError),
        (batchproxy.ClosedError, RuntimeError),
        (batchproxy.PortalError, RuntimeError),
    ],
)
def test_errors(kind: type[Exception], builtin: type[Exception]) -> None:
    """Each is the builtin error that one would expect, has a common base, and can be pickled."""
    assert issubclass(kind, builtin)
    assert issubclass(kind, batchproxy.BatchProxyError)
    again = pickle.loads(pickle.dumps(kind("message")))
    assert (type(again), again.args) == (kind, ("message",))
