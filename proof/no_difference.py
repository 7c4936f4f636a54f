"""Breakages that no test can notice, since they make no difference, and why. For `mutants.py`.

Each is known by what it does: the qualified name of the function, the operator, the statement as
`mutants.py --list` shows it (before, or `before => after` where several would fit), and the reason.
"""

from __future__ import annotations

NO_DIFFERENCE: list[tuple[str, str, str, str]] = []
