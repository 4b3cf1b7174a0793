"""Text on its way to a terminal, a pipe or a log: names from outside are shown as they are, never obeyed.

rich reads `[red]` as markup and `:cat:` as an emoji, a terminal obeys escape sequences, and an output in cp1252 or ASCII has
no character for most scripts. All that is printed passes here.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

from backbones.errors import printable

_NARROWEST_TERMINAL = 20  # columns
_WIDEST_NAME = 40  # columns of a table
_LONGEST_WORD, _LONGEST_LINE = 300, 2000  # characters


def plain(value: object) -> Text:
    """Any value's text for a table's cell or a line: without markup, control characters escaped."""
    return Text(printable(str(value)))


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that reads no markup in what it prints; names still go through `plain`, which also escapes."""
    console = Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
    # rich leaves out of a table what does not fit. A pipe has no width, whatever COLUMNS says, nor has a terminal of none.
    if not console.is_terminal or console.width < _NARROWEST_TERMINAL:
        console.width = max(console.width, 80)
    return console


def shows_bars(console: Console) -> bool:
    """Whether a progress bar can be drawn here: on a terminal, or in a notebook whose widgets it needs."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines, for what has no console, such as a `print`: names to the left, the rest to the right.

    Names pass `printable`, too long ones are cut; Chinese and the like take two columns for each character.
    """
    cells = [[_cut(printable(name), _WIDEST_NAME), *rest] for name, *rest in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    names = [row[0] + " " * (widths[0] - cell_len(row[0])) for row in cells]
    return ["  ".join([name, *map(str.rjust, row[1:], widths[1:])]) for name, row in zip(names, cells, strict=True)]


def _cut(text: str, width: int) -> str:
    """The text in at most so many columns of a terminal."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "\N{HORIZONTAL ELLIPSIS}"


def plain_column(layout: str) -> TextColumn:
    """A column of a progress bar, `layout` as in "{task.description}", that reads no markup in what it shows."""
    return TextColumn(layout, markup=False)


class PrintableFormatter(logging.Formatter):
    """Log lines with control characters escaped: a file's name cannot make a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback, which follows it unchanged."""
        return printable(super().formatMessage(record))


@contextmanager
def safe_output() -> Iterator[None]:
    """While a command runs: no text is too foreign for its output, and warnings are one line on stderr.

    Characters that the output lacks are written as `\\xe9` or `\\u732b`. Warnings of libraries say what they say without the
    place in the library; those that a logger without a handler records are escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        _escape_unknown_characters(stream)
    last_resort = logging.lastResort
    logging.lastResort = _StderrHandler(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # Pillow's about broken EXIF, which counts as none, and large images, whose bound is `data.max_pixels`.
            warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
            warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
            yield
    finally:
        logging.lastResort = last_resort


def print_error(line: str) -> None:
    """One line on stderr, control characters escaped, too long a one without its middle. Quiet where stderr is closed."""
    if sys.stderr is not None:
        with suppress(OSError):  # a reader that has gone, a full disk: there is nowhere to tell it
            print(_without_middle(printable(line)), file=sys.stderr, flush=True)


def _without_middle(line: str) -> str:
    """A line in which no word, as of a path, and not the whole is so long that the reason after it is out of sight."""
    line = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: f"{word[0][:150]}...{word[0][-100:]}", line)
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 600]} ... {line[-500:]}"


def _escape_unknown_characters(stream: TextIO | None) -> None:
    # Closed streams are None; those of a host program, such as a notebook, have ways of their own.
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of `warnings.showwarning`, whose lines quote the source code of a library."""
    print_error(f"warning: {' '.join(str(message).split())}")


class _StderrHandler(logging.Handler):
    """In place of logging's last resort, which writes names as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        print_error(self.format(record))
