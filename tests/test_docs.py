"""Documentation that cannot rot: every block of README and docs runs, and so does every example."""

import ast
import contextlib
import importlib.util
import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    ["sqlite_lookup.py"],
    ["embeddings_http.py", "--backend", "asyncio"],
    ["embeddings_http.py", "--backend", "trio"],
    ["tables.py"],
    ["threaded_workers.py"],
    ["web_load.py", "--requests", "60", "--server", "uvicorn"],
    ["web_load.py", "--requests", "60", "--server", "hypercorn"],
]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def is_file(block: str) -> bool:
    """Whether a block is a file for pytest, whose name is its first line."""
    return re.match(r"# \w+\.py\n", block) is not None


def test_there_is_something_to_run() -> None:
    """The search for blocks and pages finds them."""
    assert sum(len(blocks(page)) for page in PAGES) > 20
    others = {"embeddings_server.py", "web_app.py"}
    others.add("cities.py")  # what the README's command maps
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert {example[0] for example in EXAMPLES} | others == examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_hides_from_the_search(page: Path) -> None:
    """Every fence begins its line, and is Python, a command, or a directive of the pages."""
    opened = re.findall(r"^[ >]*(?:```|~~~).*", page.read_text("utf-8"), re.MULTILINE)[::2]
    kinds = ["```python", "```sh", "```{include}", "```{toctree}", "```{eval-rst}"]
    assert [line for line in opened if line.split(" ")[0] not in kinds] == []
    assert opened.count("```python") == len(blocks(page))


def needing(text: str) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.needs_trio] if re.search('"(trio|hypercorn)"', text) else []
    signs = {"hypercorn": '"hypercorn"', "starlette": '"web_load.py"', "uvicorn": '"uvicorn"'}
    signs |= {"tqdm": "progress=True\\)", "pandas": '"tables.py"', "dask": "^import dask"}
    optionals = "aiolimiter cloudpickle msgspec opentelemetry prometheus_client pyarrow stamina"
    for optional in (*optionals.split(), "tiktoken"):
        signs[optional] = rf"^(import|from) {optional}\b"
    for optional, sign in signs.items():
        if re.search(sign, text, re.MULTILINE) and importlib.util.find_spec(optional) is None:
            marks.append(pytest.mark.skip(reason=f"{optional} is not installed"))
    return marks


def lacks_an_engine(block: str) -> bool:
    """Whether it imports one that is not installed: the rest of its page does without.

    Or one that is for `test_engines`.
    """
    if re.search(r"^(import|from) (daft|datasets|pyspark|ray)\b", block, re.MULTILINE):
        return True
    engines = ("numpy", "pandas", "polars", "duckdb")
    imported = [name for name in engines if re.search(rf"^import {name}\b", block, re.MULTILINE)]
    imported += re.findall(r"^from batchproxy\.integrations\.(\w+)", block, re.MULTILINE)
    return any(importlib.util.find_spec(name) is None for name in imported)


def encode_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken have an encoding that it need not load from elsewhere: a token is a byte."""
    registry = importlib.import_module("tiktoken.registry")
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = registry.Encoding("bytes", pat_str=r".", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(registry.ENCODINGS, "cl100k_base", encoding)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=needing("".join(blocks(page))))
        for page in PAGES
        if blocks(page)
    ],
)
def test_blocks(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after another, and print what their comments say.

    A comment that begins a line is a line of output; where it ends in "...", the beginning of one.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])  # for examples
    monkeypatch.setattr(logger := logging.getLogger("batchproxy"), "level", logger.level)
    if "import tiktoken" in page.read_text("utf-8"):
        encode_offline(monkeypatch)
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for number, block in enumerate(blocks(page)):
        if is_file(block) or lacks_an_engine(block):
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
        expected = re.findall(r"^# (.*)$", block, re.MULTILINE)
        printed = output.getvalue().splitlines()
        assert len(printed) == len(expected), printed
        for line, wanted in zip(printed, expected):
            beginning = wanted.removesuffix(" ...")
            assert line.startswith(beginning) if beginning != wanted else line == wanted


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        pytest.param("anyio", "anyio.pytest_plugin", marks=pytest.mark.needs_trio),
        ("asyncio", "pytest_asyncio.plugin"),
        pytest.param("trio", "pytest_trio.plugin", marks=pytest.mark.needs_trio),
    ],
    ids=["anyio", "asyncio", "trio"],
)
def test_files_for_pytest(tmp_path: Path, name: str, plugin: str) -> None:
    """Those of the page on testing pass, each with the plugin that it is for and no other."""
    if importlib.util.find_spec(plugin.partition(".")[0]) is None:
        pytest.skip(f"{plugin} is not installed")
    found = {block[2 : block.index("\n")]: block for block in blocks(ROOT / "docs" / "testing.md")}
    for file in ("conftest.py", f"test_with_{name}.py"):
        (tmp_path / file).write_text(found[file], "utf-8")
    options = "[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n"
    scope = "asyncio_default_fixture_loop_scope = function\n" if name == "asyncio" else ""
    (tmp_path / "pytest.ini").write_text(options + scope, "utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        done = run("-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", tmp_path)
    assert re.search(f"^{2 if name == 'anyio' else 1} passed", done.stdout, re.MULTILINE)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Python, beside the README."""
    line = [sys.executable, "-W", "error", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=" ".join(example), marks=needing(str(example).replace("'", '"')))
        for example in EXAMPLES
    ],
)
def test_examples(example: list[str]) -> None:
    """Every example runs, and says how many rows there were, how many distinct, how many calls."""
    done = run(ROOT / "examples" / example[0], *example[1:])
    assert done.stderr == ""
    assert "distinct" in done.stdout
    assert re.search(r"\d+ (statements|requests|calls) in \d", done.stdout)


def test_the_command_of_the_readme(tmp_path: Path) -> None:
    """It maps the file that is shipped; the same line again computes nothing."""
    pytest.importorskip("click")
    pytest.importorskip("tqdm")
    readme = (ROOT / "README.md").read_text("utf-8")
    [line] = re.findall(r"&& \.venv/bin/batchproxy (map .*)$", readme, re.MULTILINE)
    line = line.replace("places.db", str(tmp_path / "places.db")).replace("-o ", f"-o {tmp_path}/")
    outputs = []
    for computed in ("748 computed in 8 calls, 0 hits", "0 computed in 0 calls, 748 hits"):
        done = run("-m", "batchproxy", *line.split())
        assert "5,000 rows, 748 distinct" in done.stderr
        assert computed in done.stderr
        outputs.append((tmp_path / "visits-with-places.csv").read_bytes())
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"\n") == 5001
    assert "5,000 rows" in readme


def test_the_readme_is_the_index() -> None:
    """The index includes the marked section, in which the two commands and the snippets are."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    options = re.findall(r"^:(start-after|end-before): \"(.*)\"$", index, re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")
    begin, end = (mark for _, mark in options)
    assert readme.count(begin) == readme.count(end) == 1
    section = readme[readme.index(begin) : readme.index(end)]
    assert section.count("```python\n") == len(blocks(ROOT / "README.md"))
    commands = re.findall(r"^```sh\n(.*?)\n```", section, re.MULTILINE | re.DOTALL)
    assert len(commands) == 4
    assert commands[0] == "pip install '.[cli]'"
    assert "pip install -q '.[cli]' && .venv/bin/batchproxy map examples" in commands[2]
    assert commands[3].endswith(".venv/bin/python -m pytest")


def test_figures_are_those_that_were_printed() -> None:
    """Every line of the README's table is one of what a run wrote, which it names."""
    written = (ROOT / "docs" / "speed" / "cpython-3.12.md").read_text("utf-8").splitlines()
    readme = (ROOT / "README.md").read_text("utf-8")
    quoted = re.findall(r"^\|.*$", readme, re.MULTILINE)
    assert len(quoted) > 10
    assert set(quoted) <= set(written)
    assert written[0].split(";")[0] in readme.replace("\n", " ")


def said(node: ast.expr) -> str:
    """A text that is to be formatted, with an ellipsis for what is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            said(part) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return re.sub(r"%[sdr]|\n", "…", str(node.value)) if isinstance(node, ast.Constant) else "…"


def logged(source: str) -> Iterator[tuple[str, str]]:
    """The level and the text of what a module logs, also by a function that puts more to a text."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and call.args:
            name, text = ast.unparse(call.func), said(call.args[0]).strip("…")
            if name == "_say" and text:
                name = next(iter(re.findall(r"_logger\.\w+", source)))
            if name.startswith("_logger.") and text:
                level = name.removeprefix("_logger.").upper()
                yield "ERROR" if level == "EXCEPTION" else level, text


def test_the_log_is_written_down() -> None:
    """Every message of the source, with its level, is on the page, and there are no others."""
    sources = [path.read_text("utf-8") for path in Path(str(files("batchproxy"))).rglob("*.py")]
    loggers = [name for source in sources for name in re.findall(r"getLogger\((.*)\)", source)]
    assert {*loggers} == {'"batchproxy"'}
    page = (ROOT / "docs" / "logging.md").read_text("utf-8")
    written = re.findall(r"^\| `(.*?)` \| ([A-Z]+) \|", page, re.MULTILINE)
    assert sorted((level, text.strip("…")) for text, level in written) == sorted(
        each for source in sources for each in logged(source)
    )


def test_links_between_pages_lead_somewhere() -> None:
    """A page that is named exists."""
    for page in PAGES:
        for target in re.findall(r"\]\(([\w./-]+\.md)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_each_point_of_the_contract_is_guarded() -> None:
    """They are numbered, and each is named by the tests that guard it."""
    text = (ROOT / "docs" / "contract.md").read_text("utf-8")
    points = [int(each) for each in re.findall(r"^(\d+)\. \*\*", text, re.MULTILINE)]
    assert points == [*range(1, len(points) + 1)]
    guarded: set[int] = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        head = path.read_text("utf-8").split("\n", 1)[0]
        if named := re.match(r'"""Points? ([\d, and to]+) of the contract', head):
            for first, last in re.findall(r"(\d+)(?: to (\d+))?", named[1]):
                guarded.update(range(int(first), int(last or first) + 1))
    assert guarded == {*points}
