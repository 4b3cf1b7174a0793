"""Names from outside on their way to a terminal: shown, never obeyed, and never too foreign for it."""

import importlib.util
import io
import logging
import os
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from detection.analysis.tables import coco_table
from detection.cli.main import run
from detection.cli.output import download_progress, progress_bar, say
from detection.errors import ConfigError
from detection.terminal import PrintableFormatter, new_console, plain, shows_bars, table_lines

NAMES = ["dent[large]", "[/x]", "[red]a[/red]", "[link=http://x]y", ":cat:", "a\\[b]", "\\", "猫", "قطة", "100%", "{x}", "$a$"]
HOSTILE = {
    "\x1b[2J": "\\x1b[2J",
    "a\nb": "a\\nb",
    "a\0": "a\\x00",
    "\udcff": "\\xff",
    "\ud83d!": "\\ud83d!",
    "\u202ex": "\\u202ex",
    "\x9b1m": "\\x9b1m",
}


@pytest.mark.parametrize("name", NAMES + list(HOSTILE), ids=ascii)
def test_a_name_is_shown_as_it_is(name, capsys):
    shown = HOSTILE.get(name, name)
    say(f"class {name}")
    table = Table(title="names")
    table.add_column("name")
    table.add_row(plain(name))
    # Also on a console that reads markup, as that of another program.
    for console in (new_console(), Console()):
        console.print(table)
        console.print(coco_table({"AP": 0.5}, {name: 0.25}))
    out = capsys.readouterr().out
    assert f"class {shown}\n" in out and out.count(shown) == 5


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_progress_bars_read_no_markup(name):
    console = Console(force_terminal=True, width=200, file=io.StringIO())
    with console.capture() as captured, progress_bar(console) as progress:
        list(progress.track([1], description=name))
    assert name in captured.get()


def test_a_download_shows_the_name(capsys):
    with download_progress("downloading [/x].pt") as report:
        report(1, 2)
    assert "downloading [/x].pt\n" in capsys.readouterr().err


def test_log_lines_are_one_line_each():
    record = logging.LogRecord("detection", logging.WARNING, "file.py", 1, "bad %s", ("a\nb\x1b[2J\udcff",), None)
    assert PrintableFormatter("%(message)s").format(record) == "bad a\\nb\\x1b[2J\\xff"


def test_errors_are_printable(capsys):
    def command(argv):
        raise ConfigError("no class '\x1b[2J\udcff'")

    assert run(command) == 2
    assert capsys.readouterr().err == "error: no class '\\x1b[2J\\xff'\n"


def test_warnings_are_one_line(capsys):
    def command(argv):
        warnings.warn("a library's\n  words \x1b[2J", stacklevel=1)

    before = warnings.showwarning, logging.lastResort
    assert run(command) == 0
    assert capsys.readouterr().err == "warning: a library's words \\x1b[2J\n"
    assert (warnings.showwarning, logging.lastResort) == before


PROGRAM = """
import logging
import sys
from rich.table import Table
from detection.cli.main import run
from detection.cli.output import say
from detection.errors import ConfigError
from detection.terminal import new_console, plain

def command(argv):
    say("file \\u732b [x] \\udcff \\xe9")
    table = Table("\\u732b")
    table.add_row(plain("\\u732b"))
    new_console().print(table)
    print("\\u732b \\udcff")
    logging.getLogger("detection.nowhere").warning("skipped %s", "x\\x1b[2J")
    raise ConfigError("no \\u732b")

sys.exit(run(command))
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "cp437"])
def test_no_output_is_too_narrow(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr
    cat = "猫" if encoding == "utf-8" else "\\u732b"
    assert done.stderr.decode(encoding).splitlines() == ["skipped x\\x1b[2J", f"error: no {cat}"]
    assert f"file {cat} [x] \\xff" in done.stdout.decode(encoding)


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&- 2>&-"])
def test_an_output_that_takes_nothing_is_no_traceback(redirection, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {tmp_path}/program.py {redirection}"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") <= 2


@given(st.lists(st.tuples(st.text(max_size=60), st.sampled_from(["", "1", "0.25"])), min_size=1, max_size=5))
def test_lines_of_a_table_are_of_one_width_whatever_the_names(rows):
    lines = table_lines(rows)
    assert len(lines) == len(rows) and len({cell_len(line) for line in lines}) == 1
    assert all(cell_len(line) <= 40 + 2 + 4 for line in lines)


def test_lines_of_a_table():
    assert table_lines([("name", "n"), ("猫", "10"), ("a\x1b", "")]) == ["name    n", "猫     10", "a\\x1b    "]


def test_bars_are_shown_on_terminals_and_in_notebooks_that_can(monkeypatch):
    def console(**options):
        return Console(file=io.StringIO(), **options)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert shows_bars(console(force_terminal=True)) and not shows_bars(console(force_terminal=False, force_jupyter=False))
    assert not shows_bars(console(force_jupyter=True))  # without ipywidgets rich only warns
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ipywidgets" or None)
    assert shows_bars(console(force_jupyter=True))
