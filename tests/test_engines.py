"""Points 24 and 25 of the contract: the engines of docs/clusters.md, for real. `nox -s engines`.

Left out without `--engines`: each starts in a process of its own, and takes up to a minute.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = {
    "ray": "ray",
    "spark": "pyspark",
    "spark_connect": "grpc",
    "datasets": "datasets",
    "daft": "daft",
}
WITHOUT_A_CAUSE = {"spark", "spark_connect"}  # they show the last exception only

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]


def engine(name: str) -> Any:
    """A parameter, skipped where it cannot run."""
    reasons = []
    if importlib.util.find_spec(NEEDED[name]) is None:
        reasons.append(f"{NEEDED[name]} is not installed")
    elif name.startswith("spark") and shutil.which("java") is None:
        reasons.append("there is no Java")
    return pytest.param(name, marks=[pytest.mark.skip(reason=reason) for reason in reasons])


def run(folder: Path, *arguments: object) -> str:
    """What Python prints."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HF_HOME": str(folder)}
    environment |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    line = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


def blocks() -> list[str]:
    page = (ROOT / "docs" / "clusters.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", [engine(name) for name in NEEDED if name != "spark_connect"])
def test_the_blocks_of_the_page(name: str, tmp_path: Path) -> None:
    """That of the engine, between the first and the last, prints what it says."""
    first, *others, last = blocks()
    [own] = [
        block for block in others if re.search(rf"^(import|from) {NEEDED[name]}\b", block, re.M)
    ]
    script = tmp_path / "block.py"
    script.write_text(first + own + last, "utf-8")
    expected = re.findall(r"^# (.*)$", own + last, re.MULTILINE)
    assert run(tmp_path, script).splitlines()[-len(expected) :] == expected


@pytest.mark.parametrize("name", [engine(name) for name in NEEDED])
def test_a_column(name: str, tmp_path: Path) -> None:
    """Each value is sent once, no null is, by an asynchronous function; failures are told."""
    printed = run(tmp_path, "tests/engine_jobs.py", name, tmp_path)
    found = json.loads(printed.splitlines()[-1])
    for rows in (found["rows"], found["again"]):
        assert len(rows) == 400
        for row in rows:
            assert row["place"] == (row["city"] and row["city"].upper())
    sent = [city for call in found["calls"] for city in call]
    assert sorted(sent) == sorted({f"city {number}" for number in range(30)})
    assert found["calls again"] == found["calls"]
    if name.startswith("spark"):  # arrays of seven rows: no batch is as small but the last ones
        assert max(map(len, found["calls"])) == 10
    for row in found["with errors"]:
        missing = row["city"] is None
        place = row["place"] or {"value": None, "error": None}
        assert place == {"value": None, "error": None if missing else "LookupError: no such city"}
    assert "LookupError: no such city" in found["failure"]
    assert ("OSError: no map" in found["failure"]) == (name not in WITHOUT_A_CAUSE)


@pytest.mark.parametrize("name", [engine("datasets")])
def test_the_fingerprint_stays(name: str, tmp_path: Path) -> None:
    """A second run finds what datasets has kept, and asks neither the function nor the store."""
    first = json.loads(run(tmp_path, "tests/engine_jobs.py", name, tmp_path).splitlines()[-1])
    for file in tmp_path.glob("places.db*"):
        file.unlink()
    second = json.loads(run(tmp_path, "tests/engine_jobs.py", name, tmp_path).splitlines()[-1])
    assert second["rows"] == first["rows"]
    assert second["calls"] == first["calls"]
