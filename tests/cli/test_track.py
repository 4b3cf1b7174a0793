"""The command that follows objects: what it accepts, prints and writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from detection.cli import drawing as cli_drawing
from detection.cli.commands import track
from detection.cli.main import main
from detection.visualize import save_image
from tests.cli.trained import write_trained
from tests.media_files import write_picture, write_video

needs_norfair = pytest.mark.skipif(importlib.util.find_spec("norfair") is None, reason="tracking needs the extra 'track'")


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of frames with moving squares, and the detector that sees them in place of the one of --weights."""
    pytest.importorskip("norfair", reason="tracking needs the extra 'track'")
    from tests.inference.test_tracking import SquareDetector, frame

    monkeypatch.setattr(cli_drawing, "load", lambda weights, adapt, device: SquareDetector())
    for index in range(4):
        save_image(tmp_path / f"frames/{index}.png", frame(index))
    return tmp_path / "frames"


def test_a_folder_of_frames(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", str(squares), "--output", str(tmp_path / "out"), "--fps", "10", "--trail", "0.5"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{squares}: 4 frames, 4 red, 4 green, 2 objects followed -> {tmp_path / 'out/frames.mp4'}"
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text().splitlines()]
    assert lines[3]["seconds"] == 0.3
    assert lines[3]["detections"][0] == {"class": "red", "score": 0.9, "box": [22.0, 10.0, 42.0, 30.0], "track": 1}
    assert "track" not in lines[0]["detections"][0]


def test_what_is_no_film_is_told_and_the_rest_is_done(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, out = write_picture(tmp_path / "a.png"), str(tmp_path / "out")
    film = write_video(tmp_path / "film.mp4", num_frames=2)
    assert main(["track", str(picture), str(film), "--output", out]) == 1
    shown = capsys.readouterr()
    assert "is no film" in shown.err and "1 of 2 inputs" in shown.err and "film.mp4: 2 frames" in shown.out
    assert main(["track", str(picture), "--output", out]) == 2


@needs_norfair
@pytest.mark.parametrize("option", [("--keep", "-1"), ("--trail", "x"), ("--fps", "0"), ("--max-frames", "0")])
def test_numbers_out_of_range(option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", str(tmp_path), *option]) == 2
    assert option[0] in capsys.readouterr().err


@needs_norfair
def test_a_real_detector(tmp_path: Path) -> None:
    weights = write_trained(tmp_path / "model") / "best.pt"
    film = write_video(tmp_path / "film.mp4", num_frames=2)
    argv = ["track", str(film), "--weights", str(weights), "--output", str(tmp_path / "out"), "--score-threshold", "0.3"]
    assert main(argv) == 0 and (tmp_path / "out/film.mp4").is_file()


def test_without_the_package_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    assert main(["track", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: tracking needs the package norfair: pip install 'resdet[track]'\n"


def test_the_door(tmp_path: Path) -> None:
    door = Path(__file__).parents[2] / "tools/track.py"
    result = subprocess.run([sys.executable, str(door), "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0 and "--trail" in result.stdout
