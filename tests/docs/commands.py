"""Command lines of the pages, and the parsers of the commands that they name."""

from __future__ import annotations

import importlib
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from detection.cli.main import COMMANDS, module_name
from tests.datasets.scripts import load_script
from tests.docs.markdown import PAGES, blocks, name_of

# tools/x.py -> the command that it runs, where the two names differ.
TOOLS = {"train_net": "train", "import_dataset": "import"}
# tools/x.py that is no command of the wheel -> its module.
BENCHMARKS = {"benchmark": "tools.benchmarks.command", "gpu": "tools.benchmarks.gpu_plan"}
# Commands whose first word is a task, with a module of its own.
HAVE_TASKS = ("eval-ilsvrc",)
# `python tools/x.py`, also of an environment and under torchrun; `resdet x`; a script of datasets/.
STARTS = re.compile(
    r"(?:\w+=\S+ )*(?:(?:\.venv/bin/)?python (?P<script>(?:tools|datasets)/\w+\.py)|torchrun(?: --\S+)* (?P<run>tools/\w+\.py)"
    r"|resdet (?P<command>[a-z][\w-]*))(?P<rest>.*)",
    re.DOTALL,
)
OVERRIDE = re.compile(r"\w+(\.\w+)+=|approach=|output_dir=|bn_images=")


@dataclass(frozen=True)
class CommandLine:
    """A command of a page: its name or its script, and its arguments."""

    page: Path
    text: str
    name: str  # "eval-voc", or "datasets/download.py"
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {self.text}"

    @property
    def overrides(self) -> list[str]:
        """Arguments of the form `dotted.key=value`."""
        return [argument for argument in self.arguments if OVERRIDE.match(argument)]

    @property
    def options(self) -> tuple[str, ...]:
        """The arguments but for the task, which is the first word of `eval-ilsvrc det`."""
        return self.arguments[1:] if self.name in HAVE_TASKS else self.arguments

    def parser(self) -> ArgumentParser:
        """The real parser of the command, or of its task."""
        if self.name.startswith("datasets/"):
            parser = load_script(Path(self.name).stem).build_parser()
        elif self.name in HAVE_TASKS and self.options:
            module_of(self.name).build_parser().parse_args(self.arguments[:1])
            parser = importlib.import_module(f"{module_name(self.name)}_{self.arguments[0]}").build_parser()
        else:
            parser = module_of(self.name).build_parser()
        assert isinstance(parser, ArgumentParser)
        return parser


def module_of(name: str) -> ModuleType:
    """The module of a command, or of the benchmarks, which are no commands of the wheel."""
    if name in BENCHMARKS:
        return importlib.import_module(BENCHMARKS[name])
    assert name in COMMANDS, f"no command {name}"
    return importlib.import_module(module_name(name))


def command_lines() -> Iterator[CommandLine]:
    """Every command line of every page, fenced or inline, each once."""
    seen = set()
    for page in PAGES:
        for text in texts(page):
            found = parse(page, text)
            if found is not None and (found.name, found.arguments) not in seen:
                seen.add((found.name, found.arguments))
                yield found


def parse(page: Path, text: str) -> CommandLine | None:
    """A command line, or None if the text is none. Brackets of a usage line, `[--json FILE]`, are taken off."""
    match = STARTS.fullmatch(text.strip())
    if match is None:
        return None
    script = match["script"] or match["run"]
    stem = Path(script).stem if script else match["command"]
    is_data = script is not None and script.startswith("datasets/")
    name = script if is_data else TOOLS.get(stem, stem.replace("_", "-"))
    rest = re.sub(r"(?<=\s)\[([^\]]*)\](?=\s|$)", r"\1", match["rest"])
    arguments = [word for word in shlex.split(rest, comments=True) if word not in ("...", "KEY=VALUE")]
    return CommandLine(page, text.strip(), name, tuple(arguments))


def make_targets() -> set[str]:
    """Every target that a page calls, as `make test`."""
    return {match[1] for page in PAGES for text in texts(page) if (match := re.match(r"make (\w+)\b", text))}


def texts(page: Path) -> Iterator[str]:
    """Lines of fenced blocks without a language or in sh, continued ones joined; and inline code."""
    for block in blocks(page):
        if block.language in ("", "sh", "console", "yaml"):
            joined = block.text.replace("\\\n", " ")
            yield from (line.lstrip("# ").rstrip() if block.language == "yaml" else line for line in joined.splitlines())
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))
