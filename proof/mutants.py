"""Do the tests notice when the code is broken? `python proof/mutants.py` breaks it, and looks.

`breakages.py` makes the breakages, by rule. For each, the tests run that execute what is broken,
the likely killers first, until one fails: it is killed. A test that hangs has failed. What survives
is a hole in the tests; or it makes no difference, and `no_difference.py` says why. The exit status
is 1 if anything else has survived.

Which test executes what is measured first, in threads and in the processes that tests start, too;
it is kept in `.mutants` until sources or tests change. A test that fails then, with nothing broken,
is left out and named. Where no test was seen, because the process was killed, perhaps, those run
whose file is named like the module.

To be quick, each job is a process that has collected the tests of a copy of the project, and forks
for each breakage. In the fork the code of one function is replaced; other processes read the file,
which is broken too. Only what is outside of functions needs a new process.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import marshal
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import FunctionType

import coverage
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # here, and for those that tests start

from proof.breakages import Breakage, breakages  # noqa: E402 - after that
from proof.no_difference import NO_DIFFERENCE  # noqa: E402 - after that

CACHE = ".mutants"
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "_build")
PATIENCE = 10  # a test that takes so many seconds, and so many times what it took before, hangs
UNTRIED = ["batchproxy/integrations/spark.py"]  # only `nox -s engines` has Spark
# What tests import, so that not every fork has to. What is not there need not be.
WARM = (
    "numpy",
    "pyarrow",
    "redis",
    "trio",
    "uvloop",
    "pydantic",
    "msgspec",
    "tqdm",
    "click",
    "httpx",
)

Change = tuple[str, str, int, bytes]  # the file, name and first line of a function: what it does


# --- A process that has collected the tests, and forks -------------------------------------------


class Serving:
    """A plugin of pytest that runs the tests it is asked to, in forks, instead of all."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.failed = False

    def pytest_sessionstart(self) -> None:
        import hypothesis  # not before: pytest has to see it come

        for name in WARM:
            with suppress(ImportError):
                importlib.import_module(name)
        hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
        hypothesis.settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        threading.settrace(None)
        if session.testsfailed:
            return True
        items = {item.nodeid: item for item in session.items}
        functions: dict[tuple[str, str, int], list[FunctionType]] = {}
        gc.unfreeze()  # what is frozen is not among the objects
        for each in gc.get_objects():
            if isinstance(each, FunctionType):
                code = each.__code__
                place = code.co_filename, code.co_qualname, code.co_firstlineno
                functions.setdefault(place, []).append(each)
        gc.collect()
        gc.freeze()
        self.connection.send(list(items))
        while (job := self.connection.recv()) is not None:
            tests, change, data = job
            changing = [] if change is None else functions.get(change[:3], [])
            if change is not None and not changing:
                raise LookupError(f"no function to be broken at {change[:3]}")
            with warnings.catch_warnings(action="ignore"):  # of forks with threads
                pid = os.fork()
            if not pid:
                os.setsid()
                self.connection.send(("begun", os.getpid(), 0.0))
                for function in changing:
                    function.__code__ = marshal.loads(change[3])
                try:
                    self.run([items[name] for name in tests], data)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            with suppress(ProcessLookupError):  # nothing was left behind
                os.killpg(pid, signal.SIGKILL)
            self.connection.send(("ended", "", 0.0))
        return True

    def run(self, items: Sequence[pytest.Item], data: str | None) -> None:
        """Run `items`, the first only until one fails; or all, measured into the file `data`."""
        measure = None
        if data is not None:
            source = [str(Path("src").resolve())]
            measure = coverage.Coverage(data, branch=False, source=source, messages=False)
            measure.set_option("run:parallel", True)  # a file for each process
            with warnings.catch_warnings(action="ignore"):  # it came late
                measure.start()
        for item, following in zip(items, [*items[1:], None]):
            self.connection.send(("begins", item.nodeid, 0.0))
            if measure is not None:
                measure.switch_context(item.nodeid)
                measure.set_option("run:context", item.nodeid)  # of forks, and other processes
                os.environ["COVERAGE_PROCESS_CONFIG"] = measure.config.serialize()
            self.failed, begin = False, time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            what = "failed" if self.failed else "passed"
            self.connection.send((what, item.nodeid, time.monotonic() - begin))
            if self.failed and measure is None:
                break
        if measure is not None:
            with warnings.catch_warnings(action="ignore"):
                measure.stop()
                measure.save()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed


def serve(descriptor: int) -> None:
    """Run in a copy of the project."""
    threading.settrace(lambda *_: None)  # so that `conftest.py` knows of what is to be measured
    arguments = ["-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={Path.cwd()}.t"]
    pytest.main(arguments, plugins=[Serving(Connection(descriptor))])


class Server:
    """That process, as seen from here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        here, there = Pipe()
        self.connection = here
        self.log = folder.with_suffix(".log")
        environment = {key: value for key, value in os.environ.items() if key[:9] != "COVERAGE_"}
        environment |= {
            "PYTHONPATH": str(folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",  # of two files of one second the first would be taken
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = f"import sys; sys.path.append({str(ROOT)!r}); from proof import mutants; "
        command += f"mutants.serve({there.fileno()})"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[there.fileno()],
            )
        there.close()
        self.tests: list[str] | None = None
        with suppress(EOFError):
            self.tests = self.connection.recv()

    def run(
        self,
        tests: Sequence[str],
        seconds: Callable[[str], float],
        change: Change | None = None,
        data: str | None = None,
        limit: float = float("inf"),
    ) -> list[tuple[str, str, float]]:
        """Run `tests`. What became of each ("passed", "failed", "hung"), its name, its seconds.

        Ends with the first that has not passed, unless measured, or is done after `limit` seconds.
        """
        self.connection.send((tests, change, data))
        _, pid, _ = self.connection.recv()
        done: list[tuple[str, str, float]] = []
        test, patience, end = "", PATIENCE * 1.0, time.monotonic() + limit
        while self.connection.poll(patience):
            what, name, took = self.connection.recv()
            if what == "ended":
                return [*done, ("failed", test, 0.0)] if test else done  # it took the process along
            if what == "begins":
                test, patience = name, PATIENCE * (1 + seconds(name))
            else:
                done.append((what, name, took))
                test = ""
                if time.monotonic() > end:
                    break
        os.killpg(pid, signal.SIGKILL)
        while self.connection.recv()[0] != "ended":
            pass
        return [*done, ("hung", test, patience)] if test else done

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


# --- Which test executes what --------------------------------------------------------------------


@dataclass
class Test:
    """What is known of a test."""

    seconds: float = 0.0
    passes: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    """What it executes, by file: a bit for each line."""


def digests(root: Path) -> dict[str, str]:
    """What measurements depend on: sources, tests, settings."""
    digests = {"python": sys.version}
    for pattern in ("pyproject.toml", "src/**/*.py", "tests/**/*.py"):
        for path in root.glob(pattern):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            digests[path.relative_to(root).as_posix()] = digest
    return digests


def known_tests(cache: Path, now: dict[str, str]) -> dict[str, Test]:
    """Those of the cache that would be measured alike today."""
    if not cache.exists():
        return {}
    then, kept = json.loads(cache.read_bytes())
    tests = {
        name: Test(seconds, passes, {path: int(lines, 16) for path, lines in by_path.items()})
        for name, (seconds, passes, by_path) in kept.items()
    }
    changed = {path for path in {**then, **now} if then.get(path) != now.get(path)}
    if any(not path.startswith(("src/", "tests/test_")) for path in changed):
        return {}
    return {
        name: test
        for name, test in tests.items()
        if test.passes and changed.isdisjoint({name.split("::")[0], *test.lines})
    }


def measure(root: Path, servers: Sequence[Server]) -> dict[str, Test]:
    """What each test executes; only those that have changed are run."""
    now = digests(servers[0].folder)
    known = known_tests(root / CACHE, now)
    names = servers[0].tests or []
    missing = [name for name in names if name not in known]
    tests = {name: known.get(name) or Test() for name in names}
    parts = [missing[number :: len(servers)] for number in range(len(servers))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(_measure, tests), servers, parts))
    for server in servers:
        for path in server.folder.parent.glob(f"{server.folder.name}.measured*"):
            _read(path, server.folder, tests)
    kept = {
        name: (test.seconds, test.passes, {path: hex(line) for path, line in test.lines.items()})
        for name, test in tests.items()
    }
    (root / CACHE).write_text(json.dumps((now, kept)), "utf-8")
    return tests


def _measure(tests: dict[str, Test], server: Server, names: list[str]) -> None:
    while names:  # once, unless one takes the process with it
        done = server.run(names, lambda _: 10, data=f"{server.folder}.measured")
        for what, name, seconds in done:
            tests[name].seconds, tests[name].passes = seconds, what == "passed"
        names = names[len(done) :]


def _read(path: Path, folder: Path, tests: dict[str, Test]) -> None:
    data = coverage.CoverageData(str(path))
    data.read()
    for file in data.measured_files():
        name = Path(file).relative_to(folder).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in filter(None, contexts):
                lines = tests[context].lines
                lines[name] = lines.get(name, 0) | 1 << line
    data.close()


class Suite:
    """The tests, and which of them may kill what."""

    def __init__(self, tests: dict[str, Test]) -> None:
        self.tests = {name: test for name, test in tests.items() if test.passes}
        self.kills: Counter[tuple[str, str]] = Counter()  # by file and test
        # The quick and special ones come first, and not all variants of one after the other.
        costs = {
            name: test.seconds * sum(lines.bit_count() for lines in test.lines.values())
            for name, test in self.tests.items()
        }
        variants: Counter[str] = Counter()
        self.costs: dict[str, float] = {}
        for name in sorted(costs, key=costs.__getitem__):
            variants[name.split("[")[0]] += 1
            self.costs[name] = costs[name] * variants[name.split("[")[0]]

    def seconds(self, name: str) -> float:
        return self.tests[name].seconds

    def likely(self, breakage: Breakage) -> list[str]:
        """The tests that may notice, the likely killers first."""
        path = f"src/{breakage.path}"
        wanted = -1 if breakage.code is None else sum(1 << line for line in breakage.lines)
        names = [name for name, test in self.tests.items() if test.lines.get(path, 0) & wanted]
        if not names:  # nothing was seen to execute it: perhaps a process that was killed does
            word = Path(path).stem.strip("_")
            names = [name for name in self.tests if word in name.split("::")[0]]
        return sorted(names, key=lambda name: (-self.kills[path, name], self.costs[name]))


# --- Breaking, and looking -----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one breakage."""

    what: str  # killed, hung, survived
    by: str = ""


@contextmanager
def broken(folder: Path, breakage: Breakage) -> Iterator[None]:
    """Inside, the copy in `folder` is broken."""
    path = folder / "src" / breakage.path
    source = path.read_text("utf-8")
    path.write_text(breakage.text, "utf-8")
    try:
        yield
    finally:
        path.write_text(source, "utf-8")


def judge(server: Server, suite: Suite, breakage: Breakage, limit: float) -> Outcome:
    """Run the tests that may notice `breakage`."""
    names = suite.likely(breakage)
    with broken(server.folder, breakage), ExitStack() as stack:
        change: Change | None = None
        if breakage.target is not None and breakage.code is not None:
            path = str(server.folder / "src" / breakage.path)
            code = breakage.code.replace(co_filename=path)
            change = path, *breakage.target, marshal.dumps(code)
        else:
            server = Server(server.folder)
            stack.callback(server.close)
            if server.tests is None:
                return Outcome("killed", "while importing")
            names = [name for name in names if name in (server.tests or ())]
        run = partial(server.run, seconds=suite.seconds, change=change)
        rest, end = names, time.monotonic() + limit
        while rest and time.monotonic() < end and (done := run(rest, limit=end - time.monotonic())):
            rest = rest[len(done) :]
            what, name, _ = done[-1]
            # Some tests fail by chance: only who fails twice has noticed.
            if what == "hung" or (what == "failed" and run([name])[0][0] != "passed"):
                suite.kills[f"src/{breakage.path}", name] += 1
                return Outcome("hung" if what == "hung" else "killed", name)
    return Outcome("survived", f"{len(names) - len(rest)} of {len(names)} tests")


def excuse(breakage: Breakage) -> tuple[str, str, str, str] | None:
    """The entry that says why `breakage` makes no difference, if there is one."""
    forms = (breakage.before, f"{breakage.before} => {breakage.after}")
    for entry in NO_DIFFERENCE:
        if entry[:2] == (breakage.function, breakage.operator) and entry[2] in forms:
            return entry
    return None


def shown(breakage: Breakage) -> str:
    where = f"{breakage.path}:{breakage.lines.start} {breakage.function}"
    return f"{where}: {breakage.operator}: {breakage.before} => {breakage.after}"


def made(root: Path, modules: Iterable[str] = ()) -> list[Breakage]:
    """The breakages of `modules`, each a name, a folder or a path; or of all."""
    chosen = set(modules)
    every: list[Breakage] = []
    for file in sorted((root / "src").rglob("*.py")):
        path = file.relative_to(root / "src")
        if path.as_posix() in UNTRIED:
            continue
        if not chosen or not chosen.isdisjoint([*path.parts, path.stem, path.as_posix()]):
            every += breakages(path.as_posix(), file.read_text("utf-8"))
    return every


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--modules", nargs="+", default=[], metavar="NAME", help="only of these")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, by chance")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of that chance (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="at a time")
    parser.add_argument("--seconds", type=float, default=60, help="for the tests of each (60)")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    options = parser.parse_args(arguments)
    every = made(ROOT, options.modules)
    excuses = {breakage: excuse(breakage) for breakage in every}
    functions = {breakage.function for breakage in every}
    for entry in NO_DIFFERENCE:
        if entry not in excuses.values() and (entry[0] in functions or not options.modules):
            print("stale: no such breakage any more:", *entry[:3], file=sys.stderr)
    if options.sample is not None and options.sample < len(every):
        every = random.Random(options.seed).sample(every, options.sample)
    if options.list:
        for breakage in every:
            print(shown(breakage), *["(no difference)"] * (excuses[breakage] is not None))
        return 0
    tried = [breakage for breakage in every if excuses[breakage] is None]
    outcomes = run(ROOT, tried, options.jobs, options.seconds)
    report(every, outcomes)
    return int(any(outcome.what == "survived" for outcome in outcomes.values()))


def run(
    root: Path, tried: Sequence[Breakage], jobs: int = 1, limit: float = 60
) -> dict[Breakage, Outcome]:
    """What becomes of each, the survivors printed as they come."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ExitStack() as stack:
        servers = []
        for number in range(jobs):
            folder = Path(name).resolve() / str(number)
            shutil.copytree(root, folder, ignore=NOT_COPIED)
            servers.append(Server(folder))
            stack.callback(servers[-1].close)
        for server in servers:
            if server.tests is None:
                raise RuntimeError(f"the tests do not begin:\n{server.log.read_text('utf-8')}")
        begin = time.monotonic()
        tests = measure(root, servers)
        print(f"{len(tests)} tests are known after {time.monotonic() - begin:.0f} seconds")
        for each, test in tests.items():
            if not test.passes:
                print(f"left out, it fails with nothing broken: {each}")
        suite, free = Suite(tests), SimpleQueue[Server]()
        for server in servers:
            free.put(server)

        def judged(breakage: Breakage) -> Outcome:
            server = free.get()
            try:
                outcome = judge(server, suite, breakage, limit)
            finally:
                free.put(server)
            if outcome.what == "survived":
                print(f"{shown(breakage)} ({outcome.by})", flush=True)
            return outcome

        begin = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = dict(zip(tried, pool.map(judged, tried)))
        seconds = (time.monotonic() - begin) / max(len(tried), 1)
        print(f"{seconds:.2f} seconds for each of {len(tried)} breakages, {jobs} at a time")
        return outcomes


def report(every: Sequence[Breakage], outcomes: dict[Breakage, Outcome]) -> None:
    columns = ("killed", "hung", "survived", "no difference")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in every:
        what = outcomes[each].what if each in outcomes else "no difference"
        counts[each.path][what] += 1
        counts["all"][what] += 1
    counts["all"] = counts.pop("all")
    print(f"\n| module | breakages | {' | '.join(columns)} |", "|---|" + "--:|" * 5, sep="\n")
    for path, count in counts.items():
        numbers = [count.total(), *[count[column] for column in columns]]
        print(f"| `{path}` |", " | ".join(map(str, numbers)), "|")


if __name__ == "__main__":
    sys.exit(main())
