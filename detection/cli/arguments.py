"""What the words of a command line may be: numbers in their range, files that can be read or written.

Whatever is wrong with them is one line on stderr and exit code 2, before any work.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from backbones.errors import shorten
from detection.errors import ConfigError
from detection.files import exists, expand_home

# Bytes, of the common file systems; a name may have 255, but `replacing` writes under a longer one first.
_LONGEST_NAME, _LONGEST_PATH = 240, 4000
_TOO_LONG = "cannot be written: {} is too long for a file system"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as of any mistake: `--images must be ..., got 'x'; COMMAND --help shows ...`."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with the line."""
        # "argument --images: must be ..." reads as a sentence without argparse's first word and its colon.
        message = re.sub(r"^argument ([^:]+): (?=must |cannot |expected )", r"\1 ", message)
        raise ConfigError(f"{message}; {self.prog} --help shows the options")


def whole_number(at_least: int) -> Callable[[str], int]:
    """The type of an option: a whole number from `at_least` on, of at most ten digits."""

    def parse(text: str) -> int:
        # The length first: Python refuses to read thousands of digits, with an error of its own.
        number = int(text) if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) else None
        if number is None:
            raise argparse.ArgumentTypeError(f"must be a whole number of at most ten digits, got {shorten(text)}")
        if number < at_least:
            raise argparse.ArgumentTypeError(f"must be at least {at_least}, got {number}")
        return number

    return parse


def number_from(least: float, most: float) -> Callable[[str], float]:
    """The type of an option: a number of this range."""

    def parse(text: str) -> float:
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g}, got {shorten(text)}")
        return number

    return parse


def fraction(text: str) -> float:
    """The type of an option: a number from 0 to 1."""
    return number_from(0, 1)(text)


def threshold(text: str) -> float | Path:
    """The type of an option: a number from 0 to 1, or a file that has one for each class."""
    if _NUMBER.fullmatch(text):
        return fraction(text)
    file = expand_home(text)
    named = file.suffix.lower() in (".yaml", ".yml") and "\0" not in text  # an absent one is told as such when it is read
    if not text.strip() or not (named or exists(file)):
        raise argparse.ArgumentTypeError(f"must be 0 to 1, or a YAML file with a number for each class, got {shorten(text)}")
    return file


def any_path(text: str) -> Path:
    """The type of an option: the name of a file or folder that may be there or not."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be the name of a file or folder, got {shorten(text)}")
    return expand_home(text)


def output_file(text: str) -> Path:
    """The type of an option: a file that can be written, now or once its folders are made."""
    return _checked(any_path(text), file_fault)


def output_folder(text: str) -> Path:
    """The type of an option: a folder that exists and can be written, or can be made."""
    return _checked(any_path(text), folder_fault)


def _checked(output: Path, fault_of: Callable[[Path], str | None]) -> Path:
    fault = fault_of(output)
    if fault is not None:
        raise argparse.ArgumentTypeError(fault)
    return output


def file_fault(file: Path) -> str | None:
    """Why this file cannot be written, to stand after what it is; None where nothing is against it."""
    if not _fits(file):
        return _TOO_LONG.format(shorten(str(file)))
    if file.exists() and not file.is_file():
        kind = "folder" if file.is_dir() else "pipe or a device"
        return f"must be a file to write; {shorten(str(file))} is a {kind}"
    return folder_fault(file.parent)


def folder_fault(folder: Path) -> str | None:
    """Why nothing can be written into this folder, which need not exist, to stand after what it is; None where it can."""
    if not _fits(folder):
        return _TOO_LONG.format(shorten(str(folder)))
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        return f"cannot be written: {shorten(str(existing))} is no folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"cannot be written: nothing may be written in {shorten(str(existing))}"
    return None


def _fits(path: Path) -> bool:
    """Whether file systems take the names in this path."""
    return all(len(os.fsencode(part)) <= _LONGEST_NAME for part in path.parts) and len(os.fsencode(path)) <= _LONGEST_PATH
