"""What is said of values is short and on one line, whatever they are. (All points that raise.)"""

import pytest

from batchproxy import _messages


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no")


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "value", ["x" * 10**6, b"x" * 10**6, ["x" * 1000] * 1000, {"x" * 1000: "x" * 1000}, 10**4000]
)
def test_large_values_are_cut(value: object) -> None:
    """Some 200 characters say enough."""
    assert len(_messages.short(value)) < 250
    assert len(_messages.describe(ValueError(value))) < 250
    assert len(_messages.short_list([value] * 50)) < 500


def test_what_a_terminal_obeys_is_escaped() -> None:
    """A key, or what a server says, moves no cursor and breaks no line."""
    for text in ("\x1b]0;title\x07", "a\nb", "a\u2028b", "\ud800"):
        assert _messages.short(text).isprintable()
        assert _messages.describe(ValueError(text)).isprintable()


def test_what_cannot_be_said_is_no_error() -> None:
    """A repr or str that raises is no second failure."""
    assert "Mute" in _messages.short(Mute())
    assert _messages.describe(MuteError()) == "MuteError: <its str() raised ValueError>"
    assert _messages.describe(KeyError()) == "KeyError"


def test_a_list_says_how_many_are_left_out() -> None:
    """The first few, and a count."""
    assert _messages.short_list([1, 2]) == "1, 2"
    assert _messages.short_list(list(range(7))) == "0, 1, 2, 3, 4 and 2 more"
