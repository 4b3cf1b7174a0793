"""Command lines of the pages: the commands exist and take these options, configs and keys."""

import re
from pathlib import Path

import pytest

from detection.config import (
    ClassifierConfig,
    Config,
    LocConfig,
    load_classifier_config,
    load_config,
    load_loc_config,
    override_config,
)
from tests.docs.commands import CommandLine, command_lines, make_targets, parse
from tests.docs.markdown import ROOT

ALL = list(command_lines())
CLASSIFIERS = ("pretrain", "eval-classifier", "layer-responses")
LOCALISERS = ("train-loc", "eval-ilsvrc loc")
# Commands whose `key=value` are for either kind of config.
EITHER = ("convert-weights", "export")
AnyConfig = type[Config] | type[ClassifierConfig] | type[LocConfig]
LOADERS = {Config: load_config, ClassifierConfig: load_classifier_config, LocConfig: load_loc_config}
# A page shows the form of a value: `KEY=VALUE`, `S`, `NET`.
PLACEHOLDER = re.compile(r"\b(?:[A-Z]{2,}|\d?S)\b|\.\.\.")


@pytest.mark.parametrize("command", ALL, ids=str)
def test_the_command_takes_these_arguments(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    parser = command.parser()
    if command.arguments in ((), ("--help",)):
        return
    if "|" in command.text:
        pytest.fail("write one of the choices")
    try:
        parser.parse_intermixed_args(numbered(command))
    except SystemExit as stop:
        assert stop.code == 0, f"{command}: {capsys.readouterr().err}"


def numbered(command: CommandLine) -> list[str]:
    """The arguments, with a number for a placeholder that the parser reads as one."""
    return [re.sub(r"^(N|PORT)$", "1", argument) for argument in command.options]


@pytest.mark.parametrize("command", [each for each in ALL if "--config" in each.arguments or each.overrides], ids=str)
def test_the_config_and_its_keys_exist(command):
    options = dict(zip(command.arguments, command.arguments[1:], strict=False))
    overrides = [PLACEHOLDER.sub("0", override) for override in command.overrides]
    name = options.get("--config", "")
    kinds = kinds_of(command)
    if name.startswith("configs/"):
        LOADERS[kinds[0]](ROOT / name, overrides)
        return
    errors = [error for kind in kinds if (error := refusal(kind, overrides)) is not None]
    assert len(errors) < len(kinds), errors


def kinds_of(command: CommandLine) -> list[AnyConfig]:
    """The kinds of config that a command takes."""
    if command.name in EITHER:
        return [Config, ClassifierConfig]
    if command.name in LOCALISERS or " ".join((command.name, *command.arguments[:1])) in LOCALISERS:
        return [LocConfig]
    return [ClassifierConfig] if command.name in CLASSIFIERS else [Config]


def refusal(kind: AnyConfig, overrides: list[str]) -> str | None:
    """Why a config does not take the overrides, or None."""
    source = {"format": "voc", "split": "test"}
    values = {"data": {"train": [source], "val": [source], "test": [source]}} if kind is Config else {}
    try:
        override_config(kind.model_validate(values), overrides)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("target", sorted(make_targets()))
def test_the_makefile_has_the_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_commands_in_the_headers_of_configs(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    header = "\n".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#   "))
    lines = [each.strip() for line in header.replace("\\\n", " ").splitlines() for each in line.split("&&")]
    found = [command for line in lines if (command := parse(path, line)) is not None]
    assert found or any(line.startswith("make ") for line in lines)
    for command in found:
        command.parser().parse_intermixed_args(list(command.options))


def test_every_form_of_a_command_is_recognised():
    def found(text: str) -> tuple[str, tuple[str, ...]] | None:
        command = parse(Path(), text)
        return None if command is None else (command.name, command.arguments)

    assert found("python tools/train_net.py --config a.yaml   # one process") == ("train", ("--config", "a.yaml"))
    assert found(".venv/bin/python tools/eval_voc.py") == ("eval-voc", ())
    assert found("torchrun --nproc_per_node=8 tools/train_net.py --resume") == ("train", ("--resume",))
    assert found("resdet eval-coco [--json FILE] 'a.b=[1, 2]'") == ("eval-coco", ("--json", "FILE", "a.b=[1, 2]"))
    assert found("python datasets/download.py voc2007") == ("datasets/download.py", ("voc2007",))
    assert found("datasets/make_digits.py") is None and found("make run") is None
    assert len(ALL) > 60
