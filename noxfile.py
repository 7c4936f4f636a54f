"""The verbs of the project, the same for a person and for CI: `nox -s lint typing docs ...`."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False  # CI runs the tests on the Pythons it finds
nox.options.sessions = ["lint", "typing", "docs", "tests", "build"]

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = nox.project.load_toml("pyproject.toml")
BENCH = nox.project.dependency_groups(PROJECT, "bench")
CODE = ["src", "tests", "examples", "benchmarks", "proof", "docs", "noxfile.py"]


def tests_of(*names: str) -> list[str]:
    """The files of tests that are called so, in whatever folder."""
    return [str(next(Path("tests").rglob(f"test_{name}.py"))) for name in names]


PROCESSES = tests_of(
    *("crashes", "docs", "mutator", "processes", "sharing", "servers", "forks", "interrupts"),
    *("cli", "cli_streams", "cli_output", "cli_functions", "cli_progress"),
)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, against the built wheel."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def dev(session: nox.Session) -> None:
    """The tests on every event loop in Python's development mode, every warning an error.

    But for those that run in processes of their own, which are not in that mode, and of what values
    and files become, where nothing is under way.
    """
    session.install(".[test]")
    values = tests_of("cli_files", "cli_keys", "cli_stream", "columns", "keys", "same_values")
    tables = tests_of("clusters", "duckdb", "pandas", "polars")
    apart = [f"--ignore={file}" for file in [*PROCESSES, *values, *tables]]
    pytest = ["python", "-X", "dev", "-W", "error", "-m", "pytest", "--all-loops"]
    session.run(*pytest, *apart, *session.posargs)


@nox.session(python=PYTHONS)
def optimised(session: nox.Session) -> None:
    """With `python -O`, the tests that come by an assert of src/: nothing rests on one.

    (pytest rewrites its own.)
    """
    session.install(".[test]")
    ignored = "ignore::pytest.PytestConfigWarning"  # it cannot know that there are no others
    stores = tests_of("durable", "unwritten", "sqlite")
    others = tests_of("keys", "sync", "cli_files", "cli_functions", "cli_inputs")
    pytest = ["python", "-O", "-m", "pytest", "-W", ignored]
    session.run(*pytest, *(session.posargs or [*stores, *others]))


@nox.session(python=PYTHONS)
def bare(session: nox.Session) -> None:
    """The tests with the lowest anyio that is declared, without trio, uvloop and the extras.

    But for those in which none of these has a part: of values, files, and other processes.
    """
    [lowest] = [need.replace(">=", "==") for need in PROJECT["project"]["dependencies"]]
    extra = PROJECT["project"]["optional-dependencies"]["test"]
    servers = ("hypercorn", "starlette", "uvicorn")
    missing = ("anyio[trio]", "batchproxy[", "dask", "numpy", "pyarrow", "pytest-trio", "uvloop")
    others = [need for need in extra if not need.startswith((*missing, *servers))]
    session.install(".", lowest, *others)
    for module in ("trio", "sniffio", "uvloop", "click", "numpy", "psycopg", "redis", "tqdm"):
        session.run("python", "-c", f"import {module}", success_codes=[1], silent=True)
    values = tests_of("foreign_files", "keys", "same_values", "sqlite", "store_failures", "stores")
    apart = [f"--ignore={file}" for file in [*PROCESSES, *values]]
    session.run("pytest", *apart, *session.posargs)


@nox.session(python=False, name="free-threaded")
def free_threaded(session: nox.Session) -> None:
    """The tests without a GIL, with `FREE_THREADED_PYTHON` or the `python3.13t` that is found."""
    python = os.environ.get("FREE_THREADED_PYTHON") or shutil.which("python3.13t")
    if python is None:
        session.skip("there is no python3.13t, and FREE_THREADED_PYTHON is not set")
    extra = PROJECT["project"]["optional-dependencies"]
    missing = ("batchproxy[", "dask", "uvloop")  # these, and other extras, have no wheels for it
    needed = [need for need in extra["test"] if not need.startswith(missing)]
    environment = session.create_tmp()
    session.run(python, "-m", "venv", "--clear", environment, external=True)
    own_python = f"{environment}/bin/python"
    own = ".[cli,pandas,progress,pydantic,redis]"
    # Wheels only: of some of them only older versions have any.
    install = ["-m", "pip", "install", "--only-binary=:all:", own, *needed]
    session.run(own_python, *install, external=True)
    # Not `-X gil=0`, which the processes that pytest and the tests start would not inherit.
    tests = ["-m", "pytest", "-p", "no:cacheprovider", *session.posargs]
    short = {"TMPDIR": None}  # not that of the session: there is a limit to the names of sockets
    session.run(own_python, *tests, external=True, env={"PYTHON_GIL": "0", **short})


@nox.session(python=PYTHONS)
def coverage(session: nox.Session) -> None:
    """The tests, counting branches: every one of src/ must be taken."""
    session.install(".[test]")
    session.run("coverage", "erase")
    counting = {"COVERAGE_PROCESS_START": str(Path("pyproject.toml").absolute())}
    session.run("pytest", *session.posargs, env=counting)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and format."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)


@nox.session
def typing(session: nox.Session) -> None:
    """Types, from the inside (mypy) and from the user's chair (pyright)."""
    session.install(".[types]", "nox", "sphinx")
    session.run("mypy")
    session.run("pyright", "tests/typing_usage.py")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "batchproxy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    session.install(".[docs]")
    session.run("sphinx-build", "-qW", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def examples(session: nox.Session) -> None:
    """The examples, for a person to read what they print. (The tests run them too.)"""
    session.install(".[test]")
    session.run("python", "examples/sqlite_lookup.py")
    session.run("python", "examples/embeddings_http.py", "--backend", "asyncio")
    session.run("python", "examples/embeddings_http.py", "--backend", "trio")
    session.run("python", "examples/tables.py")
    session.run("python", "examples/threaded_workers.py")
    session.run("python", "examples/web_load.py", "--server", "uvicorn")
    session.run("python", "examples/web_load.py", "--server", "hypercorn")


@nox.session
def build(session: nox.Session) -> None:
    """The wheel and the sdist, as an index takes them; in the wheel is the package and no more."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    [wheel] = Path("dist").glob("*.whl")
    version = PROJECT["project"]["version"]
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    if tops != {"batchproxy", f"batchproxy-{version}.dist-info"}:
        session.error(f"{wheel} has {sorted(tops)}")


@nox.session(python=PYTHONS)
def bench(session: nox.Session) -> None:
    """The benchmarks, and the peers; `nox -s bench -- --write docs/speed` keeps the table."""
    session.install(".", *BENCH)
    session.run("python", "benchmarks/speed.py", *session.posargs)
    session.run("python", "benchmarks/breakdown.py", *session.posargs)


@nox.session(python=PYTHONS)
def stores(session: nox.Session) -> None:
    """What stores cost, and processes that share one; `-- --write docs/speed` keeps the tables."""
    session.install(".[postgres,redis]", "pytest", *BENCH)  # whose server tests have
    session.run("python", "benchmarks/stores.py", *session.posargs)
    session.run("python", "benchmarks/sharing.py", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Dask, Ray, Spark, datasets and Daft, for real; `-- --write docs/engines` keeps the table.

    Minutes for each. Spark needs Java. `-- dask ray` measures these only.
    """
    session.install(".[spark,test]", *nox.project.dependency_groups(PROJECT, "engines"))
    session.run("pytest", "-n0", "--engines", "tests/test_engines.py")
    session.run("python", "benchmarks/engines.py", *session.posargs)


@nox.session(name="real-job")
def real_job(session: nox.Session) -> None:
    """A whole job against a provider of embeddings on loopback, beside other ways; an hour.

    `-- --write docs/speed` keeps the tables; `-- --texts 400 --seeds 1` is a quick look.
    """
    session.install(".", *nox.project.dependency_groups(PROJECT, "real-job"))
    session.run("python", "benchmarks/real_job.py", *session.posargs)


@nox.session(python=PYTHONS)
def crashes(session: nox.Session) -> None:
    """Kill processes at random moments, and look what is left."""
    session.install(".[test]")
    session.run("python", "proof/crashes.py", *session.posargs)


@nox.session(python=PYTHONS)
def fuzz(session: nox.Session) -> None:
    """Random programs, of streams and with stores that fail: 20,000 on each backend."""
    session.install(".[test]")
    session.run("python", "proof/streams.py", *session.posargs)
    session.run("python", "proof/fuzz.py", *session.posargs)


@nox.session(python=PYTHONS)
def regression(session: nox.Session) -> None:
    """Has a ratio become worse than the one that the docs quote? (On a quiet machine.)"""
    session.install(".", *BENCH)
    session.run("python", "benchmarks/speed.py", "--check", "docs/speed")


@nox.session(python=PYTHONS)
def mutants(session: nox.Session) -> None:
    """Break the source on purpose, in many small ways: the tests must notice every one."""
    session.install(".[test]")
    session.run("python", "proof/mutants.py", *session.posargs)


@nox.session(python=PYTHONS)
def nightly(session: nox.Session) -> None:
    """What takes too long for every change.

    All tests on every event loop with thousands of examples, and interrupts and a soak.
    """
    session.install(".[test]")
    many = {"HYPOTHESIS_PROFILE": "nightly"}
    session.run("pytest", "--all-loops", "--timeout=3600", env=many)
    session.run("python", "proof/interrupts.py")
    session.run("python", "proof/streams.py", "--programs", "2000")
    session.run("python", "proof/fuzz.py", "--programs", "2000")
    session.run("python", "proof/soak.py", "--minutes", "5")


@nox.session(python=PYTHONS)
def peers(session: nox.Session) -> None:
    """The same scenarios with other libraries: right, wrong, or hangs."""
    session.install(".", *nox.project.dependency_groups(PROJECT, "peers"))
    session.run("python", "proof/peers.py", *session.posargs)


@nox.session
def eviction(session: nox.Session) -> None:
    """What the bounded cache finds again, compared with other policies."""
    session.install(".")
    session.run("python", "benchmarks/eviction.py")


@nox.session(python=PYTHONS)
def columns(session: nox.Session) -> None:
    """What a column costs beside a `map()` of its rows, and how full the batches of engines are."""
    session.install(".[pandas,polars,duckdb]", "numpy")
    session.run("python", "benchmarks/columns.py", *session.posargs)


@nox.session
def splitting(session: nox.Session) -> None:
    """How many calls it takes to find what is refused of a batch: counted, so always the same."""
    session.install(".")
    session.run("python", "benchmarks/splitting.py")
