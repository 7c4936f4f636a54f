"""Names of keys in a store, in processes of other versions of Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import batchproxy
from batchproxy.codecs import digests

KEYS = ["text", 42, (1, "a", (None, 2.5, b"\0"))]


# Without the package's `__init__`: what that needs may not be installed there.
SCRIPT = """
import sys, types
sys.modules["batchproxy"] = package = types.ModuleType("batchproxy")
package.__path__ = [sys.argv[1]]
from batchproxy._backing.digests import digests
assert "numpy" not in sys.modules
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
        [executable, "-c", SCRIPT, str(Path(batchproxy.__file__).parent)],
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert printed.split() == [name.hex() for name in digests(KEYS)]
