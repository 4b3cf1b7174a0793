"""Text and JSON on disk: read with errors that name the file, written wholly or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backbones.files import remove_leftovers, replacing, write_whole
from detection.errors import DatasetError

__all__ = ["read_json", "read_text", "remove_leftovers", "replacing", "write_json", "write_whole"]


def write_json(path: Path, value: object) -> None:
    """Write plain data as JSON, a list in one line. The folder is made. Raises OSError, an old file intact."""
    write_whole(path, json.dumps(value, indent=None if isinstance(value, list) else 2) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises DatasetError if it is absent, cut short or not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not valid JSON (cut short?): {error.msg}, line {error.lineno}") from None


def read_text(path: Path) -> str:
    """A text file's content in UTF-8, a byte-order mark left out. Raises DatasetError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not a text file") from None
