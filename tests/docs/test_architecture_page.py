"""docs/architecture.md shows the two ways as they are: held to the imports, and to what really runs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

from detection import load_detector, train_detector
from detection.config import load_config
from tests.cli.trained import write_trained
from tests.docs.markdown import ROOT
from tests.test_architecture import LEVELS, file_of, imports_of

PAGE = ROOT / "docs/architecture.md"
TRAINING, INFERENCE = "Training: from a config to the summed loss", "Inference: from a file to detections"
GREATEST_NUMBER = {TRAINING: 28, INFERENCE: 16}


@dataclass(frozen=True)
class Step:
    """A file on a way, `level` calls below the first."""

    level: int
    file: Path


def section(heading: str) -> str:
    """The text below a heading of the page, up to the next one of its level."""
    return PAGE.read_text().split(f"## {heading}\n", maxsplit=1)[1].split("\n## ")[0]


def way(heading: str) -> list[Step]:
    """The files of a way in their order: the nested list of the section."""
    found = re.findall(r"^( *)- `([\w/]+\.py)`", section(heading), flags=re.MULTILINE)
    return [Step(len(indent) // 2, ROOT / name) for indent, name in found]


def beside(heading: str) -> set[Path]:
    """The files of the section's table: what runs meanwhile and is not on the way."""
    rows = [line for line in section(heading).splitlines() if line.startswith("|")]
    return {ROOT / name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)}


def test_the_house_and_its_arrows_name_every_room():
    house, arrows = (set(re.findall(r"\w+", block)) for block in re.findall(r"```\n(.*?)```", section("The house"), re.DOTALL))
    rooms = set.union(*LEVELS)
    assert rooms <= house and rooms <= arrows, f"missing: {rooms - house}, {rooms - arrows}"


@pytest.mark.parametrize("heading", [TRAINING, INFERENCE])
def test_the_files_exist_and_none_is_entered_twice(heading):
    files = [step.file for step in way(heading)]
    assert files and all(file.exists() for file in files), [str(file) for file in files if not file.exists()]
    assert len(set(files)) == len(files) and not set(files) & beside(heading)
    assert len(files) <= GREATEST_NUMBER[heading]
    assert section(heading).strip().startswith(f"{len(files)} files on the way, {len(beside(heading))} beside it")


@pytest.mark.parametrize("heading", [TRAINING, INFERENCE])
def test_each_file_imports_those_below_it(heading):
    for caller, step in callers(way(heading)):
        reached = reached_from(caller, through=beside(heading))
        assert step.file in reached, f"{caller.relative_to(ROOT)} does not import {step.file.relative_to(ROOT)}"


def callers(steps: list[Step]) -> Iterator[tuple[Path, Step]]:
    """Each step but the first, and the file above it in the nested list."""
    above: list[Step] = []
    for step in steps:
        above = [each for each in above if each.level < step.level]
        if above:
            yield above[-1].file, step
        above.append(step)


def reached_from(file: Path, through: set[Path]) -> set[Path]:
    """The files that a file imports, at once or through files that are beside the way."""
    reached: set[Path] = set()
    ahead = {file}
    while ahead:
        found = set().union(*(imported_files(each) for each in ahead)) - reached
        reached |= found
        ahead = found & through
    return reached


def imported_files(file: Path) -> set[Path]:
    """The files that a file imports; through a package's `__init__`, the home of the name."""
    found = {target for module in imports_of(file) if (target := file_of(module))}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and (package := file_of(node.module)):
            found |= homes(package, {alias.name for alias in node.names})
    return found


def homes(package: Path, names: set[str]) -> set[Path]:
    """The files that an `__init__` imports these names from."""
    return {
        home
        for node in ast.walk(ast.parse(package.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and names & {alias.name for alias in node.names}
        for home in [file_of(node.module)]
        if home
    }


class LossReachedError(Exception):
    """Ends a training run where the way ends."""


@contextmanager
def running(files: set[Path]) -> Iterator[None]:
    """Add to `files` each file of this project whose functions run in the context."""

    def enter(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            files.add(Path(frame.f_code.co_filename))

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        yield
    finally:
        sys.setprofile(before)


def named_as_run(heading: str, run: Callable[[], object]) -> None:
    """Run it: what runs is on the page, and what is on the page's way runs."""
    files: set[Path] = set()
    with running(files):
        run()
    ours = {file for file in files for top in ("backbones", "detection") if file.is_relative_to(ROOT / top)}
    named = {step.file for step in way(heading)} | beside(heading)
    assert sorted(str(file.relative_to(ROOT)) for file in ours - named) == []
    assert sorted(str(step.file.relative_to(ROOT)) for step in way(heading) if step.file not in ours) == []


@pytest.fixture(scope="module")
def trained(module_path) -> Path:
    return write_trained(module_path)


def test_a_training_step_runs_the_files_of_the_page(trained, monkeypatch):
    def stop(loss: torch.Tensor) -> None:
        raise LossReachedError

    data = f"data.train=[{{format: voc, root: {trained / 'data'}, split: test}}]"
    overrides = [data, "data.test=[]", "train.steps=1", "train.batch_size=1", f"output_dir={trained / 'run'}"]
    config = load_config(trained / "config.yaml", overrides)
    monkeypatch.setattr(torch.Tensor, "backward", stop)

    def to_the_loss() -> None:
        with pytest.raises(LossReachedError):
            train_detector(config)

    named_as_run(TRAINING, to_the_loss)


def test_a_prediction_runs_the_files_of_the_page(trained):
    picture = trained / "data/JPEGImages/im0.jpg"
    load_detector(trained / "best.pt").predict([np.zeros((80, 100, 3), np.uint8)])  # what is loaded once
    named_as_run(INFERENCE, lambda: load_detector(trained / "best.pt").predict([picture]))
