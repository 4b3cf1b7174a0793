"""`train_detector` as a library's user calls it: data sets of one's own, what is told, what is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import detection
from backbones import build_backbone, save_checkpoint
from detection import Callback, Config, DetectorResult, load_detector, train_detector
from detection.config import HeldOut, load_config, with_weights
from detection.data import load_split
from detection.engine.callbacks import Evaluation
from detection.errors import CheckpointError, ConfigError, DatasetError, TrainingError
from tests.shapes import write_config


@pytest.fixture
def config(tmp_path: Path, devkit: Path) -> Config:
    """Two steps on the shapes."""
    return load_config(write_config(tmp_path, devkit), ["train.steps=2"])


class Told(Callback):
    """Keeps the lines of metrics.jsonl."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def on_log(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        self.lines.append(evaluation.line())


def final_weights(config: Config) -> dict[str, torch.Tensor]:
    return load_detector(config.output_dir / "last.pt").state_dict()


def changed(config: Config, **values: object) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=values)})


def test_data_sets_may_be_given_in_place_of_the_configs(config: Config, tmp_path: Path) -> None:
    said: list[str] = []
    told = Told()
    expected = train_detector(config, tell=said.append, callbacks=[told])
    assert told.lines == [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in told.lines] == [("train", 1), ("train", 2), ("evaluation", 2)]
    *counts, frozen_stages, frozen_norms = said
    assert counts == ["train: 4 images, 4 objects", "val: 2 images, 2 objects"]
    assert "model.weights is null" in frozen_stages and "model.norm" in frozen_norms  # both stay as they began
    training, validation = load_split(config.data, "train"), load_split(config.data, "val")
    bare = changed(config, train=(), val=()).model_copy(update={"output_dir": tmp_path / "given"})
    result = train_detector(bare, training=training, validation=validation)
    assert isinstance(result, DetectorResult) and result.metrics == expected.metrics and "voc_area" in result.metrics
    torch.testing.assert_close(final_weights(bare), final_weights(config), rtol=0, atol=0)


def test_without_a_validation_split_nothing_is_evaluated(config: Config) -> None:
    result = train_detector(changed(config, val=()))
    assert result.metrics == {} and result.best is None and not (config.output_dir / "best.pt").exists()


def test_data_sets_of_other_classes_are_refused(config: Config) -> None:
    other = replace(load_split(config.data, "train"), class_names=("square", "disc"))
    with pytest.raises(DatasetError, match=r"classes are square, disc; data\.classes of the config are disc, square"):
        train_detector(config, training=other)
    assert not config.output_dir.exists()


def test_weights_are_found_once_and_told(config: Config, tmp_path: Path) -> None:
    save_checkpoint(build_backbone("resnet18").state_dict(), tmp_path / "plain.pt")
    asked: list[Path] = []

    def find(weights: Path) -> Path:
        asked.append(weights)
        return tmp_path / "plain.pt"

    said: list[str] = []
    named = with_weights(config, Path("some/name"))
    for approach in ("joint", "alternating"):
        run = named.model_copy(update={"approach": approach, "output_dir": tmp_path / approach})
        train_detector(run, tell=said.append, find_weights=find)
    assert asked == [Path("some/name")] * 2
    assert sum("the backbone starts from the plain weights" in sentence for sentence in said) == 3  # steps 1 and 2
    assert [sentence for sentence in said if sentence.startswith("step ")][0] == "step 1 of 4: the RPN"


@pytest.mark.parametrize("approach", ["joint", "alternating"])
def test_quick_checks_come_before_the_data_are_read(config: Config, approach: str) -> None:
    unreadable = changed(config, train=()).model_copy(update={"approach": approach})
    with pytest.raises(DatasetError, match="no source of images"):
        train_detector(unreadable)
    with pytest.raises(CheckpointError, match="cannot read checkpoint missing.pt"):
        train_detector(with_weights(unreadable, Path("missing.pt")))
    config.output_dir.mkdir()
    (config.output_dir / "last.pt").touch()
    with pytest.raises(TrainingError, match="holds another run"):
        train_detector(unreadable)


def test_a_run_is_not_overwritten_and_a_finished_one_resumes_at_once(config: Config) -> None:
    result = train_detector(config)
    with pytest.raises(TrainingError, match="holds another run"):
        train_detector(config)
    before = (config.output_dir / "last.pt").read_bytes()
    assert train_detector(config, resume=True).metrics == result.metrics
    assert (config.output_dir / "last.pt").read_bytes() == before


def test_the_package_is_imported_without_torch() -> None:
    """Its functions are there by name all the same."""
    code = "import sys, detection; assert 'torch' not in sys.modules; detection.evaluate; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(detection, name) for name in detection.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train_detektor'"):
        detection.__getattr__("train_detektor")


def test_a_run_keeps_the_images_that_it_holds_out(config: Config, devkit: Path, caplog: pytest.LogCaptureFixture) -> None:
    held_out = changed(config, val=HeldOut(fraction=0.3))
    said: list[str] = []
    train_detector(held_out, tell=said.append)
    assert {"train: 3 images, 3 objects", "val: 1 images, 1 objects"} <= set(said)
    file = config.output_dir / "split.json"
    parts = json.loads(file.read_text())
    own = load_detector(config.output_dir / "best.pt").config
    assert own.data.held_out == HeldOut(fraction=0.3, file=file)
    assert [record.image_id for record in load_split(own.data, "val").records] == parts["val"]
    (listed,) = devkit.rglob("train.txt")
    listed.write_text(listed.read_text() + listed.with_name("val.txt").read_text())
    longer = held_out.model_copy(update={"train": held_out.train.model_copy(update={"steps": 3})})
    said.clear()
    assert train_detector(longer, resume=True, tell=said.append).steps == 3
    assert {"train: 3 images, 3 objects", "val: 1 images, 1 objects"} <= set(said)
    assert "2 images of the data are not in" in caplog.text and json.loads(file.read_text()) == parts
    with pytest.raises(ConfigError, match="give validation as well"):
        train_detector(held_out, training=load_split(config.data, "train"), resume=True)
