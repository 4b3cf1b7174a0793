"""YAML files and dotted overrides -> a frozen config, with errors that name the key, the value and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from backbones.errors import printable, shorten
from backbones.files import expand_home, read_regular
from detection.config.classifier import ClassifierConfig
from detection.config.explain import explain
from detection.config.limits import ByClass, Section
from detection.config.localiser import LocConfig
from detection.config.packaged import PREFIX, config_file
from detection.config.schema import Config
from detection.config.yaml_text import MAX_CHARACTERS, dump_yaml, parse_yaml, require_finite, require_plain
from detection.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Section)
RunConfigT = TypeVar("RunConfigT", Config, ClassifierConfig, LocConfig)

MAX_BASES = 20

# Mappings that take the place of a base's: merged with it, thresholds that nobody sees in the file would go on counting.
_WHOLE = (("test", "score_threshold"),)
_THRESHOLDS: TypeAdapter[dict[str, float]] = TypeAdapter(ByClass, config=ConfigDict(allow_inf_nan=False))


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The detection experiment in a YAML file or packaged config, with `dotted.key=value` overrides. Raises ConfigError.

    `path` may be `resdet:NAME`, a config that comes with the package: "resdet:modern/voc_r50".
    """
    return _load(Config, path, overrides)


def load_classifier_config(path: str | Path, overrides: Sequence[str] = ()) -> ClassifierConfig:
    """The classification experiment in a YAML file or packaged config, with `dotted.key=value` overrides. Raises ConfigError.

    `path` may be `resdet:NAME`, a config that comes with the package: "resdet:imagenet_r50".
    """
    return _load(ClassifierConfig, path, overrides)


def load_loc_config(path: str | Path, overrides: Sequence[str] = ()) -> LocConfig:
    """The localisation experiment in a YAML file or packaged config, with `dotted.key=value` overrides. Raises ConfigError.

    `path` may be `resdet:NAME`, a config that comes with the package: "resdet:ilsvrc_loc_r101".
    """
    return _load(LocConfig, path, overrides)


def config_of_text(text: str, where: str) -> Config:
    """The detection experiment that a YAML text describes; its `base` may be a packaged config. Raises ConfigError."""
    return parse_config(Config, _resolve(text, where, Path(where), ()), where)


def override_config(config: ConfigT, overrides: Sequence[str]) -> ConfigT:
    """The config, e.g. a checkpoint's, with `dotted.key=value` overrides applied. Raises ConfigError."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply(values, override)
    return parse_config(type(config), values, "the overridden config")


def read_thresholds(path: str | Path) -> dict[str, float]:
    """The score thresholds in a YAML file, each 0 to 1 by the name of its class: a value of `test.score_threshold`.

    Raises ConfigError, naming file, key and value.
    """
    where = printable(str(path))
    values = parse_yaml(_read_text(Path(path), where, "thresholds"), where)
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold names of classes and their thresholds, such as cat: 0.4, not {shorten(values)}")
    require_plain(values, where)
    try:
        return _THRESHOLDS.validate_python(values)
    except ValidationError as error:
        raise ConfigError(explain(error, ByClass, where)) from None


def with_weights(config: RunConfigT, weights: Path | None) -> RunConfigT:
    """The config with another `model.weights`: the file or name that a new run starts from, None for random numbers."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


def dump_config(config: Section) -> str:
    """The resolved config as YAML; `load_config` reads it back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def _load(schema: type[ConfigT], path: str | Path, overrides: Sequence[str]) -> ConfigT:
    values = _read(config_file(path), ())
    for override in overrides:
        _apply(values, override)
    return parse_config(schema, values, str(path))


def parse_config(schema: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Plain values, e.g. of a checkpoint -> a config. `where` says in a ConfigError where the values are from.

    The values may be anything: they are bounded before they are looked at closely.
    """
    where = printable(where)
    require_plain(values, where)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{_of_other_kind(values, schema, where)}{explain(error, schema, where)}") from None
    require_finite(values, where)
    return config


_KINDS: Mapping[type[Section], str] = {
    Config: "a detector's experiment (train, eval-voc, eval-coco)",
    ClassifierConfig: "a classifier's experiment (pretrain, eval-classifier)",
    LocConfig: "a localisation experiment (train-loc, eval-ilsvrc loc)",
}


def _of_other_kind(values: Mapping[str, Any], schema: type[Section], where: str) -> str:
    """The beginning of a message about a config that another kind of experiment would take; "" for one that none does."""
    if schema not in _KINDS:
        return ""
    for other in [kind for kind in _KINDS if kind is not schema]:
        try:
            other.model_validate(values)
        except ValidationError:
            continue
        return f"{where} is {_KINDS[other]}, and {_KINDS[schema].partition(' (')[0]} is needed here: "
    return ""


def _read(path: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping in a file. `base: other.yaml` is read first; this file's keys replace its keys.

    `within` are the files that named this one as their base, the first of them first.
    """
    where = printable(str(path))
    if path in within or len(within) >= MAX_BASES:
        ways = " -> ".join(printable(file.name) for file in [*within[-2:], path])
        raise ConfigError(f"'base' leads in a circle, or through more than {MAX_BASES} files: {ways}; {where} comes again")
    return _resolve(_read_text(path, where, "config"), where, path, within)


def _resolve(text: str, where: str, path: Path, within: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping in a text, of the file at `path`, over that of its base."""
    values = parse_yaml(text, where)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values, not {shorten(values)}")
    base = values.pop("base", None)
    return values if base is None else _overlay(_read(_base_file(base, path), (*within, path)), values)


def _read_text(path: Path, where: str, what: str) -> str:
    """The text of a file, a "config" or other: always UTF-8, with or without a byte-order mark."""
    try:
        return read_regular(path, 4 * MAX_CHARACTERS).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {what} {where}: it is not text in UTF-8 (byte {error.start})") from None
    except IsADirectoryError:
        fix = "`resdet new` or `new_experiment` make a config for labelled images" if what == "config" else "name a file"
        raise ConfigError(f"cannot read {what} {where}: it is a folder; {fix}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise ConfigError(f"cannot read {what} {where}: {getattr(error, 'strerror', None) or error}") from None


def _base_file(base: object, path: Path) -> Path:
    """The file that `base` names in the config at `path`: relative to that file, or a packaged config `resdet:NAME`."""
    if not isinstance(base, str) or not base:
        raise ConfigError(f"'base' in {printable(str(path))} must be the name of a config, got {shorten(base)}")
    return config_file(base) if base.startswith(PREFIX) else path.parent / expand_home(base)


def _overlay(under: dict[str, Any], over: dict[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of `over` in those of `under`; both are those of the section that the keys `within` lead to."""
    merged = dict(under)
    for key, value in over.items():
        place = (*within, key)
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and place not in _WHOLE
        merged[key] = _overlay(merged[key], value, place) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value`; a number steps into a list: `data.train.0.root=/data`. Of two for one key the last counts."""
    key, equals, text = override.partition("=")
    named = f"override {shorten(override)}"
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise ConfigError(f"{named} must look like dotted.key=value")
    value = parse_yaml(text, named)
    node: Any = values
    for depth, part in enumerate(parents):
        node = _step(node, part, ".".join(parents[:depth]), named)
    if isinstance(node, list):
        node[_index(node, last, named)] = value
    elif isinstance(node, dict):
        _refuse_place(last, ".".join(parents), named)
        node[last] = value
    else:
        raise ConfigError(f"{named}: {shorten('.'.join(parents))} is a value, not a section")


def _step(node: Any, part: str, above: str, named: str) -> Any:
    """The section or list that a part of a dotted key names; `above` are the parts before it. A new section is made."""
    if isinstance(node, list):
        return node[_index(node, part, named)]
    if isinstance(node, dict):
        _refuse_place(part, above, named)
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise ConfigError(f"{named}: there is no section {shorten(part)} inside a value")


_PLACE = re.compile(r"-?[0-9]+")


def _refuse_place(part: str, above: str, named: str) -> None:
    """Raise ConfigError for a number where there is no list: none is given yet that it could step into."""
    if _PLACE.fullmatch(part):
        whole = f"give the whole list, {printable(above)}=[...]" if above and len(above) < 100 else "keys are no numbers"
        raise ConfigError(f"{named}: there is no list for {shorten(part)} to step into: {whole}")


def _index(node: list[Any], part: str, named: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", part) or int(part) >= len(node):
        raise ConfigError(f"{named}: {shorten(part)} must be a list index below {len(node)}")
    return int(part)
