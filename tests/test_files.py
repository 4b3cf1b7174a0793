"""Text and JSON from outside: what cannot be read is one line that names the file, and takes no time."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

from detection.errors import DatasetError
from detection.files import plain_json, read_json, read_text, write_json

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "not valid JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "thousands of digits"),
        (rb'{"name": "a\ud800b"}', "half a character"),
        (rb'{"a\ud800": 1}', "half a character"),
        (b'{"a": "\xff"}', "not a text file"),
        (b"\xff\xfe{\0}", "not a text file"),
    ],
)
def test_broken_json_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as failure:
        read_json(path)
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_whole_characters_outside_the_basic_plane_are_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf" + rb'["\ud83d\ude00"]')
    assert read_json(path) == ["\U0001f600"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_json_in_every_encoding_that_it_may_have(tmp_path, encoding):
    path = tmp_path / "file.json"
    path.write_bytes('{"é": "中"}\r\n'.encode(encoding))
    assert read_json(path) == {"é": "中"}
    if "-" not in encoding.removeprefix("utf-"):  # those that have a mark, and UTF-8
        assert read_text(path) == '{"é": "中"}\n'
    with pytest.raises(DatasetError, match="too large"):
        read_json(path, max_bytes=3)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="cannot read"):
            read_text(path)


def test_numbers_that_json_has_not_are_null(tmp_path):
    write_json(tmp_path / "file.json", {"AP": float("nan"), "list": [float("inf"), 0.5], "nested": {"a": (float("-inf"),)}})
    content = (tmp_path / "file.json").read_text()
    assert json.loads(content, parse_constant=pytest.fail) == {"AP": None, "list": [None, 0.5], "nested": {"a": [None]}}
    assert plain_json((1, "a", None)) == [1, "a", None]


SOURCES = [path for folder in ("backbones", "detection", "tools", "datasets", "docs") for path in (ROOT / folder).rglob("*.py")]


def opens_text_without_encoding(call: ast.Call) -> bool:
    """Whether this reads or writes text in the encoding of whatever machine it runs on."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name not in ("open", "read_text", "write_text") or owner in (
        "os",
        "Image",
        "av",
        "self",
        "tarfile",
        "zipfile",
        "webbrowser",
        "StoredProposals",
    ):
        return False
    if name == "read_text" and not owner:
        return False  # detection.files', which is UTF-8
    binary = name == "open" and (re.search(r"'[rwax+]*b\+?'", ast.unparse(call)) or "urllib" in owner)
    return not binary and not any(keyword.arg == "encoding" for keyword in call.keywords)


def test_text_is_read_and_written_as_utf_8_on_every_machine():
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text_without_encoding(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert SOURCES and not found, "\n".join(found)
