"""The command: what it writes. Nothing of the user's is lost, whatever the files are called."""

import gzip
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_tools import STORE, Result, batchproxy, call, shell
from command_tools import directory as directory

posix = pytest.mark.skipif(os.name != "posix", reason="files as POSIX has them")

FUNCTIONS = """
import os, stat, sys
def upper(items):
    open("called", "w").close()
    return [item.upper() for item in items]
def look(items):
    [part] = [name for name in os.listdir() if name.startswith(".batchproxy-")]
    return [f"{part} {stat.S_IMODE(os.stat(part).st_mode):o}" for item in items]
def fail(items):
    raise ValueError("no")
def meddle(items):
    os.remove("out.txt")
    os.mkdir("out.txt")
    return items
def run_again(items):
    if not os.path.exists("ran"):
        open("ran", "w").close()
        os.system(f"{sys.executable} -m batchproxy map fn.py:run_again in.txt -o out.txt -q")
        with open("out.txt") as file:
            assert file.read() == "a"
    return items
"""


@pytest.fixture(autouse=True)
def given(directory: Path) -> None:
    """There are functions and an input in the current directory."""
    Path("fn.py").write_text(FUNCTIONS)
    Path("in.txt").write_text("a")


def upper(*arguments: object, status: int = 0) -> Result:
    """`in.txt` in capitals."""
    return call("map", "fn.py:upper", "in.txt", *arguments, status=status)


def parts() -> list[str]:
    """What was left beside outputs."""
    return [path.name for path in Path().glob(".batchproxy-*")]


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# --- How it is written ---


@pytest.mark.parametrize(
    ("function", "status", "after"), [("upper", 0, "A"), ("fail", 1, "before")]
)
def test_it_appears_when_it_is_complete(function: str, status: int, after: str) -> None:
    """Until then there is what was there; nothing else is left, however the run ends."""
    Path("out.txt").write_text("before")
    call("map", f"fn.py:{function}", "in.txt", "-o", "out.txt", status=status)
    assert Path("out.txt").read_text() == after
    assert parts() == []


def test_its_name_before_cannot_be_guessed() -> None:
    """Two runs have two names, of which the documented pattern is all that is known."""
    names = set()
    for _ in range(2):
        call("map", "fn.py:look", "in.txt", "-o", "out.txt")
        names.add(Path("out.txt").read_text().split()[0])
    assert len(names) == 2
    assert all(re.fullmatch(r"\.batchproxy-.{16}\.part", name) for name in names)


@posix
def test_files_of_the_user_beside_it() -> None:
    """What is called OUTPUT.part is a file like others: not followed, waited for, or removed."""
    Path("victim").write_text("precious")
    os.symlink("victim", "out.txt.part")
    os.mkfifo("other.txt.part")
    Path("third.txt.part").write_text("b")
    for name, source in (("out", "in.txt"), ("other", "in.txt"), ("third", "third.txt.part")):
        call("map", "fn.py:upper", source, "-o", f"{name}.txt", "-q")
    assert Path("victim").read_text() == "precious"
    assert Path("third.txt.part").read_text() == "b"
    assert Path("third.txt").read_text() == "B"
    assert not Path("out.txt").is_symlink()


def test_two_runs_of_one_output() -> None:
    """Each writes a file of its own; the one that ends last has its output there, whole."""
    call("map", "fn.py:run_again", "in.txt", "-o", "out.txt")
    assert Path("out.txt").read_text() == "a"
    assert parts() == []


@posix
def test_its_rights() -> None:
    """A new file has those of any new file; another keeps its own, and is private meanwhile."""
    mask = os.umask(0o027)
    try:
        call("map", "fn.py:look", "in.txt", "-o", "out.txt")
        assert mode("out.txt") == 0o640
        os.chmod("out.txt", 0o604)
        call("map", "fn.py:look", "in.txt", "-o", "out.txt")
        assert mode("out.txt") == 0o604
        assert Path("out.txt").read_text().endswith(" 600")
    finally:
        os.umask(mask)


@posix
@pytest.mark.parametrize(
    ("permitted", "expected"), [("owner", 0o664), ("group", 0o664), ("nothing", 0o644)]
)
def test_its_owner(monkeypatch: pytest.MonkeyPatch, permitted: str, expected: int) -> None:
    """They are kept where that is permitted; another group gets no more than everybody has."""
    Path("out.txt").write_text("before")
    os.chmod("out.txt", 0o664)
    there = os.stat("out.txt")
    changes: list[tuple[int, int]] = []

    def fchown(file: int, owner: int, group: int) -> None:
        if permitted == "nothing" or (permitted == "group" and owner != -1):
            raise PermissionError
        changes.append((owner, group))

    monkeypatch.setattr(os, "fchown", fchown)
    upper("-o", "out.txt")
    assert mode("out.txt") == expected
    owner = there.st_uid if permitted == "owner" else -1
    assert changes == [(owner, there.st_gid)][: permitted != "nothing"]


def test_a_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on disk before it has its name, and the folder after that."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def replaced(*names: Any) -> None:
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    upper("-o", "out.txt")
    assert done[-3:] == ["file", "name", "folder"][-3 if os.name == "posix" else -2 :]


@posix
def test_links_and_what_is_no_file() -> None:
    """A link stays one; a device or a pipe is written to as it is, standard output's too."""
    Path("target.txt").write_text("before")
    os.symlink("target.txt", "link.txt")
    os.symlink("new.txt", "dangling.txt")
    for name in ("link.txt", "dangling.txt", "/dev/null"):
        upper("-o", name)
    assert Path("target.txt").read_text() == Path("new.txt").read_text() == "A"
    assert Path("link.txt").is_symlink()
    assert Path("dangling.txt").is_symlink()
    if os.path.exists("/dev/stdout"):
        assert batchproxy("map", "fn.py:upper", "in.txt", "-o", "/dev/stdout").stdout == "A"


# --- What it is not written to ---


@posix
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "line", ["in.txt -o in.txt", "in.txt -o ./in.txt", "in.txt -o soft", "in.txt -o hard"]
)
def test_the_input(line: str, dry: list[str]) -> None:
    """It is refused by whatever name, before anything is computed."""
    os.symlink("in.txt", "soft")
    os.link("in.txt", "hard")
    refused = call("map", "fn.py:upper", *line.split(), *dry, status=2)
    assert "the output is the input: rows that are left out" in refused.stderr
    assert (Path("in.txt").read_text(), Path("called").exists()) == ("a", False)


@posix
@pytest.mark.parametrize("line", ["- -o in.txt < in.txt", "in.txt >> in.txt"])
def test_the_input_as_a_stream(line: str) -> None:
    """Likewise where a shell has opened it."""
    refused = shell(f"batchproxy map fn.py:upper {line}")
    assert refused.returncode == 2
    assert b"the output is the input: rows that are left out" in refused.stderr
    assert (Path("in.txt").read_text(), Path("called").exists()) == ("a", False)


@pytest.mark.parametrize("name", ["results.db", "link", "results.db-wal", "results.db-shm"])
@pytest.mark.parametrize("there", [True, False], ids=["there", "not yet there"])
@posix
def test_the_store(name: str, there: bool) -> None:
    """Nor is it written to, or read as rows, before it is there, either."""
    os.symlink("results.db", "link")
    before = None
    if there:
        upper(*STORE)
        Path("called").unlink()
        os.link("results.db", "hard")
        before = Path("results.db").read_bytes()
    for place in ("results.db", "link", *(["hard"] if there and name == "results.db" else [])):
        store = ("--store", place, "--namespace", "n")
        refused = [upper("-o", name, *store, status=2)]
        if there:
            refused.append(call("cache", "export", "-o", name, "--store", place, status=2))
        output = rf"the output is the store '{place}', or a file that|\.db is not read or written"
        assert all(re.search(output, each.stderr) for each in refused)
        read = call("map", "fn.py:upper", name, *store, status=2).stderr
        assert not there or re.search(r"the input is the store|\.db is not read or written", read)
    assert not Path("called").exists()
    assert (Path("results.db").read_bytes() if Path("results.db").exists() else None) == before


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("end", [".py", ""])
def test_the_code(dry: list[str], end: str) -> None:
    """Nor over a file of the function, the weight or the codec, also of one named as a module."""
    names = [f"{each}_{len(dry)}" for each in ("a_function", "a_weight", "a_codec")]
    for name in names:
        Path(f"{name}.py").write_text("import os\nos.chdir('/')\nModel = str\n")
    function, weight, codec = (f"{name}{end}:Model" for name in names)
    line = (function, "in.txt", "--max-weight", 1, "--weight", weight, "--output-format", "lines")
    here = os.getcwd()
    for name in names:
        output = ("--codec", f"pydantic:{codec}", "-o", f"./{name}.py")
        refused = call("map", *line, *output, *dry, status=2)
        os.chdir(here)
        assert "the output is the code that is run: " in refused.stderr
        assert "Model = str" in Path(f"{name}.py").read_text()
        assert parts() == []


def test_a_function_that_goes_elsewhere(tmp_path: Path) -> None:
    """Input, output and store are those that the user named, wherever the function goes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("in.txt", "out.txt"):
        (elsewhere / name).write_text("another")
    for name in ("moving", "moving_again"):
        (tmp_path / f"{name}.py").write_text(
            "import os\nos.chdir('elsewhere')\n"
            "def upper(items): return [item.upper() for item in items]"
        )
    done = call("map", "moving.py:upper", "in.txt", "-o", "out.txt", *STORE)
    assert "1 computed in 1 call, 0 hits in results.db" in done.stderr
    assert (tmp_path / "out.txt").read_text() == "A"
    assert (elsewhere / "out.txt").read_text() == "another"
    assert (tmp_path / "results.db").exists()
    assert not (elsewhere / "results.db").exists()
    os.chdir(tmp_path)
    dry = call("map", "moving_again.py:upper", "in.txt", *STORE, "--dry-run").stdout
    assert dry == "1 row, 1 distinct\n1 is in results.db, 0 would be computed in 0 calls\n"


def test_what_is_not_there_for_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is computed, also by --dry-run, with the reason; the status is 2.

    A file that is read-only is not replaced, though its folder would let it.
    """
    Path("folder").mkdir()
    reasons = {
        "folder": "Is a directory",
        "": "has no name",
        "new/": "has no name",
        "no/where.txt": "no file can be made in ",
        "in.txt/out.txt": "Not a directory",
        "n" * 300: "too long",
    }
    Path("out.txt").write_text("before")
    for dry in ([], ["--dry-run"]):
        for name, reason in reasons.items():
            refused = upper("-o", name, *dry, status=2)
            assert reason in " ".join(refused.stderr.split()), name
            assert "Traceback" not in refused.stderr
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
            refused = upper("-o", "out.txt", *dry, status=2)
            assert "the output 'out.txt' is read-only" in refused.stderr
    upper("-o", "out.txt", "--dry-run")
    assert Path("out.txt").read_text() == "before"
    assert not Path("called").exists()
    assert parts() == []


def test_an_output_that_goes_away() -> None:
    """What cannot be renamed at the end fails the run, and leaves nothing."""
    Path("out.txt").write_text("before")
    failed = call("map", "fn.py:meddle", "in.txt", "-o", "out.txt", status=1)
    assert "out.txt cannot be written: " in failed.stderr
    assert parts() == []


# --- What the cache has ---


def test_an_export_is_written_in_the_same_way() -> None:
    """Beside its name, with the rights of what it replaces; by its ending, compressed."""
    upper(*STORE)
    Path("out.jsonl.gz").write_text("before")
    os.chmod("out.jsonl.gz", 0o600)
    call("cache", "export", *STORE, "-o", "out.jsonl.gz")
    assert json.loads(gzip.decompress(Path("out.jsonl.gz").read_bytes()))["value"] == "A"
    assert mode("out.jsonl.gz") == 0o600
    assert parts() == []
    refused = call("cache", "export", *STORE, "-o", "no/where", status=2)
    assert "no file can be made in" in " ".join(refused.stderr.split())


TO_STANDARD_OUTPUT = pytest.mark.parametrize(
    "line",
    [
        "map fn.py:upper in.txt",
        "map fn.py:upper many.txt",
        "map fn.py:upper in.txt --dry-run",
        "cache info --store results.db",
        "cache export --store results.db",
        "cache clear --store results.db --all --yes",
    ],
)


@pytest.fixture
def filled() -> None:
    """There is a store, and a large input."""
    upper(*STORE)
    Path("many.txt").write_text("a\n" * 100_000)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
@TO_STANDARD_OUTPUT
def test_a_full_disk(filled: None, line: str) -> None:
    """It is said, and the status is 1, also of what goes to standard output."""
    failed = shell(f"batchproxy {line} > /dev/full")
    assert failed.returncode == 1
    assert b"standard output cannot be written: [Errno 28]" in failed.stderr
    assert b"Traceback" not in failed.stderr


@posix
@TO_STANDARD_OUTPUT
def test_nobody_reads(filled: None, line: str) -> None:
    """When the reader of the output has gone, the command ends without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "batchproxy", *line.split()]
    ended = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, timeout=40)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")
