"""Values that no file should hold where a number, a text or a list belongs; all are valid YAML, and JSON where it says so."""

from __future__ import annotations

import random
from typing import Any

# Text of JSON. Python reads NaN and Infinity in JSON, so that they may arrive.
JSON_VALUES = (
    "null",
    "true",
    "false",
    "-1",
    "0",
    "1e0",
    "1.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1" + "0" * 400,
    "9" * 5000,
    "9223372036854775808",
    "-9223372036854775809",
    '""',
    '" "',
    '"1"',
    '"0"',
    '"nan"',
    '"text"',
    r'"\u0000"',
    r'"\ud800"',
    r'"a\nb"',
    r'"\u001b[31mred"',
    '"[/bold]"',
    '"a/b"',
    '"../../x"',
    '"家"',
    '"$x_"',
    '"' + "x" * 100_000 + '"',
    "[]",
    "{}",
    "[[[[]]]]",
    "[1, 2, 3]",
    '{"a": {"b": [1]}}',
    "[" * 2000 + "]" * 2000,
)

# Text of YAML that is no JSON.
YAML_VALUES = (
    ".nan",
    ".inf",
    "-.inf",
    "010",
    "1:30:00",
    "yes",
    "2026-01-01",
    "!!python/object:os.system {}",
    "&a [*a]",
    "[&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c], [*d, *d]]",
    "*missing",
    "'unclosed",
    "[1, 2",
    "!!binary aGk=",
    "|\n  block",
)

BROKEN_WORDS = ("-1", "nan", "1e400", "1_0", "٣", "\x1b[2J", "{", "&a *a", "\t", "x" * 5000)

NOT_FINITE = ("NaN", ".nan", ".inf", "-.inf", "1e400", "9" * 5000)
"""Of the values above, those that no key of a config may take."""


def json_value(random_: random.Random) -> str:
    """One of JSON_VALUES."""
    return random_.choice(JSON_VALUES)


def yaml_value(random_: random.Random) -> str:
    """One of both."""
    return random_.choice(JSON_VALUES + YAML_VALUES)


def plain_value(random_: random.Random) -> Any:
    """A value for a checkpoint: plain, or a graph that is small in memory and endless when written out."""
    circular: dict[str, Any] = {}
    circular["self"] = circular
    endless = doubled(40)
    values: tuple[Any, ...] = (None, True, -1, 0, 2**70, 10**400, float("nan"), float("inf"), "", "text", "\x00", "\ud800")
    values += (b"bytes", [], {}, [None], {"a": 1}, {1: 2}, (1, 2), "x" * 100_000, circular, endless, {"deep": endless})
    return random_.choice(values)


def doubled(levels: int) -> list[Any]:
    """As many lists as levels, each twice in the next: 2 ** levels texts when written out."""
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def break_bytes(content: bytes, random_: random.Random) -> bytes:
    """The content cut short, with bytes changed, left out, doubled or put in, or nothing of it."""
    if not content:
        return random_.randbytes(10)
    start = random_.randrange(len(content))
    end = min(start + random_.choice((1, 4, 64)), len(content))
    return random_.choice(
        (
            content[:start],
            content[:start] + random_.randbytes(end - start) + content[end:],
            content[:start] + content[end:],
            content[:end] + content[start:],
            content[:start] + random_.choice((b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"<!--", b"\n\n")) + content[start:],
            b"",
            b"\x00" * len(content),
        )
    )


def break_text(text: str, random_: random.Random) -> str:
    """A text with a line doubled, left out, exchanged, or a word replaced."""
    lines = text.splitlines(keepends=True) or [""]
    index = random_.randrange(len(lines))
    words = lines[index].split(" ")
    words[random_.randrange(len(words))] = random_.choice(
        ("-1", "nan", "1e400", "1_0", "٣", "\x1b[2J", "{", "&a *a", "\t", "x" * 5000)
    )
    return "".join(
        random_.choice(
            (
                lines[:index] + [lines[index]] * 2 + lines[index + 1 :],
                lines[:index] + lines[index + 1 :],
                lines[:index] + lines[index + 1 :] + [lines[index]],
                lines[:index] + [" ".join(words) + "\n"] + lines[index + 1 :],
            )
        )
    )
