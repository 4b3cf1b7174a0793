"""What pydantic found wrong with a config, as sentences of ours: the key, what it may be, what it is, and the fix."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from backbones.errors import shorten
from detection.errors import did_you_mean

MAX_LENGTH = 300  # characters of all sentences; what is left out is counted
_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in one line",
    Path: "a path",
    dict: "a mapping",
}
_LONGEST_KEY = 100


def explain(error: ValidationError, schema: Any, where: str) -> str:
    """All that is wrong, in one line: the first faults as sentences, and how many more there are.

    `schema`: a section, or the type of a mapping.
    """
    faults = list(_faults(error, schema, where))
    kept = faults[:1]
    for fault in faults[1:]:
        if len("; ".join([*kept, fault])) > MAX_LENGTH:
            break
        kept.append(fault)
    more = len(faults) - len(kept)
    return "; ".join(kept) + (f"; and {more} more" if more else "")


def _faults(error: ValidationError, schema: Any, where: str) -> Iterator[str]:
    """A sentence for each key. Of the members of a union each may complain: the one that went deepest knows best."""
    found: dict[tuple[str, ...], str] = {}
    for item in error.errors(include_url=False):
        # Of a list that is too short pydantic names the place that is missing.
        location = item["loc"][:-1] if item["type"] == "missing" and isinstance(item["loc"][-1], int) else item["loc"]
        path, kind = _locate(location, schema)
        found.setdefault(path, _sentence(item, ".".join(path), kind, schema, where))
    kept = [text for path, text in found.items() if not any(path == other[: len(path)] != other for other in found)]
    # A key written wrong is often what another is missing for.
    yield from sorted(kept, key=lambda text: not text.startswith("unknown key"))


def _sentence(item: Any, key: str, kind: Any, schema: Any, where: str) -> str:
    shown = shorten(key)
    if item["type"] == "extra_forbidden":
        return f"unknown key {shown} in {where}{_similar_key(key, schema)}"
    if item["loc"][-1:] == ("[key]",):
        return f"the key {shorten(item['input'])} in {where} must be {_PLAIN[str]}"
    if item["type"] == "missing" and isinstance(item["loc"][-1], str):
        return f"missing key {shown} in {where}: it must be {described(kind)}"
    if item["type"] == "union_tag_not_found":
        return f"missing key {shorten(key + '.format')} in {where}: it must be {_formats(kind)}"
    if item["type"] == "union_tag_invalid":
        return f"{shorten(key + '.format')} in {where} must be {_formats(kind)}, got {_shown(item['input'].get('format'))}"
    if item["type"] == "value_error":  # a check of ours, which names its keys
        return f"{where}: {item['ctx']['error']}"
    value = item["input"]
    return f"{shown if key else 'the config'} in {where} must be {described(kind)}, got {_shown(value)}{_hint(kind, value)}"


def _similar_key(key: str, schema: type[BaseModel]) -> str:
    """The end of a message about an unknown key. Of a source, the key itself may be one of the other format's."""
    known = [each for each in known_keys(schema) if re.sub(r"\.[0-9]+\.", ".0.", key) != each]
    return did_you_mean(key, known) if len(key) <= _LONGEST_KEY else ""


def _shown(value: object) -> str:
    """A value as YAML writes it, where that differs from Python."""
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else shorten(value)


def _locate(location: Sequence[int | str], schema: Any) -> tuple[tuple[str, ...], Any]:
    """The keys of pydantic's location, without the parts that are names of its own, and the type of the last key."""
    path: list[str] = []
    kind: Any = schema
    for part in location:
        members = _members(kind)
        if members and isinstance(part, str):  # a union: the part names a member of it, it is no key
            kind = next((each for each in members if _is_named(each, part)), kind)
        elif part != "[key]":
            kind = _step(kind, part) or Any  # Any: an unknown key
            path.append(str(part))
    return tuple(path), kind


def _step(kind: Any, part: int | str) -> Any:
    """The type of an item of a type: of a section's key, a list's place or a mapping's key; None if it has no such item."""
    kind, _ = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        info = kind.model_fields.get(str(part))
        return None if info is None else _annotated(info.annotation, info.metadata)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(part, int):
        return inner[0]
    if origin is dict:
        return inner[1]
    if origin in (Union, types.UnionType):
        return next((found for each in inner if (found := _step(each, part)) is not None), None)
    return None


def _annotated(kind: Any, limits: Sequence[Any]) -> Any:
    annotated: Any = Annotated
    parts = (kind, *limits)
    return annotated[parts] if limits else kind


def _members(kind: Any) -> list[Any]:
    """The types of a union, except null, whose place pydantic does not name; none for another type, or where one is left."""
    kind, _ = _bare(kind)
    members = [each for each in get_args(kind) if each is not types.NoneType]
    return members if get_origin(kind) in (Union, types.UnionType) and len(members) > 1 else []


def _is_named(kind: Any, name: str) -> bool:
    """Whether pydantic calls a member of a union so: a section by its class or, in a list of sources, by its format."""
    kind, _ = _bare(kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        origin = get_origin(kind)
        return origin in (dict, tuple) and name.startswith(f"{origin.__name__}[")
    return name == kind.__name__ or name in _format_names(kind)


def _formats(kind: Any) -> str:
    """What the key `format` of a source may be."""
    return _either([f"'{name}'" for each in _members(kind) for name in _format_names(each)])


def _format_names(kind: Any) -> tuple[str, ...]:
    kind, _ = _bare(kind)
    section = isinstance(kind, type) and issubclass(kind, BaseModel) and "format" in kind.model_fields
    return get_args(kind.model_fields["format"].annotation) if section else ()


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type without what Annotated adds to it, and what that is."""
    if get_origin(kind) is not Annotated:
        return kind, []
    inner, *more = get_args(kind)
    return inner, [limit for item in more for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]


def described(kind: Any) -> str:
    """A type as what a value of it must be: "a number from 0 to 1", "'max' or 'align'", "a list of 1 to 100 items"."""
    kind, limits = _bare(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _either([f"'{choice}'" for choice in inner])
    if origin in (Union, types.UnionType):
        names = [described(_annotated(each, limits)) for each in inner if each is not types.NoneType]
        return _either([*dict.fromkeys(names), *(["null"] if types.NoneType in inner else [])])
    if origin is tuple:
        item = described(inner[0])
        count = _length(limits, "items") if inner[-1] is Ellipsis else f" of {len(inner)} items"
        return f"a list{count}, each {item}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a mapping of keys to values"
    plain = _PLAIN.get(origin or kind, "a plain value")
    if plain == _PLAIN[str]:
        return f"{plain}{_length(limits, 'characters')}"
    return plain + (_length(limits, "keys") if plain == _PLAIN[dict] else _range(limits))


def _either(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else choices[0]


def _length(limits: Sequence[Any], unit: str) -> str:
    low = next((limit.min_length for limit in limits if isinstance(limit, MinLen)), 0)
    high = next((limit.max_length for limit in limits if isinstance(limit, MaxLen)), None)
    if high is None:
        return f" of at least {low} {unit}" if low else ""
    return f" of {low} to {high} {unit}" if low else f" of at most {high} {unit}"


def _range(limits: Sequence[Any]) -> str:
    low = next((f"from {limit.ge}" for limit in limits if isinstance(limit, Ge)), None)
    low = next((f"above {limit.gt}" for limit in limits if isinstance(limit, Gt)), low)
    high = next(
        (
            f"to {limit.le}" if low is None or low.startswith("from") else f"up to {limit.le}"
            for limit in limits
            if isinstance(limit, Le)
        ),
        None,
    )
    high = next((f"below {limit.lt}" for limit in limits if isinstance(limit, Lt)), high)
    joined = " and ".join(end for end in (low, high) if end)
    return f" {joined.replace(' and to ', ' to ')}" if joined else ""


def _hint(kind: Any, value: object) -> str:
    """How to write what was probably meant."""
    wants = described(kind)
    if "text" in wants or "path" in wants:
        if isinstance(value, bool):
            return "; YAML reads yes, no, on and off as true and false: put the word in quotes"
        if isinstance(value, int | float):
            return "; put it in quotes"
    if isinstance(value, str) and "number" in wants and _looks_like_a_number(value):
        return "; write a plain decimal number, without quotes, leading zeros or colons"
    if isinstance(value, str | int) and wants == _PLAIN[bool]:
        return "; write true or false, without quotes"
    if "a list" in wants and not isinstance(value, list | tuple):
        return "; a list is written [a, b]"
    return ""


def _looks_like_a_number(text: str) -> bool:
    return text[:1] in "+-.0123456789" and len(text) < _LONGEST_KEY and text[:1] != ""


def known_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema; an index 0 stands for any item of a list."""
    keys = []
    for name, info in schema.model_fields.items():
        keys.append(prefix + name)
        for kind in _sections(info.annotation):
            inner = prefix + name + "."
            keys += known_keys(kind, inner)
            # Lists of sections (data.train) are addressed with an index.
            keys += known_keys(kind, inner + "0.") if kind is not info.annotation else []
    return keys


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
