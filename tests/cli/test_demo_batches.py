"""The demo on many inputs at once: each is handled alone, whatever its name and whatever is wrong with it."""

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from detection.cli import drawing as cli_drawing
from detection.data.frames import FrameReader
from detection.data.media import MediaInput, drawing_paths, find_all_inputs
from detection.data.video_writer import FrameWriter
from detection.errors import DatasetError
from detection.visualize import save_image
from tests.cli.test_demo import OneCat, read_json, run
from tests.media_files import write_picture, write_video

ODD_NAMES = [
    b"new\nline", b"per%scent%03d", b"latin\xe9", b"-dash", b"a[b]", b"[x]", b":cat:", b"\x1b[31mred", b"x" * 251,
    "猫".encode(), "猫".encode() * 83, b"a.b.c", b"re\xcc\x81", b"r\xc3\xa9", b"Same", b"same", b"SAME", b"\x7f\x80",
]  # fmt: skip


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(cli_drawing, "load", lambda weights, adapt, device: OneCat())


def write_odd_pictures(folder) -> None:
    picture = write_picture(folder / "a.png").read_bytes()
    for name in ODD_NAMES:
        with open(os.fsencode(folder) + b"/" + name + b".png", "wb") as file:  # noqa: PTH123
            file.write(picture)


def test_odd_names_are_drawn_and_told_in_one_line_each(stub, tmp_path, capsys):
    write_odd_pictures(tmp_path / "in")
    assert run(tmp_path / "in", folder=tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and len(shown.out.splitlines()) == len(ODD_NAMES) + 1
    assert all(line.isprintable() for line in shown.out.splitlines())
    drawn = [path.name for path in (tmp_path / "out").glob("*.jpg")]
    assert len(drawn) == len({name.lower() for name in drawn}) == len(ODD_NAMES) + 1
    assert all(name.isprintable() and len(name.encode()) <= 210 for name in drawn)
    # Whole characters only: any program reads the JSON.
    assert json.dumps([entry["file"] for entry in read_json(tmp_path / "out")], ensure_ascii=False).encode()


def test_a_bad_input_does_not_stop_those_after_it(stub, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a_empty.jpg").touch()
    (folder / "b_text.png").write_text("no picture")
    Image.new("RGB", (65501, 1)).save(folder / "c_wide.png")
    (folder / "d_no_film.mkv").write_bytes(b"\x1aE\xdf\xa3" * 100)
    os.mkfifo(folder / "e_pipe.mp4")
    with open(os.fsencode(folder) + b"/f\xff.mp4", "wb") as file:  # noqa: PTH123
        file.write(write_video(tmp_path / "film.mp4").read_bytes())
    write_picture(folder / "z.png")
    assert run(folder, folder / "e_pipe.mp4", "n" * 300 + ".png", folder=tmp_path / "out") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 8 and all(line.startswith("error: ") and line.isprintable() for line in errors)
    assert "7 of 8 inputs" in errors[-1]
    assert [entry["file"] for entry in read_json(tmp_path / "out")] == [str(folder / "z.png")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"detections.json", "z.jpg"}


def test_all_inputs_bad_is_exit_code_2(stub, tmp_path, capsys):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    assert run(tmp_path / "a.jpg", tmp_path / "b.jpg", folder=tmp_path / "out") == 2
    assert "2 of 2 inputs" in capsys.readouterr().err.splitlines()[-1]
    assert read_json(tmp_path / "out") == []


def test_a_drawing_that_cannot_be_written_is_one_of_the_failures(stub, tmp_path, capsys):
    pictures = [write_picture(tmp_path / name) for name in ("a.png", "b.png")]
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    assert run(*pictures, folder=tmp_path / "out") == 1
    assert "a.png is not drawn" in capsys.readouterr().err.splitlines()[0]
    assert [entry["file"] for entry in read_json(tmp_path / "out")] == [str(pictures[1])]


def test_the_summary_never_overwrites_an_input(stub, tmp_path, capsys):
    (tmp_path / "detections.json").write_text("mine")
    assert run(tmp_path / "detections.json", folder=tmp_path) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "detections.json").read_text() == "mine"


def test_neither_drawing_nor_lines_of_a_video_overwrite_an_input(tmp_path):
    inputs = [MediaInput("video", tmp_path / "in/film.avi"), MediaInput("image", tmp_path / "film.jsonl")]
    assert drawing_paths(inputs, tmp_path) == [tmp_path / "in_film.mp4", tmp_path / "film.jpg"]


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 1.0, 7.5, 29.97, 240.0, 300.0, 1000.0])
def test_the_rate_of_a_video_is_kept(rate, stub, tmp_path):
    with_rate = tmp_path / "film.mp4"
    writer = FrameWriter(with_rate, (48, 64), rate)
    for index in range(4):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8), index / rate)
    writer.close()
    assert run(with_rate, folder=tmp_path / "out") == 0
    drawn = FrameReader(MediaInput("video", tmp_path / "out/film.mp4"))
    assert drawn.frames_per_second == pytest.approx(rate, rel=1e-3) and len(list(drawn)) == 4
    lines = [json.loads(line) for line in (tmp_path / "out/film.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [round(index / rate, 3) for index in range(4)]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e-9, 90000.0])
def test_a_rate_that_is_none_is_told(rate, stub, tmp_path, monkeypatch, capsys):
    class Capture:
        def __init__(self, path):
            self.real = real(path)
            self.read, self.release = self.real.read, self.real.release

        def get(self, key):
            return rate if key == cv2.CAP_PROP_FPS else self.real.get(key)

    film, real = write_video(tmp_path / "film.mp4"), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert run(film, folder=tmp_path / "out") == 0
    assert f"{rate:g} frames per second; 25 are assumed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.gif", "a.ico"])
def test_an_image_that_the_format_does_not_take_leaves_no_file(name, tmp_path):
    with pytest.raises(DatasetError, match="1 x 70000|70000 x 1"):
        save_image(tmp_path / name, np.zeros((1, 70000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_names_that_no_file_system_takes_are_problems():
    assert find_all_inputs(["n" * 300, "a/" * 3000])[0] == []
