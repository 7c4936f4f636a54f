"""Many threads share one proxy: a pool of workers reports on the packages of Python's library.

Each job counts the functions and classes in all modules that a package imports. Parsing a module is
the expensive call; packages import the same modules again and again, also at the same time, and
still each is parsed once.
"""

import ast
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from batchproxy import BatchingMapProxy

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = ["asyncio", "collections", "concurrent/futures", "email", "http", "importlib", "json"]
PACKAGES += ["logging", "multiprocessing", "unittest", "urllib", "xml/dom", "xml/sax", "xmlrpc"]


def imports(file: Path) -> set[Path]:
    """The modules of the library that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    modules = {LIBRARY / (name.replace(".", "/") + ".py") for name in names}
    return {module for module in modules if module.exists()}


def count_definitions(modules: list[Path]) -> list[int]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    trees = [ast.parse(module.read_bytes()) for module in modules]
    return [sum(isinstance(node, kinds) for node in ast.walk(tree)) for tree in trees]


def main() -> None:
    proxy = BatchingMapProxy[Path, int](batch_size=4)

    def report(package: str) -> tuple[str, int, int]:
        # With repetitions: a row for every import of every file.
        rows = [module for file in (LIBRARY / package).glob("*.py") for module in imports(file)]
        return package, len(rows), sum(proxy.map(rows, count_definitions))

    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        for package, rows, definitions in pool.map(report, PACKAGES):
            print(f"{package:20} imports {rows:3} times, {definitions:6,} definitions")
    elapsed = time.perf_counter() - start
    done = proxy.statistics()
    print(f"{done.items:5} rows in {len(PACKAGES)} jobs on 8 threads, {done.computed} distinct")
    print(f"{done.calls:5} calls in {elapsed:.1f} s; {done.shared} results shared while under way")
    print(f"{done.items:5} calls in a loop that parses a module for every row")


if __name__ == "__main__":
    main()
