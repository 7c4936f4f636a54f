"""How the house is built: layers, no circle, and who may look inside. Its map is docs/_house.md.

`python tests/test_house.py` draws the map anew.
"""

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

PACKAGE = Path(str(files("batchproxy")))
TESTS = Path(__file__).parent
MAP = TESTS.parent / "docs" / "_house.md"


def folder(name: str, *modules: str) -> list[str]:
    """A folder and the rooms in it."""
    return [name, *(f"{name}.{module}" for module in " ".join(modules).split())]


# The layers, from the ground up. A room, which is a module or a folder, may import from its own
# layer and from those below; no circle may come of it, also not for the sake of types only.
LAYERS: list[tuple[str, list[str]]] = [
    (
        "the ground: what knows nothing of the house",
        ["_errors", "_messages", "_forks", "_loops", "_slots", "_recipes"],
    ),
    (
        "decides, without an event loop and I/O",
        folder(
            "_core",
            "outcome answers keys counters sizes values flights waits weights plan shelf window "
            "progress batches table claims pool gathered",
        ),
    ),
    ("where results outlive the process", ["_store", "stores"]),
    (
        "between a cache and its store",
        folder(
            "_backing",
            "digests sameness plain codecs options fuse policy workers writers unwritten keeper "
            "leases encoding jobs elsewhere backing claims asked",
        ),
    ),
    ("what users give to proxies", ["_cache", "codecs"]),
    (
        "awaits",
        folder(
            "_engine",
            "portal caller callers calls tasks splits run meetings feed stream engine travels "
            "loading",
        ),
    ),
    ("the proxies", folder("_faces", "stream async_stream async_proxy proxy")),
    ("the door", ["__init__"]),
    ("columns, on what is at the door", ["columns"]),
    ("who comes through it", ["testing", "cli", "integrations", "__main__"]),
]

# Rooms that know less of what is below them than they might.
ENGINE_KNOWS = {
    *("_errors", "_messages", "_forks", "_loops", "_slots", "_recipes"),
    *("_core", "_cache", "_engine"),
}
ONLY = {
    "stores": {"_forks", "_errors", "_messages", "_recipes", "_store"},
    "_store": {"_errors", "_messages"},
    "_engine.portal": {"_errors", "_forks", "_loops"},
    "columns": {"_messages", "__init__"},
    "integrations": {"columns", "__init__"},
}

# The only rooms below `_cache` that know of tasks.
OF_TASKS = {"_loops", "_slots", "_core.claims", "_backing.claims", "_backing.jobs"}

# Tests that look into the rooms which they test, outside of unit/: those of the command, and of
# what only one store can do wrong.
MAY_LOOK_INSIDE = {"cli", "stores"}

# A room is understood in a minute; these are longer, and why.
MOST_LINES = 300
LONGER = {
    "_core.plan": "all that one map() knows, and what streams and weights have of it",
    "_cache": "half of it says what users may rely on",
    "_faces.async_proxy": "most of it says what users may rely on",
    "_faces.proxy": "most of it says what users may rely on",
    "_backing.codecs": "half of it says what users may rely on",
    "stores._redis": "a script on the server beside each step of the protocol",
    "stores._sqlite": "the steps of the protocol share their statements",
    "stores._sqlite_file": "all that may be wrong with a file, each with its remedy",
    "testing._stores": "a test for each promise of the protocol",
    "cli._parquet": "one reader and its writer, which must agree",
}

ROOMS = [room for _, rooms in LAYERS for room in rooms]


def module_of(path: Path) -> str:
    """The name of a module, that of the package left out: that of a folder, for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The room that a module is, or is in: of several the innermost."""
    names = module.split(".")
    found = [".".join(names[:number]) for number in range(len(names), 0, -1)]
    return next(name for name in found if name in ROOMS)


def imported(module: str) -> set[str]:
    """The modules that one imports, wherever it does, and for whatever purpose."""
    path, found = MODULES[module], set()
    here = ["batchproxy", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "batchproxy":
                inner = name.removeprefix("batchproxy").removeprefix(".")
                whole = inner if inner in MODULES else inner.rpartition(".")[0]
                found.add(whole or "__init__")
    return found - {module}


IMPORTED = {module: imported(module) for module in MODULES}


def reached(start: str) -> set[str]:
    """The modules that `start` imports, that those import, and so on, but not through doors."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for module in IMPORTED[ahead.pop()] - seen:
            if MODULES[module].name != "__init__.py":
                seen.add(module)
                ahead.append(module)
    return seen


def circles() -> list[set[str]]:
    """Modules that import each other, in one way or another."""
    inside = {module: reached(module) for module in MODULES}
    found: list[set[str]] = []
    for module in MODULES:
        circle = {other for other in inside[module] if module in inside[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_every_room_is_in_a_layer() -> None:
    """All that there is has its place, and what has one is there."""
    assert len(ROOMS) == len(set(ROOMS))
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards_only(room: str) -> None:
    """No room imports from a layer above its own; some know less than they might."""
    names = {
        room_of(name) for module in MODULES if room_of(module) == room for name in IMPORTED[module]
    } - {room}
    [number] = [number for number, (_, rooms) in enumerate(LAYERS) if room in rooms]
    below = {each for _, rooms in LAYERS[: number + 1] for each in rooms}
    assert names <= below
    assert names <= ONLY.get(room, below)
    if room.startswith("_engine"):  # memory and stores are one to it
        assert {name.split(".")[0] for name in names} <= ENGINE_KNOWS


def test_no_circle() -> None:
    """No module imports, in however many steps, and be it for types, one that imports it."""
    assert circles() == []


def imports(node: ast.AST) -> Iterator[str]:
    """The packages that are imported somewhere inside, but not for types only."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (each.name.partition(".")[0] for each in node.names)
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module.partition(".")[0]
    for each in ast.iter_child_nodes(node):
        yield from imports(each)


@pytest.mark.parametrize("folder", ["_core", "_backing", "_engine", "_faces", "stores"])
def test_late_imports(folder: str) -> None:
    """What a function imports first is imported where no other thread can fork meanwhile."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (PACKAGE / folder).glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    late = {name for node in nodes if isinstance(node, ast.FunctionDef) for name in imports(node)}
    safe = [
        node for node in nodes if isinstance(node, ast.With) and "unforked" in ast.unparse(node)
    ]
    assert late <= {name for node in safe for name in imports(node)}


@pytest.mark.parametrize("room", ROOMS[: ROOMS.index("_cache")])
def test_who_knows_of_tasks(room: str) -> None:
    """Flights, values and plans know nothing of anyio, and can be used without any event loop."""
    for module, path in MODULES.items():
        if room_of(module) == room and room not in OF_TASKS:
            source = path.read_text("utf-8")
            assert not re.search("import anyio|from anyio", source)
            assert not any(isinstance(node, ast.Await) for node in ast.walk(ast.parse(source)))


def test_no_room_is_too_large() -> None:
    """But for those that have a reason, and still need one."""
    long = {
        module
        for module, path in MODULES.items()
        if len(path.read_text("utf-8").splitlines()) > MOST_LINES
    }
    assert long == set(LONGER)


def looked_into(path: Path) -> Iterator[str]:
    """What a test, or a script in it, imports or names that is private."""
    for text in re.findall(r"from (batchproxy\S*) import (\([^)]*\)|[^\n;]*)", path.read_text()):
        door, names = text
        for name in [door, *(f"{door}.{each}" for each in re.findall(r"[\w]+", names))]:
            if re.search(r"\._[a-z]", name):
                yield name
    yield from re.findall(r"""["'](batchproxy\.[\w.]*_[a-z][\w.]*)""", path.read_text())
    yield from re.findall(r"\._(?:backing|counters|engine|loads|proxy|table)\b", path.read_text())


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.name)
def test_tests_come_through_the_door(path: Path) -> None:
    """They use public names, so that rooms can change; what looks into one is in unit/."""
    inside = {name for name in looked_into(path) if not {*name.split(".")[1:2]} & MAY_LOOK_INSIDE}
    assert inside == set()


def drawn() -> str:
    """The map: of every layer, from the top, what its rooms are for, as they say themselves."""
    lines = ["| layer | room | what it is for |", "|---|---|---|"]
    for layer, rooms in reversed(LAYERS):
        for number, room in enumerate(rooms):
            doc = ast.get_docstring(ast.parse(MODULES[room].read_text("utf-8"))) or ""
            purpose = re.split(r"\.(?:\s|$)", doc.splitlines()[0])[0].replace("``", "`")
            folder = MODULES[room].name == "__init__.py" and room != "__init__"
            name = f"{room}/" if folder else room
            lines.append(f"| {layer if not number else ''} | `{name}` | {purpose} |")
    return "\n".join(lines) + "\n"


def test_the_map_is_current() -> None:
    """What the documentation shows is what is there."""
    assert MAP.read_text("utf-8") == drawn()


if __name__ == "__main__":
    MAP.write_text(drawn(), "utf-8")
