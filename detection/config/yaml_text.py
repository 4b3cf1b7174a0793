"""YAML text -> plain values, within bounds: mappings with text keys, lists, texts, numbers, true, false and null.

YAML 1.1 reads `010` as 8, `1:30` as 90 and `2026-01-01` as a date. Here these are texts, which the schema refuses where it
wants a number. `1e-3` and `90_000` are numbers; yes, no, on and off are true and false, as in YAML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from backbones.errors import printable, shorten
from detection.config.limits import MAX_PATH, Section
from detection.errors import ConfigError

MAX_CHARACTERS = 2**20
MAX_VALUES = 50_000
MAX_DEPTH = 32
MAX_DIGITS = 40

_NUMBERS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)"),
    "float": re.compile(
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
    ),
}
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_TAG = "tag:yaml.org,2002:"

# How PyYAML's sentences begin, and what they mean to the author of the file.
_PROBLEMS = (
    ("found character '\\t'", "a tab: indent with spaces"),
    ("found character", "text that begins with such a character must be put in quotes"),
    ("mapping values are not allowed", "a ':' where none may stand: put the text in quotes, or mend the indentation"),
    ("expected ',' or ']'", "a list in [ ] lacks a comma or its end"),
    ("expected ',' or '}'", "a mapping in { } lacks a comma or its end"),
    ("could not find expected ':'", "a key without a ':' after it"),
    ("expected <block end>", "the indentation is not that of the lines above"),
    ("block sequence entries are not allowed", "a '-' where no list may begin: mend the indentation"),
    ("expected the node content", "a value is missing"),
    ("expected '<document start>'", "a line that begins with '%': put the text in quotes"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found unexpected document separator", "a quote is not closed"),
    ("found unknown escape character", "a backslash in double quotes that stands for nothing: use single quotes"),
    ("expected escape sequence", "a backslash in double quotes that stands for nothing: use single quotes"),
    ("second occurrence", "an anchor (&) is defined twice: give each a name of its own"),
    ("found undefined alias", "an alias (*) that no anchor (&) above defines: put text that begins with '*' in quotes"),
    ("expected alphabetic or numeric", "a '*' or '&' without a name after it: put the text in quotes"),
    ("but found another document", "a second document ('---'): one file holds one config"),
    ("special characters are not allowed", "a control character: leave it out"),
    ("found undefined tag handle", "a tag ('!'): leave it out, or put the text in quotes"),
    ("found incompatible YAML document", "a %YAML line of another version: leave it out"),
)


class _FaultError(Exception):
    """What is wrong at a place of the text, in words that follow the name of the file."""

    def __init__(self, words: str, mark: yaml.Mark | None) -> None:
        super().__init__(words)
        self.words, self.mark = words, mark


class _Loader(yaml.SafeLoader):
    """Composes nodes, not too deep and not too many; `_Conversion` makes plain values of them."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # a table of PyYAML's, which add_implicit_resolver fills
    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        _require_small(self.nodes, self.depth, None)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Puts quotes around every text that `_Loader` would read as something else."""


for _name, _pattern in _NUMBERS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern.pattern})$"), list("-+0123456789."))
_Loader.add_implicit_resolver(_TAG + "bool", re.compile("(?:yes|no|true|false|on|off)$", re.IGNORECASE), list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(_TAG + "null", re.compile("(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "merge", re.compile("<<$"), ["<"])


def parse_yaml(text: str, where: str) -> Any:
    """The plain value that a text holds; None for an empty one. `where` is the file or option that an error names.

    Raises ConfigError: no YAML, a key given twice, a key that is no text, a tag, too large, nested too deep or in a circle.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where} is too large for a config: more than {MAX_CHARACTERS} characters")
    try:
        node = _Loader(text).get_single_node()
        return None if node is None else _Conversion().convert(node, 0)
    except _FaultError as fault:
        line = "" if fault.mark is None or "\n" not in text.strip() else f", line {fault.mark.line + 1}"
        raise ConfigError(f"{where}{line}: {fault.words}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML{_in_our_words(error)}") from None
    except (ValueError, OverflowError):  # what chr() and int() say to an escape, or to a version, that is out of range
        raise ConfigError(f"{where} is not valid YAML: it holds a number, or an escape such as \\U, out of range") from None


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, which `parse_yaml` reads back to equal ones."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def require_plain(values: object, where: str) -> None:
    """Raise ConfigError, naming the key, unless these are plain values as `parse_yaml` gives them, within the same bounds.

    Values of a checkpoint may be anything, also lists in themselves, or small ones that are endless when written out.
    """
    for path, value in _leaves(values, where):
        if (fault := _fault(value)) is not None:
            raise ConfigError(f"{shorten('.'.join(path))} in {where} {fault}")


def require_finite(values: object, where: str) -> None:
    """Raise ConfigError, naming the key, for NaN or an infinity: the schema does not find it where it takes any value."""
    for path, value in _leaves(values, where):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{shorten('.'.join(path))} in {where} must be a finite number, got {value}")


def _leaves(values: object, where: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values that are no mapping and no list, each with its keys. Raises ConfigError for too many, and for other keys."""
    waiting: list[tuple[object, tuple[str, ...]]] = [(values, ())]
    seen = 1
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            seen += len(value)
            if seen > MAX_VALUES or len(path) >= MAX_DEPTH:
                raise ConfigError(f"{where} is no config: it has too many values, is nested too deep, or contains itself")
            items = value.items() if isinstance(value, Mapping) else ((str(place), item) for place, item in enumerate(value))
            for key, item in items:
                if not isinstance(key, str) or _HALF_CHARACTER.search(key):
                    raise ConfigError(f"the key {shorten(key)}{_inside(path)} in {where} must be text")
                waiting.append((item, (*path, key)))
        else:
            yield path, value


def _inside(path: tuple[str, ...]) -> str:
    return f" of {shorten('.'.join(path))}" if path else ""


def _fault(value: object) -> str | None:
    """What is wrong with a value that is no mapping and no list; None if nothing is."""
    if isinstance(value, float):
        return None
    if isinstance(value, int):
        return None if abs(value) < 10**MAX_DIGITS else f"must be a number of at most {MAX_DIGITS} digits, got {shorten(value)}"
    if isinstance(value, str | PurePath):
        return None if len(str(value)) <= MAX_PATH else f"is a text of more than {MAX_PATH} characters, {shorten(value)}"
    if value is None or isinstance(value, Section):
        return None
    return f"must be a number, a text, true, false, null, a list or a mapping, got {shorten(value)}"


def _require_small(values: int, depth: int, mark: yaml.Mark | None) -> None:
    if depth > MAX_DEPTH:
        raise _FaultError(f"nested more than {MAX_DEPTH} levels deep, or an alias (*) inside of what it stands for", mark)
    if values > MAX_VALUES:
        raise _FaultError(f"more than {MAX_VALUES} values, with those that aliases (*) stand for", mark)


class _Conversion:
    """Makes plain values of the nodes of one text, and counts them: an alias is written out wherever it stands."""

    def __init__(self) -> None:
        self.values = 0

    def convert(self, node: yaml.Node, depth: int) -> Any:
        """The value of a node `depth` levels below the top."""
        self.values += 1
        _require_small(self.values, depth, node.start_mark)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(kind, node)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.convert(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, depth)
        raise _no_tag(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = _key(key_node), key_node.start_mark.line + 1
            if key in lines:
                where = f"first in line {lines[key]}, again in line {line}" if line != lines[key] else f"both in line {line}"
                raise _FaultError(f"the key {shorten(key)} is given twice, {where}: keep one", key_node.start_mark)
            lines[key] = line
            value = self.convert(value_node, depth + 1)
            if key_node.tag == _TAG + "merge":
                merged = _merged(value, value_node)
            else:
                own[key] = value
        return merged | own


def _merged(value: Any, node: yaml.Node) -> dict[str, Any]:
    """What `<<: *defaults` or `<<: [*first, *second]` brings in; of two the first counts."""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise _FaultError("'<<' takes a mapping or a list of mappings", node.start_mark)
    return {key: item for part in reversed(parts) for key, item in part.items()}


def _key(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode) and node.tag in (_TAG + "str", _TAG + "merge"):
        return str(node.value)
    found = shorten(node.value) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
    raise _FaultError(f"a key must be text, got {found}: put it in quotes", node.start_mark)


def _scalar(kind: str, node: yaml.ScalarNode) -> Any:
    text = node.value
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if kind in _NUMBERS and _NUMBERS[kind].fullmatch(text):
        return _number(kind, text.replace("_", ""), node)
    raise _no_tag(node)


def _number(kind: str, text: str, node: yaml.ScalarNode) -> int | float:
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    if len(text) > MAX_DIGITS:
        raise _FaultError(f"a number of {len(text)} digits: at most {MAX_DIGITS} are allowed", node.start_mark)
    return int(text)


def _no_tag(node: yaml.Node) -> _FaultError:
    tag = shorten(node.tag.replace(_TAG, "!!"))
    return _FaultError(
        f"the tag {tag} does not fit here: leave it out, or put text that begins with '!' in quotes", node.start_mark
    )


def _in_our_words(error: yaml.YAMLError) -> str:
    """What PyYAML found, as the end of a sentence about the file."""
    found = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return f"{line}: {next((words for start, words in _PROBLEMS if found.startswith(start)), printable(found)[:120])}"
