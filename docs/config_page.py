"""The body of config.md: every key of the schema with its type, choices, default and meaning."""

from __future__ import annotations

import html
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from detection.config import ClassifierConfig, CocoSource, Config, FolderSource, IlsvrcDetSource, LocConfig, VocSource

INTRODUCTION = """\
A YAML file with these keys; those left out have the default. `base: other.yaml` reads another file first;
`base: resdet:modern/voc_r50` one of `configs/`, which are in the wheel. `--config resdet:voc_r101` works in any folder too.
A file's keys take the place of its base's, one by one; a list and the mapping of `test.score_threshold` do so as a whole.
On the command line, `dotted.key=value` overrides a key; a number steps into a list (`data.train.0.root=/data`). Of two
overrides of one key the last counts.

Files are UTF-8 and strict: a key may be given once, numbers are plain decimal ones (`10`, `0.5`, `1e-3`, `90_000`; `010` and
`1:30` are texts), texts that YAML reads as something else, such as `"no"` or `"5"`, are put in quotes. `~` at the start of a
path is your home, here and in the options of commands.

*list* is a YAML list, `[1, 2]`. A type with *or null* takes `null`: not set. Types of numbers name their bounds.
"""
PLAIN_TYPES = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path", dict: "mapping", Any: "any"}


def config_body() -> str:
    """Everything below the page's title."""
    parts = [INTRODUCTION]
    for title, schema in (("Detection", Config), ("Classification", ClassifierConfig), ("Localisation", LocConfig)):
        parts.append(f"## {title}\n")
        parts += _sections(title, schema, "")
    parts.append("## Sources\n\nThe items of `data.train`, `data.val` and `data.test`.\n")
    for source in (VocSource, CocoSource, IlsvrcDetSource, FolderSource):
        parts.append(f"### format: {', '.join(get_args(source.model_fields['format'].annotation))}\n")
        parts.append(f"{_text(source.__doc__)}\n")
        parts.append(_table(source.model_fields, ""))
    return "\n".join(parts)


def _sections(title: str, schema: type[BaseModel], prefix: str) -> list[str]:
    """The section's own keys, then those of the sections in it. Headings differ between detection and classification."""
    own = {name: info for name, info in schema.model_fields.items() if _section_of(info) is None}
    heading = f"{title}: {prefix.rstrip('.') or 'top level'}"
    parts = [f"### {heading}\n", f"{_text(schema.__doc__)}\n", _table(own, prefix)]
    for name, info in schema.model_fields.items():
        section = _section_of(info)
        if section is not None:
            parts += _sections(title, section, f"{prefix}{name}.")
    return parts


def _section_of(info: FieldInfo) -> type[BaseModel] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _table(fields: Mapping[str, FieldInfo], prefix: str) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, info in fields.items():
        kind = type_name(info.annotation, info.metadata)
        rows.append(f"| `{prefix}{name}` | {kind} | {_default(info)} | {_text(info.description)} |")
    return "\n".join(rows) + "\n"


def type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type of a key in the words of the page: `tuple[PositiveInt, ...]` -> "list of integers >= 1"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *more = arguments
        fields = [limit for item in more if isinstance(item, FieldInfo) for limit in item.metadata]
        return type_name(inner, [*more, *fields, *metadata])
    if origin is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments, metadata)
    if origin is tuple:
        return _tuple(arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{annotation.__name__.removesuffix('Source').lower()} source"
    return f"{PLAIN_TYPES[origin or annotation]}{_bounds(metadata)}"


def _union(kinds: Sequence[Any], metadata: Sequence[Any]) -> str:
    names = [type_name(kind, metadata) for kind in kinds if kind is not type(None)]
    return " or ".join([*names, "null"] if type(None) in kinds else names)


def _tuple(kinds: Sequence[Any]) -> str:
    """A tuple of any length, or of one length and one type."""
    item = type_name(kinds[0]).replace("integer", "integers").replace("number", "numbers")
    return f"list of {item}" if kinds[-1] is Ellipsis else f"list of {len(kinds)} {item}"


def _bounds(metadata: Sequence[Any]) -> str:
    """The bounds of a number: " >= 0", " 0 to 1"; nothing where there are none."""
    low = next((item.ge for item in metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f" {low} to {high}"
    signs = {Ge: ("&ge;", "ge"), Gt: ("&gt;", "gt"), Le: ("&le;", "le"), Lt: ("&lt;", "lt")}
    kept = [item for item in metadata if type(item) in signs]
    return "".join(f" {signs[type(item)][0]} {getattr(item, signs[type(item)][1])}" for item in kept)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    value = str(value) if isinstance(value, Path) else value
    return f"`{json.dumps(round(value, 4) if isinstance(value, float) else value)}`"


def _text(description: str | None) -> str:
    """A description as Markdown: `VOC<year>/` is no HTML tag, and a table's cell has no bare bar."""
    pieces = (description or "").replace("|", "\\|").split("`")
    # Odd pieces are code, where Markdown escapes by itself.
    return "`".join(piece if number % 2 else html.escape(piece, quote=False) for number, piece in enumerate(pieces))
