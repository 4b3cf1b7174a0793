"""The demo: what it accepts, what it writes, and that one bad picture does not spoil the rest."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.weights.zoo import ZOO, PublishedWeights
from detection.cli import drawing as cli_drawing
from detection.cli.main import main
from detection.config import Config
from detection.config.class_lists import VOC_CLASSES
from detection.data.frames import FrameReader
from detection.data.images import read_image
from detection.data.media import MediaInput, find_inputs
from detection.errors import DatasetError
from detection.inference import drawing
from detection.structures import Detections
from detection.weights.zoo import STANDARD_DETECTOR
from tests.cli.trained import write_trained
from tests.media_files import write_picture, write_video

DOOR = Path(__file__).parents[2] / "tools" / "demo.py"


class OneCat:
    """Finds the same cat in every image; a black one holds nothing."""

    class_names = ("dog", "cat")
    config = Config()
    device = torch.device("cpu")

    def predict(self, images):
        assert all(image.dtype == np.uint8 and image.ndim == 3 for image in images)
        cat = Detections(torch.tensor([[1.25, 2, 30, 20.123]]), torch.tensor([0.87654]), torch.tensor([1]))
        return [cat if image.any() else Detections.empty() for image in images]


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(cli_drawing, "load", lambda weights, adapt, device: OneCat())


def run(*arguments, folder: Path) -> int:
    return main(["demo", *map(str, arguments), "--output", str(folder)])


def read_json(folder: Path):
    return json.loads((folder / "detections.json").read_text())


def test_pictures_and_json(stub, tmp_path, capsys):
    picture, black = write_picture(tmp_path / "a.png"), write_picture(tmp_path / "black.jpg", value=0)
    assert run(picture, black, folder=tmp_path / "out") == 0
    cat = {"class": "cat", "score": 0.8765, "box": [1.25, 2.0, 30.0, 20.12]}
    assert read_json(tmp_path / "out") == [
        {"file": str(picture), "width": 60, "height": 40, "detections": [cat]},
        {"file": str(black), "width": 60, "height": 40, "detections": []},
    ]
    drawn = read_image(tmp_path / "out" / "a.jpg")
    assert drawn.shape == (40, 60, 3) and np.ptp(drawn) > 100
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        f"{picture}: 1 cat -> {tmp_path / 'out' / 'a.jpg'}",
        f"{black}: nothing found -> {tmp_path / 'out' / 'black.jpg'}",
    ]


def test_same_names_do_not_overwrite_one_another(stub, tmp_path):
    for name in ("x/a.png", "y/a.png", "y/a.jpg", "y/A.bmp"):
        write_picture(tmp_path / name)
    assert run(tmp_path / "x", tmp_path / "y", folder=tmp_path / "out") == 0
    assert len(read_json(tmp_path / "out")) == 4
    drawn = {path.name for path in (tmp_path / "out").glob("*.jpg")}
    assert len({name.lower() for name in drawn}) == 4


def test_an_input_is_never_overwritten(stub, tmp_path):
    picture = write_picture(tmp_path / "a.jpg")
    before = picture.read_bytes()
    assert run(picture, folder=tmp_path) == 0
    assert picture.read_bytes() == before
    assert (tmp_path / f"{tmp_path.name}_a.jpg").exists()


def test_an_unreadable_picture_is_named_and_the_rest_is_done(stub, tmp_path, capsys):
    good, bad, last = (write_picture(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    bad.write_bytes(bad.read_bytes()[:200])
    missing = tmp_path / "nowhere.jpg"
    assert run(good, bad, missing, last, folder=tmp_path / "out") == 1
    assert [entry["file"] for entry in read_json(tmp_path / "out")] == [str(good), str(last)]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    assert str(missing) in errors[0] and str(bad) in errors[1] and "2 of 4 inputs" in errors[2]


def test_what_was_done_before_an_interruption_is_kept(stub, tmp_path, monkeypatch):
    pictures = [write_picture(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    draw_picture = drawing.draw_picture

    def interrupted(model, source, image, path):
        if source.stem == "b":
            raise KeyboardInterrupt
        return draw_picture(model, source, image, path)

    monkeypatch.setattr(drawing, "draw_picture", interrupted)
    assert run(*pictures, folder=tmp_path / "out") == 130
    assert len(read_json(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("argument", "words"), [("*.webp", "no image or video matches"), ("absent", "no file, folder or camera"), (".", "holds no")]
)
def test_nothing_to_look_at_is_one_line(argument, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(argument, folder=tmp_path / "out") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and words in errors[0]
    assert not (tmp_path / "out").exists()


def test_cameras(stub, tmp_path, capsys):
    assert [find_inputs(text)[0].camera for text in ("camera", "camera:0", "camera:3")] == [0, 0, 3]
    assert run("camera:97", folder=tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: cannot read camera:97: is it there, and free?"


def test_a_picture_named_twice_is_drawn_once(stub, tmp_path):
    picture = write_picture(tmp_path / "in" / "a.jpg")
    assert run(picture, tmp_path / "in", tmp_path / "in" / "*.jpg", folder=tmp_path / "out") == 0
    assert len(read_json(tmp_path / "out")) == 1


def test_videos(stub, tmp_path, capsys):
    film = write_video(tmp_path / "film.mp4")
    assert run(film, folder=tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "film.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    assert [line["seconds"] for line in lines] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert lines[5]["detections"][0]["class"] == "cat"
    drawn = FrameReader(MediaInput("video", tmp_path / "out" / "film.mp4"))
    assert (len(list(drawn)), drawn.size_hw, drawn.frames_per_second) == (6, (48, 64), 10.0)
    assert "6 frames" in capsys.readouterr().out


def test_max_frames(stub, tmp_path):
    assert run(write_video(tmp_path / "film.mp4"), "--max-frames", 2, folder=tmp_path / "out") == 0
    assert len((tmp_path / "out" / "film.jsonl").read_text().splitlines()) == 2


def test_a_damaged_video_is_one_line(stub, tmp_path, capfd):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"no video at all" * 20)
    assert run(film, write_picture(tmp_path / "a.jpg"), folder=tmp_path / "out") == 1
    errors = capfd.readouterr().err.splitlines()
    assert errors[0] == f"error: cannot read {film}: it is damaged, or no video" and len(errors) == 2
    assert len(read_json(tmp_path / "out")) == 1


@pytest.mark.parametrize("option", [("--score-threshold", "1.5"), ("--score-threshold", "nan"), ("--max-frames", "0")])
def test_numbers_out_of_range(option, tmp_path, capsys):
    assert run(write_picture(tmp_path / "a.jpg"), *option, folder=tmp_path / "out") == 2
    assert option[0] in capsys.readouterr().err


def test_without_weights_the_quickstarts_or_the_zoos_are_used(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    offline = PublishedWeights(STANDARD_DETECTOR, "http://127.0.0.1:9/model_final_298dad.pkl", "detector")
    monkeypatch.setitem(ZOO, STANDARD_DETECTOR, offline)
    picture = write_picture(tmp_path / "a.jpg")
    assert run(picture, folder=tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and offline.url in error and str(offline.file) in error and "`make run`" in error
    Path("runs/quickstart").mkdir(parents=True)
    write_trained(tmp_path / "model")
    (tmp_path / "model").rename("runs/quickstart/detector")
    assert run(picture, folder=tmp_path / "out") == 0
    assert "runs/quickstart/detector/best.pt, the quickstart's" in capsys.readouterr().out


def test_the_threshold_decides_what_is_drawn(tmp_path):
    """A real detector with random weights: even scores below the checkpoint's own threshold can be asked for."""
    weights = write_trained(tmp_path / "model") / "best.pt"
    picture = next((tmp_path / "model/data/JPEGImages").iterdir())
    counts = []
    for threshold in (0.0, 0.3, 1.0):
        assert run(picture, "--weights", weights, "--score-threshold", threshold, folder=tmp_path / "out") == 0
        found = read_json(tmp_path / "out")[0]["detections"]
        assert all(entry["score"] >= threshold and entry["class"] in ("cat", "dog") for entry in found)
        counts.append(len(found))
    assert counts[0] >= counts[1] >= counts[2] == 0 and counts[0] > 0


def test_a_file_has_a_threshold_for_each_class(tmp_path, monkeypatch, capsys):
    weights = write_trained(tmp_path / "model") / "best.pt"
    monkeypatch.chdir(tmp_path)
    picture, file = next((tmp_path / "model/data/JPEGImages").iterdir()), Path("thresholds.yaml")

    def classes_found() -> set[str]:
        assert run(picture, "--weights", weights, "--score-threshold", file, folder=tmp_path / "out") == 0
        return {entry["class"] for entry in read_json(tmp_path / "out")[0]["detections"]}

    file.write_text("cat: 0\ndog: 1\n")
    assert classes_found() == {"cat"}
    file.write_text("cat: 1.0\ndog: 0.0\n")
    assert classes_found() == {"dog"}
    capsys.readouterr()
    for text, words in {
        "cta: 0.4": "thresholds.yaml names 'cta', which is no class; did you mean 'cat'?",
        "cat: 1.5": "'cat' in thresholds.yaml must be a number from 0 to 1, got 1.5",
        "0.5": "thresholds.yaml must hold names of classes and their thresholds",
    }.items():
        file.write_text(text)
        assert run(picture, "--weights", weights, "--score-threshold", file, folder=tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {words}") and error.count("\n") == 1
    assert run(picture, "--weights", weights, "--score-threshold", "absent.yaml", folder=tmp_path / "out") == 2
    assert "cannot read thresholds absent.yaml: No such file" in capsys.readouterr().err
    assert run(picture, "--weights", weights, "--score-threshold", "high", folder=tmp_path / "out") == 2
    assert "must be 0 to 1, or a YAML file with a number for each class, got 'high'" in capsys.readouterr().err


def test_settings_stand_among_the_inputs(tmp_path, capsys):
    weights = write_trained(tmp_path / "model") / "best.pt"
    picture = write_picture(tmp_path / "in" / "a=b.png")
    argv = ["demo", str(picture), "test.flip=true", "--weights", str(weights), "--output", str(tmp_path / "out")]
    assert main(argv) == 0 and (tmp_path / "out" / "a=b.jpg").exists()
    assert main([*argv, "test.flop=true"]) == 2
    assert "did you mean 'test.flip'" in capsys.readouterr().err
    assert main(["demo", "test.flip=true"]) == 2
    assert "at least one image" in capsys.readouterr().err


def test_the_door(tmp_path):
    result = subprocess.run(
        [sys.executable, str(DOOR), "nothing.jpg"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: there is no file, folder or camera 'nothing.jpg'\n"


THRESHOLDS = {
    "": 0.5,
    "--score-threshold 0.3": 0.3,
    "test.score_threshold=0.2": 0.2,
    "--score-threshold 0.3 test.score_threshold={cat:\u00a00.2}": {"cat": 0.2},
    "--score-threshold two.yaml": dict.fromkeys(VOC_CLASSES, 0.5) | {"cat": 0.4, "dog": 0.62},
    "--score-threshold none.yaml": dict.fromkeys(VOC_CLASSES, 0.5),
    "--score-threshold two.yaml test.score_threshold.cat=0.1": dict.fromkeys(VOC_CLASSES, 0.5) | {"cat": 0.1, "dog": 0.62},
    "--score-threshold two.yaml test.score_threshold=0.2": 0.2,
}


@pytest.mark.parametrize(("words", "value"), [(words.split(" "), value) for words, value in THRESHOLDS.items()], ids=THRESHOLDS)
@pytest.mark.parametrize("command", [["demo"], ["predict", "--format", "coco"]])
def test_a_threshold_is_taken_however_it_is_given(command, words, value, tmp_path, monkeypatch):
    picture, loaded = write_picture(tmp_path / "a.png"), []
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text("dog: 0.62\ncat: 0.4\n")
    Path("none.yaml").write_text("{}")
    words = [word.replace("\u00a0", " ") for word in words if word]

    def load(weights, adapt, device):
        loaded.append(adapt(Config()).test.score_threshold)
        raise DatasetError("enough")

    monkeypatch.setattr(cli_drawing, "load", load)
    assert main([*command, str(picture), *words, "--output", str(tmp_path / "out")]) == 2
    assert loaded == [value]
