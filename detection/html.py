"""HTML pages of one file each: the templates of `detection/templates`, and pictures that are a part of the page.

All that is filled in is escaped, whatever it holds: names of classes and files are text, never markup.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from backbones.errors import printable

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PageFigure:
    """One picture, or two side by side, and what they show."""

    sources: Sequence[str]  # addresses
    caption: str


def render_page(template: str, values: object) -> str:
    """The page that a file of `templates` makes of `values`, which it knows as `page`."""
    return _environment().get_template(template).render(page=values)


def inline_picture(image: np.ndarray, longest: int = 320, quality: int = 80) -> str:
    """An image, (H, W, 3) uint8 RGB, as the `src` of a page's picture: WebP, no side longer than `longest` px."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality)
    return data_url(stream.getvalue(), "image/webp")


def data_url(content: bytes, kind: str) -> str:
    """Bytes of a media type as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def metric_text(value: float | None, digits: int = 3) -> str:
    """A metric in [0, 1]; a dash where there was nothing to measure, which COCO calls -1, VOC NaN and JSON null."""
    return "–" if value is None or math.isnan(value) or value < 0 else f"{value:.{digits}f}"


def signed_text(value: float, digits: int = 3) -> str:
    """A difference with its sign, a true minus; nothing before 0."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else f"{'+' if value > 0 else '−'}{text}"


@cache
def static_text(name: str) -> Markup:
    """A file of `templates` as it is, to stand in a page as its style or script."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"printable": printable, "metric": metric_text, "signed": signed_text}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals["static"] = static_text
    return environment
