"""Pages, and what is in them: headings, fenced blocks, commands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(path for path in ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "datasets/README.md",
]
# Stands before a block that cannot run here: `<!-- not run: needs a network -->`.
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None  # the reason, where the page gives one

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in order; `line` is that of the first line inside."""
    text = page.read_text()
    for match in re.finditer(r"^ *```(\w*)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE):
        reason = NOT_RUN.search(text[: match.start()].rstrip())
        line = text[: match.start()].count("\n") + 2
        yield Block(page, line, match[1], textwrap.dedent(match[2]), reason["reason"] if reason else None)


def without_code(text: str) -> str:
    """The text without fenced blocks and without the insides of inline code."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(`+)[^`]*?\1", "``", text)


def headings(page: Path) -> list[str]:
    """The page's headings, code marks left out."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [line.lstrip("#").strip().replace("`", "") for line in text.splitlines() if re.match(r"#+ ", line)]
