"""YAML files and dotted overrides -> a frozen config, with errors that name the key, the value and the fix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from detection.config.packaged import PREFIX, config_file
from detection.config.schema import ClassifierConfig, Config, Section
from detection.errors import ConfigError, did_you_mean

ConfigT = TypeVar("ConfigT", bound=Section)
RunConfigT = TypeVar("RunConfigT", Config, ClassifierConfig)


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, where YAML 1.1 would read a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


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


def override_config(config: ConfigT, overrides: Sequence[str]) -> ConfigT:
    """The config, e.g. a checkpoint's, with `dotted.key=value` overrides applied. Raises ConfigError."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply(values, override)
    return parse_config(type(config), values, "the overridden config")


def with_weights(config: RunConfigT, weights: Path | None) -> RunConfigT:
    """The config with another `model.weights`: the file or name that a new run starts from, None for random numbers."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


def dump_config(config: Section) -> str:
    """The resolved config as YAML; `load_config` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _load(schema: type[ConfigT], path: str | Path, overrides: Sequence[str]) -> ConfigT:
    values = _read(config_file(path))
    for override in overrides:
        _apply(values, override)
    return parse_config(schema, values, str(path))


def parse_config(schema: type[ConfigT], values: dict[str, Any], where: str) -> ConfigT:
    """Plain values, e.g. of a checkpoint -> a config. `where` says in a ConfigError where the values are from."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item, schema, where) for item in error.errors())) from None


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a file. `base: other.yaml` is read first; this file's keys replace its keys."""
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, not a {type(values).__name__}")
    base = values.pop("base", None)
    return values if base is None else _overlay(_read(_base_file(base, path)), values)


def _base_file(base: object, path: Path) -> Path:
    """The file that `base` names in the config at `path`: relative to that file, or a packaged config `resdet:NAME`."""
    if not isinstance(base, str):
        raise ConfigError(f"'base' in {path} must be the name of a config, got {base!r}")
    return config_file(base) if base.startswith(PREFIX) else path.parent / base


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value`; a number steps into a list: `data.train.0.root=/data`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override '{override}' must look like dotted.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override '{override}': {' '.join(str(error).split())}") from None
    node: Any = values
    *parents, last = key.split(".")
    for part in parents:
        node = _step(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"override '{override}': '{'.'.join(parents)}' is a value, not a section")


def _step(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise ConfigError(f"override '{override}': there is no section '{part}' inside a value")


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"override '{override}': '{part}' must be a list index below {len(node)}")
    return int(part)


def _explain(item: Any, schema: type[BaseModel], where: str) -> str:
    """One pydantic error as a sentence."""
    # A discriminated union puts the chosen tag ('voc') into the location; it is no key of the file.
    location = [part for part in item["loc"] if part not in ("voc", "coco") or item["loc"][0] != "data"]
    key = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}' in {where}{did_you_mean(key, _known_keys(schema))}"
    if item["type"] == "missing":
        return f"missing key '{key}' in {where}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{where}: {message}"
    return f"'{key}' in {where}: {message[0].lower()}{message[1:]}, got {item['input']!r}" if key else f"{where}: {message}"


def _known_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema; an index 0 stands for any item of a list."""
    keys = []
    for name, info in schema.model_fields.items():
        keys.append(prefix + name)
        for kind in _sections(info.annotation):
            inner = prefix + name + "."
            keys += _known_keys(kind, inner)
            # Lists of sections (data.train) are addressed with an index.
            keys += _known_keys(kind, inner + "0.") if kind is not info.annotation else []
    return keys


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
