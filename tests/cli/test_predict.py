"""`resdet predict`: what it takes, what it writes and says, and its exit codes."""

import json
from pathlib import Path

import pytest

from detection.cli import drawing
from detection.cli.main import main
from tests.inference.test_prelabel import Finder
from tests.media_files import write_picture, write_video


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(drawing, "load", lambda weights, adapt, device: Finder())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "deep/c.jpg", "deep/[x]/d.png"):
        write_picture(tmp_path / "photos" / name)
    return tmp_path / "photos"


def run(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def test_a_folder_is_labelled(photos, tmp_path, capsys):
    assert run(photos, "--format", "coco", "--output", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [each["file_name"] for each in content["images"]] == ["a.png", "b.png"]
    assert capsys.readouterr().out == f"2 images: 4 dog, 2 cat -> {tmp_path / 'out'}\n"


def test_sub_folders_on_request(photos, tmp_path):
    assert run(photos, "--format", "yolo", "--output", tmp_path / "out", "--recursive", "--images", "link") == 0
    images = tmp_path / "out/images"
    found = sorted(str(path.relative_to(images)) for path in images.rglob("*.*"))
    assert found == ["a.png", "b.png", "deep/[x]/d.png", "deep/c.jpg"]
    assert run(photos / "deep/[x]", "--format", "voc", "--output", tmp_path / "other", "--recursive") == 0
    assert [path.name for path in (tmp_path / "other/Annotations").iterdir()] == ["d.xml"]


def test_label_studio_is_told_where_the_images_are(photos, tmp_path, capsys):
    assert run(photos, "--format", "labelstudio", "--output", tmp_path / "out", "--weights", "x/best.pt") == 0
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/tasks.json").read_text())[0]["predictions"][0]["model_version"] == "x/best.pt"


def test_what_fails_is_listed_and_the_others_are_labelled(photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"no picture")
    write_video(photos / "film.mp4")
    assert run(photos, "absent.jpg", "--format", "voc", "--output", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert len(list((tmp_path / "out/Annotations").iterdir())) == 2
    errors = shown.err.splitlines()
    assert len(errors) == 4 and "3 of 5 inputs could not be used; the others are labelled" in errors[-1]
    for words in ("absent.jpg", "film.mp4", "bad.png"):
        assert any(words in line for line in errors)


def test_a_second_call_goes_on(photos, tmp_path, capsys):
    assert run(photos / "a.png", "--format", "yolo", "--output", tmp_path / "out") == 0
    assert run(photos, "--format", "yolo", "--output", tmp_path / "out") == 0
    assert "1 images have labels there already, which are left as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos"], "--format"),
        (["photos", "--format", "png"], "--format"),
        (["--format", "voc", "test.flip=true"], "give at least one image"),
        (["absent", "--format", "voc"], "absent"),
        (["film.mp4", "--format", "voc"], "resdet demo"),
        (["photos", "--format", "coco"], "labels are not replaced"),
        (["photos", "--format", "coco", "--output", "photos/a.png"], "is no folder"),
    ],
)
def test_what_is_refused(arguments, words, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "film.mp4")
    (tmp_path / "runs/predict").mkdir(parents=True)
    (tmp_path / "runs/predict/annotations.json").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    assert words in shown and len(shown.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
