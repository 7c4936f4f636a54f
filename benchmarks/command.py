"""What does the command cost beside a loop of `csv.reader` and `csv.writer` over the same file?

A million rows of CSV, of which a tenth are distinct, in batches of 1,000: once cold, and once more
when all are known. The command is measured as it is, with its start; the function does next to
nothing. Prints a table, of processor time, in which others on the machine count for little.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

ROWS, DISTINCT, ROUNDS = 1_000_000, 100_000, 3
LINE = [
    "-m", "batchproxy", "map", "functions.py:upper", "rows.csv", "--field", "city", "--batch-size",
    "1000", "--store", "results.db", "--namespace", "n", "-o", "out.csv", "--quiet",
]  # fmt: skip
FUNCTION = """
def upper(items):
    return [item.upper() for item in items]
"""


def bare(folder: Path) -> float:
    """Processor seconds of the loop."""
    start = process_time()
    with (
        open(folder / "rows.csv", newline="", encoding="utf-8") as source,
        open(folder / "bare.csv", "w", newline="", encoding="utf-8") as target,
    ):
        writer = csv.writer(target)
        for row in csv.reader(source):
            writer.writerow(row)
    return process_time() - start


def command(folder: Path, *, cold: bool) -> float:
    """Processor seconds of the command."""
    if cold:
        for file in folder.glob("results.db*"):
            file.unlink()
    before = os.times()
    subprocess.run([sys.executable, *LINE], cwd=folder, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    """Measure, alternating, and print the table."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "functions.py").write_text(FUNCTION, "utf-8")
        with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "city", "note"])
            for number in range(ROWS):
                writer.writerow([number, f"city {chance.randrange(DISTINCT)}", "some text"])
        times = [
            (bare(folder), command(folder, cold=True), command(folder, cold=False))
            for _ in range(ROUNDS)
        ]
    limit, cold, known = (min(column) for column in zip(*times))
    print(f"| {ROWS:,} rows of CSV | seconds | of the bare loop, at most | ratio | reached |")
    print("|---|--:|--:|--:|---|")
    print(f"| bare loop | {limit:.2f} | | 1 | |")
    for what, seconds, most in (("all known", known, 5), ("cold, a tenth distinct", cold, 8)):
        ratio = seconds / limit
        reached = "yes" if ratio <= most else "no"
        print(f"| {what} | {seconds:.2f} | {most} | {ratio:.1f} | {reached} |")


if __name__ == "__main__":
    main()
