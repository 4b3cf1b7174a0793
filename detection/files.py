"""Text and JSON on disk: always UTF-8, read with bounds and errors that name the file, written wholly or not at all."""

from __future__ import annotations

import codecs
import json
import math
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from backbones.errors import printable, shorten
from backbones.files import exists, expand_home, is_file, open_regular, read_regular, remove_leftovers, replacing, write_whole
from detection.errors import DatasetError

__all__ = [
    "METRICS_FILE",
    "TRAINED_FILES",
    "exists",
    "expand_home",
    "find_trained_weights",
    "is_file",
    "new_folder",
    "open_regular",
    "parse_metrics",
    "plain_json",
    "read_json",
    "read_regular",
    "read_text",
    "remove_leftovers",
    "replacing",
    "write_json",
    "write_whole",
]

MAX_TEXT_BYTES = 2**32
"""COCO's largest annotation file is a tenth of it. Larger ones are more likely a mistake than a data set."""

METRICS_FILE = "metrics.jsonl"
"""The numbers of a run, one record a line."""
TRAINED_FILES = ("best.pt", "last.pt")
"""The checkpoints of a run, the better first; a run without a validation split has only the last."""
MAX_METRICS_BYTES = 2**30
"""Of a metrics file: some millions of log intervals."""
MAX_STEP = 2**53
"""Beyond it floating point cannot tell one step from the next."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block ends; if the block raises, nothing of it stays.

    Raises DatasetError where `folder` exists and is not empty, OSError, naming it, where it cannot be written.
    """
    if exists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise DatasetError(f"{printable(str(folder))} exists and is not an empty folder: name another, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.absolute().with_name(f".{folder.absolute().name[:100]}.{secrets.token_hex(4)}.tmp")
    made.mkdir()
    try:
        yield made
        if folder.is_dir():
            folder.rmdir()
        made.replace(folder)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError) and (error.filename is None or str(error.filename).startswith(str(made))):
            error.filename = str(folder)
        raise


def find_trained_weights(run: Path) -> Path | None:
    """The best checkpoint in a run's folder, else its last; None if it has left neither."""
    return next((run / name for name in TRAINED_FILES if is_file(run / name)), None)


def write_json(path: Path, value: object) -> None:
    """Write plain data as JSON, a list in one line. The folder is made. Raises OSError, an old file intact.

    Numbers that are not finite become null: JSON has no NaN.
    """
    indent = None if isinstance(value, list) else 2
    write_whole(path, json.dumps(plain_json(value), indent=indent, allow_nan=False) + "\n")


def plain_json(value: Any) -> Any:
    """The same plain data with null in place of numbers that JSON has not: NaN and the infinities."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, once: Sequence[str] = (), max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Parse a JSON file, in UTF-8, 16 or 32. Raises DatasetError: absent, too large, cut short, nested too deep or not JSON.

    `once`: keys that no object may hold twice; of others the last counts, as in all of Python's JSON.
    """
    text = _read_decoded(path, max_bytes, json.detect_encoding)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not valid JSON (cut short?): {error.msg}, line {error.lineno}") from None
    except RecursionError:
        raise DatasetError(f"{path} is nested too deep to be read") from None
    except ValueError:  # Python's bound for the digits of a whole number
        raise DatasetError(f"{path} holds a whole number of thousands of digits") from None
    if _SURROGATE.search(text):
        _refuse_half_characters(value, path)
    # Looking at every pair of a large file takes seconds, and a key that the text holds once needs no look.
    if any(text.count(f'"{key}"') > 1 for key in once):
        json.loads(text, object_pairs_hook=partial(_refuse_repeated, path, once))
    return value


def _refuse_repeated(path: Path, once: Sequence[str], pairs: Sequence[tuple[str, Any]]) -> None:
    """Raise DatasetError if one of the keys `once` occurs twice in the pairs of an object."""
    keys = [key for key, _ in pairs]
    repeated = next((key for key in once if keys.count(key) > 1), None)
    if repeated is not None:
        raise DatasetError(f"{path} has '{repeated}' twice in one object: the first would be lost; join them")


def _refuse_half_characters(value: Any, path: Path) -> None:
    r"""Raise DatasetError for a text with half a character, such as "\ud800": it can be neither written nor compared."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = printable(error.object[max(error.start - 20, 0) : error.end])
        raise DatasetError(f"{path} holds text with half a character: {found}") from None


def parse_metrics(content: bytes) -> tuple[list[tuple[bytes, dict[str, Any]]], list[str]]:
    """What a metrics.jsonl holds: its records, each with its line, and the faults of other lines, as "line 3 is damaged: ...".

    A record has a `kind`, "train" or "evaluation", and a `step`. A last line that is no JSON is neither: a run is still
    writing it, or was killed.
    """
    lines, records, faults = content.splitlines(), [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or not even text
            if number < len(lines):
                faults.append(f"line {number} is damaged: it is no JSON")
            continue
        if _is_record(record):
            records.append((line, record))
        else:
            faults.append(f"line {number} is no record of a run: {shorten(record)}")
    return records, faults


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("kind") not in ("train", "evaluation"):
        return False
    return type(value.get("step")) is int and 0 <= value["step"] < MAX_STEP


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A text file's content in UTF-8, or as its byte-order mark says, which is left out. Raises DatasetError."""
    return _read_decoded(path, max_bytes, _encoding_by_mark)


def _read_decoded(path: Path, max_bytes: int, encoding_of: Callable[[bytes], str]) -> str:
    try:
        content = read_regular(path, max_bytes)
        return content.decode(encoding_of(content)).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not a text file in UTF-8: convert it, or name another") from None


def _encoding_by_mark(content: bytes) -> str:
    # The mark of UTF-32 begins with that of UTF-16.
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def fold_name(text: str) -> str:
    """A name's text for comparing: the same for all of its cases and Unicode forms."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
