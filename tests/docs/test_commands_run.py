"""Command lines of the pages run, each in a folder that holds what it names, small."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from detection.cli.main import COMMANDS, main
from detection.export.exporter import OLDEST_TORCH
from tests.datasets.scripts import load_script
from tests.docs.commands import CommandLine, command_lines, module_of, parse, texts
from tests.docs.markdown import PAGES
from tests.docs.sandbox import given, needed, offer, write_sandbox

# The beginning of a command that is not run here, and why not.
NOT_RUN = {
    "new ": "a network; tests/training/test_new.py writes configs",
    "train pets": "minutes, and a network; tests/training/test_new.py trains on folders",
    "benchmark ": "minutes, or a GPU; tests/tools runs each benchmark in small",
    "gpu ": "the plan of a GPU; tests/tools/test_gpu_plan.py lists it",
    "datasets/download.py ": "a network; tests/datasets/test_download.py has a server of its own",
    "convert-weights msra/R-50 ": "a network; tests/cli/test_convert_weights.py converts a file of this form",
    "convert-weights --format caffe-bvlc ": "a file that the pages do not offer; tests/backbones/weights converts this form",
    "train --track ": "a tracker that runs offline; tests/trackers has the real ones, tests/cli/test_train.py the option",
    "pretrain --track ": "the same",
    "eval-coco --weights best.pt --type masks": "a detector with masks; tests/evaluation has small ones",
    "train --config det40.yaml": "real images of ImageNet; docs/results.md says what the file holds",
    "eval-ilsvrc det --config det40.yaml ": "the same; tests/cli/test_eval_ilsvrc.py evaluates small sets",
    "train-loc --config loc_": "the same; tests/localisation trains on small sets",
    "export --backbone resnet50 ": "a network; tests/cli/test_export.py exports a backbone",
    "predict photos --format coco --weights detector": "an exported file; tests/export/test_runtimes.py labels images with one",
}
# The beginning of a line that is a command of another program, and where it is tried.
OTHER_PROGRAMS = {
    "pip install": "tests/test_wheel.py",
    "python -m pip wheel": "tests/test_wheel.py",
    "python -m venv": "tests/test_wheel.py",
    ".venv/bin/python -m pytest": "this suite",
    ".venv/bin/python -m tests.": "tests/fuzz/test_fuzz.py and tests/campaigns/test_campaigns.py",
    "python -m tools.benchmarks.": "minutes each, and data of one's own; tests/tools has their parts",
    ".venv/bin/pre-commit install": "needs a network",
    "tensorboard": "a viewer in the browser",
}
# Commands that do something without an argument; the others are named so for their `--help`.
RUN_ALONE = ("eval-voc", "eval-coco", "datasets/make_digits.py")


def line_of(command: CommandLine) -> str:
    """Name and arguments: "eval-voc --weights A.pt"."""
    return " ".join((command.name, *command.arguments))


ALL = list(command_lines())
HELP = [command for command in ALL if not command.arguments and command.name not in RUN_ALONE]
LEFT_OUT = [command for command in ALL if command not in HELP and line_of(command).startswith(tuple(NOT_RUN))]
RUN = [command for command in ALL if command not in HELP + LEFT_OUT]


@pytest.fixture(scope="module")
def sandbox(module_path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(module_path))
        write_sandbox(module_path)
        yield module_path
    sys.modules.pop("tinynet", None)


@pytest.mark.parametrize("command", RUN, ids=str)
def test_the_command_runs(command, sandbox, tmp_path, monkeypatch, capsys):
    if command.name == "export" and torch.__version__ < OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {OLDEST_TORCH} or newer")
    if command.name == "track":
        pytest.importorskip("norfair", reason="tracking needs the extra 'track'")
    arguments = given(command)
    offer(sandbox, tmp_path, needed(command.name, arguments))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path / "datasets"))
    if "--resume" in arguments:  # the run that was stopped
        assert call(command.name, [word for word in arguments if word != "--resume"]) == 0
    assert call(command.name, arguments) == 0, capsys.readouterr().err


def call(name: str, arguments: Sequence[str]) -> int:
    """Run a command, or a script of datasets/; returns the exit code."""
    if name in COMMANDS:
        return main([name, *arguments])
    code = load_script(Path(name).stem).main(arguments)
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize("command", HELP, ids=str)
def test_a_command_that_is_only_named_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        module_of(command.name).main(["--help"])
    assert stop.value.code == 0 and "usage:" in capsys.readouterr().out


def test_few_commands_are_not_run():
    assert len(RUN) > 70 and len(LEFT_OUT) <= len(ALL) / 4
    for beginning in NOT_RUN:
        assert any(line_of(command).startswith(beginning) for command in LEFT_OUT), f"no page has '{beginning}'"


def test_no_command_is_overlooked():
    program = re.compile(r"(?:\w+=\S+ )*(?:\S*bin/\S+|python3?|pip|resdet|torchrun|make|tensorboard) \S")
    for page in PAGES:
        for text in map(str.strip, texts(page)):
            if program.match(text) and parse(page, text) is None:
                assert text.startswith(("make ", *OTHER_PROGRAMS)), f"{page.name}: {text}"
