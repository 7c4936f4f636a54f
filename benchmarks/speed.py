"""What does the library cost? Ratios to what nobody can avoid, and to other libraries.

    python benchmarks/speed.py                      print the table
    python benchmarks/speed.py --write docs/speed   keep it there, with a plot, for the docs
    python benchmarks/speed.py --check docs/speed   is a ratio worse than the one kept there?

A row runs two things in turn, several rounds, the collector off, and gives the median of the
rounds' ratios and their range: seconds of different rows are not comparable, ratios are. `limits`,
`growth`, `features`, `loads` and `peers` say what each row is to show; peers that are not installed
are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import features
import growth
import limits
import loads
import peers
from measuring import HEADING, Row, medians

TOLERANCE = 1.3  # of a median: what the noise of a shared machine may be


def environment() -> str:
    """What was measured with what, and on what."""
    names = ["batchproxy", "anyio", "trio"]
    versions = {name: importlib.metadata.version(name) for name in names} | peers.installed()
    return (
        f"CPython {platform.python_version()} on {sys.platform}, {_processor()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{len(models)} processors ({models[0]})" if models else platform.processor()


def rows(drawn: dict[str, growth.Series]) -> Iterator[Row]:
    yield from limits.rows()
    yield from growth.rows(drawn)
    yield from features.rows()
    yield from loads.rows()
    yield from peers.rows()


def kept_in(folder: Path) -> Path:
    """The file of this version of Python."""
    return folder / f"cpython-{sys.version_info.major}.{sys.version_info.minor}.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep the table, and a plot")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="compare with what is kept")
    options = parser.parse_args()
    kept = medians(kept_in(options.check).read_text()) if options.check else {}
    print(environment(), HEADING, sep="\n\n", flush=True)
    drawn = growth.measured()
    table, worse = [], []
    for row in rows(drawn):
        print(row, flush=True)
        table.append(str(row))
        before = kept.get(row.name, math.inf)
        if row.steady and row.median > before * TOLERANCE:
            worse.append(f"{row.name}: {row.median:.2f}, was {before:.2f}")
    if options.write:
        options.write.mkdir(exist_ok=True)
        text = "\n".join([environment(), "", HEADING, *table, ""])
        kept_in(options.write).write_text(text)
        growth.plot(drawn, options.write / "growth.svg")
    if worse:
        sys.exit("\n".join(["", "Worse than what is kept:", *worse]))


if __name__ == "__main__":
    main()
