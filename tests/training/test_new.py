"""From a folder as a labelling program leaves it to a trained detector, with nothing between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from detection import load_config, train_detector
from detection.cli.main import command_main, run
from detection.config import override_config
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.training.new import new_experiment, run_folder, write_new_experiment
from detection.weights.checkpoint import detector_metadata, write_checkpoint
from tests.data.formats.exports import dump, write_cvat, write_labelstudio, write_vott_export
from tests.data.pictures import Picture, Thing, coco_content, voc_xml, write_picture
from tests.small_detector import detector

SHORT = [
    *("train.steps=2", "train.images_per_device=1", "train.batch_size=1", "train.warmup_steps=0", "train.precision=fp32"),
    *("data.workers=0", "data.shorter_sides=[48]", "data.longer_side=80", "test.shorter_side=48", "test.longer_side=80"),
    *("train.eval_every=0", "train.checkpoint_every=2"),
]
PETS = tuple(
    Picture(number, (40, 60), (Thing(("cat", "dog")[number % 2], (10, 5, 30, 25)), Thing("dog", (35, 10, 55, 39))))
    for number in range(1, 10)
)


def write_labelimg(folder: Path) -> None:
    """XML files beside the images, as labelImg saves them."""
    for picture in PETS:
        write_picture(folder / f"{picture.stem}.jpg", picture)
        (folder / f"{picture.stem}.xml").write_text(voc_xml(picture))


def write_roboflow(folder: Path) -> None:
    """A COCO export of Roboflow: a folder per split, with its annotations among the images."""
    for split, pictures in (("train", PETS[:6]), ("valid", PETS[6:])):
        for picture in pictures:
            write_picture(folder / split / f"{picture.stem}.jpg", picture)
        dump(folder / split / "_annotations.coco.json", coco_content(pictures))


FOLDERS: dict[str, Callable[[Path], None]] = {
    "labelImg": write_labelimg,
    "Roboflow": write_roboflow,
    "VoTT": lambda folder: write_vott_export(folder, PETS),
    "CVAT": lambda folder: write_cvat(folder, PETS),
    "Label Studio": lambda folder: write_labelstudio(folder, PETS),
}


@pytest.fixture(scope="module")
def weights(module_path: Path) -> Path:
    """A small detector of other classes."""
    model = detector(data={"classes": ["bird"]})
    write_checkpoint(detector_metadata(model), model.state_dict(), module_path / "birds.pt")
    return module_path / "birds.pt"


@pytest.mark.parametrize("program", FOLDERS)
def test_a_folder_becomes_a_detector(program: str, tmp_path: Path, weights: Path) -> None:
    FOLDERS[program](tmp_path / "pets")
    new = new_experiment(tmp_path / "pets", weights, output_dir=tmp_path / "run", device="cpu")
    assert new.config.data.class_names == ("cat", "dog")
    assert " is read as " in new.findings[0]
    result = train_detector(override_config(new.config, SHORT))
    assert result.steps == 2 and "AP" in result.metrics
    (found,) = result.detector.predict(next((tmp_path / "pets").rglob("*.jpg")))
    assert found.class_names == ("cat", "dog")


def test_the_config_is_read_back_and_never_replaced(tmp_path: Path, weights: Path) -> None:
    write_labelimg(tmp_path / "my pets")
    new = write_new_experiment(tmp_path / "my.yaml", tmp_path / "my pets", weights)
    assert load_config(tmp_path / "my.yaml") == new.config
    assert new.config.output_dir == Path("runs/my_pets")
    assert new.config.rpn.channels == 32 and new.config.model.weights == weights  # of the detector that it starts from
    with pytest.raises(ConfigError, match="there already"):
        write_new_experiment(tmp_path / "my.yaml", tmp_path / "my pets", weights)


def test_any_names_of_classes_are_written_so_that_yaml_reads_them(tmp_path: Path, weights: Path) -> None:
    names = ["no", "1e5", "null", "a: b", "#1", "猫", "it's", '"x"', "- y", "{z}", "2020-01-01"]
    pictures = [Picture(number, (40, 60), (Thing(name, (10, 5, 30, 25)),)) for number, name in enumerate(names)]
    for picture in pictures:
        write_picture(tmp_path / "train" / f"{picture.stem}.jpg", picture)
    content = coco_content([])
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
    content["images"] = [{"id": each.number, "file_name": f"{each.stem}.jpg", "height": 40, "width": 60} for each in pictures]
    content["annotations"] = [
        {"id": number, "image_id": number, "category_id": number, "bbox": [10, 5, 20, 20]} for number in range(len(names))
    ]
    dump(tmp_path / "train" / "_annotations.coco.json", content)
    new = write_new_experiment(tmp_path / "my.yaml", tmp_path, weights)
    assert new.config.data.class_names == tuple(sorted(names)) == load_config(tmp_path / "my.yaml").data.class_names


def test_what_is_no_data_or_no_weights_is_said(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        new_experiment(tmp_path / "empty", weights)
    with pytest.raises(DatasetError, match="no file or folder .*elsewhere"):
        new_experiment(tmp_path / "elsewhere", weights)
    with pytest.raises(CheckpointError, match="nowhere"):
        new_experiment(tmp_path / "empty", tmp_path / "nowhere.pt")


def test_runs_are_named_as_their_data(tmp_path: Path) -> None:
    assert run_folder(Path("/data/My pets!")) == Path("runs/My_pets")
    assert run_folder(Path("/")) == Path("runs/detector")


def test_the_commands_write_and_train(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_labelimg(tmp_path / "pets")
    assert run(command_main("new"), ["my.yaml", "--data", "pets", "--weights", str(weights)]) == 0
    assert "next: resdet train my.yaml" in capsys.readouterr().out
    assert run(command_main("train"), ["my.yaml", *SHORT]) == 0
    assert run(command_main("train"), ["pets", "--weights", str(weights), "--output-dir", "runs/other", *SHORT]) == 0
    assert run(command_main("train"), ["pets", "--output-dir", "runs/other", "--resume"]) == 0
    assert all((tmp_path / "runs" / name / "best.pt").is_file() for name in ("pets", "other"))
    assert run(command_main("train"), []) == 2
    assert "which experiment?" in capsys.readouterr().err
