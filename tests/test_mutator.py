"""What breaks the source on purpose, `proof/mutants.py`, on a small source and a small project."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "proof").exists():
    pytest.skip("there is no proof/ beside tests/", allow_module_level=True)
sys.path.append(str(ROOT))

from proof import mutants  # noqa: E402 - after that
from proof.breakages import OPERATORS, breakages  # noqa: E402 - after that

SAMPLE = '''
class Box:
    __slots__ = ("full",)
    def take(self, key: str = "b", most: int = 3) -> int | None:
        """Another one."""
        assert self.full, "for types"
        with self.lock:
            most = most - 1
        try:
            for each in self.all.copy():
                if each or self.go(each, at=True):
                    continue
        except KeyError:
            self.note("two words")
        finally:
            if self.open(""):
                self.shut()
        if not key < "":
            raise KeyError("none", 1)
        return key is None
'''
BROKEN = """drop statement | most = most - 1 | pass
drop statement | self.note('two words') | pass
drop statement | self.shut() | pass
drop statement | raise KeyError('none', 1) | pass
decide | if each or self.go(each, at=True): | if True:
decide | if self.open(''): | if True:
decide | if not key < '': | if True:
drop operand | if each or self.go(each, at=True): | if self.go(each, at=True):
drop operand | if each or self.go(each, at=True): | if each:
move boundary | if not key < '': | if not key <= '':
negate | return key is None | return key is not None
change constant | most = most - 1 | most = most - 2
change constant | if each or self.go(each, at=True): | if each or self.go(each, at=False):
change constant | if self.open(''): | if self.open('x'):
change constant | if not key < '': | if not key < 'x':
drop finally | if self.open(''): | pass
drop handler | self.note('two words') | raise
drop context | with self.lock: | if True:
return none | return key is None | return None
swap jump | if each or self.go(each, at=True): continue | break
drop keyword | if each or self.go(each, at=True): | if each or self.go(each):
swap twin | most = most - 1 | most = most + 1
swap twin | for each in self.all.copy(): | for each in self.all:
"""
SOURCE = """
    LIMIT = 2
    def capped(number: int) -> int:
        while number > LIMIT:
            number -= 1
        return number
    def forgotten(number: int) -> bool:
        return number > LIMIT
    """
TESTS = """
    import subprocess, sys, sample
    def test_capped():
        command = "import sample, sys; sys.exit(sample.capped(5))"
        assert subprocess.call([sys.executable, "-c", command]) == 2
    def test_forgotten():
        sample.forgotten(1)
    """


def test_each_operator() -> None:
    """What each makes of a method, and what all leave alone."""
    order = [*OPERATORS]
    found = sorted(breakages("box.py", SAMPLE), key=lambda each: order.index(each.operator))
    lines = [f"{each.operator} | {each.before} | {each.after}" for each in found]
    assert lines == BROKEN.splitlines()
    assert {each.function for each in found} == {"Box.take"}
    assert len({compile(each.text, "box.py", "exec") for each in found}) == len(found)


def test_survivors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that no test notices. Tests may hang, and may execute it in another process."""
    monkeypatch.setattr(mutants, "PATIENCE", 3)
    for path, text in {"src/sample.py": SOURCE, "tests/test_sample.py": TESTS}.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(dedent(text), "utf-8")
    outcomes = mutants.run(tmp_path, mutants.made(tmp_path))
    assert [f"{each.before} | {each.after} | {end.what}" for each, end in outcomes.items()] == [
        "LIMIT = 2 | LIMIT = 3 | killed",
        "while number > LIMIT: | while False: | killed",
        "while number > LIMIT: | while number >= LIMIT: | killed",
        "number -= 1 | pass | hung",
        "number -= 1 | number += 1 | hung",
        "number -= 1 | number -= 2 | killed",
        "return number | return None | killed",
        "return number > LIMIT | return None | survived",
        "return number > LIMIT | return number >= LIMIT | survived",
    ]
