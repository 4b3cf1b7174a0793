"""Fonts for names in any script: DejaVu Sans, which comes with matplotlib, and the system's own for what it lacks.

DejaVu has Latin, Greek, Cyrillic, Arabic and more. A character that no font has is drawn as its code point, `\\u732b`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import matplotlib

from backbones.errors import printable

_LONGEST_IN_PLOT = 40  # characters
_NOT_FOR_TEXT = ("LastResort", "AdobeBlank")  # fonts that have a box for every character


def default_font() -> Path:
    """The file of DejaVu Sans."""
    return Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")


def font_for(text: str) -> Path:
    """The file of a font with all characters of a text, or as many as any has; DejaVu wherever that suffices."""
    if not _missing(text, default_font()):
        return default_font()
    return min((default_font(), *_system_fonts().values()), key=lambda font: len(_missing(text, font)))


def drawable(text: str, fonts: Iterable[Path]) -> str:
    """The text with code points in place of characters that none of the fonts has, and of control characters."""
    lacking = set.intersection(*(_missing(text, font) for font in fonts))
    return "".join(f"\\u{ord(c):04x}" if c in lacking else c for c in printable(text))


def plot_families(texts: Iterable[str]) -> list[str] | None:
    """Names of the font families in which matplotlib draws these texts; None where its own default does."""
    fonts = {font: name for name, font in _system_fonts_for(texts).items()}
    return ["DejaVu Sans", *fonts.values()] if fonts else None


def plot_text(text: str) -> str:
    """A name as matplotlib draws it literally: it reads `$...$` as a formula and hides labels that begin with `_`.

    Only the beginning of a long name, which would leave no room for the plot.
    """
    text = text if len(text) <= _LONGEST_IN_PLOT else text[: _LONGEST_IN_PLOT - 1] + "\N{HORIZONTAL ELLIPSIS}"
    text = drawable(text, (default_font(), *_system_fonts_for([text]).values())).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _system_fonts_for(texts: Iterable[str]) -> dict[str, Path]:
    """For each text that DejaVu lacks characters of, the font that has most of them, by family; without DejaVu."""
    chosen = {font_for(text) for text in texts} - {default_font()}
    return {name: font for name, font in _system_fonts().items() if font in chosen} if chosen else {}


def _missing(text: str, font: Path) -> set[str]:
    """The characters that a font lacks. DejaVu has all of ASCII: it is not opened for these."""
    foreign = {c for c in printable(text) if not c.isascii()}
    return {c for c in foreign if ord(c) not in _characters(font)} if foreign else set()


@cache
def _characters(font: Path) -> frozenset[int]:
    """Code points that a font has; none of a font that cannot be scaled, as coloured emoji, or read."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(str(font))
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(face.get_charmap()) if face.scalable else frozenset()


@cache
def _system_fonts() -> dict[str, Path]:
    """Installed fonts by family, in the order of their names."""
    from matplotlib.font_manager import fontManager

    own = Path(matplotlib.get_data_path())
    entries = sorted(
        fontManager.ttflist, key=lambda entry: (entry.name, entry.style != "normal", str(entry.weight) != "400", entry.fname)
    )
    found: dict[str, Path] = {}
    for entry in entries:
        if own not in Path(entry.fname).parents and not entry.name.replace(" ", "").startswith(_NOT_FOR_TEXT):
            found.setdefault(entry.name, Path(entry.fname))
    return found
