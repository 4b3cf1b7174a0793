"""`resdet import`: what it reads, what it prints, what it refuses."""

from pathlib import Path

import pytest
import yaml

from detection.cli.main import main, module_name
from tests.data.pictures import CLASSES, write_devkit


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_devkit(tmp_path / "devkit")
    source = {"format": "voc", "root": str(tmp_path / "devkit"), "year": "2007", "split": "trainval"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"data": {"classes": list(CLASSES), "train": [source], "val": [source], "test": []}}))
    return file


def test_a_config_is_written_as_yolo(config, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["import", str(config), str(out), "--format", "yolo", "--images", "link"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["data.yaml", "images", "labels"]
    assert len(list((out / "labels/val").iterdir())) == 4
    shown = capsys.readouterr().out
    assert "cat" in shown and shown.endswith(f"8 images -> {out}\n")
    assert "2 difficult objects are written as ordinary ones" in shown


def test_a_folder_is_recognised(config, tmp_path, capsys):
    assert (
        main(["import", str(tmp_path / "devkit"), str(tmp_path / "out"), "--format", "coco", "data.rename={cat: tiger}"]) == 0
    )
    shown = capsys.readouterr().out
    assert "is read as Pascal VOC" in shown and "2 classes in the data: dog, tiger" in shown
    assert (tmp_path / "out/annotations/instances_train.json").is_file()


def test_one_split_and_other_classes(config, tmp_path):
    arguments = ["--format", "voc", "data.classes=[dog]", "data.drop=[cat]", "--split", "val"]
    assert main(["import", str(config), str(tmp_path / "out"), *arguments]) == 0
    assert [path.name for path in (tmp_path / "out/ImageSets/Main").iterdir()] == ["val.txt"]
    assert "<name>cat" not in (tmp_path / "out/Annotations/000001.xml").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine.yaml", "out"], "--format"),
        (["mine.yaml", "out", "--format", "png"], "--format"),
        (["mine.yaml", "devkit/out", "--format", "yolo"], "which is read"),
        (["mine.yaml", "devkit", "--format", "yolo"], "which is read"),
        (["mine.yaml", "full", "--format", "yolo"], "full exists and is not an empty folder"),
        (["mine.yaml", "out", "--format", "yolo", "--split", "test"], "the data have no split 'test'"),
        (["mine.yaml", "out", "--format", "yolo", "--annotations", "a.json"], "is a config, which names its own"),
        (["absent", "out", "--format", "yolo"], "absent"),
        (["devkit", "out", "--format", "yolo", "train.steps=3"], "only data.classes"),
    ],
)
def test_what_is_refused(config, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["import", *arguments]) == 2
    shown = capsys.readouterr().err
    assert words in shown and len(shown.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_word_of_python_has_a_module_of_its_own():
    assert module_name("import") == "detection.cli.commands.import_"
    assert module_name("eval-voc") == "detection.cli.commands.eval_voc"
