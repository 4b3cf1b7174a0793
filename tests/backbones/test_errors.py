"""Values and texts from outside, made fit for one line of a message."""

from collections import OrderedDict

import pytest

from backbones.errors import printable, shorten


def doubled(levels):
    """A list of 2 ** levels numbers in as many objects as there are levels."""
    value: list[object] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def circular():
    value: dict[str, object] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [
        doubled(60),
        OrderedDict(a=doubled(60)),
        (doubled(60),),
        circular(),
        10**6000,
        [10**6000],
        "x" * 10**6,
        b"x" * 10**6,
        dict.fromkeys(range(1000), "x" * 100),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_a_short_text(value):
    assert 0 < len(shorten(value)) <= 120


@pytest.mark.parametrize("value", [7, 0.5, True, None, "text", [1, "a"], {"key": [1]}, (1,), -(10**20)])
def test_plain_values_are_shown_as_they_are(value):
    assert shorten(value) == repr(value)


def test_what_moves_a_terminal_or_cannot_be_written_is_escaped():
    assert printable("a\x1b[2Jb\n\x00\ud800") == "a\\x1b[2Jb\\n\\x00\\ud800"
    assert printable("file-\udcff.jpg\u202e\u2028") == "file-\\xff.jpg\\u202e\\u2028"
    for text in ("häuser 家 \U0001f600", "می\u200cخواهم", "\U0001f469\u200d\U0001f680", "a\u00a0b"):
        assert printable(text) == text
